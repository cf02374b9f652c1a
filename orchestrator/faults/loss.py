"""Messages are lost, each independently of the others.

A message is a whole one of the protocol, not a packet: TCP would send lost packets again and
only be late (see ``jitter``). This is what connections that break and are made anew do.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.faults import LinkState
from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register
from orchestrator.faults._links import LinkFault, LinkParams


@dataclass(frozen=True)
class LossParams(LinkParams):
    share: float = number(0.1, low=0.0, high=0.99, help="of the messages")


@register(Family.FAULT, "loss", params=LossParams)
class Loss(LinkFault):
    """Loses a share of the messages from and to a node."""

    @staticmethod
    def state_of(params: LossParams) -> LinkState:
        return LinkState(loss=params.share)
