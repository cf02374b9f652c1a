"""A node's clock is set forward or back, or runs too fast or too slow.

The machines know time by the node's own clock alone, and so does everything that rests on it:
leases, time-outs, timestamps. ``offset`` is a step, as when time is set; ``drift`` is a rate. Both
add up while strikes overlap, and a clock that could stop is refused (``core.fault_exposure``).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.faults import Blow, Burdened, ClusterState, Fault, Hazards, NodeState
from orchestrator.core.parameters import duration, flag, number
from orchestrator.core.registry import Family, register
from orchestrator.faults._lasting import Lasting


@dataclass(frozen=True)
class ClockParams(Lasting):
    offset: int = duration("0s", help="how far it is set")
    backwards: bool = flag(False, help="set back instead of forward")
    drift: float = number(0.0, low=-0.5, high=0.5, help="0.01: runs one percent fast")


@register(Family.FAULT, "clock", params=ClockParams)
class Clock(Fault):
    """Steps a node's clock, or lets it run fast or slow."""

    def __init__(self, params: ClockParams) -> None:
        self._params = params

    def blow(self, victims: Sequence[int], cluster: ClusterState, chance: random.Random) -> Blow:
        params = self._params
        offset_ns = -params.offset if params.backwards else params.offset
        state = NodeState(offset_ns=offset_ns, drift=params.drift)
        return Blow(tuple(Burdened(node, state) for node in victims), params.length_ns(chance))

    @property
    def hazards(self) -> Hazards:
        params = self._params
        return Hazards(
            fastest=max(params.drift, 0.0),
            slowest=min(params.drift, 0.0),
            drifts_ns=params.longest_ns if params.drift else 0,
            steps=bool(params.offset),
        )
