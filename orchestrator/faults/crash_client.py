"""A client dies, with everything that it has under way, and another takes its place.

It is the application that dies, not the instrument: what it has measured so far is kept, its
operations under way may have happened, and new sessions begin. Its target is the number of a
client, ``any``, ``all`` or ``count:N``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.faults import Blow, ClientDown, ClusterState, Fault
from orchestrator.core.parameters import slot
from orchestrator.core.registry import Family, Slot, register
from orchestrator.faults._lasting import drawn_ns


@dataclass(frozen=True)
class CrashClientParams:
    restart_after: Slot = slot(Family.DISTRIBUTION, {"name": "constant", "value": "1s"})


@register(Family.FAULT, "crash_client", params=CrashClientParams)
class CrashClient(Fault):
    """Kills a client; its sessions end, and new ones begin after a while."""

    strikes_clients = True
    emulated_only = False

    def __init__(self, params: CrashClientParams) -> None:
        self._params = params

    def blow(self, victims: Sequence[int], cluster: ClusterState, chance: random.Random) -> Blow:
        conditions = tuple(ClientDown(client) for client in victims)
        return Blow(conditions, drawn_ns(self._params.restart_after, chance))
