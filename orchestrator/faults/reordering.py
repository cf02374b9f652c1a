"""Some messages take longer and are overtaken by those behind them, even where links keep their
order otherwise: as over several connections, or after a connection was made anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.faults import LinkState
from orchestrator.core.parameters import number, slot
from orchestrator.core.registry import Family, Slot, register
from orchestrator.faults._links import LinkFault, LinkParams


@dataclass(frozen=True)
class ReorderingParams(LinkParams):
    share: float = number(0.1, low=0.0, high=1.0, help="of the messages")
    by: Slot = slot(Family.DISTRIBUTION, {"name": "exponential", "mean": "20ms"})


@register(Family.FAULT, "reordering", params=ReorderingParams)
class Reordering(LinkFault):
    """Lets a share of the messages from and to a node be overtaken."""

    @staticmethod
    def state_of(params: ReorderingParams) -> LinkState:
        return LinkState(late=((params.share, params.by),))
