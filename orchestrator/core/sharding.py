"""Shards: one machine of a protocol per shard on every node, behind one machine.

Every node holds all shards, and a key belongs to the shard that its hash says. The shards know
nothing of each other. Node p is node (p + shard) mod n to a shard's machines, so that the nodes
which a protocol prefers (its first leader, its head) differ from shard to shard; an authority,
where the protocol has one, watches over all shards.

What composes and what does not: a history is linearizable if that of every key is (Herlihy and
Wing, "Linearizability", TOPLAS 1990, section 3.3), and the same goes for regularity, for
convergence, and for what a session sees of its own writes and reads of one key. Sequential
consistency and everything that relates writes of different keys does not.

What a session has seen is told per shard: versions of different shards have nothing to do with
each other. It travels as the operation's context.
"""

from __future__ import annotations

import dataclasses
import random
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec

from orchestrator.core import levels
from orchestrator.core.machine import (
    SCAN,
    Access,
    Admin,
    Became,
    CancelTimer,
    ClaimContext,
    ClusterView,
    Effect,
    Entry,
    Event,
    Machine,
    MachineContext,
    Op,
    Persist,
    Persisted,
    Received,
    Redirect,
    Reply,
    Requested,
    Send,
    SetTimer,
    Started,
    TimerFired,
)

LOCAL: Final = frozenset(
    {
        levels.LINEARIZABLE,
        levels.REGULAR,
        levels.READ_YOUR_WRITES,
        levels.MONOTONIC_READS,
        levels.EVENTUAL,
        levels.NONE,
    }
)
"""Levels that hold for the whole where they hold for every shard."""
ENVELOPE_TAG: Final = 1


@dataclass(frozen=True)
class Shards:
    """How many, the protocol's own parameters, and those of a layer above."""

    shards: int
    own: Any
    layer: Any = None


class Seen(msgspec.Struct, array_like=True, gc=False):
    """What a session has seen, by shard: newest versions, and contexts of the protocol."""

    versions: dict[int, int]
    contexts: dict[int, bytes]


class ShardRecord(msgspec.Struct, array_like=True, gc=False):
    """A record of one shard's machine."""

    shard: int
    record: Any


_encode = msgspec.msgpack.Encoder().encode
_decode_seen = msgspec.msgpack.Decoder(Seen).decode


def shard_of(key: bytes, shards: int) -> int:
    """The shard of a key, the same everywhere and always."""
    return zlib.crc32(key) % shards


class Sharded(Machine):
    """The machines of all shards on one node; made for a protocol by :func:`sharded`."""

    inner: ClassVar[type[Machine]]
    envelope: ClassVar[Any]

    def __init__(self, context: MachineContext, params: Shards) -> None:
        self.node = context.node
        self.nodes = context.nodes
        self.count = params.shards
        self.machines: list[Any] = [
            self.inner(
                dataclasses.replace(
                    context,
                    node=self.inside(context.node, shard),
                    chance=random.Random(context.chance.getrandbits(64)),
                ),
                params.own,
            )
            for shard in range(params.shards)
        ]
        self._token = 0
        # (own token, shard, its token) of persists under way.
        self._persisting: deque[tuple[int, int, int]] = deque()
        self._enveloped: tuple[int, Any, Any] = (0, None, None)
        # Shards that an event has reached since they were last checked.
        self.reached: dict[int, bool] = {}
        self.role = self._role()

    @property
    def holds_copy(self) -> bool:
        """Whether it holds copies of all shards."""
        return all(machine.holds_copy for machine in self.machines)

    def _role(self) -> str:
        """That in every shard; one word where they are all the same."""
        roles = [machine.role for machine in self.machines]
        return roles[0] if roles.count(roles[0]) == len(roles) else "/".join(roles)

    def inside(self, node: int, shard: int) -> int:
        """What a shard's machines call a node; the authority has one name."""
        count = len(self.nodes)
        return (node + shard) % count if 0 <= node < count else node

    def outside(self, node: int, shard: int) -> int:
        """The node that a shard's machines call so."""
        count = len(self.nodes)
        return (node - shard) % count if 0 <= node < count else node

    # --- events ---------------------------------------------------------------------------

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Requested():
                self._requested(event.handles, event.ops, now_ns, effects)
            case Received():
                message = event.message
                inner = Received(self.inside(event.source, message.shard), message.message)
                self.run(message.shard, inner, now_ns, effects)
            case TimerFired():
                number, _, timer = event.timer.partition("/")
                self.run(int(number), TimerFired(timer), now_ns, effects)
            case Persisted():
                self._persisted(event.token, now_ns, effects)
            case Started():
                records: list[list[Any]] = [[] for _ in self.machines]
                for each in event.records:
                    records[each.shard].append(each.record)
                for shard, own in enumerate(records):
                    self.run(shard, Started(own), now_ns, effects)
                self.role = self._role()
            case Admin():
                for shard in range(self.count):
                    admin = Admin(event.command, self.inside(event.node, shard))
                    self.run(shard, admin, now_ns, effects)
        return effects

    def _requested(
        self, handles: list[Any], ops: list[Op], now_ns: int, effects: list[Effect]
    ) -> None:
        """Each shard gets its operations, and of what their sessions have seen its part."""
        by_shard: dict[int, Requested] = {}
        for handle, op in zip(handles, ops, strict=True):
            shard = shard_of(op.key, self.count)
            seen = _decode_seen(op.context) if op.context else Seen({}, {})
            inner = msgspec.structs.replace(
                op, seen=seen.versions.get(shard, 0), context=seen.contexts.get(shard, b"")
            )
            batch = by_shard.setdefault(shard, Requested([], []))
            batch.handles.append((handle, op, seen))
            batch.ops.append(inner)
        for shard, batch in by_shard.items():
            self.run(shard, batch, now_ns, effects)

    def _persisted(self, token: int, now_ns: int, effects: list[Effect]) -> None:
        newest: dict[int, int] = {}
        while self._persisting and self._persisting[0][0] <= token:
            _, shard, inner = self._persisting.popleft()
            newest[shard] = inner
        for shard, inner in newest.items():
            self.run(shard, Persisted(inner), now_ns, effects)

    # --- effects --------------------------------------------------------------------------

    def run(self, shard: int, event: Event, now_ns: int, effects: list[Effect]) -> None:
        """Let a shard's machine handle an event; its effects become those of the node."""
        self.reached[shard] = True
        # By exact type: every effect of every shard passes here, and class patterns are slow.
        for effect in self.machines[shard].handle(event, now_ns):
            kind = type(effect)
            if kind is Send:
                target, after = self.outside(effect.target, shard), self._outer(shard, effect.after)
                envelope = self._envelope(shard, effect.message)
                effects.append(Send(target, envelope, effect.overlap, after))
            elif kind is Reply:
                self.replied(shard, effect, now_ns, effects)
            elif kind is SetTimer:
                effects.append(SetTimer(f"{shard}/{effect.timer}", effect.delay_ns))
            elif kind is Persist:
                self._token += 1
                self._persisting.append((self._token, shard, effect.token))
                record = ShardRecord(shard, effect.record)
                effects.append(Persist(record, self._token, effect.replaces, group=shard))
            elif kind is Redirect:
                self.redirected(shard, effect, now_ns, effects)
            elif kind is Access:
                token = self._outer(shard, effect.token)
                effects.append(Access(token, effect.key, effect.size, effect.kind))
            elif kind is CancelTimer:
                effects.append(CancelTimer(f"{shard}/{effect.timer}"))
            elif kind is Became:
                self.role = self._role()
                effects.append(Became(effect.role, group=shard))
            else:
                effects.append(effect)

    def _outer(self, shard: int, token: int) -> int:
        """The node's own name for a shard's token; 0 stays 0."""
        return token * self.count + shard if token else 0

    def _envelope(self, shard: int, message: Any) -> Any:
        """The same object for the same message, which a runtime then encodes once."""
        last_shard, last_message, envelope = self._enveloped
        if last_message is not message or last_shard != shard:
            envelope = self.envelope(shard, message)
            self._enveloped = (shard, message, envelope)
        return envelope

    def replied(self, shard: int, reply: Reply, now_ns: int, effects: list[Effect]) -> None:
        """A shard answers: note what the session has seen of it."""
        handle, _, seen = reply.handle
        versions, contexts = dict(seen.versions), dict(seen.contexts)
        versions[shard] = max(reply.version, versions.get(shard, 0))
        if reply.context:
            contexts[shard] = reply.context
        context = _encode(Seen(versions, contexts))
        after = self._outer(shard, reply.after)
        effects.append(Reply(handle, reply.outcome, reply.value, reply.version, after, context))

    def redirected(
        self, shard: int, redirect: Redirect, now_ns: int, effects: list[Effect]
    ) -> None:
        """Another node serves this."""
        handle, op, _ = redirect.handle
        effects.append(Redirect(handle, op, self.outside(redirect.node, shard)))

    # --- about it -------------------------------------------------------------------------

    def check(self) -> None:
        for shard in self.reached:
            self.machines[shard].check()
        self.reached.clear()

    def contents(self) -> Mapping[bytes, Entry]:
        together: dict[bytes, Entry] = {}
        for machine in self.machines:
            together.update(machine.contents())
        return together

    # --- for clients ----------------------------------------------------------------------

    @classmethod
    def authority_of(cls, params: Shards) -> type[Machine] | None:
        authority = cls.inner.authority_of(params.own)
        return None if authority is None else sharded(authority)

    @classmethod
    def kinds_of(cls, params: Shards) -> frozenset[int]:
        served = cls.inner.kinds_of(params.own)
        return served - {SCAN} if params.shards > 1 else served

    @classmethod
    def candidates(cls, params: Shards, op: Op, view: ClusterView) -> Sequence[int]:
        shard, count = shard_of(op.key, params.shards), len(view.nodes)
        inside = ClusterView(
            view.nodes, (view.writer + shard) % count, (view.reader + shard) % count
        )
        chosen = cls.inner.candidates(params.own, op, inside)
        return [(node - shard) % count for node in chosen]

    @classmethod
    def claims(cls, params: Shards, context: ClaimContext) -> frozenset[str]:
        held = levels.closure(cls.inner.claims(params.own, context))
        return frozenset(levels.strongest(held & LOCAL)) - {levels.NONE}

    @classmethod
    def read_levels(cls, params: Shards, context: ClaimContext) -> frozenset[str]:
        return cls.inner.read_levels(params.own, context) & LOCAL

    @classmethod
    def why_not(cls, params: Shards, context: ClaimContext, level: str) -> str:
        if level not in LOCAL and level in levels.closure(cls.inner.claims(params.own, context)):
            return (
                f"it relates operations on different keys, and {params.shards} shards that each"
                f" are {level} need not be so together"
            )
        return cls.inner.why_not(params.own, context, level)

    @classmethod
    def validate(cls, params: Shards, replicas: int, nodes: int) -> str | None:
        if nodes != replicas:
            return "every node holds a copy of every shard: nodes equals replicas"
        return cls.inner.validate(params.own, replicas, nodes)


def _link_of(envelope: Any) -> str:
    link: str = envelope.message.link
    return link


def sharded(inner: type[Any], base: type[Any] = Sharded) -> type[Sharded]:
    """The machine that carries shards of a protocol; ``base``: what is done with them."""
    made = _made.get((inner, base))
    if made is None:
        made = _made[inner, base] = _make(inner, base)
    return made


_made: Final[dict[tuple[type[Any], type[Any]], type[Sharded]]] = {}


def _make(inner: type[Any], base: type[Any]) -> type[Sharded]:
    envelope = None
    if inner.Message is not None:
        envelope = msgspec.defstruct(
            "InShard",
            [("shard", int), ("message", inner.Message)],
            tag=ENVELOPE_TAG,
            array_like=True,
            gc=False,
            namespace={"link": property(_link_of)},
        )
    record = msgspec.defstruct(
        "ShardRecord", [("shard", int), ("record", inner.Record)], array_like=True, gc=False
    )
    own = getattr(base, "own_messages", None)
    message = envelope if own is None else own if envelope is None else envelope | own
    members = {
        "inner": inner,
        "envelope": envelope,
        "Message": message,
        "Record": record,
        "kinds": inner.kinds,
        "commands": inner.commands,
        "led": inner.led,
        "__doc__": base.__doc__,
    }
    return type(f"{base.__name__}{inner.__name__}", (base,), members)
