"""An entry is put in once a sketch counts enough recent accesses of its key, this one included.

The filter of TinyLFU (Einziger, Friedman and Manes, ACM ToS 13(4), 2017) with a fixed threshold in
place of a comparison with the entry that would leave. O(1) an access, hits as well as misses;
the sketch takes 4 bytes for each of ``width``. :mod:`orchestrator.core.sketch` has its rules.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register
from orchestrator.core.sketch import MOST, FrequencySketch


@dataclass(frozen=True)
class FrequencyParams:
    count: int = number(2, low=1, high=MOST, help="accesses, the missed one included")
    width: int = number(65_536, low=1, high=1 << 22, help="cells in a row of the sketch")
    sample: int = number(10, low=1, help="accesses before all counts are halved, for each cell")


@register(Family.ADMISSION, "frequency", params=FrequencyParams)
class Frequency:
    """Admits what a sketch of recent accesses counts often enough"""

    __slots__ = ("_count", "_sketch")

    def __init__(self, params: FrequencyParams, chance: random.Random) -> None:
        self._count = params.count
        self._sketch = FrequencySketch(params.width, params.sample * params.width)

    def hit(self, key: bytes) -> None:
        """Counts, too."""
        self._sketch.add(self._sketch.places(key))

    def admits(self, key: bytes, size: int) -> bool:
        """Whether the key was accessed often enough lately."""
        sketch = self._sketch
        places = sketch.places(key)
        sketch.add(places)
        return sketch.count(places) >= self._count
