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

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.load import SENT
from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class PowerOfDParams:
    d: int = number(2, low=1, help="candidates drawn for each operation")


@register(Family.BALANCER, "power_of_d", params=PowerOfDParams)
class PowerOfD:
    """Of d candidates drawn at random, the one with the fewest outstanding operations

    Every operation SENT ends in exactly one RETURNED or LOST.
    """

    __slots__ = ("_chance", "_d", "_outstanding")

    def __init__(self, params: PowerOfDParams, nodes: int, chance: random.Random) -> None:
        self._d = params.d
        self._chance = chance
        self._outstanding = [0] * nodes

    def pick(self, key: bytes, candidates: Sequence[int], now_ns: int) -> int:
        """The least loaded of d distinct candidates; of equals, the one drawn first."""
        # The first steps of a Fisher-Yates shuffle: each draw is uniform among those left.
        left = list(candidates)
        count = len(left)
        draw = self._chance.random
        outstanding = self._outstanding
        best = -1
        fewest = sys.maxsize
        for drawn in range(min(self._d, count)):
            at = drawn + int(draw() * (count - drawn))
            node = left[at]
            left[at] = left[drawn]
            if outstanding[node] < fewest:
                best = node
                fewest = outstanding[node]
        return best

    def observe(self, node: int, what: int, latency_ns: int, now_ns: int) -> None:
        """Keeps count of what is outstanding at each node."""
        self._outstanding[node] += 1 if what == SENT else -1
