"""Additive increase, multiplicative decrease: one more a round trip, a share of it after a loss.

Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in
Computer Networks", Computer Networks and ISDN Systems 17, 1989: of the linear rules it is the one
that converges to a fair share. A loss is an operation that was turned away, was not answered in
time, or took longer than ``slow``. The limit does not grow while it is not used, and falls once
a round trip, since all that was under way tells of the same overload.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.parameters import ParameterError, duration, number
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class AimdParams:
    start: int = number(16, low=1)
    least: int = number(1, low=1)
    most: int = number(1000, low=1)
    decrease: float = number(
        0.9, low=0.1, high=0.99, help="after a loss the limit is so much of it"
    )
    slow: int | None = duration(
        None, low="1us", help="a longer answer counts as a loss; null: none"
    )

    def __post_init__(self) -> None:
        if not self.least <= self.start <= self.most:
            raise ParameterError("start must be between least and most", key="start")


@register(Family.LIMIT, "aimd", params=AimdParams)
class AdditiveIncrease:
    """One more a round trip, and a share of it after a loss"""

    __slots__ = ("_calm_ns", "_latency_ns", "_limit", "_params")

    def __init__(self, params: AimdParams) -> None:
        self._params = params
        self._limit = float(params.start)
        self._latency_ns = 0
        # Until then losses tell what is known already.
        self._calm_ns = 0

    @property
    def most(self) -> int:
        return int(self._limit)

    def answered(self, latency_ns: int, under_way: int, now_ns: int) -> None:
        """Grows by 1 in as many answers as the limit is, where at least half of it is in use."""
        slow = self._params.slow
        if slow is not None and latency_ns > slow:
            self.dropped(under_way, now_ns)
            return
        self._latency_ns = latency_ns
        if 2 * under_way >= self._limit:
            self._limit = min(float(self._params.most), self._limit + 1 / self._limit)

    def dropped(self, under_way: int, now_ns: int) -> None:
        """Falls, once a round trip."""
        if now_ns < self._calm_ns:
            return
        self._calm_ns = now_ns + self._latency_ns
        self._limit = max(float(self._params.least), self._limit * self._params.decrease)
