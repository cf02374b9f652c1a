"""What Raft claims, and why not."""

from __future__ import annotations

from typing import Any

from orchestrator.core.levels import LINEARIZABLE
from orchestrator.core.machine import ClaimContext
from orchestrator.protocols._clock_bound import STALE, UNSURE, outrun, why
from orchestrator.protocols._read_needs import OFFERED


def forgets(context: ClaimContext) -> bool:
    """Whether nodes come back without what they had promised."""
    return context.durability == "memory" and context.restarts


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
