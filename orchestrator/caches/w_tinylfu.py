"""W-TinyLFU: who leaves a small window enters the main part only if it is the more frequent one.

New entries enter the window, which is LRU. Who leaves it is a candidate for the main part, which
is segmented LRU: entries enter its lowest segment, a hit raises an entry by one, and where a
segment is full its oldest falls by one. Where the main part is full, the candidate takes the
place of its oldest entry if a sketch of recent accesses counts more for it, and leaves if not
(Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM ToS
13(4), 2017, section 4). By bytes, a candidate has to win against one after the other until it
fits. O(1) an access: a fall of entries ends at the lowest of a few segments.

``counts`` says what the sketch counts. In the paper it is ``all`` accesses. The default are the
values of libCacheSim, against which the tests compare: main segments of equal size, a sketch
whose cells are shared by about as many keys, and in it candidates alone, each time they were
``rejected``: there, being hit protects an entry by its segment only.

Rules of the sketch: :mod:`orchestrator.core.sketch`. Rules of size:
:mod:`orchestrator.caches._room`.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.caches._segments import Segment, SegmentedCache
from orchestrator.core.load import CacheParams
from orchestrator.core.parameters import choice, number
from orchestrator.core.registry import Family, register
from orchestrator.core.sketch import FrequencySketch, Places

ALL = "all"
REJECTED = "rejected"
ENTRY_BYTES = 1024
WIDTH_MAX = 1 << 22


@dataclass(frozen=True)
class WindowTinyLfuParams(CacheParams):
    window: float = number(0.01, low=0.0, high=1.0, help="share of the window")
    segments: int = number(4, low=1, high=16, help="of the main part, of equal room")
    counts: str = choice(REJECTED, options=(REJECTED, ALL), help="what the sketch counts")
    width: int | None = number(
        None,
        low=1,
        high=WIDTH_MAX,
        help="cells in a row of the sketch; null: one for an entry, or for 1 KiB",
    )
    sample: int = number(32, low=1, help="counted before all are halved, for each cell of a row")


@register(Family.CACHE, "w_tinylfu", params=WindowTinyLfuParams)
class WindowTinyLfu(SegmentedCache):
    """A window of new entries; the main part takes from it what a sketch says is more frequent"""

    __slots__ = (
        "_counts_all",
        "_levels",
        "_main_room",
        "_places",
        "_rooms",
        "_sketch",
        "_window",
        "_window_room",
    )

    def __init__(self, params: WindowTinyLfuParams) -> None:
        super().__init__(params)
        self._window = Segment()
        self._levels = tuple(Segment() for _ in range(params.segments))
        self._segments = (self._window, *self._levels)
        self._window_room = self._share(params.window)
        self._main_room = self._amount - self._window_room
        each = self._main_room // params.segments
        lowest = self._main_room - each * (params.segments - 1)
        self._rooms = (lowest, *[each] * (params.segments - 1))
        entries = self._amount // ENTRY_BYTES if self._in_bytes else self._amount
        width = params.width or max(1, min(entries, WIDTH_MAX))
        self._sketch = FrequencySketch(width, params.sample * width)
        self._counts_all = params.counts == ALL
        self._places: dict[bytes, Places] = {}
        """Where the sketch counts each entry."""

    def access(self, key: bytes, size: int, now_ns: int) -> bool:
        """Whether it was there; a missing one is put in. ``size`` in bytes, 0 or more."""
        weight = size if self._in_bytes else 1
        if self._counts_all:
            self._sketch.add(self._places.get(key) or self._sketch.places(key))
        held = self._window.entries.get(key)
        if held is not None:
            self._window.entries.move_to_end(key)
            return held == weight or self._resize(self._window, key, weight)
        for level, segment in enumerate(self._levels):
            held = segment.entries.get(key)
            if held is not None:
                now_in = self._rise(level, key)
                return held == weight or self._resize(now_in, key, weight)
        if weight <= self._amount:
            self._put(key, weight)
        return False

    def forget(self, key: bytes) -> None:
        """Drop an entry if it is there."""
        super().forget(key)
        self._places.pop(key, None)

    def _put(self, key: bytes, weight: int) -> None:
        window = self._window
        window.push(key, weight)
        self._places[key] = self._sketch.places(key)
        self._used += weight
        while window.used > self._window_room and len(window.entries) > 1:
            self._offer()
        self._shrink(self._amount)

    def _rise(self, level: int, key: bytes) -> Segment:
        """Raise an entry by one segment; the segment it is in then."""
        levels, rooms = self._levels, self._rooms
        above = min(level + 1, len(levels) - 1)
        if above == level or rooms[above] == 0:
            levels[level].entries.move_to_end(key)
            return levels[level]
        levels[above].push(key, levels[level].drop(key))
        for falling in range(above, 0, -1):
            segment = levels[falling]
            while segment.used > rooms[falling] and len(segment.entries) > 1:
                levels[falling - 1].push(*segment.pop())
        return levels[above]

    def _offer(self) -> None:
        """The oldest entry of the window enters the main part, or leaves."""
        key, weight = self._window.pop()
        sketch, places = self._sketch, self._places
        # What all may use together while the main part keeps to its room.
        room = self._main_room + self._window.used
        if self._used > room:
            # Nobody leaves for what would not fit into an empty main part either.
            count = sketch.count(places[key]) if weight <= self._main_room else 0
            while self._used > room:
                oldest = self._oldest()
                victim = next(iter(oldest.entries), None)
                if victim is None or count <= sketch.count(places[victim]):
                    if not self._counts_all:
                        sketch.add(places[key])
                    self._out(key, weight)
                    return
                self._out(*oldest.pop())
        for segment, own in zip(self._levels, self._rooms, strict=True):
            if segment.used + weight <= own:
                segment.push(key, weight)
                return
        self._levels[0].push(key, weight)

    def _oldest(self) -> Segment:
        """The lowest segment that holds anything, else the lowest."""
        for segment in self._levels:
            if segment.entries:
                return segment
        return self._levels[0]

    def _evict(self) -> None:
        if self._window.used > self._window_room and len(self._window.entries) > 1:
            self._offer()
            return
        oldest = self._oldest()
        self._out(*(oldest if oldest.entries else self._window).pop())

    def _out(self, key: bytes, weight: int) -> None:
        del self._places[key]
        self._used -= weight
        self._leaves(key)
