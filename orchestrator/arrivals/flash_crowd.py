"""Poisson arrivals with a surge: the rate goes up to a peak, stays there, and comes back.

The pattern is that of Ari, Hong, Miller, Brandt and Long, "Managing flash crowds on the
Internet", MASCOTS 2003, section 2: ramp up, sustained traffic, ramp down. ``rate_per_s`` is the
mean from the start of the load to the end of the surge.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.arrivals._varying import Pieces, Varying
from orchestrator.core.parameters import duration, rate
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class FlashCrowdParams:
    base: float = rate(help="before and after, of all clients together")
    peak: float = rate(help="while the crowd is there")
    at: int = duration(help="when it begins to come")
    lasts: int = duration(low="1us", help="at the peak")
    ramp: int = duration("0s", help="from base to peak, and back")


@register(Family.ARRIVAL, "flash_crowd", params=FlashCrowdParams)
class FlashCrowd(Varying):
    """Open loop with a surge of the rate."""

    def __init__(self, params: FlashCrowdParams) -> None:
        base, peak, ramp = params.base, params.peak, params.ramp
        lengths_ns = [params.at, ramp, params.lasts, ramp]
        pieces = zip(lengths_ns, [base, base, peak, peak], [base, peak, peak, base], strict=True)
        lengths, firsts, lasts = zip(*(piece for piece in pieces if piece[0]), strict=True)
        super().__init__(Pieces(lengths, [*firsts, base], lasts), sum(lengths_ns))
