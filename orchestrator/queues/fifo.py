"""First come, first served, with an end: who finds the queue full is turned away.

With Poisson arrivals, exponential service and one core that is M/M/1/K with K = ``limit`` + 1
(Kleinrock, "Queueing Systems", volume 1, 1975, section 3.6): a load above the capacity costs no
more delay than a full queue takes to be served. O(1) an operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.core.registry import Family, register
from orchestrator.core.waiting import QueueParams
from orchestrator.queues._line import Line


@register(Family.QUEUE, "fifo", params=QueueParams)
class FirstComeFirstServed(Line):
    """First come, first served; who finds it full is turned away"""

    __slots__ = ()

    def take(self, now_ns: int) -> tuple[Any | None, Sequence[Any]]:
        """The one that has waited longest."""
        return (self._line.popleft()[1] if self._line else None), ()
