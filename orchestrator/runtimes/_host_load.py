"""What the CPUs of this host do, from what the kernel counts.

``/proc/stat`` (ticks in use, and taken by the hypervisor), ``/proc/schedstat`` (how long tasks
waited in run queues), ``/proc/pressure/cpu`` (how long some task did) and ``cpu.stat`` of the
control groups that this process is in (how long a quota kept them from running). Any of them may
be missing: an older kernel, a container, another system.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.core.record import HostRecord

ROOT: Final = Path("/")
_NS_PER_US: Final = 1000
_STEAL: Final = 7
_RUN_DELAY: Final = 8
"""Place of the time that tasks waited in a CPU's line of schedstat, version 15 and later."""


@dataclass(frozen=True)
class HostSample:
    """The kernel's counters at a time of this host's monotonic clock; None where there is none.

    ``ticks``: (in use, stolen, all) of all CPUs.
    """

    at_ns: int
    ticks: tuple[int, int, int] | None
    waited_ns: int | None
    pressed_ns: int | None
    throttled_ns: int | None


def host_sample(root: Path = ROOT) -> HostSample:
    """The counters now; ``root`` is where ``proc`` and ``sys`` are."""
    return HostSample(
        time.monotonic_ns(),
        _ticks(_lines(root / "proc/stat")),
        _waited_ns(_lines(root / "proc/schedstat")),
        _pressed_ns(_lines(root / "proc/pressure/cpu")),
        _throttled_ns(root),
    )


def host_record(host: str, before: HostSample, after: HostSample) -> HostRecord:
    """What happened between two samples."""
    length_ns = max(1, after.at_ns - before.at_ns)

    def share(one: int | None, other: int | None) -> float | None:
        return None if one is None or other is None else max(0, other - one) / length_ns

    busy = steal = None
    if before.ticks is not None and after.ticks is not None:
        in_use, stolen, every = (b - a for a, b in zip(before.ticks, after.ticks, strict=True))
        busy, steal = (in_use / every, stolen / every) if every > 0 else (None, None)
    return HostRecord(
        host=host,
        busy=busy,
        steal=steal,
        run_queue=share(before.waited_ns, after.waited_ns),
        pressure=share(before.pressed_ns, after.pressed_ns),
        throttled=share(before.throttled_ns, after.throttled_ns),
    )


def _lines(path: Path) -> list[list[str]]:
    """Words of each line; none where the file cannot be read."""
    try:
        return [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    except (OSError, UnicodeDecodeError):
        return []


def _ticks(lines: list[list[str]]) -> tuple[int, int, int] | None:
    if not lines or lines[0][:1] != ["cpu"] or len(lines[0]) < 9:
        return None
    ticks = [int(word) for word in lines[0][1:9]]
    # Idle, and waiting for a disk.
    return sum(ticks) - ticks[3] - ticks[4], ticks[_STEAL], sum(ticks)


def _waited_ns(lines: list[list[str]]) -> int | None:
    cpus = [words for words in lines if words and words[0].startswith("cpu")]
    if not cpus or any(len(words) <= _RUN_DELAY for words in cpus):
        return None
    return sum(int(words[_RUN_DELAY]) for words in cpus)


def _pressed_ns(lines: list[list[str]]) -> int | None:
    for words in lines:
        if words[:1] == ["some"] and words[-1].startswith("total="):
            return int(words[-1].removeprefix("total=")) * _NS_PER_US
    return None


def _throttled_ns(root: Path) -> int | None:
    """Of all groups that this process is in, and those around them, the most."""
    found = []
    for words in _lines(root / "proc/self/cgroup"):
        _, controllers, group = " ".join(words).split(":", 2)
        mounts = {"": [""], "cpu": ["cpu"], "cpu,cpuacct": ["cpu,cpuacct", "cpu"]}
        for mount in mounts.get(controllers, ()):
            base = root / "sys/fs/cgroup" / mount
            own = base / group.lstrip("/")
            for folder in (own, *own.parents):
                found += _throttled_of(_lines(folder / "cpu.stat"))
                if folder == base:
                    break
    return max(found, default=None)


def _throttled_of(lines: list[list[str]]) -> list[int]:
    units = {"throttled_usec": _NS_PER_US, "throttled_time": 1}
    return [int(words[1]) * units[words[0]] for words in lines if words and words[0] in units]
