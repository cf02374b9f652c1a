"""Faults of the storage: what they share."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Sequence

from orchestrator.core.faults import Blow, Burdened, ClusterState, Fault, NodeState
from orchestrator.faults._lasting import Lasting


class StorageFault(Fault):
    """The storage of the victims suffers."""

    def __init__(self, params: Lasting) -> None:
        self._lasting = params

    @property
    @abstractmethod
    def state(self) -> NodeState:
        """What the storage is like."""

    def blow(self, victims: Sequence[int], cluster: ClusterState, chance: random.Random) -> Blow:
        state = self.state
        burdened = tuple(Burdened(node, state) for node in victims)
        return Blow(burdened, self._lasting.length_ns(chance))
