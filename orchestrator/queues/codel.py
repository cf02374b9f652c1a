"""CoDel: drops from the head of a queue whose delay has stayed above ``target`` for ``interval``.

Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012, and RFC 8289. While it
drops, the times between drops shrink with the square root of their number, which slows down
senders that heed drops. Clients that do not slow down are turned away too slowly by it: that is
what ``controlled_delay`` is for. O(1) an operation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.parameters import ParameterError, duration
from orchestrator.core.registry import Family, register
from orchestrator.core.waiting import QueueParams
from orchestrator.queues._line import Line


@dataclass(frozen=True)
class CodelParams(QueueParams):
    target: int = duration("5ms", low="1us", help="a wait that is acceptable for ever")
    interval: int = duration("100ms", low="1us", help="for so long it may be exceeded")

    def __post_init__(self) -> None:
        if self.target > self.interval:
            raise ParameterError("target must not be above interval", key="target")


@register(Family.QUEUE, "codel", params=CodelParams)
class Codel(Line):
    """Drops, more and more often, while the shortest wait stays above a target"""

    __slots__ = ("_above_from_ns", "_count", "_dropping", "_last_count", "_next_ns", "_params")

    def __init__(self, params: CodelParams) -> None:
        super().__init__(params)
        self._params = params
        # When the wait will have been above the target for an interval; None while it is not.
        self._above_from_ns: int | None = None
        self._dropping = False
        self._next_ns = 0
        self._count = self._last_count = 0

    def _head(self, now_ns: int) -> tuple[Any | None, bool]:
        """(the job at the head, which leaves the queue; whether it may be dropped)."""
        if not self._line:
            self._above_from_ns = None
            return None, False
        arrived_ns, job = self._line.popleft()
        if now_ns - arrived_ns < self._params.target or not self._line:
            # Below the target, or the last of a burst.
            self._above_from_ns = None
            return job, False
        if self._above_from_ns is None:
            self._above_from_ns = now_ns + self._params.interval
        return job, now_ns >= self._above_from_ns

    def _after(self, from_ns: int) -> int:
        return from_ns + round(self._params.interval / math.sqrt(self._count))

    def take(self, now_ns: int) -> tuple[Any | None, Sequence[Any]]:
        """The job at the head, and those that are dropped before it."""
        job, late = self._head(now_ns)
        dropped = []
        if self._dropping:
            self._dropping = late
            while self._dropping and now_ns >= self._next_ns:
                dropped.append(job)
                self._count += 1
                job, self._dropping = self._head(now_ns)
                if self._dropping:
                    self._next_ns = self._after(self._next_ns)
        elif late:
            dropped.append(job)
            job, _ = self._head(now_ns)
            self._dropping = True
            # It goes on where it was where it has just been dropping.
            since = self._count - self._last_count
            recent = now_ns - self._next_ns < 16 * self._params.interval
            self._count = since if since > 1 and recent else 1
            self._next_ns = self._after(now_ns)
            self._last_count = self._count
        return job, dropped
