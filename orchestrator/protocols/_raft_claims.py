"""What Raft claims, and why not; what it asks of the nodes."""

from __future__ import annotations

from typing import Any

from orchestrator.core.demand import Demand, Demands, Round, everyone, majority_of_others
from orchestrator.core.levels import LINEARIZABLE
from orchestrator.core.machine import ClaimContext
from orchestrator.core.units import NS_PER_S
from orchestrator.protocols._clock_bound import STALE, UNSURE, outrun, why
from orchestrator.protocols._raft_reads import LEASE, LOG
from orchestrator.protocols._read_needs import OFFERED, STRONG, need_at


def forgets(context: ClaimContext) -> bool:
    """Whether nodes come back without what they had promised."""
    return context.durability == "memory" and context.restarts


def from_the_leader(heartbeat_ns: int, replicas: int) -> tuple[float, ...]:
    """Messages that each node receives a second where the leader, node 0, sends heartbeats."""
    beats = NS_PER_S / heartbeat_ns
    return ((replicas - 1) * beats, *[beats] * (replicas - 1))


class RaftClaims:
    """A part of the machine that holds no state. ``params``: those of Raft."""

    @staticmethod
    def claims(params: Any, context: ClaimContext) -> frozenset[str]:
        if forgets(context):
            return frozenset()
        return UNSURE if outrun(params.clock_bound, context) else frozenset({LINEARIZABLE})

    @staticmethod
    def read_levels(params: Any, context: ClaimContext) -> frozenset[str]:
        if forgets(context):
            return frozenset()
        return OFFERED - STALE if outrun(params.clock_bound, context) else OFFERED

    @staticmethod
    def demands(params: Any, replicas: int, level: str) -> Demands:
        need = majority_of_others(replicas)
        write = Demand((0,), (Round(need, logs=True, own=True),))
        if need_at(level, STRONG) != STRONG:
            read = Demand(everyone(replicas))
        elif params.reads == LEASE:
            read = Demand((0,))
        else:
            read = write if params.reads == LOG else Demand((0,), (Round(need),))
        return Demands(read, write, from_the_leader(params.heartbeat, replicas))

    @staticmethod
    def why_not(params: Any, context: ClaimContext, level: str) -> str:
        if not forgets(context):
            bound = params.clock_bound
            return why(bound, context) if outrun(bound, context) else ""
        majority = context.replicas // 2 + 1
        return (
            "a crash takes a node's vote and log (durability: memory) and the node comes back: a"
            f" majority of {majority} of {context.replicas} may contain one that forgot, so a term"
            " may have two leaders, and an acknowledged write may be lost"
        )
