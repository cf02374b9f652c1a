"""How one host does, measured on it: its cores and who else wants them, its timers, its disk.

Who else wants its cores changes by the second: :func:`host_stalls_ns` is for many moments.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any, Final

from orchestrator.core.host_profile import DEEP_NS, SHORT_NS
from orchestrator.core.units import NS_PER_S

SYNCS: Final = 1000
SYNCS_S: Final = 3.0
"""So many, unless the disk is slow; and so long at most."""
APART_NS: Final = 200_000
"""A node at work syncs about so often; a disk that is never left alone answers sooner."""
IDLE_S: Final = 1.0
WATCH_S: Final = 2.0
STALL_NS: Final = 30_000
"""What is shorter is an interrupt, and part of what everything takes."""
WAKES: Final = 1000
_ECHO: Final = """
import select, socket, sys, time
ours = socket.socket(fileno=int(sys.argv[1]))
ready = select.epoll()
ready.register(ours, select.EPOLLIN)
try:
    while True:
        ours.sendall(b"?")
        ready.poll()
        at = time.perf_counter_ns()
        if not ours.recv(1):
            break
        ours.sendall(str(at).ljust(32).encode())
except OSError:
    pass
"""
_WATCH: Final = """
import sys, time
now, least, found = time.perf_counter_ns, int(sys.argv[2]), []
last = now()
begun = last + 500_000_000  # others of its kind start until then
while last < begun + int(float(sys.argv[1]) * 1e9):
    at = now()
    if at - last > least and at > begun:
        found.append(at - last)
    last = at
print(*found)
"""


def host_speed() -> dict[str, Any]:
    """Of this host; durations are lists in ns, ascending."""
    from orchestrator.store.provenance import cpu_model

    cores = len(os.sched_getaffinity(0))
    background = _background()
    return {
        "host": socket.gethostname(),
        "cpu": cpu_model(),
        "cores": cores,
        "background": background,
        "wake_ns": _wakes_ns(SHORT_NS),
        "wake_deep_ns": _wakes_ns(DEEP_NS),
        "fsync_ns": _syncs_ns(),
    }


def _background() -> float:
    """The share of all cores that is in use while this process sleeps."""
    from orchestrator.runtimes._host_load import host_record, host_sample

    before = host_sample()
    time.sleep(IDLE_S)
    return host_record("", before, host_sample()).busy or 0.0


def _outputs(command: list[str], count: int) -> list[bytes]:
    """What so many processes say that run the same at once."""
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(count)]
    return [each.communicate(timeout=60)[0] for each in running]


def host_stalls_ns() -> list[int]:
    """For how long each time a process that never sleeps did not run, over WATCH_S on every core of
    this host, while all cores had one.
    """
    cores = len(os.sched_getaffinity(0))
    said = _outputs([sys.executable, "-c", _WATCH, str(WATCH_S), str(STALL_NS)], cores)
    return [int(word) for each in said for word in each.split()]


def _wakes_ns(asleep_ns: int) -> list[int]:
    """How long it takes from the writing of a socket until a process looks that has slept on it
    for so long.
    """
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-c", _ECHO, str(theirs.fileno())]
    reader = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    theirs.close()
    found = []
    try:
        ours.settimeout(10)
        for _ in range(WAKES):
            ours.recv(1)
            _spin(asleep_ns)
            now_ns = time.perf_counter_ns()
            ours.sendall(b"!")
            found.append(int(ours.recv(32)) - now_ns)
    finally:
        ours.close()
        reader.wait(timeout=10)
    return sorted(found)


def _syncs_ns() -> list[int]:
    """How long it takes to make small records durable where nodes keep their logs."""
    found: list[int] = []
    until_ns = time.perf_counter_ns() + round(SYNCS_S * NS_PER_S)
    with tempfile.TemporaryFile() as file:
        while len(found) < SYNCS and time.perf_counter_ns() < until_ns:
            _spin(APART_NS)
            file.write(bytes(200))
            file.flush()
            began_ns = time.perf_counter_ns()
            os.fdatasync(file.fileno())
            found.append(time.perf_counter_ns() - began_ns)
    return sorted(found)


def _spin(lasts_ns: int) -> None:
    until_ns = time.perf_counter_ns() + lasts_ns
    while time.perf_counter_ns() < until_ns:
        pass
