"""Zipf's law over the keys, the true one: the key of index i has (i + 1)^-theta / zeta(n, theta).

Drawn by rejection-inversion without a table (:mod:`orchestrator.core.keys`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from orchestrator.core.keys import KeyChoice, KeySpace, ZipfianChoice
from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class ZipfianParams:
    theta: float | None = number(
        None, low=0.0, high=10.0, help="skew; 0 is uniform; null: the workload's"
    )


@register(Family.KEYS, "zipfian", params=ZipfianParams)
class Zipfian(KeyChoice):
    """Few keys draw most of the operations, by Zipf's law."""

    def __init__(self, params: ZipfianParams, space: KeySpace) -> None:
        theta = space.theta if params.theta is None else params.theta
        self._law = ZipfianChoice(space.keys, theta)

    def draw(self, chance: numpy.random.Generator, count: int) -> NDArray[numpy.int64]:
        """Indexes 0 to keys - 1, the most popular first."""
        return self._law.draw(chance, count)
