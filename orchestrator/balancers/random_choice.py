"""Any candidate, all equally likely: the baseline that every other balancer must beat.

With n servers that each see Poisson arrivals it leaves n separate M/M/1 queues. No memory, no
knowledge of load. About 0.1 us a pick.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.load import DRAWN, Balancer, BalancerContext
from orchestrator.core.registry import Family, NoParams, register


@register(Family.BALANCER, "random")
class RandomChoice(Balancer):
    """Any candidate, all equally likely"""

    split = DRAWN
    __slots__ = ("_draw",)

    def __init__(self, params: NoParams, context: BalancerContext) -> None:
        self._draw = context.chance.random

    def pick(self, key: bytes, candidates: Sequence[int], now_ns: int) -> int:
        """One of ``candidates``."""
        # Random.choice costs more and removes a bias of less than 2^-53 a candidate.
        return candidates[int(self._draw() * len(candidates))]
