"""The node whose place on a ring follows the key's: the same keys always meet the same node.

Every node has ``virtual_nodes`` places on the ring, and serves the keys between each of them and
the one before (Karger et al., "Consistent Hashing and Random Trees", STOC 1997). A node that
leaves the candidates hands over its own keys, in many small pieces to all others; no other key
moves. With v places a node's share of the keys deviates by about 1 / sqrt(v) of it.

With ``bounded`` c, a node that has ceil(c * mean) of this client's outstanding operations, the
one to come counted in the mean, takes no more, and the next on the ring that has room serves the
key (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018): hot
keys cannot flood their node, and as little as possible moves. Near 1 it evens out load, and keys
wander; at 2 they hardly do.

A hash of the key, and a search among nodes * virtual_nodes places: about 2 us a pick.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.balancers._outstanding import Outstanding
from orchestrator.core.hashing import hashed, points
from orchestrator.core.load import BalancerContext
from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class ConsistentHashParams:
    virtual_nodes: int = number(128, low=1, high=1024, help="places of each node on the ring")
    bounded: float | None = number(
        None,
        low=1.0,
        high=1e6,
        help="times the mean load that a node takes at most; null: no bound",
    )


@register(Family.BALANCER, "consistent_hash", params=ConsistentHashParams)
class ConsistentHash(Outstanding):
    """The node that follows the key on a ring of hashes; with a bound, the next that has room"""

    __slots__ = ("_bounded", "_owners", "_places")

    def __init__(self, params: ConsistentHashParams, context: BalancerContext) -> None:
        super().__init__(params, context)
        self._bounded = params.bounded
        ring = sorted(
            (place, node)
            for node in range(context.nodes)
            for place in points(node, params.virtual_nodes)
        )
        self._places = [place for place, _ in ring]
        self._owners = [node for _, node in ring]

    def pick(self, key: bytes, candidates: Sequence[int], now_ns: int) -> int:
        """The first candidate with room from the key's place on."""
        owners, at = self._owners, bisect_right(self._places, hashed(key))
        outstanding = self.outstanding
        every = len(candidates) == len(outstanding)
        among = outstanding if every else [outstanding[node] for node in candidates]
        most = self._most(among)
        for place in range(at - len(owners), at):
            node = owners[place]
            if outstanding[node] < most and (every or node in candidates):
                return node
        raise AssertionError("one of them is below the mean")

    def _most(self, outstanding: Sequence[int]) -> float:
        """What every candidate may have outstanding at most; all of theirs are given."""
        if self._bounded is None:
            return math.inf
        return math.ceil(self._bounded * (1 + sum(outstanding)) / len(outstanding))
