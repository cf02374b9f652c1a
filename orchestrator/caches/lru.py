"""Least recently used: the entry that went longest without an access leaves first.

Every access moves its entry to the tail of the queue, so an entry that grew is the last to
leave for its own growth. O(1) an access. Under independent references the hit ratio follows
the approximation of Che, Tung and Wang ("Hierarchical Web Caching Systems: Modeling, Design
and Experimental Results", IEEE JSAC 20(7), 2002). Rules of size:
:mod:`orchestrator.caches._room`.
"""

from __future__ import annotations

from orchestrator.caches._queue import QueueCache
from orchestrator.core.load import CacheParams
from orchestrator.core.registry import Family, register


@register(Family.CACHE, "lru", params=CacheParams)
class LeastRecentlyUsed(QueueCache):
    """Evicts the entry whose last access is longest ago"""

    __slots__ = ()

    def access(self, key: bytes, size: int, now_ns: int) -> bool:
        """Whether it was there; a missing one is put in. ``size`` in bytes, 0 or more."""
        weight = size if self._in_bytes else 1
        held = self._entries.get(key)
        if held is None:
            self._put(key, weight)
            return False
        self._entries.move_to_end(key)
        return held == weight or self._resize(key, weight)
