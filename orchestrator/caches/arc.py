"""ARC: how much room recency gets and how much frequency follows from where ghosts are hit.

Entries accessed once stand in one LRU queue (T1), those accessed again in another (T2); keys that
left them are remembered (B1, B2). ``target`` is the room that T1 should have. A miss whose key
is in B1 says that T1 was too small and raises it; one in B2 lowers it, each by 1 or by how many
times longer the other list of ghosts is. T1 loses an entry while it holds more than the target,
else T2 does. T1 and B1 together remember no more than the cache holds, all four no more than
twice that (Megiddo and Modha, "ARC: A Self-Tuning, Low Overhead Replacement Cache", FAST 2003,
figure 4). O(1) an access.

By bytes, all these lengths are bytes, as in libCacheSim: the target then moves by as few bytes a
ghost as it moves by entries where room is counted in those, so it adapts more slowly. And one
ghost makes way for one entry whatever each weighs, so where sizes differ much the ghosts may come
to many times the room of the cache.
Rules of size: :mod:`orchestrator.caches._room`.
"""

from __future__ import annotations

from orchestrator.caches._segments import Segment, SegmentedCache
from orchestrator.core.load import CacheParams
from orchestrator.core.registry import Family, register


@register(Family.CACHE, "arc", params=CacheParams)
class AdaptiveReplacement(SegmentedCache):
    """Divides its room between recent and frequent entries as hits on ghosts advise"""

    __slots__ = ("_frequent", "_frequent_ghosts", "_recent", "_recent_ghosts", "_target")

    def __init__(self, params: CacheParams) -> None:
        super().__init__(params)
        self._recent, self._recent_ghosts = Segment(), Segment()
        self._frequent, self._frequent_ghosts = Segment(), Segment()
        self._segments = (self._recent, self._frequent)
        self._target = 0.0

    def access(self, key: bytes, size: int, now_ns: int) -> bool:
        """Whether it was there; a missing one is put in. ``size`` in bytes, 0 or more."""
        weight = size if self._in_bytes else 1
        frequent = self._frequent
        held = frequent.entries.get(key)
        if held is not None:
            frequent.entries.move_to_end(key)
        elif key in self._recent.entries:
            held = self._recent.drop(key)
            frequent.push(key, held)
        else:
            if weight <= self._amount:
                self._put(key, weight)
            return False
        return held == weight or self._resize(frequent, key, weight)

    def _put(self, key: bytes, weight: int) -> None:
        recent, frequent = self._recent_ghosts, self._frequent_ghosts
        room = self._amount - weight
        if key in recent.entries:
            step = max(frequent.used / max(recent.used, 1), 1.0)
            self._target = min(self._target + step, self._amount)
            recent.drop(key)
            self._shrink(room)
            self._frequent.push(key, weight)
        elif key in frequent.entries:
            step = max(recent.used / max(frequent.used, 1), 1.0)
            self._target = max(self._target - step, 0.0)
            frequent.drop(key)
            while self._used > room:
                self._evict(was_frequent=True)
            self._frequent.push(key, weight)
        else:
            self._make_room(weight)
            self._recent.push(key, weight)
        self._used += weight

    def _make_room(self, weight: int) -> None:
        """For an entry that no list remembers: where the lists are full, a ghost goes, too."""
        recent, recent_ghosts = self._recent, self._recent_ghosts
        frequent, frequent_ghosts = self._frequent, self._frequent_ghosts
        while self._used + weight > self._amount:
            recents = recent.used + recent_ghosts.used
            if recents + weight <= self._amount:
                if recents + frequent.used + frequent_ghosts.used >= 2 * self._amount:
                    frequent_ghosts.pop()
                self._evict()
            elif recent_ghosts.entries:
                recent_ghosts.pop()
                self._evict()
            else:
                self._out(*recent.pop())

    def _evict(self, was_frequent: bool = False) -> None:
        """The oldest entry of T1 or T2 becomes a ghost (REPLACE of the paper)."""
        recent = self._recent
        above = recent.used - self._target
        segment, ghosts = self._frequent, self._frequent_ghosts
        if not segment.entries or (recent.entries and (above > 0 or (was_frequent and above == 0))):
            segment, ghosts = recent, self._recent_ghosts
        key, weight = segment.pop()
        ghosts.push(key, weight)
        self._out(key, weight)

    def _out(self, key: bytes, weight: int) -> None:
        self._used -= weight
        self._leaves(key)
