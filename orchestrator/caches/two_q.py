"""2Q: what is accessed again after it left a short queue is worth keeping.

A new entry enters a queue in order of arrival (A1in), where hits move nothing: accesses in quick
succession count as one. Who leaves it is remembered (A1out, ghosts), and an entry whose key is
remembered enters the main queue (Am), which is LRU (Johnson and Shasha, "2Q: A Low Overhead High
Performance Buffer Management Replacement Algorithm", VLDB 1994, the full version). A1in loses an
entry while it holds more than its share, else Am does. O(1) an access. Rules of size:
:mod:`orchestrator.caches._room`.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.caches._segments import Segment, SegmentedCache
from orchestrator.core.load import CacheParams
from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class TwoQParams(CacheParams):
    kin: float = number(0.25, low=0.0, high=1.0, help="share of the queue of new entries")
    kout: float = number(0.5, low=0.0, high=10.0, help="room of the ghosts, of the cache's")


@register(Family.CACHE, "two_q", params=TwoQParams)
class TwoQ(SegmentedCache):
    """A queue for new entries, and LRU for those that came back after they left it"""

    __slots__ = ("_ghosts", "_ghosts_room", "_main", "_new", "_new_room")

    def __init__(self, params: TwoQParams) -> None:
        super().__init__(params)
        self._new, self._main, self._ghosts = Segment(), Segment(), Segment()
        self._segments = (self._new, self._main)
        self._new_room = self._share(params.kin)
        self._ghosts_room = int(self._amount * params.kout)

    def access(self, key: bytes, size: int, now_ns: int) -> bool:
        """Whether it was there; a missing one is put in. ``size`` in bytes, 0 or more."""
        weight = size if self._in_bytes else 1
        held = self._main.entries.get(key)
        if held is not None:
            self._main.entries.move_to_end(key)
            return held == weight or self._resize(self._main, key, weight)
        held = self._new.entries.get(key)
        if held is not None:
            return held == weight or self._resize(self._new, key, weight)
        if weight <= self._amount:
            self._put(key, weight)
        return False

    def _put(self, key: bytes, weight: int) -> None:
        segment = self._new
        if key in self._ghosts.entries:
            self._ghosts.drop(key)
            segment = self._main
        self._shrink(self._amount - weight)
        segment.push(key, weight)
        self._used += weight

    def _evict(self) -> None:
        if self._new.used > self._new_room or not self._main.entries:
            key, weight = self._new.pop()
            self._ghosts.push(key, weight)
            self._ghosts.trim(self._ghosts_room)
        else:
            key, weight = self._main.pop()
        self._used -= weight
        self._leaves(key)
