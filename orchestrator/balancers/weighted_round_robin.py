"""Each candidate in its turn, as often as its weight says, and evenly spread.

The k-th turn of a node with weight w is due at (k + phase) / w, and the earliest comes next (the
earliest deadline first, as strides in Waldspurger and Weihl, "Stride Scheduling", MIT/LCS/TM-528,
1995). In whole weights any W = sum of weights picks in a row hold each node exactly w times, and
its turns never bunch. Phases are drawn, so that clients which start together do not march from
node to node together.

Every list of candidates has turns of its own, as in ``round_robin``. No knowledge of load.
Logarithmic in the candidates: about 1 us a pick, and a list's memory of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heapreplace

from orchestrator.balancers._weights import Weighted
from orchestrator.core.load import Balancer, BalancerContext
from orchestrator.core.registry import Family, register


@register(Family.BALANCER, "weighted_round_robin", params=Weighted)
class WeightedRoundRobin(Balancer):
    """Each candidate in its turn, as often as its weight says, evenly spread"""

    __slots__ = ("_phases", "_turns", "_weights")

    def __init__(self, params: Weighted, context: BalancerContext) -> None:
        self._weights = params.of(context.nodes)
        self._phases = [context.chance.random() for _ in self._weights]
        # Of each list of candidates a heap of (when it is due, node, how many turns it had).
        self._turns: dict[tuple[int, ...], list[tuple[float, int, int]]] = {}

    def pick(self, key: bytes, candidates: Sequence[int], now_ns: int) -> int:
        """Whose turn is due first."""
        among = tuple(candidates)
        turns = self._turns.get(among)
        if turns is None:
            turns = self._turns[among] = [(self._due(node, 0), node, 0) for node in among]
            heapify(turns)
        _, node, had = turns[0]
        heapreplace(turns, (self._due(node, had + 1), node, had + 1))
        return node

    def _due(self, node: int, turn: int) -> float:
        return (turn + self._phases[node]) / self._weights[node]
