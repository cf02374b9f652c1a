"""A client's operations for one node that travel together: one request instead of several.

They leave when ``max`` are together, or when the first of them has waited for ``linger``. The
network is then charged once (one delay, one chance of a loss) for the bytes of all of them. A node
is charged for each operation as if it had come alone, and answers each as soon as it is done.

Waiting is part of an operation's latency, which counts from its intended start. What is over before
the request leaves (answered elsewhere, timed out) does not travel.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

from orchestrator.core.machine import Op
from orchestrator.core.policy import ClientBatch
from orchestrator.core.waiting import Tie
from orchestrator.runtimes._port import Leg, Port
from orchestrator.runtimes._session import Session
from orchestrator.runtimes._timers import Scheduler

Attempt = tuple[Session, Op, Tie | None, Leg | None]
"""A session's operation, what it knows of its other copy where it is one of two, and what is to be
known of the attempt where the operation is a sampled one.
"""


class Carrier(Port, Protocol):
    """A port that carries several operations at once."""

    @property
    @abstractmethod
    def clock(self) -> Scheduler:
        """The clock of its runtime."""

    @abstractmethod
    def reaches(self, node: int) -> bool:
        """Whether something can be sent there, whatever becomes of it."""

    @abstractmethod
    def carry(self, node: int, attempts: Sequence[Attempt]) -> bool:
        """Send them as one request; False where the node cannot be reached (nothing sent)."""


class BatchingPort:
    """What is submitted waits for others for the same node. ``unsent``: told of an operation that
    could not leave after all, and of the node.
    """

    unsent: Callable[[Session, int, int], None]

    def __init__(self, carrier: Carrier, batch: ClientBatch, nodes: int) -> None:
        self.ask = carrier.ask
        self.wake_at = carrier.wake_at
        self._carrier = carrier
        self._clock = carrier.clock
        self._max, self._linger_ns = batch.max, batch.linger
        self._waiting: list[list[Attempt]] = [[] for _ in range(nodes)]
        self.requests = self.operations = 0
        """That have left, over the whole load."""

    def submit(self, session: Session, node: int) -> bool:
        return self._join(node, (session, session.op, None, None))

    def submit_tied(self, session: Session, node: int, tie: Tie) -> bool:
        return self._join(node, (session, session.op, tie, None))

    def submit_sampled(self, session: Session, node: int, tie: Tie | None, leg: Leg) -> bool:
        return self._join(node, (session, session.op, tie, leg))

    def _join(self, node: int, attempt: Attempt) -> bool:
        if not self._carrier.reaches(node):
            return False
        batch = self._waiting[node]
        batch.append(attempt)
        if len(batch) == self._max:
            self._leave((node, batch))
        elif len(batch) == 1:
            self._clock.at(self._clock.now_ns() + self._linger_ns, self._leave, (node, batch))
        return True

    def _leave(self, request: tuple[int, list[Attempt]]) -> None:
        node, batch = request
        # The alarm of a batch that was full before it lingered finds another one in its place.
        if batch is not self._waiting[node]:
            return
        self._waiting[node] = []
        current = [each for each in batch if each[0].busy and each[0].op is each[1]]
        if current and self._carrier.carry(node, current):
            self.requests += 1
            self.operations += len(current)
            return
        for session, _, _, _ in current:
            self.unsent(session, node, self._clock.now_ns())
