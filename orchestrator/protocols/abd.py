"""ABD: a register that many write and read, linearizable without a leader.

Attiya, Bar-Noy and Dolev, "Sharing Memory Robustly in Message-Passing Systems" (JACM 42(1),
1995), for many writers as in Lynch and Shvartsman, "Robust Emulation of Shared Memory Using
Dynamic Quorum-Acknowledged Broadcasts" (FTCS 1997). Any node coordinates. A write asks a majority
for the newest tag and stores its value under a higher one on a majority; a read asks a majority
for the newest tag and value, and writes them back to a majority before it answers.

Why it is linearizable: order the writes by tag, and each read behind the write that it returns. An
operation that has ended left its tag, or a higher one, on a majority, durably. Every majority
that a later operation asks meets that one, so a later read returns no lower tag, and a later
write takes a higher one. A write that its coordinator left halfway is as one still under way.

The write-back is left out where the majority that was asked agrees on the tag: then a majority
holds it, which is all that the write-back is for. A read that asks for level ``regular`` leaves
it out always: it may find an older value than an earlier read did while a write is under way.

A tag is (number, session), one integer. A session has one operation outstanding and an unanswered
one ends it, so no two writes ever have the same tag, across restarts of their coordinators too.
Nodes remember the last write of each session, and a write that the majority knows keeps its tag:
repeated after its answer it does not take effect again. (Two coordinators that run the same write
at the same time could give it two tags; a client sends nothing twice that may have arrived.)

A coordinator logs a write before it sends it, and hands it on until every node has it, after
a crash again; so nodes converge, although a majority is all that reads and writes need.

Cost with n nodes: a write takes 4(n-1) messages and two round trips, a read 2(n-1) and one, or
twice that where it writes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.core.demand import Demands
from orchestrator.core.levels import CODES, LINEARIZABLE, REGULAR
from orchestrator.core.machine import (
    READ,
    ClaimContext,
    ClusterView,
    Effect,
    MachineContext,
    Mark,
    Op,
)
from orchestrator.core.parameters import duration
from orchestrator.core.registry import Family, register
from orchestrator.protocols._quorum_claims import coordinated
from orchestrator.protocols._quorum_copies import NEW, tag_of
from orchestrator.protocols._quorum_messages import Pending
from orchestrator.protocols._quorum_node import QuorumNode
from orchestrator.protocols._quorum_values import LastWriterWins

_REGULAR_READ: Final = CODES[REGULAR]
_FSYNC: Final = "fsync"


@dataclass(frozen=True)
class Params:
    resend: int = duration("100ms", low="1us", help="then silent nodes are asked again")
    give_up: int = duration("1s", low="1us", help="then an operation ends without a majority")


@register(
    Family.PROTOCOL,
    "abd",
    params=Params,
    claims={LINEARIZABLE: "durability: fsync, or nodes that crash stay away"},
)
class Abd(QuorumNode):
    """A linearizable register without a leader, by majorities and write-back."""

    led = False

    def __init__(self, context: MachineContext, params: Params) -> None:
        self._majority = len(context.nodes) // 2 + 1
        super().__init__(
            context,
            LastWriterWins(context, asks_first=True),
            write_quorum=self._majority,
            handoff=True,
            overlap=False,
            resend_ns=params.resend,
            give_up_ns=params.give_up,
        )

    def _begin(self, pending: Pending, effects: list[Effect]) -> None:
        op = pending.op
        known = NEW if op.kind == READ else self._table.known(op.session, op.sequence)
        if known == NEW:
            self._ask(pending, self._majority, effects)
        else:
            self._repeat(pending, known, None, effects)

    def _heard(self, pending: Pending, node: int, copy: Any, effects: list[Effect]) -> None:
        pending.answers.append((node, copy))
        if pending.count < pending.needed:
            return
        if pending.op.kind == READ:
            self._read(pending, effects)
        else:
            self._write(pending, effects)

    def _read(self, pending: Pending, effects: list[Effect]) -> None:
        """A majority answered: write the newest copy back unless a majority has it."""
        newest = pending.found
        tag = tag_of(newest)
        holders = tuple(node for node, copy in pending.answers if tag_of(copy) == tag)
        if len(holders) == pending.count or pending.op.level == _REGULAR_READ:
            self._reply_read(pending, effects)
            self._end(pending, effects)
        else:
            effects.append(Mark("write_back"))
            self._spread(pending, newest, effects, holders)

    @staticmethod
    def candidates(params: Params, op: Op, view: ClusterView) -> Sequence[int]:
        return view.nodes

    @staticmethod
    def claims(params: Params, context: ClaimContext) -> frozenset[str]:
        forgets = context.restarts and context.durability != _FSYNC
        return frozenset() if forgets else frozenset({LINEARIZABLE})

    @staticmethod
    def read_levels(params: Params, context: ClaimContext) -> frozenset[str]:
        return Abd.claims(params, context) and frozenset({LINEARIZABLE, REGULAR})

    @staticmethod
    def demands(params: Params, replicas: int, level: str) -> Demands:
        # Of reads that find a majority agreed: how many do not depends on the load.
        majority = replicas // 2 + 1
        return coordinated(replicas, majority, majority)

    @staticmethod
    def why_not(params: Params, context: ClaimContext, level: str) -> str:
        if Abd.claims(params, context):
            return ""
        return (
            f"with durability {context.durability} nodes that restart forget acknowledged tags, "
            f"and a majority of {context.replicas // 2 + 1} need not meet one that knows"
        )
