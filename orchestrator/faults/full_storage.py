"""No room is left: the first write fails, and the node ends itself rather than promise what it
cannot keep; it comes back, and ends again at its next write, until there is room.
"""

from __future__ import annotations

from orchestrator.core.faults import Hazards, NodeState
from orchestrator.core.registry import Family, register
from orchestrator.faults._lasting import Lasting
from orchestrator.faults._storage import StorageFault


@register(Family.FAULT, "full_storage", params=Lasting)
class FullStorage(StorageFault):
    """Leaves a node no room to write."""

    @staticmethod
    def state_of(params: Lasting) -> NodeState:
        return NodeState(full=True)

    @property
    def hazards(self) -> Hazards:
        return Hazards(crashes=True, restarts=True)

    def why_not(self, durability: str) -> str:
        return "under durability memory nothing is written" if durability == "memory" else ""
