"""First come, first served while the queue is short, last come first served once it is not.

Fair where there is no overload, and of use to clients that still wait where there is (Maurer,
"Fail at Scale", ACM Queue 13(8), 2015, on adaptive LIFO). O(1) an operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register
from orchestrator.core.waiting import QueueParams
from orchestrator.queues._line import NewestLine


@dataclass(frozen=True)
class AdaptiveLifoParams(QueueParams):
    short: int = number(16, low=0, help="up to so many wait: first come, first served")


@register(Family.QUEUE, "adaptive_lifo", params=AdaptiveLifoParams)
class AdaptiveLifo(NewestLine):
    """First come, first served while few wait, else last come, first served"""

    __slots__ = ("_short",)

    def __init__(self, params: AdaptiveLifoParams) -> None:
        super().__init__(params)
        self._short = params.short

    def take(self, now_ns: int) -> tuple[Any | None, Sequence[Any]]:
        """The oldest of few, the newest of many."""
        line = self._line
        if not line:
            return None, ()
        return (line.pop() if len(line) > self._short else line.popleft())[1], ()
