"""Shards: one machine of a protocol for each shard that a node holds, behind one machine.

Which shard a key belongs to, and which nodes hold that shard as a group, says the layout
(:mod:`orchestrator.core.layout`). The groups know nothing of each other, and inside a group a node
is called by its place in it, so that the nodes which a protocol prefers (its first leader, its
head) differ from shard to shard; an authority, where the protocol has one, watches over all groups.

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
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec

from orchestrator.core import levels
from orchestrator.core.layout import Layouts
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
SPARE: Final = "spare"
"""Role of a node that is in no group."""


@dataclass(frozen=True)
class Shards:
    """Where they are, the protocol's own parameters, and those of a layer above."""

    layouts: Layouts
    own: Any
    layer: Any = None


class Seen(msgspec.Struct, array_like=True, gc=False):
    """What a session has seen, by shard: newest versions, and contexts of the protocol."""

    versions: dict[int, int]
    contexts: dict[int, bytes]


class ShardRecord(msgspec.Struct, array_like=True, gc=False):
    """A record of one group's machine."""

    shard: int
    record: Any


_encode = msgspec.msgpack.Encoder().encode
_decode_seen = msgspec.msgpack.Decoder(Seen).decode


class Sharded(Machine):
    """The machines of all groups of one node; made for a protocol by :func:`sharded`."""

    inner: ClassVar[type[Machine]]
    envelope: ClassVar[Any]

    def __init__(self, context: MachineContext, params: Shards) -> None:
        self.node = context.node
        self.nodes = context.nodes
        self.layouts = params.layouts
        self.count = len(params.layouts.groups)
        # By group: what its machines call each node that it knows, and the other way round.
        self._inside = [group.names(len(self.nodes)) for group in params.layouts.groups]
        self._outside = [{rank: node for node, rank in names.items()} for names in self._inside]
        self.machines: dict[int, Any] = {
            group: self._machine(context, group, params.own)
            for group in params.layouts.hosted(context.node)
        }
        self._token = 0
        # (own token, shard, its token) of persists under way.
        self._persisting: deque[tuple[int, int, int]] = deque()
        self._enveloped: tuple[int, Any, Any] = (0, None, None)
        # Shards that an event has reached since they were last checked.
        self.reached: dict[int, bool] = {}
        self.role = self._role()

    def _machine(self, context: MachineContext, group: int, own: Any) -> Any:
        ranks = self.layouts.groups[group].ranks
        return self.inner(
            dataclasses.replace(
                context,
                node=self._inside[group][context.node],
                nodes=ranks,
                chance=random.Random(context.chance.getrandbits(64)),
            ),
            own,
        )

    @property
    def holds_copy(self) -> bool:
        """Whether it holds copies of all its groups."""
        return all(machine.holds_copy for machine in self.machines.values())

    def _role(self) -> str:
        """That in every group; one word where they are all the same."""
        roles = [machine.role for machine in self.machines.values()] or [SPARE]
        return roles[0] if roles.count(roles[0]) == len(roles) else "/".join(roles)

    def outside(self, node: int, shard: int) -> int:
        """The node that a group's machines call so."""
        return self._outside[shard][node]

    # --- events ---------------------------------------------------------------------------

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Requested():
                self._requested(event.handles, event.ops, now_ns, effects)
            case Received():
                message = event.message
                inner = Received(self._inside[message.shard][event.source], message.message)
                self.run(message.shard, inner, now_ns, effects)
            case TimerFired():
                number, _, timer = event.timer.partition("/")
                self.run(int(number), TimerFired(timer), now_ns, effects)
            case Persisted():
                self._persisted(event.token, now_ns, effects)
            case Started():
                records: dict[int, list[Any]] = {shard: [] for shard in self.machines}
                for each in event.records:
                    records[each.shard].append(each.record)
                for shard, own in records.items():
                    self.run(shard, Started(own), now_ns, effects)
                self.role = self._role()
            case Admin():
                for shard in self.machines:
                    about = self._inside[shard].get(event.node)
                    if about is not None:
                        self.run(shard, Admin(event.command, about), now_ns, effects)
        return effects

    def _requested(
        self, handles: list[Any], ops: list[Op], now_ns: int, effects: list[Effect]
    ) -> None:
        """Each group gets its operations, and of what their sessions have seen its part."""
        by_shard: dict[int, Requested] = {}
        cell_of = self.layouts.cell_of
        for handle, op in zip(handles, ops, strict=True):
            shard = cell_of(op.key)
            if shard not in self.machines:
                effects.append(Redirect(handle, op, self.layouts.groups[shard].nodes[0]))
                continue
            self.batch(by_shard, shard, handle, op)
        for shard, batch in by_shard.items():
            self.run(shard, batch, now_ns, effects)

    def batch(self, by_shard: dict[int, Requested], shard: int, handle: Any, op: Op) -> None:
        """Put an operation into the batch of a group."""
        seen = _decode_seen(op.context) if op.context else Seen({}, {})
        inner = msgspec.structs.replace(
            op, seen=seen.versions.get(shard, 0), context=seen.contexts.get(shard, b"")
        )
        batch = by_shard.setdefault(shard, Requested([], []))
        batch.handles.append((handle, op, seen))
        batch.ops.append(inner)

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
        """A group answers."""
        self.answered(shard, reply, effects)

    def answered(
        self, shard: int, reply: Reply, effects: list[Effect], version: int | None = None
    ) -> None:
        """Answer a client: note what the session has seen of the group. ``version``: as clients see
        it, where that is another one.
        """
        handle, _, seen = reply.handle
        versions, contexts = dict(seen.versions), dict(seen.contexts)
        versions[shard] = max(reply.version, versions.get(shard, 0))
        if reply.context:
            contexts[shard] = reply.context
        context = _encode(Seen(versions, contexts))
        after = self._outer(shard, reply.after)
        outer = reply.version if version is None else version
        effects.append(Reply(handle, reply.outcome, reply.value, outer, after, context))

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
        for machine in self.machines.values():
            together.update(machine.contents())
        return together

    def copies(self) -> Mapping[int, Mapping[bytes, Entry]]:
        if self.layouts.whole:
            return super().copies()
        held = self.machines.items()
        return {group: machine.contents() for group, machine in held if machine.holds_copy}

    # --- for clients ----------------------------------------------------------------------

    @classmethod
    def authority_of(cls, params: Shards) -> type[Machine] | None:
        authority = cls.inner.authority_of(params.own)
        return None if authority is None else sharded(authority)

    @classmethod
    def kinds_of(cls, params: Shards) -> frozenset[int]:
        served = cls.inner.kinds_of(params.own)
        return served - {SCAN} if len(params.layouts.groups) > 1 else served

    @classmethod
    def candidates(cls, params: Shards, op: Op, view: ClusterView) -> Sequence[int]:
        layouts = params.layouts
        group = layouts.groups[layouts.cell_of(op.key)]
        return [
            group.nodes[each] for each in cls.inner.candidates(params.own, op, group.view(view))
        ]

    @classmethod
    def claims(cls, params: Shards, context: ClaimContext) -> frozenset[str]:
        held = levels.closure(cls.inner.claims(params.own, _of_group(context)))
        return frozenset(levels.strongest(held & LOCAL)) - {levels.NONE}

    @classmethod
    def read_levels(cls, params: Shards, context: ClaimContext) -> frozenset[str]:
        return cls.inner.read_levels(params.own, _of_group(context)) & LOCAL

    @classmethod
    def why_not(cls, params: Shards, context: ClaimContext, level: str) -> str:
        context = _of_group(context)
        if level not in LOCAL and level in levels.closure(cls.inner.claims(params.own, context)):
            shards = len({group.shard for group in params.layouts.groups})
            return (
                f"it relates operations on different keys, and {shards} shards that each"
                f" are {level} need not be so together"
            )
        return cls.inner.why_not(params.own, context, level)

    @classmethod
    def validate(cls, params: Shards, replicas: int, nodes: int) -> str | None:
        if nodes < replicas:
            return f"{nodes} nodes cannot hold {replicas} replicas"
        return cls.inner.validate(params.own, replicas, replicas)


def _of_group(context: ClaimContext) -> ClaimContext:
    """A group has no spare nodes."""
    return dataclasses.replace(context, nodes=context.replicas)


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
        "commands": inner.commands | base.commands,
        "led": inner.led,
        "__doc__": base.__doc__,
    }
    return type(f"{base.__name__}{inner.__name__}", (base,), members)
