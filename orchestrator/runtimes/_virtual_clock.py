"""Virtual time: a heap of callbacks that is run down as fast as it goes.

Callbacks of the same time run in the order in which they were asked for.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any, Final

NEVER_NS: Final = 2**63
"""Later than everything."""


class VirtualClock:
    """The heap of events, from ``start_ns`` on. ``current_ns`` is what ``now_ns()`` gives."""

    def __init__(self, start_ns: int) -> None:
        self.current_ns = start_ns
        self.stopping = False
        self._heap: list[tuple[int, int, Callable[[Any], None], Any]] = []
        heap, push, order = self._heap, heapq.heappush, itertools.count().__next__

        def at(when_ns: int, callback: Callable[[Any], None], argument: Any) -> None:
            push(heap, (when_ns, order(), callback, argument))

        # Called several times an operation, and a closure is quicker than a method.
        self.at = at

    def now_ns(self) -> int:
        return self.current_ns

    def moment_ns(self) -> int:
        return self.current_ns

    def run(self, limit_ns: int = NEVER_NS) -> None:
        """Run events until ``stopping`` is set, past ``limit_ns``, or none is left."""
        heap, pop = self._heap, heapq.heappop
        self.stopping = False
        while heap and not self.stopping:
            if heap[0][0] > limit_ns:
                self.current_ns = limit_ns
                return
            when_ns, _, callback, argument = pop(heap)
            if when_ns > self.current_ns:
                self.current_ns = when_ns
            callback(argument)
