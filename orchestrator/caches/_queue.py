"""What caches that keep one eviction queue have in common: entries are put in at its tail and
leave from its head. Rules of size: :mod:`orchestrator.caches._room`.
"""

from __future__ import annotations

from collections import OrderedDict

from orchestrator.caches._room import EntriesCache
from orchestrator.core.load import CacheParams


class QueueCache(EntriesCache):
    """Entries in eviction order (head first) with the room that each takes.

    An OrderedDict, because finding the head of a plain dict whose first entries were deleted
    takes time in proportion to their number.
    """

    __slots__ = ()

    _entries: OrderedDict[bytes, int]

    def __init__(self, params: CacheParams) -> None:
        super().__init__(params)
        self._entries = OrderedDict()

    def forget(self, key: bytes) -> None:
        """Drop an entry if it is there."""
        self._used -= self._entries.pop(key, 0)

    def _put(self, key: bytes, weight: int) -> None:
        """Put a missing entry in at the tail, if it can fit at all."""
        left = self._amount - weight
        if left < 0:
            return
        if self._used > left:
            self._shrink(left)
        self._entries[key] = weight
        self._used += weight

    def _shrink(self, amount: int) -> None:
        """Entries leave until no more than ``amount`` is used."""
        departed = self.departed
        popitem = self._entries.popitem
        used = self._used
        while used > amount:
            key, weight = popitem(last=False)
            used -= weight
            self.evictions += 1
            if departed is not None:
                departed.append(key)
        self._used = used
