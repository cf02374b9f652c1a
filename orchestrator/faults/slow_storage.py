"""Reads, writes and syncs of a node's storage take longer."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.faults import STORAGE, NodeState
from orchestrator.core.parameters import duration, number
from orchestrator.core.registry import Family, register
from orchestrator.faults._lasting import Lasting
from orchestrator.faults._storage import StorageFault


@dataclass(frozen=True)
class SlowStorageParams(Lasting):
    factor: float = number(1.0, low=1.0, high=1e6, help="so many times as long")
    adds: int = duration("20ms", help="and so much longer, each")


@register(Family.FAULT, "slow_storage", params=SlowStorageParams)
class SlowStorage(StorageFault):
    """Slows the storage of a node down."""

    slows = frozenset({STORAGE})

    @staticmethod
    def state_of(params: SlowStorageParams) -> NodeState:
        return NodeState(storage_slowness=params.factor, storage_adds_ns=params.adds)
