"""Messages take longer by times that vary; links that keep their order bunch them up."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.faults import LinkState
from orchestrator.core.parameters import slot
from orchestrator.core.registry import Family, Slot, register
from orchestrator.faults._links import LinkFault, LinkParams


@dataclass(frozen=True)
class JitterParams(LinkParams):
    by: Slot = slot(Family.DISTRIBUTION, {"name": "exponential", "mean": "10ms"})


@register(Family.FAULT, "jitter", params=JitterParams)
class Jitter(LinkFault):
    """Adds a random time to every message from and to a node."""

    def __init__(self, params: JitterParams) -> None:
        super().__init__(params)
        self._by = params.by

    @property
    def state(self) -> LinkState:
        return LinkState(delays=(self._by,))
