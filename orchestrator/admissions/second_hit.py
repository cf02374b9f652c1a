"""An entry is put in when it is missed again soon: its key is among the last ``n`` misses.

Most keys of a content delivery network are accessed once, and this keeps them out (Maggs and
Sitaraman, "Algorithmic Nuggets in Content Delivery", ACM SIGCOMM CCR 45(3), 2015, section 4;
there with a Bloom filter, here with the keys themselves). O(1) a miss, room for ``n`` keys.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from dataclasses import dataclass

from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class SecondHitParams:
    n: int = number(10_000, low=1, help="misses that are remembered")


@register(Family.ADMISSION, "second_hit", params=SecondHitParams)
class SecondHit:
    """Admits what was missed before within the last n misses"""

    __slots__ = ("_last", "_misses", "_n")

    def __init__(self, params: SecondHitParams, chance: random.Random) -> None:
        self._n = params.n
        self._misses = 0
        self._last: OrderedDict[bytes, int] = OrderedDict()
        """Key -> number of its latest miss, oldest first."""

    def hit(self, key: bytes) -> None:
        """Only misses count."""

    def admits(self, key: bytes, size: int) -> bool:
        """Whether one of the ``n`` misses before this one was of the same key."""
        last = self._last
        known = key in last
        self._misses += 1
        last[key] = self._misses
        if known:
            last.move_to_end(key)
        oldest = next(iter(last))
        if last[oldest] <= self._misses - self._n:
            # The only one that is too old for the next miss.
            del last[oldest]
        return known
