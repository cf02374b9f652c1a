"""Links carry fewer bytes a second: messages queue behind each other for up to half a second, and
what comes upon a longer queue is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.faults import LinkState
from orchestrator.core.parameters import bandwidth
from orchestrator.core.registry import Family, register
from orchestrator.faults._links import LinkFault, LinkParams


@dataclass(frozen=True)
class BandwidthParams(LinkParams):
    cap: float = bandwidth("1MiB/s", help="of each link, one way")


@register(Family.FAULT, "bandwidth", params=BandwidthParams)
class Bandwidth(LinkFault):
    """Caps the bandwidth of each link from and to a node."""

    @staticmethod
    def state_of(params: BandwidthParams) -> LinkState:
        return LinkState(bandwidth=params.cap)
