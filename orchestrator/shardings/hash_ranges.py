"""Ranges of hashes, one for each shard, as wide as its weight says.

As even as the hash is, and one search in a short table. When a shard is added the ranges are cut
anew, so all borders shift: about half of the keys move, whatever the number of shards, and between
neighbours only. Systems that keep a table of ranges and split one of them (Chang et al.,
"Bigtable", OSDI 2006, section 5) move less, and are uneven until they have split all.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from orchestrator.core.hashing import WORD_BITS, hashed
from orchestrator.core.registry import Family, register
from orchestrator.shardings._weights import Weighted


@dataclass(frozen=True)
class Params(Weighted):
    pass


@register(Family.SHARDING, "hash_ranges", params=Params)
class HashRanges:
    """A range of hashes for each shard; half of the keys move when one is added"""

    def __init__(self, params: Params, shards: Sequence[int]) -> None:
        self._share = params.shares(shards)
        self._shards = tuple(self._share)
        # Where each range but the first begins.
        ends = list(accumulate(self._share.values()))
        self._starts = [round(end * 2**WORD_BITS) for end in ends[:-1]]

    def shard_of(self, key: bytes) -> int:
        """The shard of a key."""
        return self._shards[bisect_right(self._starts, hashed(key))]

    def share(self, shard: int) -> float:
        """The part of all keys that the shard is to have."""
        return self._share[shard]
