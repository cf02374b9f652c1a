"""Messages take longer: by the same for all, or by a law, which is jitter.

Where links keep their order, a message that is held up holds up those behind it, as in TCP.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.faults import LinkState
from orchestrator.core.parameters import slot
from orchestrator.core.registry import Family, Slot, register
from orchestrator.faults._links import LinkFault, LinkParams


@dataclass(frozen=True)
class DelayParams(LinkParams):
    by: Slot = slot(Family.DISTRIBUTION, {"name": "constant", "value": "50ms"}, help="one way")


@register(Family.FAULT, "delay", params=DelayParams)
class Delay(LinkFault):
    """Adds time to every message from and to a node."""

    @staticmethod
    def state_of(params: DelayParams) -> LinkState:
        return LinkState(delays=(params.by,))
