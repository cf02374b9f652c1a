"""The candidate that draws the best lot for the key: the same keys always meet the same node.

Key and node together are hashed to a lot; the best one wins ("highest random weight": Thaler and
Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM ToN 6(1), 1998). When a
node leaves the candidates, exactly its own keys move, each to the node that drew second. Shares
are as even as chance alone makes them, without a ring and its places.

With weights, lots are exponential with the weight as their rate and the smallest wins, which is
node i with chance w_i / sum w; a changed weight moves keys to or from that node alone
(Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", SPAA 2005).

Linear in the candidates for a key that is new, about 20 us among 100, and 1 us for one that it
remembers; it remembers 65,536.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.balancers._weights import Weighted
from orchestrator.core.hashing import hashed, points
from orchestrator.core.load import Balancer, BalancerContext
from orchestrator.core.registry import Family, register

REMEMBERED_MAX: Final = 1 << 16
# Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014, fig. 16.
_MIX: Final = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))


@register(Family.BALANCER, "rendezvous", params=Weighted)
class Rendezvous(Balancer):
    """The candidate that draws the best lot for the key (highest random weight)"""

    __slots__ = ("_remembered", "_seeds", "_weights", "_winners")

    def __init__(self, params: Weighted, context: BalancerContext) -> None:
        self._weights = numpy.array(params.of(context.nodes))
        seeds = [points(node, 1)[0] for node in range(context.nodes)]
        self._seeds = numpy.array(seeds, numpy.uint64)
        # Of each list of candidates, who won which key.
        self._winners: dict[tuple[int, ...], dict[bytes, int]] = {}
        self._remembered = 0

    def pick(self, key: bytes, candidates: Sequence[int], now_ns: int) -> int:
        """Who wins the key."""
        among = tuple(candidates)
        winners = self._winners.get(among)
        if winners is None:
            winners = self._winners[among] = {}
        winner = winners.get(key)
        if winner is None:
            if self._remembered == REMEMBERED_MAX:
                self._winners, self._remembered = {}, 0
                winners = self._winners[among] = {}
            winner = winners[key] = among[int(self._lots(key, among).argmin())]
            self._remembered += 1
        return winner

    def _lots(self, key: bytes, among: tuple[int, ...]) -> NDArray[numpy.float64]:
        """Exponential draws, the same for the same key and node."""
        nodes = list(among)
        mixed = self._seeds[nodes] ^ numpy.uint64(hashed(key))
        for shift, factor in _MIX:
            mixed = (mixed ^ (mixed >> numpy.uint64(shift))) * numpy.uint64(factor)
        uniform = ((mixed >> numpy.uint64(11)).astype(numpy.float64) + 0.5) * 2.0**-53
        lots: NDArray[numpy.float64] = -numpy.log(uniform) / self._weights[nodes]
        return lots
