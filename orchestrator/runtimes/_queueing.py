"""Nodes that decide what their CPU does next when a core is free.

The plain shell knows when a job will be done as it arrives, which is the least work. Three things
need more: a CPU that may be slowed down while jobs wait for it, since they are as quick as ever
once it is well again, cores that come and go, and a queue of clients' operations that may turn some
away. In the latter what other nodes send is served before what clients ask, since a node that sheds
load must not shed the replication of what it has accepted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from orchestrator.core.faults import WELL
from orchestrator.core.machine import Op, Received
from orchestrator.core.token_bucket import TokenBucket
from orchestrator.core.waiting import Queue, Refusal
from orchestrator.runtimes._node import NodeShell
from orchestrator.runtimes._scaling import Scaling
from orchestrator.systems._sharding import Command
from orchestrator.systems.replicated_store import Node

_MEMORY: Final = 16
"""Over how many operations the mean cost of one is taken."""


class DispatchingShell(NodeShell):
    """Carries one machine; jobs are served in the order in which they came. Costs are modelled."""

    def __init__(self, machine: Any, model: Node, *rest: Any) -> None:
        super().__init__(machine, model, *rest)
        self._cores = model.cores
        self._scaling: Scaling | None = None
        if model.autoscaler is not None:
            now_ns, at, note = self._now_ns, self._at, self._outlet.note
            self._scaling = Scaling(self, model.autoscaler, model.cores, now_ns, at, note)
        self._busy = 0
        # What waits: messages as events, operations as (handle, operation).
        self._line: deque[Received | tuple[Any, Op]] = deque()

    def start(self, records: list[Any], administration: Sequence[Command] = ()) -> None:
        super().start(records, administration)
        if self._scaling is not None:
            self._scaling.begin()

    @property
    def waiting(self) -> int:
        """Operations and messages that wait for a core."""
        return len(self._line)

    def resize(self, cores: int) -> None:
        """From now on it has so many cores; what is being served on others is served to its end."""
        self._cores = cores
        self._next()

    def request(self, handle: Any, op: Op) -> None:
        self.operations += 1
        if self._busy < self._cores:
            self._serve(handle, op)
        else:
            self._line.append((handle, op))

    def received(self, source: int, message: Any) -> None:
        self.messages += 1
        event = Received(source, message)
        if self._busy < self._cores:
            self._hear(event)
        else:
            self._line.append(event)

    def _slowed(self, cost_ns: int) -> int:
        return cost_ns if self._state is WELL else round(cost_ns * self._state.slowness)

    def _operation_ns(self, op: Op) -> int:
        return self._slowed(self._operation_cost[op.kind].draw_ns() * op.count)

    def _serve(self, handle: Any, op: Op) -> None:
        cost_ns = self._operation_ns(op)
        self._busy += 1
        self._at(self._now_ns() + cost_ns, self._served, (cost_ns, handle, op))

    def _served(self, job: tuple[int, Any, Op]) -> None:
        self._busy -= 1
        self._done(job)
        self._next()

    def _hear(self, event: Received) -> None:
        cost_ns = self._slowed(self._message_cost.draw_ns())
        # Messages of one source stay in order, whatever the number of cores.
        done_ns = max(self._now_ns() + cost_ns, self._source_done_ns.get(event.source, 0))
        self._source_done_ns[event.source] = done_ns
        self._busy += 1
        self._at(done_ns, self._heard, (cost_ns, event))

    def _heard(self, job: tuple[int, Received]) -> None:
        self._busy -= 1
        self._message_done(job)
        self._next()

    def _next(self) -> None:
        line = self._line
        while line and self._busy < self._cores and not self.stopped:
            job = line.popleft()
            if isinstance(job, tuple):
                self._serve(*job)
            else:
                self._hear(job)


class QueueingShell(DispatchingShell):
    """Behind a queue of clients' operations; only messages wait in line."""

    def __init__(self, machine: Any, model: Node, *rest: Any) -> None:
        super().__init__(machine, model, *rest)
        assert model.queue is not None
        limit = model.rate_limit
        self._queue: Queue = model.queue.implementation(model.queue.params)
        self._bucket = None if limit.rate is None else TokenBucket(limit.rate, limit.burst)
        self._back_pressure = model.back_pressure
        self._mean_cost_ns = 0.0

    @property
    def waiting(self) -> int:
        return len(self._line) + len(self._queue)

    def request(self, handle: Any, op: Op) -> None:
        self._enter((handle, op))

    def _enter(self, job: tuple[Any, ...]) -> None:
        """An operation (its handle, itself, and what its heirs add) comes."""
        self.operations += 1
        now_ns = self._now_ns()
        if self._bucket is not None and (wait_ns := self._bucket.take(now_ns)):
            self._refuse(job, wait_ns)
        elif self._busy < self._cores:
            self._serve(*job)
        else:
            for each in self._queue.put(job, job[1], now_ns):
                self._refuse(each, self._wait_ns())

    def _refuse(self, job: tuple[Any, ...], wait_ns: int) -> None:
        self.refused += 1
        self._outlet.refuse(Refusal(job[0], wait_ns if self._back_pressure else 0))

    def _wait_ns(self) -> int:
        """How long it would take to serve all that wait."""
        return round(len(self._queue) * self._mean_cost_ns / self._cores)

    def _operation_ns(self, op: Op) -> int:
        cost_ns = super()._operation_ns(op)
        self._mean_cost_ns += (cost_ns - self._mean_cost_ns) / _MEMORY
        return cost_ns

    def _next(self) -> None:
        super()._next()
        while self._busy < self._cores and not self.stopped:
            job, dropped = self._queue.take(self._now_ns())
            for each in dropped:
                self._refuse(each, self._wait_ns())
            if job is None:
                return
            self._serve(*job)
