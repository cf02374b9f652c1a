"""Balancers without a client: made, asked, and put before simulated servers."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy

from orchestrator.core.load import (
    ABANDONED,
    LOST,
    OVERTAKEN,
    REDIRECTED,
    REFUSED,
    RETURNED,
    SENT,
    Balancer,
    BalancerContext,
)
from orchestrator.core.randomness import block_stream, scalar_stream
from orchestrator.core.registry import Family, plugin

ENDINGS = [RETURNED, LOST, REFUSED, REDIRECTED, ABANDONED, OVERTAKEN]


def make(
    name: str, nodes: int, seed: int = 1, distances_ns: Sequence[int] = (), **params: Any
) -> Balancer:
    """A balancer of one client."""
    chosen = plugin(Family.BALANCER, name)
    context = BalancerContext(nodes, scalar_stream(seed, "balancer"), distances_ns)
    balancer: Balancer = chosen.implementation(chosen.params(**params), context)
    return balancer


def picks(balancer: Balancer, candidates: Sequence[int], count: int) -> list[int]:
    """Of as many operations, each on a key of its own."""
    return [balancer.pick(b"key%d" % at, candidates, at) for at in range(count)]


def send(balancer: Balancer, node: int, times: int) -> None:
    """Operations that stay outstanding there."""
    for _ in range(times):
        balancer.observe(node, SENT, 0, 0)


def mean_response(balancer: Balancer, servers: int, load: float, arrivals: int, seed: int) -> float:
    """Mean time in system over service time, after a fifth of the arrivals as warm-up.

    One dispatcher with true queue lengths, Poisson arrivals, Exp(1) service, FIFO servers.
    Both samples are scaled to their exact means, because chance in the realised load is most
    of the noise.
    """
    chance = block_stream(seed, "servers")
    gaps, services = chance.exponential(1.0, (2, arrivals))
    starts = numpy.cumsum(gaps / (gaps.mean() * load * servers)).tolist()
    services = (services / services.mean()).tolist()
    candidates = tuple(range(servers))
    free_at = [0.0] * servers
    in_flight = [0] * servers
    departures: list[tuple[float, int]] = []
    total = 0.0
    warmup = arrivals // 5
    for at, (start, service) in enumerate(zip(starts, services, strict=True)):
        while departures and departures[0][0] <= start:
            left = heapq.heappop(departures)[1]
            in_flight[left] -= 1
            balancer.observe(left, RETURNED, 0, 0)
            balancer.hear(left, in_flight[left], 0, 0)
        node = balancer.pick(b"", candidates, 0)
        balancer.observe(node, SENT, 0, 0)
        in_flight[node] += 1
        free_at[node] = max(free_at[node], start) + service
        heapq.heappush(departures, (free_at[node], node))
        if at >= warmup:
            total += free_at[node] - start
    return total / (arrivals - warmup)
