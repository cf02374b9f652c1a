"""Copies of one order of writes, kept by the members of a view: what primary-backup, chain and
CRAQ share. They differ in who sends to whom, and in what makes a write committed.

The first member of a view gives each write its place in the order. Every node holds a beginning
of that order, durable before anybody hears of it, and its state shows the committed part alone:
what a later view may lack is never seen. In a view a node takes writes from one other node
(*upstream*) and passes them on to others (*downstream*).

Why nothing committed is lost, and no node has to take back what it showed: all members of a view
hold beginnings of the order of its first member, which is the most advanced of those that sealed
the view before (:mod:`orchestrator.protocols._views`). Writes that somebody holds beyond what is
committed stay where all copies agree; a node that was put out forgets its own beyond that, since
the others may have gone on without them, catches up on committed writes, and joins at the end.

Strong reads are for a node whose view nobody can have left (its lease holds, and it has not
sealed), once all that it held when the view began is committed; others are served where they
arrive. Operations that have to wait for this are held back until the next heartbeat at most.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from orchestrator.core.machine import (
    CAS,
    READING,
    UNKNOWN,
    Became,
    Effect,
    Entry,
    Event,
    Machine,
    MachineContext,
    Mark,
    Op,
    Persisted,
    Received,
    Redirect,
    Reply,
    Requested,
    SetTimer,
    Started,
    TimerFired,
)
from orchestrator.protocols._catching_up import CatchingUp
from orchestrator.protocols._order import (
    Acknowledge,
    Base,
    Continue,
    Entries,
    Fetch,
    Replicate,
    Transfer,
    Vow,
)
from orchestrator.protocols._read_needs import ORDERED, STRONG, need_of
from orchestrator.protocols._views import NOBODY, Beat, Grant, ViewParams

HEARTBEAT: Final = "heartbeat"
JOINING: Final = "joining"


class Copy(CatchingUp):
    """A node that holds a copy of the order, in or outside the view."""

    Message: ClassVar[Any] = Replicate | Acknowledge | Fetch | Transfer | Continue | Beat | Grant
    Record: ClassVar[Any] = Entries | Vow | Base
    kinds = Machine.kinds | {CAS}
    roles: ClassVar[tuple[str, str, str]]
    """Of the first, the last and the other members of a view."""

    def __init__(
        self,
        context: MachineContext,
        params: ViewParams,
        resend_ns: int,
        keep: int,
        *,
        static: bool,
    ) -> None:
        super().__init__(context, params, resend_ns, keep, static=static)
        self._heartbeat_ns = params.heartbeat
        self._patience = params.lease // max(1, resend_ns) + 2
        # Strong reads wait until this much is committed.
        self._floor = 0
        # Operations that wait for the lease, the seal or the floor.
        self._held: list[tuple[Any, Op]] = []
        self._waiting_order = 0
        # The newest epoch that it asked the authority for.
        self._asked_epoch = 0
        self.role = self._role()

    # --- what protocols decide ------------------------------------------------------------

    def _need(self, op: Op) -> str:
        """What a read needs."""
        return need_of(op, STRONG)

    def _forgets(self) -> bool:
        """Whether the next view may lack what this node has shown."""
        return False

    # --- events ---------------------------------------------------------------------------

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Requested():
                self._requested(event.handles, event.ops, now_ns, effects)
            case Received():
                self._received(event.source, event.message, now_ns, effects)
            case Persisted():
                self._order.persisted(event.token)
                self._commit(effects)
            case TimerFired():
                if event.timer == HEARTBEAT:
                    self._heartbeat(now_ns, effects)
                else:
                    self._resend(effects)
            case Started():
                self._started(event.records, now_ns, effects)
        if self._held and self._order.committed >= self._floor:
            self._release(now_ns, effects)
        return effects

    def _received(self, source: int, message: Any, now_ns: int, effects: list[Effect]) -> None:
        if type(message) is Grant:
            if self._membership.granted(message, now_ns):
                self._turn(message, now_ns, effects)
            return
        epoch = self._membership.view.epoch
        if message.epoch != epoch:
            if message.epoch > max(epoch, self._asked_epoch):
                # The authority's own message to this node may be lost.
                self._asked_epoch = message.epoch
                self._beat(now_ns, effects)
            return
        match message:
            case Replicate() if self._membership.member:
                self._replicate(source, message, effects)
            case Replicate():
                self._catch_up(source, message, now_ns, effects)
            case Acknowledge():
                self._acknowledge(source, message, effects)
            case Fetch():
                self._fetch(source, message, effects)
            case Transfer():
                self._transfer(source, message, now_ns, effects)
            case Continue():
                self._continue(source, message, effects)
            case _:
                self._other(source, message, now_ns, effects)

    def _other(self, source: int, message: Any, now_ns: int, effects: list[Effect]) -> None:
        """A message of this epoch that only some protocols have."""

    # --- operations -----------------------------------------------------------------------

    def _requested(
        self, handles: list[Any], ops: list[Op], now_ns: int, effects: list[Effect]
    ) -> None:
        first = self._membership.view.members[0]
        serving = self._membership.serving(now_ns)
        before = self._order.last
        held = len(self._held)
        written: list[Op] = []
        for handle, op in zip(handles, ops, strict=True):
            if op.kind in READING:
                self._read(handle, op, serving, effects)
            elif first != self._node:
                effects.append(Redirect(handle, op, first))
            elif serving:
                written.append(op)
                self._handles.append(handle)
            else:
                self._held.append((handle, op))
        if written:
            self._order.extend(written, effects)
            self._pass_on(before, written, effects)
        if not held and self._held and not serving:
            self._beat(now_ns, effects)

    def _read(self, handle: Any, op: Op, serving: bool, effects: list[Effect]) -> None:
        need = self._need(op)
        if need == STRONG:
            self._read_strongly(handle, op, serving, effects)
        elif not self._membership.member:
            effects.append(Redirect(handle, op, self._reader()))
        elif need == ORDERED and op.seen > self._order.committed:
            self._wait(handle, op)
        else:
            self._state.serve(handle, op, self._order.committed, effects)

    def _wait(self, handle: Any, op: Op) -> None:
        """Hold a read back until this node shows all that its session has seen."""
        self._waiting_order += 1
        heapq.heappush(self._waiting, (op.seen, self._waiting_order, handle, op))

    def _read_strongly(self, handle: Any, op: Op, serving: bool, effects: list[Effect]) -> None:
        reader = self._reader()
        if reader != self._node:
            effects.append(Redirect(handle, op, reader))
        elif serving and self._order.committed >= self._floor:
            self._state.serve(handle, op, self._order.committed, effects)
        else:
            self._held.append((handle, op))

    def _release(self, now_ns: int, effects: list[Effect]) -> None:
        """Look again at what was held back."""
        if self._membership.serving(now_ns) or not self._membership.member:
            held, self._held = self._held, []
            self._requested([each[0] for each in held], [each[1] for each in held], now_ns, effects)

    # --- views ----------------------------------------------------------------------------

    def _role(self) -> str:
        members = self._membership.view.members
        first, last, other = self.roles
        if self._node not in members:
            return JOINING
        at = members.index(self._node)
        return first if at == 0 else last if at == len(members) - 1 else other

    def _turn(self, grant: Grant, now_ns: int, effects: list[Effect]) -> None:
        """Seal the view, or go over to a new one."""
        membership = self._membership
        new = grant.view.epoch > membership.view.epoch
        membership.view = grant.view
        membership.sealed = grant.sealing and not new
        # Before whatever it leads to: what is cut off must not be missed in the old view.
        self._order.persist(Vow(membership.view, membership.sealed), effects)
        if new:
            self._adopt(effects)
        if membership.sealed or not membership.member:
            # It leaves once the vow is durable; so does the position of all that came before.
            self._beat(now_ns, effects)
        if new and not membership.member:
            self._ask_to_catch_up(effects)

    def _adopt(self, effects: list[Effect]) -> None:
        """Begin in a new view."""
        self._order.early.clear()
        self._forget_states()
        self._known = 0
        self._ready = False
        self._place()
        if self._membership.member:
            self._floor = max(self._membership.view.start, self._order.last)
            self._take_up(effects)
        else:
            self._leave(effects)
        role = self._role()
        if role != self.role:
            self.role = role
            effects.append(Became(role))

    def _take_up(self, effects: list[Effect]) -> None:
        """Say to both sides what is here, as a member whose place is new."""
        view, order = self._membership.view, self._order
        if view.members[0] == self._node:
            pending = order.last - order.committed
            self._handles += [None] * (pending - len(self._handles))
        for target in self._downstream:
            self._send_missing(target, effects)
        if self._downstream and not self._resend_armed:
            self._arm_resend(effects)
        self._say_position(effects)
        self._commit(effects)

    def _leave(self, effects: list[Effect]) -> None:
        """Put out of the view: the others may go on without what is not committed."""
        for handle in self._handles:
            if handle is not None:
                effects.append(Reply(handle, UNKNOWN))
        self._handles.clear()
        self._order.cut(effects)
        self._order.trusted = not self._forgets()
        for _, _, handle, op in self._waiting:
            effects.append(Redirect(handle, op, self._reader()))
        self._waiting.clear()

    def _heartbeat(self, now_ns: int, effects: list[Effect]) -> None:
        if not self._membership.serving(now_ns) or self._order.committed < self._floor:
            # Clients had better look for somebody else.
            effects.extend(Redirect(handle, op, NOBODY) for handle, op in self._held)
            self._held.clear()
        self._beat(now_ns, effects)
        self._age()
        if not self._membership.member:
            self._ask_to_catch_up(effects)
        elif not self._linked and not self._membership.sealed:
            self._say_position(effects)
        effects.append(SetTimer(HEARTBEAT, self._heartbeat_ns))

    def _beat(self, now_ns: int, effects: list[Effect]) -> None:
        suspects = [node for node, rung in self._silent.items() if rung > self._patience]
        self._membership.beat(
            self._order.last,
            now_ns,
            effects,
            ready=self._ready,
            suspect=suspects[0] if suspects else NOBODY,
        )

    # --- life -----------------------------------------------------------------------------

    def _started(self, records: list[Any], now_ns: int, effects: list[Effect]) -> None:
        membership, order = self._membership, self._order
        membership.started(now_ns)
        for record in records:
            vow = order.recover(record)
            if vow is not None:
                membership.view, membership.sealed = vow.view, vow.sealed
        self._place()
        self.role = self._role()
        if records:
            effects.append(Mark("recovery"))
            order.recovered(shows_all=membership.static and self._upstream == NOBODY)
            if membership.member:
                self._floor = max(membership.view.start, order.last)
                self._take_up(effects)
            else:
                self._leave(effects)
        else:
            # Nobody holds anything yet.
            self._through = dict.fromkeys(self._downstream, 0)
            self._linked = True
        if not membership.static:
            self._heartbeat(now_ns, effects)

    def check(self) -> None:
        order, members = self._order, self._membership.view.members
        order.check()
        first = members[0] == self._node
        assert len(self._handles) == (order.last - order.committed if first else 0)
        most = max(order.last, self._floor)
        assert max(self._have.values(), default=0) <= most
        assert max(self._through.values(), default=0) <= most
        assert not self._waiting or self._waiting[0][0] > order.committed
        assert self._membership.member or order.last == order.committed

    def contents(self) -> Mapping[bytes, Entry]:
        return self._state.contents()
