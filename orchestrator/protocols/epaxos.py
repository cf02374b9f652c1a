"""Egalitarian Paxos: every node commits what it is asked for itself, and all agree on what
depends on what.

Moraru, Andersen and Kaminsky, "There Is More Consensus in Egalitarian Parliaments" (SOSP 2013),
with the fast quorums of its optimised form (section 4.4: F + floor((F + 1) / 2) of 2F + 1 nodes).
Recovery follows Sutra's correction and Ryabinin, Gotsman and Sutra's proven version of it; see
:mod:`orchestrator.protocols._epaxos_recovery`. As there, nobody needs sequence numbers, because
a client is answered only after execution.

A node puts the operations of one tick into an instance of its own row, after all instances that
it knows to interfere (same key and one writes; a scan interferes with every write). The others
pre-accept it after whatever they know besides. If a fast quorum adds nothing, it is committed;
else the union of what they said is accepted by a majority first. A committed instance is
executed once its dependencies are, in the order of strongly connected components, reads
included; inside a component by number and row. Its operations also follow the instances that
answered their sessions before, which a session names in its context: so every node executes a
session in its order, and its last sequence number tells what is a repetition.

Why it is linearizable: all nodes agree on an instance's operations and dependencies; of two
committed instances that interfere one depends on the other; so all nodes execute them in one
order. An operation is answered when everything that its instance depends on is executed, which
cannot include an instance proposed later; that one, if it interferes, depends on it. Versions
count the writes of a key.

Cost per operation with n nodes, unbatched: 3(n-1) messages and one round trip to the fast quorum
while nothing interferes, else 5(n-1) and two round trips; reads cost the same. Eventual reads
are local.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from orchestrator.core.demand import Demand, Demands, Log, Round, Tell, everyone
from orchestrator.core.levels import CODES, EVENTUAL, LINEARIZABLE
from orchestrator.core.machine import (
    READING,
    ClaimContext,
    ClusterView,
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
    Requested,
    Send,
    SetTimer,
    Started,
    TimerFired,
)
from orchestrator.core.parameters import ParameterError, duration
from orchestrator.core.portions import portions
from orchestrator.core.registry import Family, register
from orchestrator.core.units import NS_PER_S
from orchestrator.protocols._epaxos_execution import Execution
from orchestrator.protocols._epaxos_instances import Instance, Lead
from orchestrator.protocols._epaxos_messages import (
    ACCEPTED,
    COMMITTED,
    PRE_ACCEPTED,
    UNKNOWN_YET,
    Accept,
    Accepted,
    Choice,
    Commit,
    Executed,
    PreAccept,
    PreAccepted,
    Recover,
    Recovered,
    Saved,
    Validate,
    Validated,
    item_bytes,
)

_TICK: Final = "tick"
_EVENTUAL: Final = CODES[EVENTUAL]


@dataclass(frozen=True)
class Params:
    recovery: int = duration("500ms", help="others take over after this to its double")
    resend: int = duration("100ms", help="what is unanswered for this long is sent again")

    def __post_init__(self) -> None:
        if self.resend <= 0 or self.resend * 2 > self.recovery:
            raise ParameterError("resend must be above 0 and at most half of recovery")


@register(
    Family.PROTOCOL,
    "epaxos",
    params=Params,
    claims={LINEARIZABLE: "what is accepted survives restarts (durability: fsync)"},
)
class EPaxos(Execution, Machine):
    """Leaderless: any node commits, interfering operations are ordered by dependencies."""

    Message: ClassVar[Any] = (
        PreAccept
        | PreAccepted
        | Accept
        | Accepted
        | Commit
        | Recover
        | Recovered
        | Validate
        | Validated
        | Executed
    )
    Record: ClassVar[Any] = list[Saved]
    led = False

    def __init__(self, context: MachineContext, params: Params) -> None:
        super().__init__(context, params.recovery, params.resend)
        self.role = "replica"
        self._own = self._rows[context.node]
        self._outbox: dict[tuple[int, Any], list[Any]] = {}
        self._to_all: dict[Any, list[Any]] = {}
        self._token = 0
        # (token, up to where each row was executed) of persists under way.
        self._persisting: deque[tuple[int, list[int]]] = deque()
        self._announced: list[int] = []

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        self._now_ns = now_ns
        match event:
            case Received():
                self._received(event.source, event.message, effects)
            case Requested():
                self._requested(event.handles, event.ops, effects)
            case Persisted():
                while self._persisting and self._persisting[0][0] <= event.token:
                    self._durable = self._persisting.popleft()[1]
            case TimerFired():
                self._tick(effects)
            case Started():
                self._started(event.records, effects)
        self._flush(effects)
        return effects

    def _received(self, source: int, message: Any, effects: list[Effect]) -> None:
        match message:
            case PreAccept():
                self._pre_accept(source, message, effects)
            case PreAccepted():
                self._pre_accepted(source, message, effects)
            case Commit():
                for choice in message.choices:
                    self._learn(choice, effects)
            case Accept():
                self._accept(source, message.choices)
            case Accepted():
                self._accepted(source, message.instances, effects)
            case Recover():
                self._recover_asked(source, message.instances)
            case Recovered():
                self._recovered(source, message.states, effects)
            case Validate():
                self._validate(source, message.candidates)
            case Validated():
                self._validated(source, message.judgements, effects)
            case Executed():
                self._executed(source, message)

    # --- what leaves ----------------------------------------------------------------------

    def _post(self, target: int, message: Any, item: Any) -> None:
        self._outbox.setdefault((target, message), []).append(item)

    def _post_all(self, message: Any, item: Any) -> None:
        self._to_all.setdefault(message, []).append(item)

    def _flush(self, effects: list[Effect]) -> None:
        """One message a kind and target, or a portion of one, and one record, for all that an
        event caused.
        """
        if self._to_all:
            for kind, items in self._to_all.items():
                for portion in portions(items, item_bytes):
                    message = kind(portion)
                    effects.extend([Send(peer, message) for peer in self._peers])
            self._to_all = {}
        if self._outbox:
            for (target, kind), items in self._outbox.items():
                if kind is None:
                    effects.extend([Send(target, message) for message in items])
                else:
                    each = portions(items, item_bytes)
                    effects.extend([Send(target, kind(portion)) for portion in each])
            self._outbox = {}
        if self._dirty:
            self._persist(effects)

    def _persist(self, effects: list[Effect]) -> None:
        self._unsaved.update(self._dirty)
        record = [instance.saved() for instance in self._unsaved]
        self._dirty, self._unsaved = {}, {}
        self._token += 1
        self._persisting.append((self._token, [row.executed for row in self._rows]))
        effects.append(Persist(record, self._token))

    # --- phase 1: the proposer and the others ---------------------------------------------

    def _requested(self, handles: list[Any], ops: list[Op], effects: list[Effect]) -> None:
        if any(op.level == _EVENTUAL for op in ops):
            rest = []
            for handle, op in zip(handles, ops, strict=True):
                if op.level == _EVENTUAL and op.kind in READING:
                    self._state.serve(handle, op, self._version(op), effects)
                else:
                    rest.append((handle, op))
            handles, ops = [each[0] for each in rest], [each[1] for each in rest]
        if ops:
            self._propose(handles, ops, effects)

    def _propose(self, handles: list[Any], ops: list[Op], effects: list[Effect]) -> None:
        number = self._own.top + 1
        instance = self._find(self._node, number)
        assert instance is not None
        deps = [0] * self._count
        self._known.widen(deps, ops, -1)
        self._keep_ops(instance, ops)
        instance.initial_deps = instance.deps = deps
        instance.phase = PRE_ACCEPTED
        instance.handles = handles
        instance.proposer = True
        instance.lead = Lead(self._node, deps)
        self._dirty[instance] = True
        message = PreAccept(number, ops, deps)
        # Not before it is durable: its number must not be used again after a crash, and others
        # reckon with what it depended on.
        effects.extend([Send(peer, message) for peer in self._peers])
        self._count_votes(instance, instance.lead, effects)

    def _pre_accept(self, source: int, message: PreAccept, effects: list[Effect]) -> None:
        instance = self._find(source, message.number)
        if instance is None:
            return
        if instance.early is not None and not instance.ops:
            deps, instance.early = instance.early, None
            choice = Choice(source, message.number, instance.ballot, False, message.ops, deps)
            self._learn(choice, effects)
        elif instance.phase >= COMMITTED:
            self._post(source, Commit, instance.choice(whole=True))
        elif instance.ballot == 0:
            if instance.phase == UNKNOWN_YET:
                instance.initial_deps = message.deps
                deps = list(message.deps)
                self._known.widen(deps, message.ops, source)
                instance.deps = deps if deps != message.deps else message.deps
                self._keep_ops(instance, message.ops)
                instance.phase = PRE_ACCEPTED
                self._dirty[instance] = True
            if instance.phase == PRE_ACCEPTED:
                deps = [] if instance.deps == instance.initial_deps else instance.deps
                effects.append(Send(source, PreAccepted(message.number, deps)))

    def _pre_accepted(self, source: int, message: PreAccepted, effects: list[Effect]) -> None:
        instance = self._own.instances.get(message.number)
        if instance is None or instance.lead is None or instance.phase != PRE_ACCEPTED:
            return
        lead = instance.lead
        lead.voters[source] = True
        if message.deps:
            lead.unchanged = False
            lead.deps = [max(pair) for pair in zip(lead.deps, message.deps, strict=True)]
        self._count_votes(instance, lead, effects)

    def _count_votes(self, instance: Instance, lead: Lead, effects: list[Effect]) -> None:
        if not lead.unchanged:
            if len(lead.voters) >= self._quorum:
                self._take_slow_path(instance, lead, effects)
        elif len(lead.voters) >= self._fast_quorum:
            self._post_all(Commit, instance.choice(whole=False))
            self._learn(instance.choice(whole=True), effects)

    def _take_slow_path(self, instance: Instance, lead: Lead, effects: list[Effect]) -> None:
        effects.append(Mark("slow_path"))
        choice = Choice(instance.row, instance.number, 0, False, [], lead.deps)
        instance.accepts = {}
        self._post_all(Accept, choice)
        self._accept_here(instance, choice)
        self._count_accept(instance, self._node, effects)

    # --- time, and what is over -----------------------------------------------------------

    def _tick(self, effects: list[Effect]) -> None:
        effects.append(SetTimer(_TICK, self._resend_ns))
        self._look_after(effects)
        if self._unsaved:
            self._persist(effects)
        if any(row.executed > row.gone for row in self._rows):
            # Silence although something is left to forget: the others are asked.
            ask = self._durable == self._announced
            self._announced = self._durable
            message = Executed(self._durable, ask)
            effects.extend([Send(peer, message) for peer in self._peers])
            self._forget()

    def _started(self, records: list[list[Saved]], effects: list[Effect]) -> None:
        for record in records:
            for saved in record:
                instance = self._find(saved.row, saved.number)
                assert instance is not None
                if instance.phase < COMMITTED:
                    instance.restore(saved)
                    self._known.add(instance.ops, saved.row, saved.number)
            # At once, so that it happens in the order of before the crash: what is forgotten
            # everywhere comes before what was proposed later, dependency or not.
            for saved in record:
                instance = self._find(saved.row, saved.number)
                if instance is not None and saved.phase == COMMITTED:
                    self._execute(instance, [])
        self._durable = [row.executed for row in self._rows]
        effects.append(SetTimer(_TICK, self._resend_ns))

    def check(self) -> None:
        self._graph.check()
        for index, row in enumerate(self._rows):
            assert row.gone <= row.executed <= row.top
            assert self._durable[index] <= row.executed
            assert len(row.instances) <= row.top - row.gone
        # Looking at all instances costs more than the protocol does: each time at another row's.
        self._looked_at = (self._looked_at + 1) % self._count
        row = self._rows[self._looked_at]
        for number in range(row.executed + 1, row.top + 1):
            if (instance := row.instances.get(number)) is None:
                continue
            phase, deps = instance.phase, instance.deps
            assert instance.accepted <= instance.ballot or phase >= COMMITTED
            assert phase < PRE_ACCEPTED or instance.ops or instance.void
            assert not deps or len(deps) == self._count
            assert instance.void or not deps or deps[instance.row] < number
            if instance.lead is not None:
                assert (instance.row, instance.ballot) == (self._node, 0)
                assert phase in (PRE_ACCEPTED, ACCEPTED)

    def contents(self) -> Mapping[bytes, Entry]:
        return self._state.contents()

    @staticmethod
    def candidates(params: Params, op: Op, view: ClusterView) -> Sequence[int]:
        return view.nodes

    @staticmethod
    def demands(params: Params, replicas: int, level: str) -> Demands:
        # While nothing interferes: how much does depends on the load.
        crashes = (replicas - 1) // 2
        fast_quorum = replicas - min(crashes, (replicas - crashes + 1) // 2)
        agree = (Log(), Round(fast_quorum - 1, logs=True), Tell())
        write = Demand(everyone(replicas), agree if replicas > 1 else (Log(),))
        read = Demand(everyone(replicas)) if level == EVENTUAL else write
        told = (replicas - 1) * NS_PER_S / params.resend
        return Demands(read, write, (told,) * replicas)

    @staticmethod
    def claims(params: Params, context: ClaimContext) -> frozenset[str]:
        forgets = context.restarts and context.durability != "fsync"
        return frozenset() if forgets else frozenset({LINEARIZABLE})

    @staticmethod
    def read_levels(params: Params, context: ClaimContext) -> frozenset[str]:
        held = EPaxos.claims(params, context)
        return held | {EVENTUAL} if held else held

    @staticmethod
    def why_not(params: Params, context: ClaimContext, level: str) -> str:
        if EPaxos.claims(params, context):
            return ""
        quorum = context.replicas // 2 + 1
        return (
            f"under durability {context.durability!r} a node that restarts has forgotten what it"
            f" pre-accepted and accepted: {quorum} of {context.replicas} no longer always meet in"
            " a node that remembers"
        )
