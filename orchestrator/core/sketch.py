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

Places = tuple[int, int, int, int]
"""A key's cells: whoever asks about a key again keeps them."""

MOST: Final = 15
_HALVES: Final = bytes(cell >> 1 for cell in range(256))
# Odd multipliers of 64 bits, one a row, so that keys that share a cell in one row rarely do so in
# another: from the fractions of the golden ratio and of the roots of 2, 3 and 7. That of 5 is
# twice the golden ratio, so where the width is a power of 2 it would nearly be the first row again.
_ODD: Final = (0x9E3779B97F4A7C15, 0x6A09E667F3BCC909, 0xBB67AE8584CAA73B, 0xA54FF53A5F1D36F1)


class FrequencySketch:
    """Counts up to 15, in ``width`` cells a row (at least 1), halved every ``sample`` accesses."""

    __slots__ = ("_cells", "_left", "_sample", "_width")

    def __init__(self, width: int, sample: int) -> None:
        self._width = width
        self._cells = bytearray(4 * width)
        self._sample = self._left = sample

    def places(self, key: bytes) -> Places:
        """The key's cell in each row, the same for ever."""
        mixed = crc32(key)
        width = self._width
        return (
            (mixed * _ODD[0] >> 32) % width << 2,
            (mixed * _ODD[1] >> 32) % width << 2 | 1,
            (mixed * _ODD[2] >> 32) % width << 2 | 2,
            (mixed * _ODD[3] >> 32) % width << 2 | 3,
        )

    def add(self, places: Places) -> None:
        """One more access."""
        cells = self._cells
        one, two, three, four = places
        least = min(cells[one], cells[two], cells[three], cells[four])
        if least < MOST:
            for place in places:
                if cells[place] == least:
                    cells[place] = least + 1
        self._left -= 1
        if not self._left:
            self._cells = cells.translate(_HALVES)
            self._left = self._sample

    def count(self, places: Places) -> int:
        """Accesses lately, 0 to 15; never too few but for what was halved."""
        cells = self._cells
        one, two, three, four = places
        return min(cells[one], cells[two], cells[three], cells[four])
