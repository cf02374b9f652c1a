"""The power of d choices: of d candidates drawn at random, the least loaded.

Load is the number of this client's own operations outstanding at a node: it costs no message
and is never out of date, but other clients' load shows only through it. Against one random
choice, two shorten the longest queue exponentially; a third gains far less (Mitzenmacher,
"The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001; Vvedenskaya,
Dobrushin and Karpelevich, 1996). With d at or above the number of candidates it joins the
shortest queue.

A node that fails at once looks idle and so draws operations: a balancer sees how many are
outstanding, not whether they went well. Under 1 us a pick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.balancers._outstanding import Outstanding
from orchestrator.core.load import BalancerContext
from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class PowerOfDParams:
    d: int = number(2, low=1, help="candidates drawn for each operation")


@register(Family.BALANCER, "power_of_d", params=PowerOfDParams)
class PowerOfD(Outstanding):
    """Of d candidates drawn at random, the one with the fewest outstanding operations"""

    __slots__ = ("_chance", "_d")

    def __init__(self, params: PowerOfDParams, context: BalancerContext) -> None:
        super().__init__(params, context)
        self._d = params.d
        self._chance = context.chance

    def pick(self, key: bytes, candidates: Sequence[int], now_ns: int) -> int:
        """The least loaded of d distinct candidates; of equals, the one drawn first."""
        # As ``drawn`` would do it, in one pass.
        left = list(candidates)
        count = len(left)
        draw = self._chance.random
        outstanding = self.outstanding
        best = -1
        fewest = sys.maxsize
        for step in range(min(self._d, count)):
            at = step + int(draw() * (count - step))
            node = left[at]
            left[at] = left[step]
            if outstanding[node] < fewest:
                best = node
                fewest = outstanding[node]
        return best
