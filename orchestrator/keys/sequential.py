"""One key after the other, and round again: a scan of the table by single operations.

Client c of C takes the keys c, c + C, c + 2C, ..., so that all clients together go through the
keys in order as long as they are equally fast. An insert takes the turn of the key that would
have been next.
"""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

from orchestrator.core.keys import KeyChoice, KeySpace
from orchestrator.core.registry import Family, NoParams, register
from orchestrator.keys._turns import Turns


@register(Family.KEYS, "sequential")
class Sequential(KeyChoice):
    """Key after key, round and round; clients take turns."""

    def __init__(self, params: NoParams, space: KeySpace) -> None:
        self._keys = space.keys
        self._turns = Turns(space)

    def draw(self, chance: numpy.random.Generator, count: int) -> NDArray[numpy.int64]:
        """The next indexes; chance plays no part."""
        return self._turns.take(count) % self._keys
