"""Each candidate in its turn.

Every list of candidates has a cursor of its own: were there one for all, operations that only
one node can serve would push it past that node's neighbour time and again, and the neighbour
would get too much. A cursor starts at random, so that clients which start together do not
march from node to node together. One step of memory per list of candidates; no knowledge of
load. About 0.2 us a pick.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.load import CYCLIC, Balancer, BalancerContext
from orchestrator.core.registry import Family, NoParams, register


@register(Family.BALANCER, "round_robin")
class RoundRobin(Balancer):
    """Each candidate in its turn, from a random start"""

    split = CYCLIC
    __slots__ = ("_chance", "_next")

    def __init__(self, params: NoParams, context: BalancerContext) -> None:
        self._chance = context.chance
        self._next: dict[tuple[int, ...], int] = {}

    def pick(self, key: bytes, candidates: Sequence[int], now_ns: int) -> int:
        """The candidate after the one that was picked last from the same candidates."""
        among = tuple(candidates)
        at = self._next.get(among)
        if at is None:
            at = self._chance.randrange(len(among))
        self._next[among] = at + 1 if at + 1 < len(among) else 0
        return among[at]
