"""Poisson arrivals whose rate stays for a while, then jumps to the next of a list; the last stays.

``rate_per_s`` is the mean of the list.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.arrivals._varying import Pieces, Varying
from orchestrator.core.parameters import ParameterError, duration, rate
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class StaircaseParams:
    rates: tuple[float, ...] = rate(many=1, help="one after the other, of all clients together")
    every: int = duration(low="1us", help="how long each lasts")

    def __post_init__(self) -> None:
        if not self.rates:
            raise ParameterError("a staircase needs at least one step", key="rates")


@register(Family.ARRIVAL, "staircase", params=StaircaseParams)
class Staircase(Varying):
    """Open loop whose rate goes up or down in steps."""

    def __init__(self, params: StaircaseParams) -> None:
        lengths_ns = [params.every] * len(params.rates)
        course = Pieces(lengths_ns, [*params.rates, params.rates[-1]], params.rates)
        super().__init__(course, sum(lengths_ns))
