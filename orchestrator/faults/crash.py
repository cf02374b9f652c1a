"""The node's process is killed (SIGKILL on real hosts) and comes back after a while.

What the node had written is still there when it comes back, synced or not: the kernel keeps
what a process wrote. For the crash of the machine under it see ``power_loss``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.core.faults import Blow, ClusterState, Down, Fault, Hazards
from orchestrator.core.parameters import slot
from orchestrator.core.registry import Family, Slot, register
from orchestrator.faults._lasting import drawn_ns

MEMORY: Final = "memory"


@dataclass(frozen=True)
class CrashParams:
    restart_after: Slot | None = slot(
        Family.DISTRIBUTION,
        {"name": "constant", "value": "1s"},
        help="null: only when all is healed, and never under durability memory",
    )


@register(Family.FAULT, "crash", params=CrashParams)
class Crash(Fault):
    """Kills the process of a node, which comes back with its log."""

    emulated_only = False
    power = False

    def __init__(self, params: CrashParams) -> None:
        self._params = params

    def blow(self, victims: Sequence[int], cluster: ClusterState, chance: random.Random) -> Blow:
        restart_after = self._params.restart_after
        lasts_ns = None if restart_after is None else drawn_ns(restart_after, chance)
        return Blow(tuple(Down(node, power=self.power) for node in victims), lasts_ns)

    @property
    def hazards(self) -> Hazards:
        return Hazards(crashes=True, restarts=True, power_losses=self.power)

    def why_not(self, durability: str) -> str:
        if durability == MEMORY and self._params.restart_after is not None:
            return (
                "under durability memory a crashed node has forgotten its votes and its log, and"
                " must stay away: write restart_after: null"
            )
        return ""
