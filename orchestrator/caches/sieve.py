"""SIEVE: a hand sifts out what was not hit since it last passed, and what it keeps stays in place.

Entries stand in order of arrival. The hand goes from the oldest to the newest and starts over:
it clears the mark of an entry that was hit and evicts one that was not. Unlike CLOCK's, an
entry that it spares keeps its place, so new ones are sifted soon after they came (Zhang et al.,
"SIEVE is Simpler than LRU", NSDI 2024, algorithm 1). O(1) an access: a pass of the hand is paid
by the hit that set the mark. Rules of size: :mod:`orchestrator.caches._room`.

The hand parts the order in two: the entries that it has yet to meet, oldest first and with new
ones at the tail, and the older ones that it spared. When it has met all, the spared ones are
the whole order again.
"""

from __future__ import annotations

from collections import OrderedDict

from orchestrator.caches._room import EntriesCache
from orchestrator.core.load import CacheParams
from orchestrator.core.registry import Family, register


@register(Family.CACHE, "sieve", params=CacheParams)
class Sieve(EntriesCache):
    """Evicts the oldest entry not hit since a hand last passed; spared ones stay in place"""

    __slots__ = ("_ahead", "_hit", "_spared")

    def __init__(self, params: CacheParams) -> None:
        super().__init__(params)
        self._hit: dict[bytes, None] = {}
        self._ahead: OrderedDict[bytes, None] = OrderedDict()
        self._spared: OrderedDict[bytes, None] = OrderedDict()

    def access(self, key: bytes, size: int, now_ns: int) -> bool:
        """Whether it was there; a missing one is put in. ``size`` in bytes, 0 or more."""
        weight = size if self._in_bytes else 1
        held = self._entries.get(key)
        if held is None:
            if self._put(key, weight):
                self._ahead[key] = None
            return False
        self._hit[key] = None
        return held == weight or self._resize(key, weight)

    def forget(self, key: bytes) -> None:
        """Drop an entry if it is there."""
        if key not in self._entries:
            return
        self._used -= self._entries.pop(key)
        self._hit.pop(key, None)
        if key in self._spared:
            del self._spared[key]
        else:
            del self._ahead[key]
            self._start_over_at_the_end()

    def _shrink(self, amount: int) -> None:
        """The hand goes on until no more than ``amount`` is used."""
        while self._used > amount:
            key, _ = self._ahead.popitem(last=False)
            if key in self._hit:
                del self._hit[key]
                self._spared[key] = None
            else:
                self._used -= self._entries.pop(key)
                self._leaves(key)
            self._start_over_at_the_end()

    def _start_over_at_the_end(self) -> None:
        if not self._ahead:
            self._ahead, self._spared = self._spared, self._ahead
