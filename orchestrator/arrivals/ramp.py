"""Poisson arrivals whose rate goes evenly from one value to another, and stays there.

``rate_per_s`` is the mean while it changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.arrivals._varying import Pieces, Varying
from orchestrator.core.parameters import duration, rate
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class RampParams:
    start: float = rate(help="at first, of all clients together")
    end: float = rate(help="in the end, and from then on")
    lasts: int = duration(low="1us", help="from the one to the other")


@register(Family.ARRIVAL, "ramp", params=RampParams)
class Ramp(Varying):
    """Open loop whose rate rises or falls evenly, then stays."""

    def __init__(self, params: RampParams) -> None:
        super().__init__(Pieces([params.lasts], [params.start, params.end]), params.lasts)
