"""First in, first out: the entry that was put in longest ago leaves first.

A hit changes nothing in the queue, so it writes nothing that several cores would share. An
entry that grew keeps its place and may thus leave for its own growth. O(1) an access. Under
independent references the hit ratio is that of random replacement (Gelenbe, "A Unified
Approach to the Evaluation of a Class of Replacement Algorithms", IEEE TC 22(6), 1973), below
that of LRU. Rules of size: :mod:`orchestrator.caches._room`.
"""

from __future__ import annotations

from orchestrator.caches._queue import QueueCache
from orchestrator.core.load import CacheParams
from orchestrator.core.registry import Family, register


@register(Family.CACHE, "fifo", params=CacheParams)
class FirstInFirstOut(QueueCache):
    """Evicts the entry that was put in longest ago"""

    __slots__ = ()

    def access(self, key: bytes, size: int, now_ns: int) -> bool:
        """Whether it was there; a missing one is put in. ``size`` in bytes, 0 or more."""
        weight = size if self._in_bytes else 1
        held = self._entries.get(key)
        if held is None:
            self._put(key, weight)
            return False
        return held == weight or self._resize(key, weight)
