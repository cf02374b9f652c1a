"""What this process has used of its host so far, as the kernel counts it at no cost to the load."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Final

from orchestrator.core.record import ProcessUsage

_IO: Final = "/proc/self/io"

_NAMES: Final = tuple(each.name for each in fields(ProcessUsage))[:-1]
FIELDS: Final = len(_NAMES)


def process_usage(
    ticks: int, entries: int, waits: int, late_ns: int, syncs: int = 0, disk_cpu_ns: int = 0
) -> tuple[int, ...]:
    """The first FIELDS of ProcessUsage since the process began; calls are 0 where nobody counts.

    For the thread of the event loop to call: others may sleep as they like.
    """
    sleeps = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    rounds = (sleeps, ticks, entries, waits, late_ns, syncs, disk_cpu_ns)
    return (time.process_time_ns(), *rounds, *_calls())


def between(
    before: Sequence[int], after: Sequence[int], loops_ns: Iterable[int] = ()
) -> ProcessUsage:
    """What was used from one time to another, in which the loop took so long each time."""
    used = [int(late - early) for early, late in zip(before, after, strict=True)]
    loops = tuple(int(each) for each in loops_ns if each)
    return ProcessUsage(**dict(zip(_NAMES, used, strict=True)), loops_ns=loops)


def _calls() -> tuple[int, int, int]:
    """read() calls, write() calls, and the bytes of both, sockets included."""
    try:
        with open(_IO, "rb") as file:
            words = file.read().split()
    except OSError:
        return (0, 0, 0)
    found = dict(zip(words[::2], words[1::2], strict=True))
    read, written = int(found[b"rchar:"]), int(found[b"wchar:"])
    return int(found[b"syscr:"]), int(found[b"syscw:"]), read + written
