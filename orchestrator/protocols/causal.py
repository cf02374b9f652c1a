"""Causally consistent replication: every node takes writes, sessions may move between nodes.

A write is answered by the node that takes it, once it is durable there, and copied to the others
in the background; they apply it when all that it depends on is applied. Two ways of tracking
what an operation depends on:

* ``vectors``: a session that read at a node depends on all that the node had applied: one
  counter a node, as the labels of Ladin, Liskov, Shrira and Ghemawat, "Providing High
  Availability Using Lazy Replication" (TOCS 10(4), 1992), and the version vectors of Bayou
  (Petersen, Spreitzer, Terry, Theimer and Demers, "Flexible Update Propagation for Weakly
  Consistent Replication", SOSP 1997).
* ``dependencies``: it depends on the versions that it read or wrote and on no others, as in COPS
  (Lloyd, Freedman, Kaminsky and Andersen, "Don't Settle for Eventual", SOSP 2011). Only the
  nearest are kept: a session's write covers all before it, and the later of two
  versions of one node covers the earlier, because nodes apply each other's writes in order.

Guarantee: causal consistency with convergence (CCv). A version is (time, node); the time is
above that of everything the node had applied, so the order of versions contains causality, and
the value of a key is that of its newest version, whatever the order of arrival: nodes that
applied the same writes hold the same. A session waits, for reads and writes alike, until its
past is applied at the node that it asks, so what a node has applied always holds the past of
what it answers, and of all that the newest version wins. A scan reads one such state. The time
follows the node's clock where that is ahead (as Bayou's accept stamps), so that
later writes win as far as clocks agree; causality does not rest on it.

Causal memory (CM) is not claimed: a session that wrote x, and then hears of a concurrent older
x, still reads its own, though what it reads next may follow the other's write (Bouajjani, Enea,
Guerraoui and Hamza, POPL 2017).

A write takes effect once at every node that has heard of it. A copy of an operation that reaches
a second node before the first one's copy does is a write of its own; clients here ask elsewhere
only while nobody has taken it.

Cost per write with n nodes: n-1 messages and no round trip; a read costs none. Every
``interval`` each node tells one other what it has, which is how lost messages are made up for.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from orchestrator.core import levels
from orchestrator.core.demand import Demand, Demands, Log, Tell, everyone
from orchestrator.core.levels import CAUSAL, CAUSAL_MEMORY, LINEARIZABLE
from orchestrator.core.machine import (
    FAIL,
    OK,
    READ,
    WRITE,
    ClaimContext,
    ClusterView,
    Effect,
    Entry,
    Event,
    Machine,
    MachineContext,
    Mark,
    Op,
    Received,
    Reply,
    Requested,
    Started,
    TimerFired,
)
from orchestrator.core.parameters import choice, duration, number
from orchestrator.core.registry import Family, register
from orchestrator.core.units import NS_PER_S
from orchestrator.protocols._causal_log import Continue, Have, Piece, State, Writes
from orchestrator.protocols._causal_past import (
    BOTH,
    NODE_BITS,
    NODE_MASK,
    newest,
    packed,
    parts_of,
    past,
    versions_of,
    waits_of,
    well_formed,
    with_read_part,
)
from orchestrator.protocols._causal_replication import Replicator

VECTORS, DEPENDENCIES = "vectors", "dependencies"
MEMORY = "memory"


@dataclass(frozen=True)
class Params:
    tracking: str = choice(VECTORS, options=(VECTORS, DEPENDENCIES))
    interval: int = duration("50ms", low="1us", help="between looks for what was lost")
    keep: int = number(
        65_536, low=1, help="writes of each node kept for others that lack them", probes=(8, 64)
    )


@register(
    Family.PROTOCOL,
    "causal",
    params=Params,
    claims={
        LINEARIZABLE: "on one replica",
        CAUSAL: "always, unless nodes come back without durable storage",
    },
)
class Causal(Replicator, Machine):
    """Every node takes writes; they are applied in causal order, and sessions may move."""

    Message: ClassVar[Any] = Writes | Have | Piece | Continue
    Record: ClassVar[Any] = Writes | State
    led = False

    def __init__(self, context: MachineContext, params: Params) -> None:
        super().__init__(context, params.interval, params.keep)
        self.role = "replica"
        self._tracks_vectors = params.tracking == VECTORS
        self._waits = waits_of(nearest=params.tracking == DEPENDENCIES)
        self._all_applied = b""
        # By node: (the version that is waited for, order, handle, op).
        self._waiting: dict[int, list[tuple[int, int, Any, Op]]] = {}
        self._order = 0

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        if now_ns > self._time:
            self._time = now_ns
        match event:
            case Requested():
                for handle, op in zip(event.handles, event.ops, strict=True):
                    self._request(handle, op, effects)
            case Received():
                self._received(event.source, event.message, effects)
            case TimerFired():
                self._look(effects)
            case Started():
                self._start(event.records, effects)
        if self._fresh:
            self._publish(effects)
        return effects

    def _received(self, source: int, message: Any, effects: list[Effect]) -> None:
        match message:
            case Writes():
                self._writes(source, message, effects)
            case Have():
                self._have(source, message, effects)
            case Piece():
                self._piece(source, message, effects)
            case Continue():
                self._continue(source, message, effects)

    # --- clients --------------------------------------------------------------------------

    def _request(self, handle: Any, op: Op, effects: list[Effect]) -> None:
        if not well_formed(op.context):
            effects.append(Reply(handle, FAIL))
            return
        missing = self._missing_of(op)
        if missing:
            self._order += 1
            waiting = self._waiting.setdefault(missing & NODE_MASK, [])
            heapq.heappush(waiting, (missing, self._order, handle, op))
            effects.append(Mark("session_wait"))
        elif op.kind == WRITE:
            self._write(handle, op, effects)
        else:
            self._read(handle, op, effects)

    def _missing_of(self, op: Op) -> int:
        """A version of the session's past that has to arrive before it is served; or 0."""
        if not op.context:
            return 0
        own, others = BOTH if op.kind == WRITE else self._waits.get(op.level, BOTH)
        if own and others:
            return self._missing(versions_of(op.context))
        written, read = parts_of(op.context)
        return self._missing(written if own else read if others else ())

    def _awaited(self, node: int) -> bool:
        return bool(self._waiting.get(node))

    def _release(self, node: int, effects: list[Effect]) -> None:
        waiting = self._waiting.get(node)
        while waiting and waiting[0][0] <= self._applied[node]:
            _, _, handle, op = heapq.heappop(waiting)
            self._request(handle, op, effects)

    def _write(self, handle: Any, op: Op, effects: list[Effect]) -> None:
        version = self._state.done(op)
        if not version:
            version = self._next_version()
            if not op.context:
                # A session that brings no past may be anybody here, a plain client among them.
                op = msgspec.structs.replace(op, context=past((), versions_of(self._here())))
            self._take_in(op, version, effects)
            self._fresh.append(op)
            self._fresh_versions.append(version)
        effects.append(Reply(handle, OK, None, version, 0, self._after_write(op, version)))

    def _next_version(self) -> int:
        self._time += 1
        return self._time << NODE_BITS | self._node

    def _passed(self, version: int) -> None:
        super()._passed(version)
        self._all_applied = b""

    def _here(self) -> bytes:
        """Everything applied here, as a context."""
        if not self._all_applied:
            applied = self._applied[: len(self._logs)]
            self._all_applied = packed([version for version in applied if version])
        return with_read_part(b"", self._all_applied)

    def _read(self, handle: Any, op: Op, effects: list[Effect]) -> None:
        state = self._state
        state.serve(handle, op, 0, effects)
        reply = effects[-1]
        assert isinstance(reply, Reply)
        keys = [op.key] if op.kind == READ else [key for key, _ in reply.value]
        seen = [entry.version for key in keys if (entry := state.values.get(key)) is not None]
        reply.version = max(seen, default=0)
        reply.context = self._after_read(op, seen)

    # --- what a session depends on --------------------------------------------------------

    def _after_write(self, op: Op, version: int) -> bytes:
        if not self._tracks_vectors:
            return past((version,), ())
        written, read = parts_of(op.context)
        return past(newest(written, (version,)), read)

    def _after_read(self, op: Op, seen: Sequence[int]) -> bytes:
        """The session's past; empty where it is as before."""
        context = op.context
        if self._tracks_vectors:
            here = self._here()
            if op.level and self._missing(versions_of(context)):
                # It did not wait, so there may be more in its past than is here.
                written, read = parts_of(context)
                after = past(written, newest(read, versions_of(here)))
            else:
                after = with_read_part(context, self._all_applied)
            return b"" if after == context else after
        written, read = parts_of(context)
        known = newest(written, read)
        new = [version for version in seen if newest(known, (version,)) != known]
        return past(written, newest(read, new)) if new else b""

    # --- for others -----------------------------------------------------------------------

    def check(self) -> None:
        assert not self._fresh
        self._check_logs()
        for node, waiting in self._waiting.items():
            assert all(version > self._applied[node] for version, *_ in waiting)

    def contents(self) -> Mapping[bytes, Entry]:
        return self._state.contents()

    @staticmethod
    def candidates(params: Params, op: Op, view: ClusterView) -> Sequence[int]:
        return view.nodes

    @staticmethod
    def demands(params: Params, replicas: int, level: str) -> Demands:
        anywhere = everyone(replicas)
        looks = NS_PER_S / params.interval if replicas > 1 else 0.0
        write = Demand(anywhere, (Log(), Tell(records=1.0)))
        return Demands(Demand(anywhere), write, (looks,) * replicas)

    @staticmethod
    def claims(params: Params, context: ClaimContext) -> frozenset[str]:
        if context.restarts and context.durability == MEMORY:
            return frozenset()
        return frozenset({LINEARIZABLE if context.replicas == 1 else CAUSAL})

    @staticmethod
    def read_levels(params: Params, context: ClaimContext) -> frozenset[str]:
        return levels.implied(CAUSAL) - {levels.NONE}

    @staticmethod
    def why_not(params: Params, context: ClaimContext, level: str) -> str:
        if context.restarts and context.durability == MEMORY:
            return "durability memory: a node that comes back has forgotten writes it answered"
        if level == CAUSAL_MEMORY:
            return (
                "conflicts are settled by one order of versions: a session that wrote x and hears"
                " of a concurrent, older x goes on reading its own, and no order of what it has"
                " heard explains both"
            )
        if level in (levels.LINEARIZABLE, levels.REGULAR, levels.SEQUENTIAL):
            others = context.replicas - 1
            return f"a write is answered before any of the other {others} nodes has it"
        return ""
