"""A machine is lost with its disk, and its node never comes back. It is silent: who asks it
waits in vain, and is refused only once the load has ended and all is healed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from orchestrator.core.faults import Blow, ClusterState, Down, Fault, Hazards
from orchestrator.core.registry import Family, NoParams, register


@register(Family.FAULT, "lose_machine")
class LoseMachine(Fault):
    """Loses the machine of a node for good, disk included."""

    def __init__(self, params: NoParams) -> None:
        pass

    def blow(self, victims: Sequence[int], cluster: ClusterState, chance: random.Random) -> Blow:
        return Blow(tuple(Down(node, power=True, gone=True) for node in victims), None)

    @property
    def hazards(self) -> Hazards:
        return Hazards(crashes=True)
