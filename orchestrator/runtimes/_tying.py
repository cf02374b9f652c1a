"""Nodes with operations that wait at another node, too (``client.tie``).

Whoever begins one of two copies tells the other node, which drops its copy if that has not begun,
or when it comes. Telling takes the network's time and then that of a message (``cpu.message``),
ahead of all operations that wait. Both copies are served where both begin within that time.

A copy that is dropped is not answered: its client hears from the node that began. If that node is
lost, so is the operation, until its client asks again.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol

from orchestrator.core.machine import Op, Received
from orchestrator.core.waiting import Cancel, Tie
from orchestrator.runtimes._outlet import Outlet
from orchestrator.runtimes._queueing import QueueingShell


class TyingOutlet(Outlet, Protocol):
    """Where such nodes speak of copies."""

    @abstractmethod
    def cancel(self, target: int, cancel: Cancel) -> None:
        """To the node that has, or gets, the other copy."""

    @abstractmethod
    def dropped(self, handle: Any) -> None:
        """This operation will not be answered here."""


class TyingShell(QueueingShell):
    """A copy in the queue is a job of three: its handle, the operation, and its tie.

    ``patience_ns``: how long it is remembered that a copy which has not come is to be dropped.
    """

    _outlet: TyingOutlet

    def __init__(self, *arguments: Any, patience_ns: int) -> None:
        super().__init__(*arguments)
        self._patience_ns = patience_ns
        # Copies that wait.
        self._copies: dict[Cancel, tuple[Any, Op, Tie]] = {}
        # What the other node has begun before the copy came, and when that was heard, in order.
        self._called_off: dict[Cancel, int] = {}

    def tied(self, handle: Any, op: Op, tie: Tie) -> None:
        """One of two copies comes."""
        pair = Cancel(op.session, op.sequence, tie.number)
        job = (handle, op, tie)
        if self._called_off.pop(pair, None) is not None:
            self.operations += 1
            self._drop(job)
        else:
            self._copies[pair] = job
            self._enter(job)

    def _serve(self, handle: Any, op: Op, tie: Tie | None = None) -> None:
        if tie is not None:
            pair = Cancel(op.session, op.sequence, tie.number)
            self._copies.pop(pair, None)
            self._outlet.cancel(tie.node, pair)
        super()._serve(handle, op)

    def _refuse(self, job: tuple[Any, ...], wait_ns: int) -> None:
        if len(job) == 3:
            _, op, tie = job
            self._copies.pop(Cancel(op.session, op.sequence, tie.number), None)
        super()._refuse(job, wait_ns)

    def _message_done(self, job: tuple[int, Received]) -> None:
        message = job[1].message
        if type(message) is not Cancel:
            super()._message_done(job)
            return
        self._cpu.busy_ns += job[0]
        copy = self._copies.pop(message, None)
        if copy is not None:
            self._queue.remove(copy)
            self._drop(copy)
            return
        now_ns = self._now_ns()
        self._called_off[message] = now_ns
        self._forget(now_ns)

    def _drop(self, job: tuple[Any, Op, Tie]) -> None:
        self.cancelled += 1
        self._outlet.dropped(job[0])

    def _forget(self, now_ns: int) -> None:
        """What was called off so long ago has never been sent."""
        called_off = self._called_off
        while called_off:
            oldest = next(iter(called_off))
            if called_off[oldest] > now_ns - self._patience_ns:
                return
            del called_off[oldest]
