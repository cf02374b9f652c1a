"""Nobody waits for longer than ``patience``, and for no longer than ``target`` in a standing queue.

A queue that was empty within the last ``interval`` only absorbs a burst, so its operations may
wait for the interval; one that was not stands, and whoever has waited for ``target`` by the time
it would be served is turned away (Maurer, "Fail at Scale", ACM Queue 13(8), 2015, who used 5 ms
and 100 ms and combined it with adaptive LIFO: ``newest_first``). O(1) an operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.parameters import ParameterError, duration, flag
from orchestrator.core.registry import Family, register
from orchestrator.core.waiting import QueueParams
from orchestrator.queues._line import Line


@dataclass(frozen=True)
class ControlledDelayParams(QueueParams):
    target: int = duration("5ms", low="1us", help="longest wait in a standing queue")
    interval: int = duration("100ms", low="1us", help="a queue that was not empty for it stands")
    newest_first: bool = flag(False, help="in a standing queue the newest is served first")

    def __post_init__(self) -> None:
        if self.target > self.interval:
            raise ParameterError("target must not be above interval", key="target")


@register(Family.QUEUE, "controlled_delay", params=ControlledDelayParams)
class ControlledDelay(Line):
    """Turns away whoever has waited too long in a queue that has not been empty of late"""

    __slots__ = ("_empty_ns", "_params")

    def __init__(self, params: ControlledDelayParams) -> None:
        super().__init__(params)
        self._params = params
        self._empty_ns = 0

    def put(self, job: Any, op: Any, now_ns: int) -> Sequence[Any]:
        """Let a job wait behind the others; returns it where there is no room."""
        if not self._line:
            self._empty_ns = now_ns
        return super().put(job, op, now_ns)

    def take(self, now_ns: int) -> tuple[Any | None, Sequence[Any]]:
        """The next that has not waited for too long, and those before it that have."""
        line, params = self._line, self._params
        standing = now_ns - self._empty_ns > params.interval
        longest_ns = params.target if standing else params.interval
        late = []
        # In order of arrival: those that have waited too long are at the head.
        while line and now_ns - line[0][0] > longest_ns:
            late.append(line.popleft()[1])
        if not line:
            return None, late
        return (line.pop() if standing and params.newest_first else line.popleft())[1], late
