"""What the chains have in common: writes go down from the head, the tail commits them, and news
of that goes back: from the tail to the head at once, and up the chain from node to node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.demand import Demand, Hop, Log, Tell
from orchestrator.core.levels import LINEARIZABLE
from orchestrator.core.machine import (
    ACKNOWLEDGE,
    ClaimContext,
    Effect,
    Machine,
    MachineContext,
    Send,
)
from orchestrator.core.parameters import duration, number
from orchestrator.core.units import NS_PER_S
from orchestrator.protocols._clock_bound import STALE, UNSURE, outrun, why
from orchestrator.protocols._copies import Copy
from orchestrator.protocols._order import Acknowledge
from orchestrator.protocols._read_needs import OFFERED
from orchestrator.protocols._views import NOBODY, Configuration, ViewParams


@dataclass(frozen=True)
class ChainParams(ViewParams):
    resend: int = duration("200ms", help="what is unanswered for this long is sent again")
    keep: int = number(
        4096, low=1, help="committed writes kept for nodes that fell behind", probes=(4, 32)
    )


class Link(Copy):
    """A node of a chain."""

    roles: ClassVar[tuple[str, str, str]] = ("head", "tail", "middle")

    def __init__(self, context: MachineContext, params: ChainParams) -> None:
        alone = len(context.nodes) == 1
        super().__init__(context, params, params.resend, params.keep, static=alone)

    def _neighbours(self, members: list[int], at: int) -> tuple[int, tuple[int, ...]]:
        return members[at - 1] if at else NOBODY, tuple(members[at + 1 : at + 2])

    def _reader(self) -> int:
        return self._membership.view.members[-1]

    def _commit(self, effects: list[Effect]) -> None:
        if self._membership.view.members[-1] == self._node:
            self._commit_through(self._order.durable, effects)

    def _committed_more(self, effects: list[Effect]) -> None:
        """The tail tells the head and its predecessor, every other node its predecessor."""
        committed = self._order.committed
        members = self._membership.view.members
        head, is_tail = members[0], members[-1] == self._node
        if head == self._node or self._node not in members:
            return
        message = Acknowledge(self._membership.view.epoch, self._order.last, committed)
        if is_tail:
            effects.append(Send(head, message))
        if self._upstream != head:
            effects.append(Send(self._upstream, message))

    def _acknowledge(self, source: int, message: Acknowledge, effects: list[Effect]) -> None:
        for target in self._downstream:
            # Who says so holds it, so everybody on the way there does. What somebody upstream says
            # is no sign of that: a tail that has just joined may lack what was committed before.
            known = min(message.committed, self._order.last)
            self._have[target] = max(self._have[target], known)
        super()._acknowledge(source, message, effects)

    def _received_writes(self, source: int, new: bool, effects: list[Effect]) -> None:
        if not new:
            # Asked, or sent again: something that went up was lost.
            self._say_position(effects)

    # --- for clients ----------------------------------------------------------------------

    @staticmethod
    def authority_of(params: Any) -> type[Machine] | None:
        return Configuration

    @staticmethod
    def claims(params: Any, context: ClaimContext) -> frozenset[str]:
        if forgets(context):
            return frozenset()
        return UNSURE if outrun(params.clock_drift, context) else frozenset({LINEARIZABLE})

    @staticmethod
    def read_levels(params: Any, context: ClaimContext) -> frozenset[str]:
        if forgets(context):
            return frozenset()
        return OFFERED - STALE if outrun(params.clock_drift, context) else OFFERED

    @staticmethod
    def why_not(params: Any, context: ClaimContext, level: str) -> str:
        if forgets(context):
            return FORGETS
        bound = params.clock_drift
        return why(bound, context) if outrun(bound, context) else ""


def write_demand(replicas: int) -> Demand:
    """Down the chain, and from its tail to the head; the news that goes up nobody waits for."""
    if replicas == 1:
        return Demand((0,), (Log(),))
    tail = replicas - 1
    down = [Hop(node, logs=True) for node in range(1, tail)]
    up = Tell(tuple(range(1, tail)), kind=ACKNOWLEDGE)
    return Demand((0,), (Log(), *down, Hop(tail), Log(heard=True), up, Hop(0, ACKNOWLEDGE)))


def heartbeats(params: ViewParams, replicas: int) -> tuple[float, ...]:
    """Answers of the authority that each node receives, a second."""
    return (NS_PER_S / params.heartbeat if replicas > 1 else 0.0,) * replicas


FORGETS = (
    "with durability: memory a crashed node comes back empty, and counts as one that holds what"
    " it acknowledged"
)


def forgets(context: ClaimContext) -> bool:
    """Whether nodes come back without what they held, which no view change expects."""
    return context.restarts and context.durability == "memory"
