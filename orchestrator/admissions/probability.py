"""Each missing entry is put in with the same probability, whatever it is.

What is accessed once is mostly kept out, and what is accessed often gets in after 1/p misses on
average. Used in front of flash, where each write wears (Berg et al., "The CacheLib Caching
Engine", OSDI 2020, section 4). O(1) a miss: one draw.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class ProbabilityParams:
    p: float = number(0.5, low=0.0, high=1.0, help="that a missing entry is put in")


@register(Family.ADMISSION, "probability", params=ProbabilityParams)
class Probability:
    """Admits each missing entry with one probability"""

    __slots__ = ("_chance", "_p")

    def __init__(self, params: ProbabilityParams, chance: random.Random) -> None:
        self._p = params.p
        self._chance = chance

    def hit(self, key: bytes) -> None:
        """Nothing is learnt."""

    def admits(self, key: bytes, size: int) -> bool:
        """One draw."""
        return self._chance.random() < self._p
