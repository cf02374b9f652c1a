"""Some syncs fail. After that nobody knows what is on the disk, and a second sync may say that
all is well when it is not: the node ends itself and recovers from what it finds.

Source: Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.faults import Hazards, NodeState
from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register
from orchestrator.faults._lasting import Lasting
from orchestrator.faults._storage import StorageFault


@dataclass(frozen=True)
class FailingStorageParams(Lasting):
    share: float = number(0.1, low=0.0, high=1.0, help="of the syncs")


@register(Family.FAULT, "failing_storage", params=FailingStorageParams)
class FailingStorage(StorageFault):
    """Lets a share of a node's syncs fail."""

    @staticmethod
    def state_of(params: FailingStorageParams) -> NodeState:
        return NodeState(failing=params.share)

    @property
    def hazards(self) -> Hazards:
        return Hazards(crashes=True, restarts=True)

    def why_not(self, durability: str) -> str:
        return "" if durability == "fsync" else f"durability {durability} syncs nothing"
