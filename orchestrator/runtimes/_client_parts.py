"""The parts that a client is made of, from a configuration: its load generator and its policies."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from orchestrator.config.schema import THROUGH
from orchestrator.core.cached_values import CachedValues
from orchestrator.core.caching import build_cache
from orchestrator.core.load import (
    Balancer,
    BalancerContext,
)
from orchestrator.core.policy import Breaker
from orchestrator.core.randomness import block_stream, scalar_stream
from orchestrator.runtimes._attempts import Attempts
from orchestrator.runtimes._batching import BatchingPort, Carrier
from orchestrator.runtimes._caching_client import CachingDriver, CachingTieredDriver, Own
from orchestrator.runtimes._client import LoadDriver
from orchestrator.runtimes._health import NodeHealth
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._routing import LevelMix, Router
from orchestrator.runtimes._sampling import Sampling
from orchestrator.runtimes._tiered_client import Plan, TieredDriver


def make_balancer(parts: Parts, client: int, distances_ns: Sequence[int]) -> Balancer:
    """One client's balancer; ``distances_ns``: one way to each node."""
    config, slot = parts.config, parts.system.balancer
    context = BalancerContext(
        parts.system.nodes,
        scalar_stream(config.seed, f"client/{client}/balancer"),
        distances_ns if max(distances_ns) > min(distances_ns) else (),
        client,
        config.clients,
    )
    balancer: Balancer = slot.implementation(slot.params, context)
    return balancer


def make_health(parts: Parts, client: int) -> NodeHealth | None:
    """What one client makes of the nodes; None where it judges none."""
    params, seed = parts.config.client.health, parts.config.seed
    if params is None:
        return None
    chance = scalar_stream(seed, f"client/{client}/health")
    return NodeHealth(params, parts.system.nodes, client, chance)


def make_breaker(parts: Parts) -> Breaker | None:
    """One client's circuit breakers; None where it has none."""
    params = parts.config.client.breaker
    return None if params.failures is None else Breaker(params, parts.system.nodes)


def make_attempts(parts: Parts, client: int) -> Attempts | None:
    """How one client insists, and how much it asks at once; None where it just waits."""
    config = parts.config
    if not Attempts.wanted(config.client):
        return None
    chance = scalar_stream(config.seed, f"client/{client}/attempts")
    return Attempts(config.client, chance, known_again=parts.known_again)


def make_sampling(parts: Parts, client: int) -> Sampling | None:
    """Which of one client's operations are sampled; None where nodes do not say what they did."""
    config = parts.config
    if not parts.system.emulated:
        return None
    chance = scalar_stream(config.seed, f"client/{client}/spans")
    return Sampling(chance, config.clients, config.warmup, parts.end_ns)


def _driver_of(parts: Parts, client: int) -> Callable[..., LoadDriver]:
    """The kind of load generator that a client needs."""
    tier, cache = parts.tier, parts.config.client.cache
    plan = None
    if tier is not None:
        plan = Plan.of(parts.tier_nodes, tier.pattern.implementation, tier.pattern.params)
    if cache is None:
        return LoadDriver if plan is None else functools.partial(TieredDriver, plan)
    policy, early = (
        scalar_stream(parts.config.seed, f"client/{client}/cache/{what}")
        for what in ("admission", "early")
    )
    values = CachedValues(build_cache(cache.policy, policy), early, ttl_ns=cache.ttl, early=0)
    own = Own(values, cache.writes == THROUGH)
    if plan is None:
        return functools.partial(CachingDriver, own)
    return functools.partial(CachingTieredDriver, own, plan)


def make_driver(parts: Parts, client: int, port: Carrier) -> LoadDriver:
    """One client's load generator."""
    config, system = parts.config, parts.system
    nodes = range(system.nodes)
    distances_ns = [parts.client_distance_ns(client, node) for node in nodes]
    batching: BatchingPort | None = None
    if config.client.batch.max > 1:
        batching = BatchingPort(port, config.client.batch, parts.reachable)
    driver = _driver_of(parts, client)(
        client,
        parts.workload.stream(config.seed, client, config.clients),
        parts.workload.key_names,
        parts.workload.payload_bytes,
        parts.arrival.timetable(config.seed, client, config.clients),
        Router(
            make_balancer(parts, client, distances_ns),
            system.candidates,
            system.first_view,
            distances_ns if config.client.nearest else [],
            config.client.sticky,
            system.group_of,
            ask=port.ask,
            shuns_silent=config.client.shun_silent,
            health=make_health(parts, client),
            breaker=make_breaker(parts),
        ),
        parts.reachable + 1,
        batching or port,
        LevelMix(config.client.reads, block_stream(config.seed, f"client/{client}/levels")),
        model=parts.workload.model,
        connections=config.client.connections,
        timeout_ns=config.client.timeout,
        warmup_ns=parts.recorded_from_ns,
        end_ns=parts.end_ns,
        again=make_attempts(parts, client),
        sampling=make_sampling(parts, client),
    )
    if batching is not None:
        driver.batching, batching.unsent = batching, driver.unsent
    return driver
