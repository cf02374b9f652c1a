"""Ends an embedded Ray when the process that started it is killed.

Ray's own helper agents outlive a driver that dies by SIGKILL for about a minute. The reaper is
a small process in a group of its own. It reads a pipe whose other end only the driver holds,
notes the driver's descendants from time to time while the driver lives, and kills those that
are left when the pipe closes. Ray renames its processes and thereby overwrites their visible
environment, so descent is the one mark that all of them carry.

Among the descendants are some that only serve people who look: the monitor of logs, ten times a
second for half a millisecond, the dashboard and its agent. These it gives the policy of processes
that run when nobody else wants the core; else they make the p99 of what is measured.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

LOOK_S: Final = 2.0
"""How often descendants are noted; Ray's agents come up within a second of their parent."""
QUICK_LOOKS: Final = 20
"""At first they are noted ten times a second, since a driver may die while Ray is starting."""

DISMISS_S: Final = 5.0

HELPERS: Final = (b"monitor.py", b"dashboard.py", b"ray::DashboardAgent", b"ray::RuntimeEnvAgent")
"""Endings of words of the command lines of what may wait."""

_reaper: tuple[int, subprocess.Popen[bytes]] | None = None


@contextmanager
def guard() -> Iterator[Callable[[], None]]:
    """From now on the descendants of this process end with it; yields a call to look at once."""
    global _reaper  # noqa: PLW0603 - one reaper a process
    if _reaper is None:
        reading, writing = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(reading), str(os.getpid())],
            pass_fds=[reading],
            stdin=subprocess.DEVNULL,
            # Not a session: the kernel may share cores out by session before it looks at policies.
            process_group=0,
        )
        os.close(reading)
        _reaper = (writing, process)
    pipe = _reaper[0]

    def look() -> None:
        with suppress(OSError):
            os.write(pipe, b"l")

    yield look


def dismiss() -> None:
    """Nothing is left to watch: let the reaper go."""
    global _reaper  # noqa: PLW0603
    if _reaper is not None:
        pipe, process = _reaper
        _reaper = None
        with suppress(OSError):
            os.write(pipe, b"q")
        os.close(pipe)
        with suppress(subprocess.TimeoutExpired):
            process.wait(DISMISS_S)


def _processes() -> dict[int, tuple[int, int]]:
    """Process id -> (parent, start time in ticks since boot)."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                # The name in parentheses may hold anything, so count from its end.
                words = file.read().rpartition(")")[2].split()
            found[int(name)] = (int(words[1]), int(words[19]))
    return found


def _note_descendants(driver: int, known: dict[int, int]) -> None:
    """Add (process id -> start time) of all descendants of the driver and of known ones."""
    processes = _processes()
    known_now = {pid for pid, start in known.items() if processes.get(pid, (0, -1))[1] == start}
    family = {driver} | known_now
    grown = True
    while grown:
        grown = False
        for pid, (parent, start) in processes.items():
            if parent in family and pid not in family and pid != os.getpid():
                family.add(pid)
                known[pid] = start
                grown = True


def _let_helpers_wait(known: dict[int, int]) -> None:
    """Ray's helpers among these run when nobody else wants the core, on systems that know that."""
    if not hasattr(os, "SCHED_IDLE"):
        return
    for pid in known:
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if any(word.endswith(HELPERS) for word in words[:8]):
                for thread in os.listdir(f"/proc/{pid}/task"):
                    os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))


def _kill(known: dict[int, int]) -> None:
    processes = _processes()
    for pid, start in known.items():
        if processes.get(pid, (0, -1))[1] == start:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Watch until dismissed, or until the driver is gone."""
    pipe, driver = int(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "SCHED_IDLE"):
        # To look takes milliseconds, and nobody waits for it: when the driver has died, cores idle.
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    known: dict[int, int] = {}
    looks = 0
    while True:
        looks += 1
        timeout_s = 0.1 if looks < QUICK_LOOKS else LOOK_S
        if select.select([pipe], [], [], timeout_s)[0]:
            data = os.read(pipe, 64)
            if b"q" in data:
                return
            if not data:
                break
        _note_descendants(driver, known)
        _let_helpers_wait(known)
    for _ in range(3):
        _note_descendants(driver, known)
        _kill(known)
        time.sleep(0.3)


if __name__ == "__main__":
    main()
