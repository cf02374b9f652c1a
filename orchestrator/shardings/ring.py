"""A ring of hashes with virtual nodes: consistent hashing.

Every shard has ``virtual_nodes`` places on the ring, times its weight, and the keys between each of
them and the place before (Karger et al., "Consistent Hashing and Random Trees", STOC 1997; with
many places for each as in DeCandia et al., "Dynamo", SOSP 2007, section 4.2). A shard that is
added takes 1 / (n + 1) of the keys, in small pieces from all others, and no other key moves: the
least that keeps the shards even. With v places a shard's part deviates by about 1 / sqrt(v) of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.hashing import hashed, points
from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register
from orchestrator.shardings._weights import Weighted


@dataclass(frozen=True)
class Params(Weighted):
    virtual_nodes: int = number(
        128, low=1, high=4096, help="places of a shard of mean weight on the ring"
    )


@register(Family.SHARDING, "ring", params=Params)
class Ring:
    """Consistent hashing with virtual nodes; the fewest keys move when a shard is added"""

    def __init__(self, params: Params, shards: Sequence[int]) -> None:
        self._share = params.shares(shards)
        weights = params.weights or (1.0,) * (max(shards) + 1)
        # Of all weights, so that the places of a shard are the same whoever else is there.
        mean = sum(weights) / len(weights)
        ring = sorted(
            (place, shard)
            for shard in self._share
            for place in points(shard, max(1, round(params.virtual_nodes * weights[shard] / mean)))
        )
        self._places = [place for place, _ in ring]
        self._owners = [shard for _, shard in ring]

    def shard_of(self, key: bytes) -> int:
        """The shard of the first place at or after the key's own."""
        at = bisect_left(self._places, hashed(key))
        return self._owners[at if at < len(self._owners) else 0]

    def share(self, shard: int) -> float:
        """The part of all keys that the shard is to have."""
        return self._share[shard]
