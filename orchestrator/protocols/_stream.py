"""Writes on their way from node to node, each in its place in the common order.

In a view a node takes writes from one other node (*upstream*) and passes them on to others
(*downstream*). What was lost on the way is sent again; a node that lacks more than is kept in
memory is sent the state instead.
"""

from __future__ import annotations

import heapq
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from orchestrator.core.machine import Effect, Machine, MachineContext, Op, Send, SetTimer
from orchestrator.core.portions import op_spans
from orchestrator.protocols._order import UNKNOWN_POSITION, Acknowledge, Order, Replicate
from orchestrator.protocols._views import NOBODY, Membership, ViewParams

RESEND: Final = "resend"
SEND_MAX: Final = 8192
"""Writes in one message to a node that fell behind."""


class Stream(Machine):
    """A node between its upstream and its downstream; who these are is up to the protocol."""

    ordered: ClassVar[bool] = True
    counts_pending: ClassVar[bool] = False
    """Whether it has to know which keys have writes that are not known to be committed."""

    def __init__(
        self,
        context: MachineContext,
        params: ViewParams,
        resend_ns: int,
        keep: int,
        *,
        static: bool,
    ) -> None:
        self._node = context.node
        self._resend_ns = resend_ns
        self._membership = Membership(context, params, static=static)
        self._order = Order(context, keep, counts_pending=self.counts_pending)
        self._state = self._order.state
        # Handles of the writes behind the committed ones, at the first member alone.
        self._handles: list[Any] = []
        # Reads that wait until a version is committed: (version, their order, handle, op).
        self._waiting: list[tuple[int, int, Any, Op]] = []
        self._upstream = NOBODY
        self._downstream: tuple[int, ...] = ()
        # By node downstream: what it has said to hold in this view, what was sent to it, what
        # it held when the resend timer was set, and how often that has rung without an answer.
        self._have: dict[int, int] = {}
        self._through: dict[int, int] = {}
        self._at_last_resend: dict[int, int] = {}
        self._silent: dict[int, int] = {}
        self._resend_armed = False
        # Whether upstream has answered in this view.
        self._linked = False
        # So much is committed in this view, as far as this node has heard.
        self._known = 0
        self._place()

    # --- what protocols decide ------------------------------------------------------------

    @abstractmethod
    def _neighbours(self, members: list[int], at: int) -> tuple[int, tuple[int, ...]]:
        """Upstream and downstream of the member at this place in the view."""

    @abstractmethod
    def _commit(self, effects: list[Effect]) -> None:
        """Commit what may be, as far as this member decides that."""

    @abstractmethod
    def _received_writes(self, source: int, new: bool, effects: list[Effect]) -> None:
        """Writes came from upstream, ``new`` ones or repeats: say so where that is due."""

    @abstractmethod
    def _committed_more(self, effects: list[Effect]) -> None:
        """More is committed: tell who has to know."""

    def _news(self) -> int:
        """How much the nodes downstream may show of what they hold."""
        return self._order.committed

    def _place(self) -> None:
        """Take one's place in the view, of whose other members nothing is known yet."""
        members = self._membership.view.members
        self._upstream, self._downstream = NOBODY, ()
        if self._node in members:
            at = members.index(self._node)
            self._upstream, self._downstream = self._neighbours(members, at)
        self._have = dict.fromkeys(self._downstream, 0)
        self._through = dict.fromkeys(self._downstream, UNKNOWN_POSITION)
        self._silent = dict.fromkeys(self._downstream, 0)
        self._linked = self._upstream == NOBODY

    # --- writes on their way --------------------------------------------------------------

    def _pass_on(self, before: int, ops: list[Op], effects: list[Effect]) -> None:
        """Send new writes to those downstream that were sent all before."""
        messages: list[Replicate] = []
        last, through = self._order.last, self._through
        for target in self._downstream:
            # It may be ahead: who joins may have been here longer than its predecessor.
            if before <= through[target] < last:
                messages = messages or self._messages(before + 1, ops)
                effects.extend([Send(target, message) for message in messages])
                through[target] = last
        if self._downstream and not self._resend_armed:
            self._arm_resend(effects)

    def _messages(self, first: int, ops: list[Op]) -> list[Replicate]:
        """New writes in portions: much may have waited for those before it."""
        epoch, news = self._membership.view.epoch, self._news()
        return [
            Replicate(epoch, first + start, news, ops[start:stop]) for start, stop in op_spans(ops)
        ]

    def _replicate(self, source: int, message: Replicate, effects: list[Effect]) -> None:
        if source != self._upstream or self._membership.sealed:
            return
        self._linked = True
        before = self._order.last
        written = self._order.take(message, effects)
        if written:
            self._pass_on(before, written, effects)
        self._learn(message.committed, effects)
        self._received_writes(source, bool(written), effects)

    def _acknowledge(self, source: int, message: Acknowledge, effects: list[Effect]) -> None:
        if source in self._have:
            position = message.position
            self._silent[source] = 0
            if position > self._have[source]:
                self._have[source] = position
            if position > self._through[source]:
                self._through[source] = position
            if position >= self._through[source] < self._order.last:
                self._send_missing(source, effects)
        self._learn(message.committed, effects)
        self._commit(effects)

    def _send_missing(self, target: int, effects: list[Effect]) -> None:
        """What comes after ``through`` in one message; more follows when it is acknowledged."""
        order, epoch = self._order, self._membership.view.epoch
        through = self._through[target]
        if through == UNKNOWN_POSITION:
            message = Replicate(epoch, order.last + 1, self._news(), [])
        elif through < order.base:
            self._through[target] = self._send_state(target, effects)
            return
        else:
            ops = order.from_position(through, min(order.last, through + SEND_MAX))
            message = Replicate(epoch, through + 1, self._news(), ops)
            self._through[target] = through + len(ops)
        effects.append(Send(target, message))

    @abstractmethod
    def _send_state(self, target: int, effects: list[Effect]) -> int:
        """The state to a node that lacks more than is kept; returns its position."""

    def _arm_resend(self, effects: list[Effect]) -> None:
        self._resend_armed = True
        self._at_last_resend = dict(self._have)
        effects.append(SetTimer(RESEND, self._resend_ns))

    def _resend(self, effects: list[Effect]) -> None:
        """Send again to those that have not moved since the timer was set."""
        self._resend_armed = False
        if not self._unsettled():
            return
        for target in self._downstream:
            have = self._have[target]
            # Who has everything need not be given time for it: only news is missing there.
            if have in (self._at_last_resend.get(target), self._order.last):
                if self._through[target] != UNKNOWN_POSITION:
                    self._through[target] = have
                self._silent[target] += 1
                self._send_missing(target, effects)
        self._arm_resend(effects)

    def _unsettled(self) -> bool:
        """Whether somebody downstream may lack something, or has not told what it holds."""
        last = self._order.last
        return bool(self._downstream) and (
            self._order.committed < last
            or any(have < last for have in self._have.values())
            or UNKNOWN_POSITION in self._through.values()
        )

    def _learn(self, committed: int, effects: list[Effect]) -> None:
        """So much is committed, says somebody; what is not here yet has to wait."""
        if committed > self._known:
            self._known = committed
        self._commit_through(min(self._known, self._order.last), effects)

    def _commit_through(self, position: int, effects: list[Effect]) -> None:
        order = self._order
        count = position - order.committed
        if count <= 0:
            return
        handles = self._handles[:count]
        if handles:
            del self._handles[:count]
        order.commit(position, handles, effects)
        if self._waiting:
            self._serve_waiting(effects)
        self._committed_more(effects)

    def _serve_waiting(self, effects: list[Effect]) -> None:
        waiting, committed = self._waiting, self._order.committed
        while waiting and waiting[0][0] <= committed:
            _, _, handle, op = heapq.heappop(waiting)
            self._state.serve(handle, op, committed, effects)

    def _say_position(self, effects: list[Effect]) -> None:
        """Tell upstream how much is here."""
        if self._upstream != NOBODY:
            order = self._order
            message = Acknowledge(self._membership.view.epoch, order.last, order.committed)
            effects.append(Send(self._upstream, message))

    # --- about it -------------------------------------------------------------------------

    @property
    def reign(self) -> int | None:
        view = self._membership.view
        return view.epoch if view.members[0] == self._node else None

    @property
    def decided(self) -> int:
        return self._order.committed

    def held_after(self, position: int) -> tuple[int, Sequence[Op]]:
        return self._order.held_after(position)
