"""Caches that are full of what they would hold after a long time, before the load begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.core.load import CachePolicy
from orchestrator.core.machine import Machine
from orchestrator.core.tier import Pattern, node_of

if TYPE_CHECKING:
    from orchestrator.runtimes._parts import Parts

BLOCK: Final = 16_384
BLOCKS_MAX: Final = 64


def pass_through(cache: CachePolicy, parts: Parts, node: int | None = None) -> dict[bytes, int]:
    """Fill a cache by an untimed pass of the workload's own key stream, or of what of it is a tier
    node's; returns the size of every key of that node that passed, in bytes.

    The pass ends once the cache has evicted as much as it holds (by then what it holds follows
    the policy and not the start), or nothing was new for a whole block.
    """
    workload = parts.workload
    stream = workload.stream(parts.config.seed + 1, 0, 1)
    names, tier_nodes = workload.key_names, parts.tier_nodes
    passed: dict[bytes, int] = {}
    others: dict[int, bool] = {}  # keys that are not this node's
    evicted_enough = 0
    for _ in range(BLOCKS_MAX):
        block = stream.block(BLOCK)
        if not len(block):
            break
        misses = 0
        access = cache.access
        for key, size in zip(block.key.tolist(), block.size.tolist(), strict=True):
            if key in others:
                continue
            name = names[key]
            if node is not None and name not in passed:
                if node_of(name, tier_nodes) != node:
                    others[key] = True
                    continue
                passed[name] = size
            misses += not access(name, size, 0)
        if evicted_enough == 0 and cache.evictions:
            evicted_enough = 2 * cache.evictions + BLOCK
        if misses == 0 or (evicted_enough and cache.evictions >= evicted_enough):
            break
    return passed


def warm_up(parts: Parts, node: int, machine: Machine, *, restarted: bool) -> None:
    """Fill what a tier node holds, where that is asked for, with the data that is there before; but
    nothing after a crash.
    """
    tier = parts.tier
    if restarted or tier is None or not isinstance(machine, Pattern):
        return
    if not tier.cache.params.warm:
        return
    cached = machine.cached
    passed = pass_through(cached.policy, parts, node)
    cached.fill(passed, parts.workload.preload().get)
