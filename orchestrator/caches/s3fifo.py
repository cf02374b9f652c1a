"""S3-FIFO: a small queue in front keeps what is accessed once from the main one.

Three queues in order of arrival (Yang et al., "FIFO Queues are All You Need for Cache Eviction",
SOSP 2023, algorithm 1). A new entry enters the small one, or the main one where its key is among
the ghosts, which are the keys that left the small one last. Who leaves the small queue moves to
the main one if it was hit ``threshold`` times meanwhile, else out. The main queue gives an entry
another round for each of up to 3 hits. The small queue loses an entry unless the main one holds
more than its share. Until the cache has evicted for the first time, entries that the small queue
has no room for enter the main one. O(1) an access: each round is paid by a hit. Rules of size:
:mod:`orchestrator.caches._room`.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.caches._segments import Segment, SegmentedCache
from orchestrator.core.load import CacheParams
from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register

HITS_MAX = 3


@dataclass(frozen=True)
class S3FifoParams(CacheParams):
    small: float = number(0.1, low=0.0, high=1.0, help="share of the small queue")
    ghosts: float = number(0.9, low=0.0, high=10.0, help="room of the ghosts, of the cache's")
    threshold: int = number(2, low=1, high=HITS_MAX, help="hits that move an entry to the main one")


@register(Family.CACHE, "s3fifo", params=S3FifoParams)
class S3Fifo(SegmentedCache):
    """Three first-in-first-out queues: small, main, and the ghosts of the small one"""

    __slots__ = (
        "_ghosts",
        "_ghosts_room",
        "_hits",
        "_main",
        "_main_room",
        "_small",
        "_small_room",
        "_threshold",
    )

    def __init__(self, params: S3FifoParams) -> None:
        super().__init__(params)
        self._small, self._main, self._ghosts = Segment(), Segment(), Segment()
        self._segments = (self._small, self._main)
        self._small_room = self._share(params.small)
        self._main_room = self._amount - self._small_room
        self._ghosts_room = int(self._amount * params.ghosts)
        self._threshold = params.threshold
        self._hits: dict[bytes, int] = {}

    def access(self, key: bytes, size: int, now_ns: int) -> bool:
        """Whether it was there; a missing one is put in. ``size`` in bytes, 0 or more."""
        weight = size if self._in_bytes else 1
        segment = self._main
        held = segment.entries.get(key)
        if held is None:
            segment = self._small
            held = segment.entries.get(key)
            if held is None:
                self._put(key, weight)
                return False
        hits = self._hits[key]
        if hits < HITS_MAX:
            self._hits[key] = hits + 1
        return held == weight or self._resize(segment, key, weight)

    def forget(self, key: bytes) -> None:
        """Drop an entry if it is there."""
        super().forget(key)
        self._hits.pop(key, None)

    def _put(self, key: bytes, weight: int) -> None:
        if weight > self._amount:
            return
        segment = self._small
        if key in self._ghosts.entries:
            self._ghosts.drop(key)
            segment = self._main
        elif (
            not self.evictions
            and self._used + weight <= self._amount
            and self._small.used >= self._small_room
        ):
            segment = self._main
        self._shrink(self._amount - weight)
        segment.push(key, weight)
        self._used += weight
        self._hits[key] = 0

    def _evict(self) -> None:
        """One entry leaves; on the way to it others move, or get another round."""
        small, main, hits = self._small, self._main, self._hits
        if main.used <= self._main_room:
            while small.entries:
                key, weight = small.pop()
                if hits[key] < self._threshold:
                    self._out(key, weight)
                    self._ghosts.push(key, weight)
                    self._ghosts.trim(self._ghosts_room)
                    return
                main.push(key, weight)
                hits[key] = 0
        while True:
            key, weight = main.pop()
            if not hits[key]:
                self._out(key, weight)
                return
            main.push(key, weight)
            hits[key] -= 1

    def _out(self, key: bytes, weight: int) -> None:
        del self._hits[key]
        self._used -= weight
        self._leaves(key)
