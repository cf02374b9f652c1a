"""LRU with a time to live: an entry also leaves once it was put in ``ttl`` ago, hit or not.

This is how a cache bounds how stale its answers are. An entry put in at t is held before
``t + ttl``. Time is the latest that the policy was told, so a clock that goes back revives
nothing. Expired entries leave before any other must: all have the same time to live, so they
expire in the order in which they were put in, and each access looks at the first of them. O(1)
an access: an expiry is paid by the access that put the entry in. ``evictions`` leaves expired
entries out. Rules of size: :mod:`orchestrator.caches._room`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from orchestrator.caches._queue import QueueCache
from orchestrator.core.load import CacheParams
from orchestrator.core.parameters import duration
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class TimeToLiveParams(CacheParams):
    ttl: int = duration("60s", low="1ns", help="from when an entry is put in to its expiry")


@register(Family.CACHE, "ttl", params=TimeToLiveParams)
class TimeToLive(QueueCache):
    """Evicts the least recently used entry; every entry expires some time after it was put in"""

    __slots__ = ("_ends_ns", "_now_ns", "_ttl_ns")

    def __init__(self, params: TimeToLiveParams) -> None:
        super().__init__(params)
        self._ttl_ns = params.ttl
        self._now_ns = 0
        self._ends_ns: OrderedDict[bytes, int] = OrderedDict()
        """Key -> when it expires, earliest first."""

    def access(self, key: bytes, size: int, now_ns: int) -> bool:
        """Whether it was there; a missing one is put in. ``size`` in bytes, 0 or more."""
        if now_ns > self._now_ns:
            self.advance(now_ns)
        weight = size if self._in_bytes else 1
        held = self._entries.get(key)
        if held is None:
            if self._put(key, weight):
                self._ends_ns[key] = self._now_ns + self._ttl_ns
            return False
        self._entries.move_to_end(key)
        return held == weight or self._resize(key, weight)

    def advance(self, now_ns: int) -> None:
        """It is now so late: what has expired leaves."""
        if now_ns <= self._now_ns:
            return
        self._now_ns = now_ns
        ends_ns = self._ends_ns
        while ends_ns:
            key = next(iter(ends_ns))
            if ends_ns[key] > now_ns:
                return
            self.forget(key)
            if self.departed is not None:
                self.departed.append(key)

    def forget(self, key: bytes) -> None:
        """Drop an entry if it is there."""
        super().forget(key)
        self._ends_ns.pop(key, None)

    def _shrink(self, amount: int) -> None:
        while self._used > amount:
            key, weight = self._entries.popitem(last=False)
            self._used -= weight
            del self._ends_ns[key]
            self._leaves(key)
