"""Consistent hashing: which nodes hold a key, the same in every process.

Karger et al., "Consistent Hashing and Random Trees" (STOC 1997), with several tokens a node as
in Dynamo (DeCandia et al., SOSP 2007, section 4.2). A key belongs to the first nodes that are
met clockwise from its place on the ring.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cache
from hashlib import blake2b
from typing import Final

TOKENS: Final = 16
"""Tokens of a node: a key's first node is even within about a quarter of the mean."""


class Ring:
    """The order in which each key meets the nodes; computed once a segment of the ring."""

    __slots__ = ("_orders", "_owners", "_places")

    def __init__(self, nodes: tuple[int, ...]) -> None:
        tokens = sorted(
            (_place(b"%d/%d" % (node, token)), node) for node in nodes for token in range(TOKENS)
        )
        self._places = [place for place, _ in tokens]
        self._owners = [node for _, node in tokens]
        self._orders: list[tuple[int, ...]] = [()] * len(tokens)

    def order(self, key: bytes) -> tuple[int, ...]:
        """All nodes, those first that hold the key."""
        segment = bisect_right(self._places, _place(key)) % len(self._places)
        found = self._orders[segment]
        if not found:
            found = self._orders[segment] = self._walk(segment)
        return found

    def _walk(self, segment: int) -> tuple[int, ...]:
        owners = self._owners
        clockwise = owners[segment:] + owners[:segment]
        return tuple(dict.fromkeys(clockwise))


def _place(name: bytes) -> int:
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "big")


@cache
def ring_of(nodes: tuple[int, ...]) -> Ring:
    """The ring of these nodes; it depends on nothing else."""
    return Ring(nodes)
