"""YCSB's ScrambledZipfianGenerator, for parity with its results.

It draws one of 10^10 items by the formula of Gray et al. ("Quickly generating billion-record
synthetic databases", SIGMOD 1994, section 3) with a zeta that was computed once, and maps the item
to a key by its 64-bit FNV-1a hash modulo the keys. The popular keys are scattered over the table,
and the law is not Zipf's over the keys: the hottest one has 1 / 26.469 = 3.78 % of the draws
whatever their number (and its share of all that collides with it), and two popular items may
share a key. ``zipfian`` is the true law.

The stored zeta is that of theta .99, so there is no other skew.
"""

from __future__ import annotations

from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.keys import KeyChoice, KeySpace, zeta
from orchestrator.core.parameters import ParameterError
from orchestrator.core.registry import Family, NoParams, register

ITEMS: Final = 10_000_000_000
ZETA: Final = 26.46902820178302
"""Sum of r^-THETA over the items, as YCSB's source has it."""
THETA: Final = 0.99

_OFFSET: Final = numpy.uint64(0xCBF29CE484222325)
_PRIME: Final = numpy.uint64(1099511628211)


def fnv_hash(values: NDArray[numpy.uint64]) -> NDArray[numpy.int64]:
    """YCSB's hash: FNV-1a over the eight bytes, the lowest first, and its absolute value."""
    hashed = numpy.full(len(values), _OFFSET)
    for shift in range(0, 64, 8):
        hashed ^= (values >> numpy.uint64(shift)) & numpy.uint64(0xFF)
        hashed *= _PRIME
    return numpy.abs(hashed.view(numpy.int64))


@register(Family.KEYS, "ycsb_scrambled")
class YcsbScrambled(KeyChoice):
    """YCSB's scattered zipfian with its quirk: the hottest key has 3.78 % at any table size."""

    def __init__(self, params: NoParams, space: KeySpace) -> None:
        if space.theta != THETA:
            raise ParameterError(
                f"ycsb_scrambled is made for theta {THETA}, not {space.theta:g}; zipfian takes any"
            )
        self._keys = space.keys
        # YCSB's items are numbered from 0 to ITEMS, both included.
        self._items = ITEMS + 1
        ahead = 1 - (2 / self._items) ** (1 - THETA)
        self._eta = ahead / (1 - zeta(2, THETA) / ZETA)

    def draw(self, chance: numpy.random.Generator, count: int) -> NDArray[numpy.int64]:
        """Indexes 0 to keys - 1, the popular ones anywhere."""
        u = chance.random(count)
        item = self._items * (self._eta * u - self._eta + 1) ** (1 / (1 - THETA))
        scaled = u * ZETA
        item[scaled < 1 + 0.5**THETA] = 1
        item[scaled < 1] = 0
        return fnv_hash(item.astype(numpy.uint64)) % self._keys
