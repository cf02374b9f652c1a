"""Least frequently used: the entry with the fewest accesses since it was put in leaves first; of
equals the one whose last access is longest ago.

Counts start at 1 when an entry is put in and are forgotten with it. Keys of one count stand in a
queue of their own, so an access moves its key from one queue to the next (after Shah, Mitra and
Matani, "An O(1) Algorithm for Implementing the LFU Cache Eviction Scheme", 2010). O(1) an access:
the search for the next count that some entry has goes no further than the count of the entry that
is then evicted, whose own accesses pay for it. Rules of size: :mod:`orchestrator.caches._room`.
"""

from __future__ import annotations

from collections import OrderedDict

from orchestrator.caches._room import EntriesCache
from orchestrator.core.load import CacheParams
from orchestrator.core.registry import Family, register


@register(Family.CACHE, "lfu", params=CacheParams)
class LeastFrequentlyUsed(EntriesCache):
    """Evicts the entry with the fewest accesses, of equals the least recently used"""

    __slots__ = ("_counts", "_fewest", "_queues")

    def __init__(self, params: CacheParams) -> None:
        super().__init__(params)
        self._counts: dict[bytes, int] = {}
        self._queues: dict[int, OrderedDict[bytes, None]] = {}
        """Count -> its keys; no queue is empty."""
        self._fewest = 1
        """No entry has fewer accesses."""

    def access(self, key: bytes, size: int, now_ns: int) -> bool:
        """Whether it was there; a missing one is put in. ``size`` in bytes, 0 or more."""
        weight = size if self._in_bytes else 1
        held = self._entries.get(key)
        if held is None:
            if self._put(key, weight):
                self._join(key, 1)
                self._fewest = 1
            return False
        count = self._counts[key]
        self._part(key, count)
        self._join(key, count + 1)
        return held == weight or self._resize(key, weight)

    def forget(self, key: bytes) -> None:
        """Drop an entry if it is there."""
        if key in self._entries:
            self._used -= self._entries.pop(key)
            self._part(key, self._counts.pop(key))

    def _join(self, key: bytes, count: int) -> None:
        self._counts[key] = count
        queue = self._queues.get(count)
        if queue is None:
            queue = self._queues[count] = OrderedDict()
        queue[key] = None

    def _part(self, key: bytes, count: int) -> None:
        queue = self._queues[count]
        del queue[key]
        if not queue:
            del self._queues[count]

    def _shrink(self, amount: int) -> None:
        """Entries leave until no more than ``amount`` is used."""
        while self._used > amount:
            while self._fewest not in self._queues:
                self._fewest += 1
            key = next(iter(self._queues[self._fewest]))
            self.forget(key)
            self._leaves(key)
