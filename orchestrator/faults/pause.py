"""The node stops and goes on later as if nothing had been (SIGSTOP and SIGCONT on real hosts).

What a long pause of a garbage collector, of a hypervisor or of a disk does: the node still thinks
that it leads, its timers are all late, and what was sent to it arrives in one heap.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from orchestrator.core.faults import Blow, ClusterState, Fault, Paused
from orchestrator.core.registry import Family, register
from orchestrator.faults._lasting import Lasting


@register(Family.FAULT, "pause", params=Lasting)
class Pause(Fault):
    """Stops a node for a while; it goes on where it was."""

    emulated_only = False

    def __init__(self, params: Lasting) -> None:
        self._params = params

    def blow(self, victims: Sequence[int], cluster: ClusterState, chance: random.Random) -> Blow:
        return Blow(tuple(Paused(node) for node in victims), self._params.length_ns(chance))
