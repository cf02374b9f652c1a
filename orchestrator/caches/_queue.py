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

    def _shrink(self, amount: int) -> None:
        """Entries leave until no more than ``amount`` is used."""
        while self._used > amount:
            key, weight = self._entries.popitem(last=False)
            self._used -= weight
            self._leaves(key)
