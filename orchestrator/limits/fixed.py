"""A limit that does not move: as many connections of a pool, or permits of a semaphore."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class FixedParams:
    at: int = number(64, low=1, help="operations of each client")


@register(Family.LIMIT, "fixed", params=FixedParams)
class Fixed:
    """So many operations under way at most"""

    def __init__(self, params: FixedParams) -> None:
        self.most = params.at

    def answered(self, latency_ns: int, under_way: int, now_ns: int) -> None:
        """Nothing is learnt."""

    def dropped(self, under_way: int, now_ns: int) -> None:
        """Nothing is learnt."""
