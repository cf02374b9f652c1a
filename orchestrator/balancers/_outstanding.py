"""What balancers share that go by load: this client's own operations outstanding at each node,
the least loaded of some candidates, and candidates drawn at random.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from orchestrator.core.load import SENT, Balancer, BalancerContext


class Outstanding(Balancer):
    """Counts the client's own operations at each node; costs no message, is never out of date."""

    __slots__ = ("outstanding",)

    def __init__(self, params: Any, context: BalancerContext) -> None:
        self.outstanding = [0] * context.nodes

    def observe(self, node: int, what: int, latency_ns: int, now_ns: int) -> None:
        """Keeps count."""
        self.outstanding[node] += 1 if what == SENT else -1


def least(loads: Sequence[float], candidates: Sequence[int], chance: random.Random) -> int:
    """The candidate with the smallest of ``loads`` (by node); of equals, any one."""
    if len(candidates) == len(loads):
        candidates, among = range(len(loads)), loads
    else:
        among = [loads[node] for node in candidates]
    smallest = min(among)
    at = among.index(smallest)
    for _ in range(int(chance.random() * among.count(smallest))):
        at = among.index(smallest, at + 1)
    return candidates[at]


def drawn(candidates: Sequence[int], count: int, chance: random.Random) -> list[int]:
    """``count`` distinct candidates, or all of them, in the order in which they were drawn."""
    # The first steps of a Fisher-Yates shuffle: each draw is uniform among those left.
    left = list(candidates)
    size = len(left)
    draw = chance.random
    count = min(count, size)
    for step in range(count):
        at = step + int(draw() * (size - step))
        left[step], left[at] = left[at], left[step]
    return left[:count]
