"""The candidate that would answer soonest, going by the latencies that this client saw.

A node's cost is a moving average of its latencies, weighted by their age (exponentially, with
time constant ``decay``) and quick to rise: a latency above the average replaces it at once, since
a node that has become slow must be told from one that was unlucky before much is sent there. Cost
times (operations outstanding + 1) is what the next operation may have to wait; of ``d`` candidates
drawn at random the smallest is picked, so that clients do not all run to the same node. This is
the load metric of Twitter's Finagle ("Peak EWMA", finagle-core, loadbalancer; 2016). What is not
heard of grows cheaper with time, and so is tried again.

A time-out counts as a latency, an operation that was refused does not: failing fast must not
attract load. One that another node answered first took at least so long. A node that has not
answered yet gets one operation at a time. About 2 us a pick.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.balancers._outstanding import Outstanding, drawn
from orchestrator.core.load import LOST, OVERTAKEN, RETURNED, BalancerContext
from orchestrator.core.parameters import duration, number
from orchestrator.core.registry import Family, register

UNKNOWN_COST: Final = 1e15
"""Of an operation more where none was answered yet: above all that is known."""


@dataclass(frozen=True)
class PeakEwmaParams:
    decay: int = duration("10s", low="1us", help="time constant of the average")
    d: int = number(2, low=1, help="candidates drawn for each operation")


@register(Family.BALANCER, "peak_ewma", params=PeakEwmaParams)
class PeakEwma(Outstanding):
    """Of d candidates, the lowest peak-sensitive average latency times outstanding operations"""

    __slots__ = ("_chance", "_cost_ns", "_d", "_decay_ns", "_updated_ns")

    def __init__(self, params: PeakEwmaParams, context: BalancerContext) -> None:
        super().__init__(params, context)
        self._chance = context.chance
        self._decay_ns = params.decay
        self._d = params.d
        self._cost_ns = [0.0] * context.nodes
        self._updated_ns = [0] * context.nodes

    def pick(self, key: bytes, candidates: Sequence[int], now_ns: int) -> int:
        """The cheapest of d distinct candidates; of equals, the one drawn first."""
        among = drawn(candidates, self._d, self._chance)
        return min(among, key=lambda node: self._load(node, now_ns))

    def _load(self, node: int, now_ns: int) -> float:
        cost_ns, outstanding = self._cost_ns[node], self.outstanding[node]
        if not cost_ns:
            return outstanding * UNKNOWN_COST
        return cost_ns * self._weight(node, now_ns) * (outstanding + 1)

    def _weight(self, node: int, now_ns: int) -> float:
        """Of what is known already."""
        return math.exp(min(0, self._updated_ns[node] - now_ns) / self._decay_ns)

    def observe(self, node: int, what: int, latency_ns: int, now_ns: int) -> None:
        """Keeps count of what is outstanding, and the average of what it took."""
        super().observe(node, what, latency_ns, now_ns)
        if what not in (RETURNED, LOST, OVERTAKEN):
            return
        weight = self._weight(node, now_ns)
        known_ns = self._cost_ns[node] * weight
        if what == OVERTAKEN and latency_ns <= known_ns:
            return  # it is no news that it takes longer
        mixed_ns = known_ns + latency_ns * (1 - weight)
        self._cost_ns[node] = latency_ns if latency_ns > known_ns else mixed_ns
        self._updated_ns[node] = now_ns
