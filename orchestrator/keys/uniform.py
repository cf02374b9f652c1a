"""Every key alike."""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

from orchestrator.core.keys import KeyChoice, KeySpace
from orchestrator.core.registry import Family, NoParams, register


@register(Family.KEYS, "uniform")
class Uniform(KeyChoice):
    """Every key with the same probability."""

    def __init__(self, params: NoParams, space: KeySpace) -> None:
        self._keys = space.keys

    def draw(self, chance: numpy.random.Generator, count: int) -> NDArray[numpy.int64]:
        """Indexes 0 to keys - 1."""
        return chance.integers(0, self._keys, count)
