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
        if weight > self._amount:
            return
        used = self._used + weight
        if used > self._amount:
            self._shrink(self._amount - weight)
            used = self._used + weight
        self._entries[key] = weight
        self._used = used

    def _shrink(self, amount: int) -> None:
        """Entries leave until no more than ``amount`` is used."""
        while self._used > amount:
            key, weight = self._entries.popitem(last=False)
            self._used -= weight
            self.evictions += 1
            if self.departed is not None:
                self.departed.append(key)
