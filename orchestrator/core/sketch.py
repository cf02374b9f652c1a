"""How often a key was accessed lately, counted in little memory.

A count-min sketch (Cormode and Muthukrishnan, J. Algorithms 55(1), 2005): each key has one cell
in each of 4 rows, and its count is the least of them, so it is never too low. Only the least
cells are raised (conservative update, Estan and Varghese, SIGCOMM 2002), which keeps what other
keys add small. Cells end at 15. After ``sample`` accesses all are halved, so the count is of the
recent past (Einziger, Friedman and Manes, "TinyLFU", ACM ToS 13(4), 2017, section 3.3).

Cells follow from CRC-32 of the key and a multiplication, never from Python's own hash, which
differs between processes. O(1) an access: halving takes time in proportion to the cells, once
in ``sample`` accesses.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

MOST: Final = 15
_HALVES: Final = bytes(cell >> 1 for cell in range(256))
_GOLDEN: Final = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: spreads the bits of a CRC


class FrequencySketch:
    """Counts up to 15, in ``width`` cells a row (at least 1), halved every ``sample`` accesses."""

    __slots__ = ("_cells", "_left", "_sample", "_width")

    def __init__(self, width: int, sample: int) -> None:
        self._width = width
        self._cells = bytearray(4 * width)
        self._sample = self._left = sample

    def add(self, key: bytes) -> None:
        """One more access."""
        one, two, three, four = self._places(key)
        cells = self._cells
        least = min(cells[one], cells[two], cells[three], cells[four])
        if least < MOST:
            for place in (one, two, three, four):
                if cells[place] == least:
                    cells[place] = least + 1
        self._left -= 1
        if not self._left:
            self._cells = cells.translate(_HALVES)
            self._left = self._sample

    def count(self, key: bytes) -> int:
        """Accesses lately, 0 to 15; never too few but for what was halved."""
        one, two, three, four = self._places(key)
        cells = self._cells
        return min(cells[one], cells[two], cells[three], cells[four])

    def _places(self, key: bytes) -> tuple[int, int, int, int]:
        """The key's cell in each row, by double hashing."""
        mixed = crc32(key) * _GOLDEN
        start = mixed >> 32
        step = mixed & 0xFFFFFFFF | 1
        width = self._width
        return (
            (start % width) << 2,
            ((start + step) % width) << 2 | 1,
            ((start + 2 * step) % width) << 2 | 2,
            ((start + 3 * step) % width) << 2 | 3,
        )
