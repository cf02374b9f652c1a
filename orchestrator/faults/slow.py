"""A node that works, but slowly: the gray failure that health checks do not see.

Under modelled costs, all that the CPU does takes longer. Under measured costs the process is
stopped and goes on a hundred times a second, so that it has one part in ``factor`` of the time.

Source: Huang et al., "Gray Failure: The Achilles' Heel of Cloud-Scale Systems", HotOS 2017.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.faults import CPU, Blow, Burdened, ClusterState, Fault, NodeState
from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register
from orchestrator.faults._lasting import Lasting


@dataclass(frozen=True)
class SlowParams(Lasting):
    factor: float = number(10.0, low=1.0, high=1e6, help="everything takes so many times as long")


@register(Family.FAULT, "slow", params=SlowParams)
class Slow(Fault):
    """Slows the CPU of a node down."""

    emulated_only = False
    slows = frozenset({CPU})

    def __init__(self, params: SlowParams) -> None:
        self._params = params

    def blow(self, victims: Sequence[int], cluster: ClusterState, chance: random.Random) -> Blow:
        state = NodeState(slowness=self._params.factor)
        burdened = tuple(Burdened(node, state) for node in victims)
        return Blow(burdened, self._params.length_ns(chance))
