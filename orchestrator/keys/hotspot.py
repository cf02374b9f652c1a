"""A share of the operations on a share of the keys, alike within them and without; it may move.

Source: YCSB's ``hotspot`` (its HotspotIntegerGenerator), whose defaults are 80 % on 20 %. There
the hot set stays; here it may move on by its own length, to keys that were cold until then and
round and round, which is what a cache or a balancer has to follow:

* ``moves_every: 5s``: with the intended start of an operation, for open arrivals;
* ``moves_every_operations: 10000``: with the count of operations, which any load has. A client
  counts its own ones times the clients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from orchestrator.core.keys import KeyChoice, KeySpace
from orchestrator.core.parameters import ParameterError, duration, number
from orchestrator.core.registry import Family, register
from orchestrator.keys._turns import Turns


@dataclass(frozen=True)
class HotspotParams:
    keys_share: float = number(0.2, low=0.0, high=1.0, help="hot keys among all, above 0")
    operations_share: float = number(0.8, low=0.0, high=1.0, help="of the operations on hot keys")
    moves_every: int | None = duration(None, low="1us", help="by time, for open arrivals")
    moves_every_operations: int | None = number(None, low=1, help="of all clients together")

    def __post_init__(self) -> None:
        if self.keys_share <= 0:
            raise ParameterError("no key would be hot: must be above 0", key="keys_share")
        if self.moves_every is not None and self.moves_every_operations is not None:
            raise ParameterError(
                "the hot set moves by time or by operations, not by both",
                key="moves_every_operations",
            )


@register(Family.KEYS, "hotspot", params=HotspotParams)
class Hotspot(KeyChoice):
    """A share of the operations on a share of the keys, which may move."""

    def __init__(self, params: HotspotParams, space: KeySpace) -> None:
        self._keys = space.keys
        self._hot = max(1, round(params.keys_share * space.keys))
        if self._hot == space.keys and params.operations_share < 1 and params.keys_share < 1:
            raise ParameterError(f"a share {params.keys_share:g} of {space.keys} keys is all")
        self._sets = -(-space.keys // self._hot)
        self._share = params.operations_share if self._hot < space.keys else 1.0
        self._period_ns = params.moves_every
        self._operations = params.moves_every_operations
        self._turns = Turns(space)
        self.timed = params.moves_every is not None

    def draw(self, chance: numpy.random.Generator, count: int) -> NDArray[numpy.int64]:
        """Indexes 0 to keys - 1; before any move the hot ones are the first."""
        hot, cold = self._hot, self._keys - self._hot
        chosen = chance.random(count) < self._share
        within = chance.random(count)
        key = (within * numpy.where(chosen, hot, cold)).astype(numpy.int64)
        key[~chosen] += hot
        if self._operations is None:
            return key
        return self._moved(key, self._turns.take(count) // self._operations)

    def at(
        self, key: NDArray[numpy.int64], starts_ns: NDArray[numpy.int64]
    ) -> NDArray[numpy.int64]:
        """Where the hot set is by then."""
        if self._period_ns is None:
            return key
        return self._moved(key, starts_ns // self._period_ns)

    def _moved(
        self, key: NDArray[numpy.int64], moves: NDArray[numpy.int64]
    ) -> NDArray[numpy.int64]:
        return (key + moves % self._sets * self._hot) % self._keys
