"""Sampled operations at a node: where the time of each goes, from its arrival to its answer.

A sampled operation travels under a handle of its own kind, a :class:`Visit`. Only while there are
any does a :class:`Tracer` stand where the next thing will happen to one of them (what follows a job
of the CPU, the machine, the way out), so that all other operations cost what they cost without it.

What the time between ``handle`` and the answer's leaving went into is told by what was pending at
the node itself. The entries that ``handle`` asked for and the log's barrier are waited for by a
stamp that is held back as an answer would be. Until the stamp is free, it is the node's storage
that is waited for; from then until the machine answers, it is other nodes; and what holds the
answer back after that is storage again. Where both are pending at once the storage's part comes
first, and the rest is that of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.machine import (
    Access,
    Effect,
    Event,
    Op,
    Redirect,
    Reply,
    Requested,
    Send,
)
from orchestrator.core.spans import Stay
from orchestrator.core.tier import Pattern
from orchestrator.core.waiting import Refusal
from orchestrator.runtimes._outlet import Outlet

if TYPE_CHECKING:
    from orchestrator.runtimes._node import NodeShell

_NOWHERE: Final = -1
_UNSEEN: Final = -1


class Visit(tuple[Any, ...]):
    """Handle of a sampled operation, equal to the plain one, and when what happened to it."""

    number: int
    came_ns: int
    cpu_ns: int
    begun_ns: int
    stored_ns: int
    replied_ns: int
    stay: Stay

    def __new__(cls, handle: tuple[Any, ...], number: int, came_ns: int) -> Visit:
        visit = super().__new__(cls, handle)
        visit.number, visit.came_ns = number, came_ns
        visit.cpu_ns = 0
        # When its service ended, its own storage was done with, and the machine answered.
        visit.begun_ns = visit.stored_ns = visit.replied_ns = _UNSEEN
        return visit

    def leave(self, now_ns: int, *, asks: bool) -> None:
        """Its answer leaves. ``asks``: other nodes are asked as storage is."""
        served_ns = self.begun_ns
        if served_ns == _UNSEEN:  # turned away without service
            self.stay = Stay(self.number, now_ns - self.came_ns, 0, 0, 0)
            return
        replied_ns = self.replied_ns if self.replied_ns != _UNSEEN else now_ns
        stored_ns = min(max(self.stored_ns, served_ns), replied_ns)
        storage_ns = stored_ns - served_ns + now_ns - replied_ns
        others_ns = replied_ns - stored_ns
        if asks:
            storage_ns, others_ns = storage_ns + others_ns, 0
        queue_ns = served_ns - self.cpu_ns - self.came_ns
        self.stay = Stay(self.number, queue_ns, self.cpu_ns, storage_ns, others_ns)


class Tracer:
    """Follows sampled operations through one shell."""

    def __init__(self, shell: NodeShell) -> None:
        self._shell = shell
        self._handle, self._done, self._outlet = shell.inner
        self._now_ns = shell.now_ns
        self._asks = isinstance(shell.machine, Pattern)
        self._way_out = _WayOut(self, self._outlet)
        # Sampled operations by what is next: a job of the CPU, the machine, and any answer; and the
        # stamps that are held back.
        self._queued = self._served = self._here = self._stamps = 0

    def follow(self, handle: tuple[Any, ...], number: int) -> Visit:
        """A sampled operation comes, as its client's attempt of that number."""
        self._here += 1
        if self._shell.modelled:
            self._queued += 1
        else:
            self._served += 1
        self._stand()
        return Visit(handle, number, self._now_ns())

    def _stand(self) -> None:
        """Where something will happen to a sampled operation, and nowhere else."""
        self._way_out.send = self._way_out.send_or_stamp if self._stamps else self._outlet.send
        self._shell.inner = (
            self._traced_handle if self._served else self._handle,
            self._traced_done if self._queued else self._done,
            self._way_out if self._here or self._stamps else self._outlet,
        )

    def _traced_done(self, job: tuple[int, Any, Op]) -> None:
        """The CPU is done with a job; what a batch waits for is waiting to be served, too."""
        cost_ns, handle, _ = job
        if type(handle) is Visit:
            handle.cpu_ns = cost_ns
            self._queued -= 1
            self._served += 1
            self._stand()
        self._done(job)

    def _traced_handle(self, event: Event, now_ns: int) -> list[Effect]:
        """Under measured costs an operation's service is that of all that came with it."""
        if type(event) is not Requested:
            return self._handle(event, now_ns)
        came = [handle for handle in event.handles if type(handle) is Visit]
        began_ns = self._now_ns()
        effects = self._handle(event, now_ns)
        if not came:
            return effects
        ended_ns = self._now_ns()
        for visit in came:
            if not self._shell.modelled:
                visit.cpu_ns = ended_ns - began_ns
            visit.begun_ns = ended_ns
        stamps = list(_stamps(effects if len(event.handles) == 1 else (), came))
        self._served -= len(came)
        self._stamps += len(stamps)
        self._stand()
        return [*effects, *stamps]

    def stamped(self, visit: Visit) -> None:
        """The node's own storage, or a part of it, is done with."""
        visit.stored_ns = self._now_ns()
        self._stamps -= 1
        self._stand()

    def left(self, visit: Visit) -> None:
        """Its answer leaves, or it is dropped."""
        visit.leave(self._now_ns(), asks=self._asks)
        self._here -= 1
        if visit.begun_ns == _UNSEEN:
            self._queued -= 1
        self._stand()


def _stamps(effects: Sequence[Effect], came: list[Visit]) -> Iterator[Send]:
    """What the barrier holds back, and every access that is waited for, for each."""
    tokens = [effect.token for effect in effects if type(effect) is Access and effect.token]
    for visit in came:
        for token in tokens or (0,):
            yield Send(_NOWHERE, visit, after=token)


class _WayOut:
    """The outlet of a shell that has sampled operations."""

    def __init__(self, tracer: Tracer, outlet: Outlet) -> None:
        self._tracer = tracer
        self._outlet = outlet
        self._reply = outlet.reply
        self.send = outlet.send
        self.append = outlet.append
        self.sync = outlet.sync
        self.note = outlet.note
        self.answer_visit = outlet.answer_visit
        # Of nodes with copies that wait at another one.
        self.cancel: Any = getattr(outlet, "cancel", None)

    def send_or_stamp(self, target: int, message: Any) -> None:
        """As ``send``, as long as stamps are held back."""
        if type(message) is Visit:
            self._tracer.stamped(message)
        else:
            self._outlet.send(target, message)

    def reply(self, reply: Reply) -> None:
        if type(reply.handle) is Visit:
            self._answer(reply)
        else:
            self._reply(reply)

    def redirect(self, redirect: Redirect) -> None:
        if type(redirect.handle) is Visit:
            self._answer(redirect)
        else:
            self._outlet.redirect(redirect)

    def refuse(self, refusal: Refusal) -> None:
        if type(refusal.handle) is Visit:
            self._answer(refusal)
        else:
            self._outlet.refuse(refusal)

    def dropped(self, handle: Any) -> None:
        outlet: Any = self._outlet
        if type(handle) is Visit:
            self._tracer.left(handle)
        outlet.dropped(handle)

    def _answer(self, effect: Reply | Redirect | Refusal) -> None:
        self._tracer.left(effect.handle)
        self.answer_visit(effect)
