"""What caches that keep one eviction queue have in common.

Room is counted in entries (each weighs 1, whatever its size) or in bytes (each weighs its
size; an entry of size 0 takes no room). The rules, the same for every such policy:

* A missing entry is put in at the tail; entries leave from the head until it fits.
* A hit with another size is still a hit, and the entry weighs its new size from then on. If
  it grew, entries leave from the head until all fit; where the policy has left the entry
  itself at the head, it leaves too.
* An access larger than the whole cache is a miss and puts nothing in. Nothing else leaves,
  but for a smaller entry of the same key, which is out of date and is dropped.
* ``evictions`` counts every entry that left for want of room, and none that was forgotten.

The oracle of the tests, libCacheSim, differs in one point: it keeps the size of an entry's
first access for as long as the entry stays.
"""

from __future__ import annotations

from collections import OrderedDict

from orchestrator.core.load import CacheParams


class QueueCache:
    """Entries in eviction order (head first) and the room they take.

    An OrderedDict, because finding the head of a plain dict whose first entries were deleted
    takes time in proportion to their number.
    """

    __slots__ = ("_amount", "_entries", "_in_bytes", "_used", "evictions")

    def __init__(self, params: CacheParams) -> None:
        self._amount = params.size.amount
        self._in_bytes = params.size.in_bytes
        self._entries: OrderedDict[bytes, int] = OrderedDict()
        self._used = 0
        self.evictions = 0

    def forget(self, key: bytes) -> None:
        """Drop an entry if it is there."""
        self._used -= self._entries.pop(key, 0)

    def _put(self, key: bytes, weight: int) -> None:
        """Put a missing entry in at the tail, if it can fit at all."""
        if weight > self._amount:
            return
        self._entries[key] = weight
        self._used += weight
        if self._used > self._amount:
            self._shrink()

    def _resize(self, key: bytes, weight: int) -> bool:
        """Give a present entry its new weight; whether the access counts as a hit."""
        if weight > self._amount:
            self.forget(key)
            self.evictions += 1
            return False
        self._used += weight - self._entries[key]
        self._entries[key] = weight
        if self._used > self._amount:
            self._shrink()
        return True

    def _shrink(self) -> None:
        while self._used > self._amount:
            _, weight = self._entries.popitem(last=False)
            self._used -= weight
            self.evictions += 1
