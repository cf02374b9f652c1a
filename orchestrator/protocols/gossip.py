"""Gossip: every node takes updates, and epidemics spread them.

Demers, Greene, Hauser, Irish, Larson, Shenker, Sturgis, Swinehart and Terry, "Epidemic
Algorithms for Replicated Database Maintenance" (PODC 1987). Every ``interval`` a node compares
its state with those of ``fanout`` others chosen at random (anti-entropy, push-pull), and with
``push`` whoever hears news passes them on to ``fanout`` others once (rumour mongering), which is
quick but reaches everybody only with some probability.
Differences are found by walking down Merkle trees (Merkle, "A Digital Signature Based on a
Conventional Encryption Function", CRYPTO 1987; as in DeCandia et al., "Dynamo", SOSP 2007,
section 4.7): pairs that agree exchange two roots and no more.

What is kept are convergent data types (see :mod:`orchestrator.protocols._gossip_data`): a
last-writer-wins ``register`` a key, a ``counter`` that operations of kind incr add their amount
to (a signed integer as text; 1 without), or a grow-only ``set`` of what operations of kind add
carry. A read of a counter answers decimal text, of a set its sorted elements in one
MessagePack array; counters start at zero and sets empty, whatever was preloaded.

Guarantee: joins are commutative, associative and idempotent, so nodes that have heard of the
same updates hold the same, and anti-entropy makes everybody hear of everything once the network
is whole: eventual consistency. An update is answered when it is durable at the node that took
it, and no node's state ever goes back; so a session that stays at its node reads its own writes
and reads monotonically. A crash makes sessions move, and then this holds no longer.

Cost per update with n nodes: no round trip; n x ``fanout`` messages in all with ``push``, none
without; every ``interval`` n x ``fanout`` roots, and where they differ up to seven messages for
each pair. A read costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from orchestrator.core.demand import Demand, Demands, Log, Tell, everyone
from orchestrator.core.levels import EVENTUAL, MONOTONIC_READS, READ_YOUR_WRITES
from orchestrator.core.machine import (
    FAIL,
    OK,
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
    Received,
    Reply,
    Requested,
    Send,
    SetTimer,
    Started,
    TimerFired,
)
from orchestrator.core.parameters import choice, duration, number
from orchestrator.core.registry import Family, register
from orchestrator.core.units import NS_PER_S
from orchestrator.protocols._gossip_data import COUNTER, DATA, REGISTER, SET, Data
from orchestrator.protocols._gossip_tree import DEPTH, Cells, Digests, Listing, parted

MEMORY = "memory"
_ROUND: Final = "round"
_CONTEXT_MAX: Final = 1 << 62


@dataclass(frozen=True)
class Params:
    data: str = choice(REGISTER, options=(REGISTER, COUNTER, SET))
    push: bool = True
    interval: int = duration("100ms", low="1us", help="between a node's comparisons")
    fanout: int = number(1, low=1, help="others that a node compares with, and passes news to")


@register(
    Family.PROTOCOL,
    "gossip",
    params=Params,
    claims={
        EVENTUAL: "always, unless nodes come back without durable storage",
        READ_YOUR_WRITES: "data: register with sticky clients and no crash",
        MONOTONIC_READS: "data: register with sticky clients and no crash",
    },
)
class Gossip(Machine):
    """Every node takes updates; anti-entropy and rumours spread them, joins settle conflicts."""

    Message: ClassVar[Any] = Digests | Listing | Cells
    Record: ClassVar[Any] = Cells
    led = False

    kinds = frozenset().union(*(data.kinds for data in DATA.values()))
    data_types: ClassVar[Mapping[str, type[Data]]] = DATA

    def __init__(self, context: MachineContext, params: Params) -> None:
        self.role = "replica"
        self._peers = context.peers
        self._chance = context.chance
        self._params = params
        data = self.data_types[params.data]
        self._data = data(context.node, context.preload, accesses=context.accesses)
        self._store = self._data.store
        self._token = 0
        self._checked = 0

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        data = self._data
        if now_ns > data.time:
            data.time = now_ns
        match event:
            case Requested():
                self._requested(event.handles, event.ops, effects)
            case Received():
                self._received(event.source, event.message, effects)
            case TimerFired():
                root = self._store.root()
                for peer in self._some(self._peers):
                    effects.append(Send(peer, root))
                effects.append(SetTimer(_ROUND, self._params.interval))
            case Started():
                self._start(event.records, effects)
        return effects

    def _some(self, peers: Sequence[int]) -> Sequence[int]:
        """``fanout`` of them, or all where there are no more."""
        return self._chance.sample(peers, min(self._params.fanout, len(peers)))

    def _requested(self, handles: list[Any], ops: list[Op], effects: list[Effect]) -> None:
        data = self._data
        for handle, op in zip(handles, ops, strict=True):
            if op.kind in READING:
                data.serve(handle, op, effects)
            elif int.from_bytes(op.context, "big") >= _CONTEXT_MAX:
                effects.append(Reply(handle, FAIL))
            else:
                version, context = data.update(op)
                data.view.touch(op, effects)
                effects.append(Reply(handle, OK, None, version, 0, context))
        self._keep(effects, news_for=self._peers)

    def _received(self, source: int, message: Any, effects: list[Effect]) -> None:
        store = self._store
        match message:
            case Digests():
                for digests in store.answer(message):
                    effects.append(Send(source, digests))
                if message.level == DEPTH:
                    effects.append(Mark("difference"))
            case Listing():
                for cells in store.compare(message):
                    effects.append(Send(source, cells))
            case Cells():
                self._data.join_all(message.cells)
                others = [peer for peer in self._peers if peer != source]
                if not self._keep(effects, news_for=others if message.rumour else ()):
                    effects.append(Mark("repeat" if message.cells else "wanted"))
                elif not message.rumour:
                    effects.append(Mark("repair"))
                if message.wanted:
                    found = store.named(message.wanted)
                    effects.extend([Send(source, Cells(part, [])) for part in parted(found)])

    def _keep(self, effects: list[Effect], news_for: Sequence[int]) -> bool:
        """Make durable what changed, and tell some of these nodes; returns whether any did."""
        changed = self._store.take_changed()
        if not changed:
            return False
        self._token += 1
        news = Cells(changed, [], rumour=True)
        effects.append(Persist(news, self._token))
        if self._params.push:
            rumours = [Cells(part, [], rumour=True) for part in parted(changed)]
            for peer in self._some(news_for):
                effects.extend([Send(peer, rumour) for rumour in rumours])
        return True

    def _start(self, records: list[Any], effects: list[Effect]) -> None:
        for record in records:
            self._data.join_all(record.cells)
        self._store.take_changed()
        if records:
            effects.append(Mark("recovery"))
        if self._peers:
            effects.append(SetTimer(_ROUND, self._chance.randrange(self._params.interval) + 1))

    def check(self) -> None:
        # All cells are looked at, so only where one has changed.
        if self._checked != self._store.changes:
            self._checked = self._store.changes
            self._store.check()
            self._data.check()

    def contents(self) -> Mapping[bytes, Entry]:
        return self._data.contents()

    @classmethod
    def kinds_of(cls, params: Params) -> frozenset[int]:
        return DATA[params.data].kinds

    @staticmethod
    def candidates(params: Params, op: Op, view: ClusterView) -> Sequence[int]:
        return view.nodes

    @staticmethod
    def demands(params: Params, replicas: int, level: str) -> Demands:
        anywhere = everyone(replicas)
        if replicas == 1:
            return Demands(Demand(anywhere), Demand(anywhere, (Log(),)))
        # Each node that hears of it by a rumour tells ``fanout`` others; who hears of it by a
        # comparison does so of many at once.
        told = replicas * params.fanout / (replicas - 1) if params.push else 0.0
        write = Demand(anywhere, (Log(), Tell(messages=told, records=1.0)))
        compared = params.fanout * NS_PER_S / params.interval
        return Demands(Demand(anywhere), write, (compared,) * replicas)

    @staticmethod
    def claims(params: Params, context: ClaimContext) -> frozenset[str]:
        if context.restarts and context.durability == MEMORY:
            return frozenset()
        stays = context.sticky and not context.crashes
        if stays and params.data == REGISTER:
            return frozenset({EVENTUAL, READ_YOUR_WRITES, MONOTONIC_READS})
        return frozenset({EVENTUAL})

    @staticmethod
    def read_levels(params: Params, context: ClaimContext) -> frozenset[str]:
        return Gossip.claims(params, context)

    @staticmethod
    def why_not(params: Params, context: ClaimContext, level: str) -> str:
        if context.restarts and context.durability == MEMORY:
            return "durability memory: a node that comes back has forgotten updates it answered"
        if level not in (READ_YOUR_WRITES, MONOTONIC_READS):
            return "an update is answered by one node, and any other may answer the next read"
        if params.data != REGISTER:
            return f"it is a promise about registers, and data is {params.data}"
        if not context.sticky:
            return "a session that changes its node may come before its updates do"
        return "a session whose node crashes changes its node"
