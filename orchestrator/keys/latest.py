"""The newest keys most: a zipfian distance from the newest key that the client knows.

Source: YCSB's ``latest`` (Cooper et al., SoCC 2010, section 4.1). Clients share no counter, so
a client does not pick another client's inserts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from orchestrator.core.keys import KeyChoice, KeySpace, ZipfianChoice
from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class LatestParams:
    theta: float | None = number(
        None, low=0.0, high=10.0, help="skew of the distance; null: the workload's"
    )


@register(Family.KEYS, "latest", params=LatestParams)
class Latest(KeyChoice):
    """The keys that were inserted last draw most of the operations."""

    newest_first = True

    def __init__(self, params: LatestParams, space: KeySpace) -> None:
        theta = space.theta if params.theta is None else params.theta
        self._law = ZipfianChoice(space.keys, theta)

    def draw(self, chance: numpy.random.Generator, count: int) -> NDArray[numpy.int64]:
        """Distances 0 to keys - 1 from the newest key."""
        return self._law.draw(chance, count)
