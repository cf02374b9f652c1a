"""A node's storage: what it is read for, and the log that is written to it.

The plain one knows when a job will be done as it arrives, which is the least work. Where a fault
may slow the storage down while jobs wait for it, what each takes is settled when its turn comes:
what has waited until the storage is well again is as quick as ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from orchestrator.core.distributions import Sampler
from orchestrator.core.faults import NodeState
from orchestrator.runtimes._costs import Costs
from orchestrator.runtimes._network import BEFORE_ALL_NS
from orchestrator.runtimes._station import Station
from orchestrator.runtimes._timers import Scheduler

Then = Callable[[Any], None]
"""Called with (what it took in ns, what it was about) when a job is done."""


class Storage:
    """``parallel`` jobs at a time, first come first served (None: no limit, a pure delay).

    ``busy_ns``: service that is done, as its owner adds it up.
    """

    __slots__ = ("_adds_ns", "_at", "_now_ns", "_read", "_slowness", "_station", "_write",
                 "_written_ns", "busy_ns")  # fmt: skip

    def __init__(self, parallel: int | None, costs: Costs, scheduler: Scheduler) -> None:
        self._station = Station(parallel)
        self._read, self._write = costs.storage_read, costs.storage_write
        self._now_ns, self._at = scheduler.moment_ns, scheduler.at
        self._slowness, self._adds_ns = 1.0, 0
        # When all that was to be written will be.
        self._written_ns = BEFORE_ALL_NS
        self.busy_ns = 0

    def burden(self, state: NodeState) -> None:
        """From now on it is in this state."""
        self._slowness, self._adds_ns = state.storage_slowness, state.storage_adds_ns

    def read(self, then: Then, what: Any) -> None:
        """Fetch an entry."""
        cost_ns = round(self._read.draw_ns() * self._slowness) + self._adds_ns
        done_ns = self._station.completion_ns(self._now_ns(), cost_ns)
        self._at(done_ns, then, (cost_ns, what))

    def write(self, then: Then, what: Any) -> None:
        """Write a record; a log is written in order, whatever is done in parallel."""
        cost_ns = round(self._write.draw_ns() * self._slowness) + self._adds_ns
        done_ns = self._station.completion_ns(self._now_ns(), cost_ns)
        self._written_ns = max(self._written_ns, done_ns)
        self._at(self._written_ns, then, (cost_ns, what))


class DispatchingStorage(Storage):
    """Settles what a job takes when its turn comes."""

    __slots__ = ("_busy", "_line", "_parallel")

    def __init__(self, parallel: int | None, costs: Costs, scheduler: Scheduler) -> None:
        super().__init__(parallel, costs, scheduler)
        self._parallel = parallel
        self._busy = 0
        self._line: deque[tuple[Sampler, Then, Any]] = deque()

    def read(self, then: Then, what: Any) -> None:
        self._come(self._read, then, what)

    def write(self, then: Then, what: Any) -> None:
        self._come(self._write, then, what)

    def _come(self, law: Sampler, then: Then, what: Any) -> None:
        if self._parallel is None or self._busy < self._parallel:
            self._begin(law, then, what)
        else:
            self._line.append((law, then, what))

    def _begin(self, law: Sampler, then: Then, what: Any) -> None:
        cost_ns = round(law.draw_ns() * self._slowness) + self._adds_ns
        done_ns = self._now_ns() + cost_ns
        self._busy += 1
        self._at(done_ns, self._ended, None)
        if law is self._write:
            done_ns = self._written_ns = max(self._written_ns, done_ns)
        self._at(done_ns, then, (cost_ns, what))

    def _ended(self, _: None) -> None:
        self._busy -= 1
        if self._line:
            self._begin(*self._line.popleft())
