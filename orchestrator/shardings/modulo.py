"""The hash of the key modulo the number of shards.

Even and without a table, and the plainest thing that can be done; but with one shard more or less
almost every key belongs to another shard: of n shards that become n + 1, n / (n + 1) of the keys
move (Karger et al., "Consistent Hashing and Random Trees", STOC 1997, section 1, name it as what
is wrong with it).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from orchestrator.core.registry import Family, NoParams, register


@register(Family.SHARDING, "modulo")
class Modulo:
    """CRC-32 of the key modulo the number of shards; all keys move when that changes"""

    def __init__(self, params: NoParams, shards: Sequence[int]) -> None:
        self._shards = tuple(shards)

    def shard_of(self, key: bytes) -> int:
        """The shard of a key."""
        return self._shards[zlib.crc32(key) % len(self._shards)]

    def share(self, shard: int) -> float:
        """Of all keys, the same for each."""
        return 1 / len(self._shards)
