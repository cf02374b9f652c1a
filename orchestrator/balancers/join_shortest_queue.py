"""The candidate with the fewest operations in flight, going by the servers' own word.

Every answer brings along how many operations the node has in flight, those of other clients too.
That is corrected by what this client has sent there and got back since, and never taken for less
than what it has outstanding there itself, since that may be on its way. Where there is one client
and no delay these are the true queue lengths, and the shortest queue is optimal for exponential
service (Winston, "Optimality of the Shortest Line Discipline", J. Appl. Prob. 14, 1977). Word
that is old makes a herd: of many clients each sends to the node that all heard was idle
(Mitzenmacher, "How Useful Is Old Information?", IEEE TPDS 11(1), 2000).

A node that was busy when it was last heard of would never be heard of again. So each pick looks
at one candidate in turn, and asks it where the last word is older than ``probe_after``.

Linear in the candidates: about 3 us a pick among 100. Messages: two integers with each answer,
and a probe and its answer at most once an operation, and at most every ``probe_after`` to a node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.balancers._outstanding import Outstanding, least
from orchestrator.core.load import SENT, BalancerContext
from orchestrator.core.parameters import duration
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class JoinShortestQueueParams:
    probe_after: int | None = duration(
        "1ms", low="1us", help="age of a node's word at which it is asked; null: never"
    )


@register(Family.BALANCER, "join_shortest_queue", params=JoinShortestQueueParams)
class JoinShortestQueue(Outstanding):
    """The fewest operations in flight by the servers' own word; of equals any one"""

    __slots__ = ("_chance", "_cursor", "_heard_ns", "_loads", "_probe_after_ns", "probing")

    reports = True

    def __init__(self, params: JoinShortestQueueParams, context: BalancerContext) -> None:
        super().__init__(params, context)
        self._chance = context.chance
        # Operations in flight of all clients, as far as is known.
        self._loads = [0] * context.nodes
        self._heard_ns = [0] * context.nodes
        self._probe_after_ns = params.probe_after or 0
        self._cursor = 0
        self.probing = params.probe_after is not None

    def pick(self, key: bytes, candidates: Sequence[int], now_ns: int) -> int:
        """The one with the shortest queue."""
        return least(self._loads, candidates, self._chance)

    def observe(self, node: int, what: int, latency_ns: int, now_ns: int) -> None:
        """Keeps count of what was sent and got back since the last word."""
        step = 1 if what == SENT else -1
        self.outstanding[node] += step
        self._loads[node] += step

    def hear(self, node: int, in_flight: int, latency_ns: int, now_ns: int) -> None:
        """The length of its queue."""
        self._loads[node] = max(in_flight, self.outstanding[node])
        self._heard_ns[node] = now_ns

    def probes(self, candidates: Sequence[int], now_ns: int) -> Sequence[int]:
        """The next candidate, if it was neither heard of nor asked for that long."""
        self._cursor += 1
        node = candidates[self._cursor % len(candidates)]
        if now_ns - self._heard_ns[node] < self._probe_after_ns:
            return ()
        self._heard_ns[node] = now_ns
        return (node,)
