"""The arrivals of a recorded trace: its own times, scaled, or none of them.

``speed: max`` ignores the times and is a closed load without think time, which is what a
trace is replayed with to learn its hit ratio soonest. A number keeps the trace's pattern of
bursts and gaps and divides its times by it: 1 is the original timing, 10 ten times as fast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from orchestrator.arrivals.closed import ClosedTimetable, share
from orchestrator.core.load import OperationBlock, Timetable
from orchestrator.core.parameters import ParameterError, number, text
from orchestrator.core.registry import Family, register

MAX = "max"


def _factor(speed: str | float) -> float | None:
    """None for MAX; ValueError where it is neither that nor a number above 0."""
    if speed == MAX:
        return None
    factor = float(speed)
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"{speed!r} is not above 0")
    return factor


@dataclass(frozen=True)
class ReplayParams:
    speed: str = text(MAX, help="max (closed, times ignored) or a factor above 0; 1: original")
    sessions: int = number(16, low=1, help="at speed max, of all clients together")

    def __post_init__(self) -> None:
        try:
            _factor(self.speed)
        except (TypeError, ValueError):
            raise ParameterError(
                f"{self.speed!r} must be {MAX} or a number above 0", key="speed"
            ) from None


@register(Family.ARRIVAL, "replay", params=ReplayParams)
class Replay:
    """The times of a trace, sped up by a factor, or as fast as answers come."""

    def __init__(self, params: ReplayParams) -> None:
        self._factor = _factor(params.speed)
        self._sessions = params.sessions
        self.closed = self._factor is None

    @property
    def rate_per_s(self) -> float | None:
        """None: the trace or the system's speed sets it."""
        return None

    def timetable(self, seed: int, client: int, clients: int) -> Timetable:
        """The client's sessions at speed max, else the scaled times of its operations."""
        if self._factor is None:
            return ClosedTimetable(share(self._sessions, client, clients))
        return ReplayTimetable(self._factor)


class ReplayTimetable:
    """Starts at the operations' own times over ``factor``."""

    sessions = 0

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def starts_ns(self, operations: OperationBlock) -> NDArray[numpy.int64]:
        """Intended starts of these operations, shape (n,); they must have original times."""
        if operations.time_ns is None:
            raise ParameterError(
                f"{self._factor:g} needs a workload with times of its own "
                f"(a trace with a time column); {MAX} does not",
                key="speed",
            )
        if self._factor == 1:
            return operations.time_ns.copy()
        return numpy.rint(operations.time_ns / self._factor).astype(numpy.int64)

    def think_ns(self) -> int:
        """Nothing: the starts are set beforehand."""
        return 0
