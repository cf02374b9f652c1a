"""A client's next operations, drawn a block at a time and taken apart into plain objects.

Numpy's cost per call is shared by a block, and the loop that starts operations meets no array. But
while a block is taken apart nothing else happens in a real client, and for 8,192 operations that is
a millisecond: the p99 of a system that answers within some tens of microseconds. So it is done in
slices, and what can be drawn before the load begins is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from orchestrator.core.load import ChunkedStream, OperationBlock, OperationStream, Timetable
from orchestrator.runtimes._routing import LevelMix

BLOCK: Final = 8192
SLICE: Final = 128
AHEAD_MAX: Final = 1 << 20
"""Operations that are drawn before the load begins, at most: 18 bytes each."""

Drawn = Iterator[tuple[int, int, int, int, int, int, Any]]
"""Of each operation its follow_up, kind, key, size, count, level and steps."""


class Ahead:
    """What one client does next; with intended starts where these are ``planned``."""

    def __init__(
        self, stream: OperationStream, timetable: Timetable, levels: LevelMix, *, planned: bool
    ) -> None:
        self._stream, self._timetable, self._levels = stream, timetable, levels
        self._planned = planned
        self._at = self._length = 0

    def draw_ahead(self, seconds: float) -> None:
        """Draw before the load begins, for so long at most."""
        until = time.monotonic() + seconds
        if isinstance(self._stream, ChunkedStream):
            while self._stream.draw_ahead() < AHEAD_MAX and time.monotonic() < until:
                pass

    def take(self) -> tuple[Drawn, list[int], int]:
        """The next operations, their intended starts (or none), and how many there are: 0 where
        there are no more.
        """
        if self._at == self._length:
            self._refill()
        rows = slice(self._at, min(self._at + SLICE, self._length))
        self._at = rows.stop
        count = rows.stop - rows.start
        lists = [column[rows].tolist() for column in self._columns]
        steps = [()] * count if self._steps is None else self._steps[rows].tolist()
        starts = self._starts[rows].tolist() if self._planned else []
        return zip(*lists, self._asked[rows], steps, strict=True), starts, count

    def _refill(self) -> None:
        block: OperationBlock = self._stream.block(BLOCK)
        self._at, self._length = 0, len(block)
        if self._planned:
            self._starts = self._timetable.starts_ns(block)
            if isinstance(self._stream, ChunkedStream) and self._stream.timed:
                block = self._stream.at(block, self._starts)
        self._columns = (block.follow_up, block.kind, block.key, block.size, block.count)
        self._steps = block.steps
        self._asked = self._levels.of(block)
