"""What every node of a leaderless register does: rounds that ask replicas, rounds that store on
them, and copies handed on until each replica has them. Protocols decide what follows on what.

A node that coordinates a write under ``handoff`` logs it before a copy leaves. Whatever of that
write is anywhere is then in its log too, and it sends the copy until every replica has it, after
a crash again. A replica acknowledges only what is durable: the persist barrier holds it back.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from orchestrator.core.machine import (
    FAIL,
    OK,
    READ,
    UNKNOWN,
    WRITE,
    Access,
    Effect,
    Entry,
    Event,
    Machine,
    MachineContext,
    Mark,
    Op,
    Persist,
    Persisted,
    Received,
    Reply,
    Requested,
    Send,
    SetTimer,
    Started,
    TimerFired,
)
from orchestrator.protocols._quorum_copies import (
    NEW,
    OVERTAKEN,
    Hints,
    identity_of,
    session_and_sequence,
)
from orchestrator.protocols._quorum_messages import (
    NO_ANSWER,
    Fetch,
    Fetched,
    Kept,
    Outbox,
    Pending,
    Result,
    Store,
    Stored,
    fetched,
)
from orchestrator.protocols._quorum_values import Rule, Table

_TICK: Final = "tick"
_HINTS_AT_ONCE: Final = 256


class QuorumNode(Machine):
    """Coordinator and replica in one."""

    Message: ClassVar[Any] = Store | Stored | Fetch | Fetched
    Record: ClassVar[Any] = Kept
    kinds: ClassVar[frozenset[int]] = frozenset({READ, WRITE})

    def __init__(
        self,
        context: MachineContext,
        rule: Rule,
        *,
        write_quorum: int,
        handoff: bool,
        overlap: bool,
        resend_ns: int,
        give_up_ns: int,
    ) -> None:
        """``overlap``: copies may leave before the coordinator's own is durable."""
        self.role = "replica"
        self._node = context.node
        self._nodes = context.nodes
        self._accesses = context.accesses
        self._rule = rule
        self._table: Table = rule.table
        self._write_quorum = write_quorum
        self._handoff = handoff
        self._overlap = overlap
        self._resend_ns = resend_ns
        self._give_up_ns = give_up_ns
        self._hints = Hints(rule.join)
        self._pending: dict[Any, Pending] = {}
        self._out = Outbox(context.batch_max)
        self._fresh = Kept([], [], [], [])
        # Own copies under way to the log: (token, operations that wait for them).
        self._logging: deque[tuple[int, list[Pending]]] = deque()
        self._to_log: list[Pending] = []
        self._token = self._access_token = 0
        self._armed = False
        self._without_own: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._now_ns = 0

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        self._now_ns = now_ns
        match event:
            case Received():
                self._received(event.source, event.message, effects)
            case Requested():
                self._requested(event.handles, event.ops, effects)
            case Persisted():
                self._logged(event.token, effects)
            case TimerFired():
                self._tick(effects)
            case Started():
                self._started(event.records)
        self._finish(effects)
        return effects

    def _received(self, source: int, message: Any, effects: list[Effect]) -> None:
        match message:
            case Store():
                self._keep(source, message, effects)
            case Stored():
                if message.boot == self._out.boot:
                    self._stored(source, message.ids, effects)
            case Fetch():
                self._answer(source, message, effects)
            case Fetched():
                if message.boot == self._out.boot:
                    self._fetched(source, message, effects)

    def _finish(self, effects: list[Effect]) -> None:
        """Log what is new, send what was put together, and wake up while anything is open."""
        fresh = self._fresh
        if fresh.coordinated or fresh.received or fresh.entrusted:
            self._token += 1
            effects.append(Persist(fresh, self._token))
            self._fresh = Kept([], [], [], [])
            if self._to_log:
                self._logging.append((self._token, self._to_log))
                self._to_log = []
        self._out.leave(effects, self._overlap)
        if not self._armed and (self._pending or self._hints.count):
            self._armed = True
            effects.append(SetTimer(_TICK, self._resend_ns))

    # --- what protocols decide ------------------------------------------------------------

    @abstractmethod
    def _begin(self, pending: Pending, effects: list[Effect]) -> None:
        """A new operation."""

    @abstractmethod
    def _heard(self, pending: Pending, node: int, copy: Any, effects: list[Effect]) -> None:
        """A node answered the round that asks; ``pending`` has counted and joined it."""

    def _holders(self, key: bytes) -> tuple[int, ...]:
        """The replicas of a key."""
        return self._nodes

    def _stand_ins(self, key: bytes, count: int) -> tuple[int, ...]:
        """Nodes that may take the place of so many silent replicas."""
        return ()

    def _end(self, pending: Pending, effects: list[Effect]) -> None:
        """An operation is answered and nothing more is waited for: hand on what is missing."""
        self._pending.pop(pending.identity, None)
        if pending.copy is not None and self._handoff and pending.op.kind == WRITE:
            for node in self._others(pending.silent()):
                self._hints.add(node, pending.copy)

    # --- the coordinator ------------------------------------------------------------------

    def _requested(self, handles: list[Any], ops: list[Op], effects: list[Effect]) -> None:
        for handle, op in zip(handles, ops, strict=True):
            identity = identity_of(op)
            pending = self._pending.get(identity)
            if pending is None:
                holders = self._holders(op.key)
                self._begin(Pending(identity, handle, op, holders, self._now_ns), effects)
            elif pending.result is None:
                pending.handles.append(handle)
            else:
                effects.append(Reply(handle, *pending.result[:3], context=pending.result[3]))

    def _others(self, nodes: tuple[int, ...]) -> tuple[int, ...]:
        """All of them but this node, in one order, so that they can share a message."""
        if nodes not in self._without_own:
            others = sorted([node for node in nodes if node != self._node])
            self._without_own[nodes] = tuple(others)
        return self._without_own[nodes]

    def _ask(self, pending: Pending, needed: int, effects: list[Effect]) -> None:
        """The round that asks the replicas for their copies."""
        self._pending[pending.identity] = pending
        pending.begin_round(None, needed, self._now_ns)
        op = pending.op
        if self._node in pending.replicas:
            self._found(pending, self._node, self._table.held.get(op.key), effects)
        if pending.copy is None and pending.identity in self._pending:
            self._out.fetch(self._others(pending.replicas), pending.identity, op)

    def _fetched(self, source: int, message: Fetched, effects: list[Effect]) -> None:
        for identity, copy, known in zip(message.ids, message.copies, message.known, strict=True):
            pending = self._pending.get(identity)
            if pending is None or pending.copy is not None:
                continue
            if known == NEW:
                self._found(pending, source, copy, effects)
            else:
                self._repeat(pending, known, copy, effects)

    def _found(self, pending: Pending, node: int, copy: Any, effects: list[Effect]) -> None:
        if pending.counts(node):
            pending.found = self._rule.join(pending.found, copy)
            self._heard(pending, node, copy, effects)

    def _repeat(self, pending: Pending, known: int, copy: Any, effects: list[Effect]) -> None:
        """A write that somebody knows: it keeps the version that it has."""
        if known == OVERTAKEN:
            self._reply(pending, (UNKNOWN, None, 0, b""), effects)
            self._pending.pop(pending.identity, None)
        else:
            self._spread(pending, self._rule.repeat(pending.op, known, copy), effects)

    def _write(self, pending: Pending, effects: list[Effect]) -> None:
        copy, pending.context = self._rule.make(pending.op, pending.found, self._now_ns)
        self._spread(pending, copy, effects)

    def _spread(
        self, pending: Pending, copy: Any, effects: list[Effect], held_by: tuple[int, ...] = ()
    ) -> None:
        """The round that stores a copy on the replicas, but for those that have it."""
        self._pending[pending.identity] = pending
        pending.begin_round(copy, self._write_quorum, self._now_ns)
        for node in held_by:
            pending.counts(node)
        own = self._fresh.coordinated if pending.op.kind == WRITE else self._fresh.received
        if self._node not in pending.replicas:
            if self._handoff:
                own.append(copy)
        elif self._node not in held_by:
            self._table.merge(copy)
            own.append(copy)
            self._to_log.append(pending)
            if self._accesses:
                effects.append(Access(0, copy.key, copy.size, WRITE))
        targets = self._others(pending.silent() if held_by else pending.replicas)
        self._out.store(targets, pending.identity, copy)

    def _logged(self, token: int, effects: list[Effect]) -> None:
        while self._logging and self._logging[0][0] <= token:
            for pending in self._logging.popleft()[1]:
                self._acknowledged(pending, self._node, effects)

    def _stored(self, source: int, ids: list[Any], effects: list[Effect]) -> None:
        for identity in ids:
            if isinstance(identity, int) and identity < 0:
                if self._hints.acknowledged(source, identity):
                    effects.append(Mark("hint_delivered"))
                continue
            pending = self._pending.get(identity)
            if pending is not None and pending.copy is not None:
                self._acknowledged(pending, source, effects)

    def _acknowledged(self, pending: Pending, node: int, effects: list[Effect]) -> None:
        """A node holds the copy of this round durably."""
        if not pending.counts(node):
            return
        reading = pending.op.kind == READ
        if pending.count == pending.needed and pending.result is None:
            if reading:
                self._reply_read(pending, effects)
            else:
                version = self._rule.version(pending.copy)
                self._reply(pending, (OK, None, version, pending.context), effects)
        if pending.result is not None and (reading or not self._handoff or pending.complete):
            self._pending.pop(pending.identity, None)

    def _reply_read(self, pending: Pending, effects: list[Effect]) -> None:
        op, found = pending.op, pending.found
        version, context, values = self._rule.read(op, found)
        if values > 1:
            effects.append(Mark("siblings"))
        after = 0
        if self._accesses and self._node in pending.replicas:
            after = self._access_token = self._access_token + 1
            effects.append(Access(after, op.key, op.size, READ))
        result = (OK, self._table.value(op.key, found), version, context)
        self._reply(pending, result, effects, after)

    def _reply(
        self, pending: Pending, result: Result, effects: list[Effect], after: int = 0
    ) -> None:
        pending.result = result
        outcome, value, version, context = result
        for handle in pending.handles:
            effects.append(Reply(handle, outcome, value, version, after, context))
        pending.handles.clear()

    # --- silent nodes ---------------------------------------------------------------------
    def _tick(self, effects: list[Effect]) -> None:
        self._armed = False
        now_ns, due_ns = self._now_ns, self._now_ns - self._resend_ns
        for pending in [each for each in self._pending.values() if each.asked_ns <= due_ns]:
            if pending.result is not None:
                self._end(pending, effects)
            elif now_ns - pending.started_ns >= self._give_up_ns:
                outcome = FAIL if pending.op.kind == READ else UNKNOWN
                self._reply(pending, (outcome, None, 0, b""), effects)
                self._end(pending, effects)
            else:
                pending.asked_ns = now_ns
                self._ask_again(pending)
        for target, hint, copy in self._hints.oldest(_HINTS_AT_ONCE):
            self._out.store((target,), hint, copy)

    def _ask_again(self, pending: Pending) -> None:
        """Silent replicas hear once more, and so do those that stand in for them."""
        silent = self._others(pending.silent())
        stand_ins = self._stand_ins(pending.op.key, len(silent))
        if pending.copy is None:
            asked = tuple(sorted(silent + self._others(stand_ins)))
            self._out.fetch(asked, pending.identity, pending.op)
            return
        self._out.store(silent, pending.identity, pending.copy)
        for owner, stand_in in zip(silent, stand_ins, strict=False):
            if stand_in != self._node:
                self._out.entrust(stand_in, owner, pending.identity, pending.copy)

    # --- replicas -------------------------------------------------------------------------

    def _keep(self, source: int, message: Store, effects: list[Effect]) -> None:
        table, fresh = self._table, self._fresh
        if message.owners:
            for owner, entrusted in zip(message.owners, message.copies, strict=True):
                self._hints.add(owner, entrusted)
                fresh.owners.append(owner)
                fresh.entrusted.append(entrusted)
            effects.append(Mark("stand_in"))
        else:
            for copy in message.copies:
                if table.merge(copy):
                    fresh.received.append(copy)
                    if self._accesses:
                        effects.append(Access(0, copy.key, copy.size, WRITE))
        ids = [number for number in message.ids if number != NO_ANSWER]
        if ids:
            effects.append(Send(source, Stored(message.boot, ids)))

    def _answer(self, source: int, message: Fetch, effects: list[Effect]) -> None:
        copies = [self._table.held.get(key) for key in message.keys]
        if self._hints.count:
            for index, key in enumerate(message.keys):
                if self._node not in self._holders(key):
                    copies[index] = self._hints.of_key(key)
        known = [NEW] * len(copies)
        if message.writing:
            copies = [self._rule.bare(copy) for copy in copies]
            of_write = self._table.known
            known = [of_write(*session_and_sequence(number)) for number in message.ids]
        elif self._accesses:
            for key, size in zip(message.keys, message.sizes, strict=True):
                effects.append(Access(0, key, size, READ))
        effects += [Send(source, each) for each in fetched(message, copies, known)]

    def _started(self, records: list[Kept]) -> None:
        # A node's clock has moved on between two starts.
        self._out.boot = self._now_ns
        join = self._rule.join
        coordinated: dict[bytes, Any] = {}
        for record in records:
            for copy in record.coordinated:
                coordinated[copy.key] = join(coordinated.get(copy.key), copy)
            for copy in record.coordinated + record.received:
                if self._node in self._holders(copy.key):
                    self._table.merge(copy)
            for owner, copy in zip(record.owners, record.entrusted, strict=True):
                self._hints.add(owner, copy)
        if self._handoff:
            # Nobody else may know of them: the node may have crashed before they left.
            for key, copy in coordinated.items():
                for node in self._others(self._holders(key)):
                    self._hints.add(node, copy)

    def check(self) -> None:
        for pending in self._pending.values():
            assert pending.count == pending.answered.bit_count()
            assert pending.result is not None or pending.count < pending.needed
            assert bool(pending.handles) == (pending.result is None)
        assert all(self._node in self._holders(key) for key in self._table.held)
        self._table.check()

    def contents(self) -> Mapping[bytes, Entry]:
        return self._table.contents()
