"""Faults of the storage: what they share."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from orchestrator.core.faults import Blow, Burdened, ClusterState, Fault, NodeState
from orchestrator.faults._lasting import Lasting


class StorageFault(Fault):
    """The storage of the victims suffers."""

    def __init__(self, params: Lasting) -> None:
        self._params = params

    @staticmethod
    @abstractmethod
    def state_of(params: Any) -> NodeState:
        """What the storage is like."""

    def blow(self, victims: Sequence[int], cluster: ClusterState, chance: random.Random) -> Blow:
        state = self.state_of(self._params)
        burdened = tuple(Burdened(node, state) for node in victims)
        return Blow(burdened, self._params.length_ns(chance))
