"""How fast the core is that this process runs on, told by a fixed loop every now and then.

Cores of shared hosts are not equally fast at all times: another machine's work on the same physical
core, or a lower clock, makes the same instructions take up to twice as long, and no counter of the
kernel says so. The loop does what nodes and clients do (arithmetic, small objects, a dictionary),
takes some tens of microseconds, and is run by the process itself between its ticks, so it meets
the core as the process does.
"""

from __future__ import annotations

import time
from typing import Final

ROUNDS: Final = 100


def loop_ns() -> int:
    """CPU time of the fixed loop, now and here."""
    # The first brings its code into the caches; of the others one may have been interrupted.
    _loop()
    began_ns = time.thread_time_ns()
    _loop()
    middle_ns = time.thread_time_ns()
    _loop()
    return min(middle_ns - began_ns, time.thread_time_ns() - middle_ns)


def _loop() -> int:
    seen: dict[int, tuple[int, str]] = {}
    total = 0
    for number in range(ROUNDS):
        seen[number % 31] = (number, str(number))
        total += len(seen)
    return total
