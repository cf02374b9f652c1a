"""Messages arrive twice, each independently of the others, as after a retry whose first attempt
had arrived after all.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.faults import LinkState
from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register
from orchestrator.faults._links import LinkFault, LinkParams


@dataclass(frozen=True)
class DuplicationParams(LinkParams):
    share: float = number(0.1, low=0.0, high=1.0, help="of the messages")


@register(Family.FAULT, "duplication", params=DuplicationParams)
class Duplication(LinkFault):
    """Delivers a share of the messages from and to a node twice."""

    @staticmethod
    def state_of(params: DuplicationParams) -> LinkState:
        return LinkState(duplicates=params.share)
