"""Which operations of a client are sampled.

One of every ``stride`` operations that begin, at a random place among them, so that no period of
the load, nor the turns of a balancer, can hide from the sample. The stride is what the rate of the
warm-up lets expect; where more is sampled than there is room for, it doubles and every other sample
goes. So samples are spread evenly over the operations of the measured window, whatever its rate
turns out to be, and the generator tests one number an operation.
"""

from __future__ import annotations

import random
from typing import Final

SAMPLES: Final = 2048
"""At most so many operations of a run are sampled, besides what follows them at once."""
DENSEST: Final = 4
"""And no more than one of so many, so that short runs do not pay for it either."""
NONE_LEFT: Final = 0
"""Where an operation of the block is never."""


class Sampling:
    """One client's, of ``clients``; ``end_ns`` None: the load ends by itself."""

    def __init__(
        self, chance: random.Random, clients: int, warmup_ns: int, end_ns: int | None
    ) -> None:
        self._chance = chance
        self._room = max(2, SAMPLES // clients)
        self._warmup_ns, self._end_ns = warmup_ns, end_ns
        self._stride = DENSEST
        # The index of the first operation of the window, among all, and of the next sample.
        self._first: int | None = None
        self._next = 0
        self._taken = 0

    def place_in(self, end: int, left: int) -> int:
        """Of the operations before index ``end``, of which so many are left to begin: how many are
        left when the next sample is due; NONE_LEFT where that is none of them.
        """
        # Operations may have been passed over.
        self._next = max(self._next, end - left)
        return max(end - self._next, NONE_LEFT)

    def take(self, index: int, due_ns: int) -> int | None:
        """The operation of this index is where a sample is due: its place in the sample, from which
        ``keeps`` tells whether there is still room for it; None in the warm-up.
        """
        if due_ns < self._warmup_ns:
            # Looked at more seldom as more have come, and the window's start is hardly missed.
            self._next = index + 1 + index // 64
            return None
        if self._first is None:
            self._first = index
            self._stride = self._expected_stride(index, due_ns)
        place = (index - self._first) // self._stride * self._stride
        self._taken += 1
        if self._taken == self._room:
            self._stride *= 2
            self._taken //= 2
        after = (index - self._first) // self._stride + 1
        self._next = self._first + after * self._stride + self._chance.randrange(self._stride)
        return place

    def keeps(self, place: int) -> bool:
        """Whether what was sampled at this place still is."""
        return place % self._stride == 0

    def _expected_stride(self, begun: int, now_ns: int) -> int:
        """For so many operations that have begun by now, as long as the load goes on like that."""
        if self._end_ns is None or now_ns <= 0:
            return DENSEST
        expected = begun * (self._end_ns - now_ns) // now_ns
        return max(DENSEST, expected * 4 // (self._room * 3))
