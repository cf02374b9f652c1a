"""Prequal: the candidate with the lowest latency among those that do not have too much in flight,
by the word of servers that are probed ahead of need (Wydrowski, Kleinberg, Rumble and Archer,
"Load is not what you should balance: Introducing Prequal", NSDI 2024).

Each pick sends ``probe_rate`` probes to candidates drawn at random; nobody waits for them. What
comes back, operations in flight and latency at about that many, goes to a pool of at most
``pool_size``, one probe a node. A pick finds the *hot* ones among them, whose operations in flight
reach the ``hot_quantile`` of those heard of late, and takes the lowest latency of the cold ones,
or the fewest operations in flight where all are hot. With fewer than two probes it draws.

What a pool says goes stale, so a probe leaves it (section 4 of the paper)

- once it is older than ``max_age``, or when a newer one needs its place;
- once it was used as often as its budget says, max(1, (1 + 1) / ((1 - m/n) r_probe - r_remove))
  for m places and n candidates (without limit where that many probes do not replace themselves);
- ``removal_rate`` probes a pick, in turns the oldest and the worst: the hot one with most in
  flight, or else the slowest.

An operation sent to a node counts as one more in flight in its probe. Messages: ``probe_rate``
probes and answers for each operation. About 10 us an operation, most of it for its probes.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.balancers._outstanding import drawn
from orchestrator.core.load import SENT, Balancer, BalancerContext
from orchestrator.core.parameters import duration, number
from orchestrator.core.registry import Family, register

HEARD_MAX: Final = 128
"""Probes that the quantile is taken of."""
LEAST_POOL: Final = 2
"""With fewer probes there is nothing to choose among."""
_GROWTH: Final = 1.0
"""How much faster the pool would grow than it is used up (delta in the paper)."""


@dataclass(frozen=True)
class PrequalParams:
    probe_rate: float = number(3.0, low=0.01, high=100.0, help="probes for each operation")
    pool_size: int = number(16, low=2, high=16, help="probes kept")
    max_age: int = duration("1s", low="1us", help="of a probe that is kept")
    hot_quantile: float = number(
        0.84, low=0.0, high=1.0, help="0: by operations in flight alone; 1: by latency alone"
    )
    removal_rate: float = number(1.0, low=0.0, high=100.0, help="probes removed an operation")


@dataclass(slots=True)
class Probe:
    """What a node said, and how often that may still be used."""

    in_flight: int
    latency_ns: int
    heard_ns: int
    uses: float


@register(Family.BALANCER, "prequal", params=PrequalParams)
class Prequal(Balancer):
    """The lowest latency among candidates without too much in flight, by probes"""

    __slots__ = (
        "_chance", "_heard", "_nodes", "_owed_probes", "_owed_removals", "_params", "_sorted",
        "_uses", "_worst_next", "pool",
    )  # fmt: skip

    probing = True

    def __init__(self, params: PrequalParams, context: BalancerContext) -> None:
        self._params = params
        self._chance = context.chance
        self._nodes = context.nodes
        # By node, the oldest first.
        self.pool: dict[int, Probe] = {}
        self._uses = reuse_budget(params, context.nodes)
        self._owed_probes = self._owed_removals = 0.0
        self._worst_next = False
        # Operations in flight of the last probes, in order of arrival and of size.
        self._heard: deque[int] = deque()
        self._sorted: list[int] = []

    def pick(self, key: bytes, candidates: Sequence[int], now_ns: int) -> int:
        """By the hot-cold rule, then probes are removed."""
        pool = self.pool
        self._drop_old(now_ns)
        known = list(pool)
        if len(candidates) < self._nodes:
            known = [node for node in known if node in candidates]
        if len(known) < LEAST_POOL:
            node = candidates[int(self._chance.random() * len(candidates))]
        else:
            node = self._best(known)
            pool[node].uses -= 1
            if pool[node].uses <= 0:
                del pool[node]
        self._owed_removals += self._params.removal_rate
        while self._owed_removals >= 1:
            self._owed_removals -= 1
            self._remove()
        return node

    def observe(self, node: int, what: int, latency_ns: int, now_ns: int) -> None:
        """What is sent there is in flight there."""
        if what == SENT and node in self.pool:
            self.pool[node].in_flight += 1

    def probes(self, candidates: Sequence[int], now_ns: int) -> Sequence[int]:
        """As many as the rate says, all different."""
        self._owed_probes += self._params.probe_rate
        count = int(self._owed_probes)
        self._owed_probes -= count
        return drawn(candidates, count, self._chance)

    def hear(self, node: int, in_flight: int, latency_ns: int, now_ns: int) -> None:
        """A probe is back; it takes the place of an older one."""
        insort(self._sorted, in_flight)
        self._heard.append(in_flight)
        if len(self._heard) > HEARD_MAX:
            del self._sorted[bisect_left(self._sorted, self._heard.popleft())]
        pool = self.pool
        if pool.pop(node, None) is None and len(pool) >= self._params.pool_size:
            del pool[next(iter(pool))]
        # A fraction of a use is one with that chance.
        uses = self._uses
        if not uses.is_integer() and uses < math.inf:
            uses = math.floor(uses + self._chance.random())
        pool[node] = Probe(in_flight, latency_ns, now_ns, uses)

    def _drop_old(self, now_ns: int) -> None:
        pool = self.pool
        while pool:
            oldest = next(iter(pool))
            if now_ns - pool[oldest].heard_ns <= self._params.max_age:
                return
            del pool[oldest]

    def _hot_from(self) -> float:
        """Operations in flight of a node that is hot."""
        rank = int(self._params.hot_quantile * len(self._sorted))
        return self._sorted[rank] if rank < len(self._sorted) else math.inf

    def _best(self, known: Sequence[int]) -> int:
        pool, hot = self.pool, self._hot_from()
        cold = [node for node in known if pool[node].in_flight < hot]
        if cold:
            return min(cold, key=lambda node: pool[node].latency_ns)
        return min(known, key=lambda node: pool[node].in_flight)

    def _remove(self) -> None:
        """The oldest and the worst in turns."""
        pool, worst_next = self.pool, self._worst_next
        self._worst_next = not worst_next
        if not pool:
            return
        if not worst_next:
            del pool[next(iter(pool))]
            return
        hot = self._hot_from()
        hottest = max(pool, key=lambda node: pool[node].in_flight)
        slowest = max(pool, key=lambda node: pool[node].latency_ns)
        del pool[hottest if pool[hottest].in_flight >= hot else slowest]


def reuse_budget(params: PrequalParams, nodes: int) -> float:
    """How often a probe may be used (equation 1 of the paper)."""
    places = min(params.pool_size, nodes)
    gained = (1 - places / nodes) * params.probe_rate - params.removal_rate
    return max(1.0, (1 + _GROWTH) / gained) if gained > 0 else math.inf
