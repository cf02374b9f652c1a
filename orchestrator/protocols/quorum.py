"""Quorum replication without a leader: N copies of each key, R of them read, W written.

Gifford, "Weighted Voting for Replicated Data" (SOSP 1979); DeCandia et al., "Dynamo: Amazon's
Highly Available Key-value Store" (SOSP 2007): preference lists (4.3), read repair (5), sloppy
quorums and hinted handoff (4.6). The node that is asked coordinates: it sends an operation to all
N replicas of the key and answers when R or W of them have.

What it promises. With R + W > N and a strict quorum, the replicas that answer a read meet those
of every write that was acknowledged before, so the read finds that write's version or a higher
one. That makes reads ``regular`` if versions also rise with time: under ``versions: read`` a write
first asks R replicas and takes a version above all that it finds, so above every write that ended
before it began. Under ``versions: clock`` it takes its coordinator's time, and a write whose
coordinator is behind loses to an older one though it was acknowledged. Nothing is written back
before a read is answered, so of two reads the later one may find an older value while a write is
under way or has failed halfway: never linearizable (see abd for that).

``handoff`` makes a coordinator log each write before a copy leaves, and send copies until every
replica has acknowledged them, across its own crashes: then replicas converge. ``repair`` mends
only keys that are read. ``sloppy`` lets the next nodes of the ring stand in for silent replicas;
they hand the copy on when those are back.

``conflicts: siblings`` keeps concurrent values side by side by dotted version vectors (see
_quorum_siblings); a read returns the largest of them and counts ``siblings``. A write's dot comes
from the replica that coordinates it, so no other node may.

Cost of an operation with N replicas and a coordinator that is one of them: 2(N-1) messages (2N
from outside) and one round trip to the R-th or W-th fastest; a write under ``versions: read``
has a second round of the same size. With ``handoff`` the coordinator's own log comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.core.demand import Demands
from orchestrator.core.levels import CODES, EVENTUAL, REGULAR
from orchestrator.core.machine import (
    READ,
    ClaimContext,
    ClusterView,
    Effect,
    MachineContext,
    Mark,
    Op,
    Redirect,
)
from orchestrator.core.parameters import choice, duration, number
from orchestrator.core.registry import Family, register
from orchestrator.protocols._quorum_claims import (
    ANY,
    CLOCK,
    OUTSIDE,
    READ_FIRST,
    REPLICA,
    coordinated,
    held_levels,
    misfit,
    quorums,
    why_not_held,
)
from orchestrator.protocols._quorum_copies import NEW
from orchestrator.protocols._quorum_messages import NO_ANSWER, Pending
from orchestrator.protocols._quorum_node import QuorumNode
from orchestrator.protocols._quorum_ring import ring_of
from orchestrator.protocols._quorum_values import (
    LAST_WRITER_WINS,
    SIBLINGS,
    LastWriterWins,
    Rule,
    Siblings,
)

_EVENTUAL_READ: Final = CODES[EVENTUAL]


@dataclass(frozen=True)
class Params:
    read_quorum: int | None = number(
        None, low=1, help="R; null: a majority of the replicas", probes=(1, 2, 3)
    )
    write_quorum: int | None = number(
        None, low=1, help="W; null: a majority of the replicas", probes=(1, 2, 3)
    )
    repair: bool = True
    handoff: bool = True
    sloppy: bool = False
    conflicts: str = choice(LAST_WRITER_WINS, options=(LAST_WRITER_WINS, SIBLINGS))
    coordinator: str = choice(ANY, options=(ANY, REPLICA, OUTSIDE), help="who may be asked")
    versions: str = choice(READ_FIRST, options=(READ_FIRST, CLOCK))
    resend: int = duration("100ms", low="1us", help="then silent replicas are asked again")
    give_up: int = duration("1s", low="1us", help="then an operation ends without its quorum")


@register(
    Family.PROTOCOL,
    "quorum",
    params=Params,
    claims={
        REGULAR: "R + W above N, versions: read, and sloppy: false or no more nodes than replicas",
        EVENTUAL: "handoff, and no more nodes than replicas",
    },
)
class Quorum(QuorumNode):
    """N copies of each key without a leader; R of them are read, W written."""

    led = False

    def __init__(self, context: MachineContext, params: Params) -> None:
        self._replicas = context.replicas or len(context.nodes)
        self._read_quorum, write_quorum = quorums(params, self._replicas)
        self._params = params
        self._ring = ring_of(context.nodes)
        self._asks_first = params.versions == READ_FIRST
        keeps_siblings = params.conflicts == SIBLINGS
        rule: Rule = (Siblings if keeps_siblings else LastWriterWins)(context, self._asks_first)
        super().__init__(
            context,
            rule,
            write_quorum=write_quorum,
            handoff=params.handoff,
            # A dot that was sent must never be given again.
            overlap=not params.handoff and not keeps_siblings,
            resend_ns=params.resend,
            give_up_ns=params.give_up,
        )

    def _holders(self, key: bytes) -> tuple[int, ...]:
        if self._replicas == len(self._nodes):
            return self._nodes
        return self._ring.order(key)[: self._replicas]

    def _stand_ins(self, key: bytes, count: int) -> tuple[int, ...]:
        if not self._params.sloppy:
            return ()
        return self._ring.order(key)[self._replicas :][:count]

    def _requested(self, handles: list[Any], ops: list[Op], effects: list[Effect]) -> None:
        wanted = self._params.coordinator
        if wanted == ANY:
            super()._requested(handles, ops, effects)
            return
        for handle, op in zip(handles, ops, strict=True):
            if (wanted == REPLICA) == (self._node in self._holders(op.key)):
                super()._requested([handle], [op], effects)
            else:
                order = self._ring.order(op.key)
                effects.append(Redirect(handle, op, order[0 if wanted == REPLICA else -1]))

    def _begin(self, pending: Pending, effects: list[Effect]) -> None:
        op = pending.op
        if op.kind == READ:
            eventual = op.level == _EVENTUAL_READ
            self._ask(pending, 1 if eventual else self._read_quorum, effects)
            return
        known = self._table.known(op.session, op.sequence)
        if known != NEW:
            self._repeat(pending, known, None, effects)
        elif self._asks_first:
            self._ask(pending, self._read_quorum, effects)
        else:
            self._write(pending, effects)

    def _heard(self, pending: Pending, node: int, copy: Any, effects: list[Effect]) -> None:
        repairs = self._params.repair and pending.op.kind == READ
        if repairs:
            pending.answers.append((node, copy))
        if pending.count == pending.needed and pending.result is None:
            if pending.op.kind != READ:
                self._write(pending, effects)
                return
            self._reply_read(pending, effects)
        if pending.result is not None and (not repairs or pending.complete):
            self._end(pending, effects)

    def _end(self, pending: Pending, effects: list[Effect]) -> None:
        super()._end(pending, effects)
        newest = pending.found
        behind = tuple(
            node
            for node, copy in pending.answers
            if node in pending.replicas and self._rule.join(copy, newest) is not copy
        )
        if not behind:
            return
        effects.append(Mark("repair"))
        self._out.store(self._others(behind), NO_ANSWER, newest)
        if self._node in behind and self._table.merge(newest):
            self._fresh.received.append(newest)

    @staticmethod
    def candidates(params: Params, op: Op, view: ClusterView) -> Sequence[int]:
        if params.coordinator == ANY:
            return view.nodes
        order = ring_of(view.nodes).order(op.key)
        if params.coordinator == OUTSIDE:
            return order[-1:]
        # A client is not told N; the quorums say how many nodes hold the key at the least.
        return order[: max(params.read_quorum or 1, params.write_quorum or 1)]

    @staticmethod
    def claims(params: Params, context: ClaimContext) -> frozenset[str]:
        return held_levels(params, context)

    @staticmethod
    def read_levels(params: Params, context: ClaimContext) -> frozenset[str]:
        return held_levels(params, context)

    @staticmethod
    def why_not(params: Params, context: ClaimContext, level: str) -> str:
        return why_not_held(params, context, level)

    @staticmethod
    def demands(params: Params, replicas: int, level: str) -> Demands:
        read_quorum, write_quorum = quorums(params, replicas)
        return coordinated(
            replicas,
            read_quorum,
            write_quorum,
            level=level,
            asks_first=params.versions == READ_FIRST,
            overlap=not params.handoff and params.conflicts != SIBLINGS,
            repair=params.repair,
        )

    @staticmethod
    def validate(params: Params, replicas: int, nodes: int) -> str | None:
        return misfit(params, replicas, nodes)
