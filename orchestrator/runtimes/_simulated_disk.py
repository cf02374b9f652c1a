"""The disk of a simulated host as one of its nodes meets it: by a thread that waits for it.

The thread needs a core to begin a sync and again to say that it is over; where the node keeps to
one core, both threads take turns on that one.
"""

from __future__ import annotations

from typing import Any, Final

from orchestrator.core.host_profile import HostProfile
from orchestrator.runtimes._simulated_host import Call, Item, SimulatedProcess
from orchestrator.runtimes._virtual_clock import VirtualClock

_DISK: Final = ("disk",)
"""The socket, as it were, by which both threads know of one another."""


class SimulatedDisk:
    """Makes durable what a process has written, one sync after another."""

    def __init__(
        self, process: SimulatedProcess, profile: HostProfile, clock: VirtualClock
    ) -> None:
        self._process, self._clock = process, clock
        self._thread = process.thread("disk")
        self._disk_ns = profile.disk
        # To hand a sync over is half of what it costs the process.
        self._ask_ns, self._hear_ns = profile.sync // 2, profile.sync - profile.sync // 2

    def sync(self, lasts_ns: int, callback: Call, argument: Any) -> None:
        """The process, which is at work, hears of it when the disk has taken so long."""
        process = self._process
        process.syncs += 1
        # The records; and the thread's word, which has no callback of its own here.
        process.write(2)
        process.charge(self._ask_ns)
        heard = (self._hear_ns, None, callback, argument)
        self._thread.come(_DISK, (self._disk_ns, None, self._begin, (lasts_ns, heard)))

    def _begin(self, job: tuple[int, Item]) -> None:
        lasts_ns, heard = job
        self._clock.at(self._clock.current_ns + lasts_ns, self._end, heard)

    def _end(self, heard: Item) -> None:
        self._thread.come(_DISK, (0, None, self._tell, heard))

    def _tell(self, heard: Item) -> None:
        self._process.come(_DISK, heard)
