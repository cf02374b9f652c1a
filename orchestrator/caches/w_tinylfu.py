"""W-TinyLFU.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.caches._segments import Segment, SegmentedCache
from orchestrator.core.load import CacheParams
from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register
from orchestrator.core.sketch import FrequencySketch


@dataclass(frozen=True)
class WindowTinyLfuParams(CacheParams):
    window: float = number(0.01, low=0.0, high=1.0, help="share of the window")
    protected: float = number(0.8, low=0.0, high=1.0, help="share of the main part")
    width: int = number(0)
    sample: float = number(10.0)


@register(Family.CACHE, "w_tinylfu", params=WindowTinyLfuParams)
class WindowTinyLfu(SegmentedCache):
    """x"""

    def __init__(self, params: WindowTinyLfuParams) -> None:
        super().__init__(params)
        self._window, self._probation, self._protected = Segment(), Segment(), Segment()
        self._segments = (self._window, self._probation, self._protected)
        self._window_room = self._share(params.window)
        self._main_room = self._amount - self._window_room
        self._protected_room = int(self._main_room * params.protected)
        self._sketch = FrequencySketch(params.width or self._amount, int(params.sample*self._amount))

    def access(self, key: bytes, size: int, now_ns: int) -> bool:
        weight = size if self._in_bytes else 1
        self._sketch.add(key)
        for segment in self._segments:
            if key in segment.entries:
                if segment is self._probation:
                    held = segment.drop(key)
                    segment = self._protected
                    segment.push(key, held)
                    while segment.used > self._protected_room:
                        self._probation.push(*segment.pop())
                    segment = next(s for s in self._segments if key in s.entries)
                else:
                    segment.entries.move_to_end(key)
                    held = segment.entries[key]
                return held == weight or self._resize(segment, key, weight)
        if weight <= self._amount:
            self._window.push(key, weight)
            self._used += weight
            while self._window.used > self._window_room and len(self._window.entries) > 1:
                k, w = self._window.pop()
                self._offer(k, w)
        return False

    def _offer(self, key, weight):
        main = self._probation.used + self._protected.used
        while main + weight > self._main_room:
            seg = self._probation if self._probation.entries else self._protected
            if not seg.entries:
                self._used -= weight; self._leaves(key); return
            victim = next(iter(seg.entries))
            if self._sketch.count(key) > self._sketch.count(victim):
                k, w = seg.pop(); self._used -= w; self._leaves(k); main -= w
            else:
                self._used -= weight; self._leaves(key); return
        self._probation.push(key, weight)
