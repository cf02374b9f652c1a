"""Small entries are put in more often than large ones: with probability ``exp(-size / c)``.

One large entry takes the room of many small ones, each of which might be hit (Berger, Sitaraman
and Harchol-Balter, "AdaptSize: Orchestrating the Hot Object Memory Cache in a Content Delivery
Network", NSDI 2017, section 3). AdaptSize tunes c as it goes; here it is fixed, and a study may
search it. O(1) a miss: one draw.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from orchestrator.core.parameters import size
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class SizeParams:
    c: int = size("16KiB", low="1B", help="size that is put in with probability 1/e")


@register(Family.ADMISSION, "size", params=SizeParams)
class Size:
    """Admits small entries more often than large ones: exp(-size/c)"""

    __slots__ = ("_c", "_chance")

    def __init__(self, params: SizeParams, chance: random.Random) -> None:
        self._c = params.c
        self._chance = chance

    def hit(self, key: bytes) -> None:
        """Nothing is learnt."""

    def admits(self, key: bytes, size: int) -> bool:
        """One draw."""
        return self._chance.random() < math.exp(-size / self._c)
