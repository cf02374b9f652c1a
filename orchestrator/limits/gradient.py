"""Follows the ratio of the long-term latency to the present one, as congestion control does.

The rule of Netflix's concurrency-limits library ("Gradient2"; Netflix Technology Blog,
"Performance Under Load", 2018): limit * gradient + queue, where the gradient is the long-term
latency (an exponential mean over ``memory`` answers) times ``tolerance`` over this answer's,
kept between 1/2 and 1, and the queue is the square root of the limit. Above the tolerance the
limit shrinks; below it, it grows by the queue, a little each answer (``smoothing``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from orchestrator.core.parameters import ParameterError, number
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class GradientParams:
    start: int = number(16, low=1)
    least: int = number(1, low=1)
    most: int = number(1000, low=1)
    tolerance: float = number(1.5, low=1.0, help="a latency of so many times the mean is no queue")
    smoothing: float = number(0.2, low=0.001, high=1.0)
    memory: int = number(600, low=1, help="answers behind the long-term latency")

    def __post_init__(self) -> None:
        if not self.least <= self.start <= self.most:
            raise ParameterError("start must be between least and most", key="start")


@register(Family.LIMIT, "gradient", params=GradientParams)
class Gradient:
    """Shrinks as answers take longer than they do in the long run"""

    __slots__ = ("_answers", "_limit", "_long_ns", "_params")

    def __init__(self, params: GradientParams) -> None:
        self._params = params
        self._limit = float(params.start)
        self._long_ns = 0.0
        self._answers = 0

    @property
    def most(self) -> int:
        return int(self._limit)

    def answered(self, latency_ns: int, under_way: int, now_ns: int) -> None:
        """Moves towards limit * gradient + queue."""
        params = self._params
        self._answers = min(self._answers + 1, params.memory)
        self._long_ns += (latency_ns - self._long_ns) / self._answers
        short_ns = max(1, latency_ns)
        if self._long_ns > 2 * short_ns:
            # A long overload is over: let the memory of it fade sooner.
            self._long_ns *= 0.95
        if 2 * under_way < self._limit:
            return
        gradient = max(0.5, min(1.0, params.tolerance * self._long_ns / short_ns))
        wanted = self._limit * gradient + math.sqrt(self._limit)
        self._move(self._limit * (1 - params.smoothing) + wanted * params.smoothing)

    def dropped(self, under_way: int, now_ns: int) -> None:
        """Moves towards half."""
        smoothing = self._params.smoothing
        self._move(self._limit * (1 - smoothing / 2))

    def _move(self, limit: float) -> None:
        self._limit = min(float(self._params.most), max(float(self._params.least), limit))
