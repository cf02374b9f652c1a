"""Sampled operations at a node: where the time of each goes, from its arrival to its answer.

A sampled operation travels under a handle of its own kind, a :class:`Visit`. A :class:`Tracer`
stands where the next thing will happen to one of them (what follows a job of the CPU, the machine,
the way out) only as long as that is to come, so that all other operations cost what they cost
without it. Outlets know the answers by their handles.

What the time between ``handle`` and the answer's leaving went into is told by what was pending at
the node itself. The entries that ``handle`` asked for and the log's barrier are waited for by a
stamp that is held back as an answer would be. Until the stamp is free, it is the node's storage
that is waited for; from then until the machine answers, it is other nodes; and what holds the
answer back after that is storage again. Where both are pending at once the storage's part comes
first, and the rest is that of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.machine import (
    Access,
    Effect,
    Event,
    Op,
    Requested,
    Send,
)
from orchestrator.core.spans import Stay
from orchestrator.core.tier import Pattern
from orchestrator.runtimes._outlet import Outlet

if TYPE_CHECKING:
    from orchestrator.runtimes._node import NodeShell

# Targets of stamps: what is done by the time when one leaves.
_STORED: Final = -1
_CARRIED_OUT: Final = -2
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
    charged_ns: int = 0
    """What a simulated host takes for it, though nothing is seen of that at the node."""

    def __new__(cls, handle: tuple[Any, ...], number: int, came_ns: int) -> Visit:
        visit = super().__new__(cls, handle)
        visit.number, visit.came_ns = number, came_ns
        visit.cpu_ns = 0
        # When its service ended, its own storage was done with, and its answer was held back.
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
        cpu_ns = self.cpu_ns + self.charged_ns
        self.stay = Stay(self.number, queue_ns, cpu_ns, storage_ns, others_ns)


class Tracer:
    """Follows sampled operations through one shell."""

    def __init__(self, shell: NodeShell) -> None:
        self._shell = shell
        self._handle, self._done, self._outlet = shell.inner
        self._now_ns = shell.now_ns
        self._asks = isinstance(shell.machine, Pattern)
        # Sampled operations by what is next, a job of the CPU or the machine; and the stamps.
        self._queued = self._served = self._stamps = 0

    @cached_property
    def _stamping(self) -> _Stamping:
        return _Stamping(self, self._outlet)

    def follow(self, handle: tuple[Any, ...], number: int) -> Visit:
        """A sampled operation comes, as its client's attempt of that number."""
        if self._shell.modelled:
            self._queued += 1
        else:
            self._served += 1
        self._stand()
        return Visit(handle, number, self._now_ns())

    def _stand(self) -> None:
        """Where something will happen to a sampled operation, and nowhere else."""
        self._shell.inner = (
            self._traced_handle if self._served else self._handle,
            self._traced_done if self._queued else self._done,
            self._stamping if self._stamps else self._outlet,
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
        """Under measured costs an operation's service is that of all that came with it, and the
        carrying out of what follows from it at once.
        """
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

    def stamped(self, visit: Visit, what: int) -> None:
        """A stamp is held back no more."""
        now_ns = self._now_ns()
        if what == _STORED:
            visit.stored_ns = now_ns
        elif visit.replied_ns == _UNSEEN:
            if not self._shell.modelled:
                visit.cpu_ns += now_ns - visit.begun_ns
            visit.begun_ns = now_ns
        self._stamps -= 1
        self._stand()

    def left(self, visit: Visit) -> None:
        """Its answer of any kind leaves, or it is dropped: the node's outlet says so."""
        visit.leave(self._now_ns(), asks=self._asks)
        if visit.begun_ns == _UNSEEN:
            self._queued -= 1
            self._stand()


def _stamps(effects: Sequence[Effect], came: list[Visit]) -> Iterator[Send]:
    """For each: what the barrier and every access that is waited for hold back, and what nothing
    does.
    """
    tokens = [effect.token for effect in effects if type(effect) is Access and effect.token]
    for visit in came:
        for token in tokens or (0,):
            yield Send(_STORED, visit, after=token)
        yield Send(_CARRIED_OUT, visit, overlap=True)


class _Stamping:
    """The outlet of a shell that holds stamps back."""

    def __init__(self, tracer: Tracer, outlet: Outlet) -> None:
        self._tracer = tracer
        self._send = outlet.send
        self.reply = outlet.reply
        self.redirect = outlet.redirect
        self.refuse = outlet.refuse
        self.append = outlet.append
        self.sync = outlet.sync
        self.note = outlet.note
        # Of nodes with copies that wait at another one.
        self.cancel: Any = getattr(outlet, "cancel", None)
        self.dropped: Any = getattr(outlet, "dropped", None)

    def send(self, target: int, message: Any) -> None:
        if type(message) is Visit:
            self._tracer.stamped(message, target)
        else:
            self._send(target, message)
