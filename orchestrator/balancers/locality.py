"""The nearest candidates, and farther ones only while those have their hands full.

Candidates are ranked by the way to them besides the network model: those at the same distance are
of the same zone, or of zones that are equally far. The nearest ones share what comes, the fewest
own outstanding operations first. Once each of them has ``spill`` outstanding on the average, the
next ones are asked, and so on; where all are that full, it is the nearest again.

Locality saves the way and costs balance: a zone with many clients and few nodes fills up while
others idle, which is what ``spill`` bounds. Where all are equally far it is ``least_inflight``.
Linear in the candidates: about 4 us a pick among 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.balancers._outstanding import Outstanding, least
from orchestrator.core.load import BalancerContext
from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class LocalityParams:
    spill: int | None = number(
        8, low=1, help="own operations outstanding per near node that it takes; null: no limit"
    )


@register(Family.BALANCER, "locality", params=LocalityParams)
class Locality(Outstanding):
    """The nearest candidates, and farther ones once those have enough outstanding"""

    __slots__ = ("_chance", "_distances_ns", "_rings", "_spill")

    def __init__(self, params: LocalityParams, context: BalancerContext) -> None:
        super().__init__(params, context)
        self._chance = context.chance
        self._spill = params.spill
        self._distances_ns = list(context.distances_ns) or [0] * context.nodes
        # Of each list of candidates those at the same distance, the nearest first.
        self._rings: dict[tuple[int, ...], list[list[int]]] = {}

    def pick(self, key: bytes, candidates: Sequence[int], now_ns: int) -> int:
        """The least loaded of the nearest that are not full."""
        among = tuple(candidates)
        rings = self._rings.get(among)
        if rings is None:
            rings = self._rings[among] = self._ranked(among)
        outstanding, spill = self.outstanding, self._spill
        for ring in rings:
            if spill is None or sum(outstanding[node] for node in ring) < spill * len(ring):
                return least(outstanding, ring, self._chance)
        return least(outstanding, rings[0], self._chance)

    def _ranked(self, among: tuple[int, ...]) -> list[list[int]]:
        rings: dict[int, list[int]] = {}
        for node in among:
            rings.setdefault(self._distances_ns[node], []).append(node)
        return [rings[distance_ns] for distance_ns in sorted(rings)]
