"""Last come, first served: under overload some are served at once and the others time out.

First come, first served makes everybody wait too long where the load exceeds the capacity; this
serves those whose clients still wait. Where nobody waits for long the order hardly matters.
O(1) an operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.core.registry import Family, register
from orchestrator.core.waiting import QueueParams
from orchestrator.queues._line import NewestLine


@register(Family.QUEUE, "lifo", params=QueueParams)
class LastComeFirstServed(NewestLine):
    """Last come, first served; where it is full the one that came first is turned away"""

    __slots__ = ()

    def take(self, now_ns: int) -> tuple[Any | None, Sequence[Any]]:
        """The one that came last."""
        return (self._line.pop()[1] if self._line else None), ()
