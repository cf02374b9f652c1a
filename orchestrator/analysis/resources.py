"""Which resource binds, how well the caches serve, how even the load is, and what it costs.

Node counters come per interval; an interval that the measured window cuts counts by the share
of it that lies inside.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

from orchestrator.config.schema import Config
from orchestrator.core.record import INTERVAL_NS, NodeRecord, RunRecord
from orchestrator.systems.replicated_store import MEASURED

GIB_BYTES = 1 << 30


def costs(config: Config) -> str:
    """``modelled`` or ``measured``; systems of real processes are always measured."""
    node = getattr(config.system.params, "node", None)
    return str(getattr(node, "costs", MEASURED))


def within_window(record: RunRecord, counts: NDArray[numpy.int64]) -> float:
    """Sum of one per-interval counter over the measured window."""
    starts_ns = numpy.arange(len(counts), dtype=numpy.int64) * INTERVAL_NS
    inside_ns = numpy.minimum(starts_ns + INTERVAL_NS, record.end_ns) - numpy.maximum(
        starts_ns, record.warmup_ns
    )
    return float((counts * (numpy.maximum(inside_ns, 0) / INTERVAL_NS)).sum())


def utilisations(record: RunRecord, costs: str) -> dict[str, float]:
    """Busy share of each station over the measured window, by resource name.

    Names are ``n0.cpu``, or ``leader.cpu`` where only that node has the role.
    Storage without a limit of parallel requests is no station: it cannot be full. Under
    measured costs the CPU is the node's process against one core, as its loop is one thread.
    """
    window_ns = record.end_ns - record.warmup_ns
    if window_ns <= 0:
        return {}
    names = _node_names(record.nodes)
    shares: dict[str, float] = {}
    for node in record.nodes:
        name = names[node.node]
        if costs == MEASURED and record.clock == "real":
            shares[f"{name}.cpu"] = node.process_cpu_ns / window_ns
        else:
            busy_ns = within_window(record, node.cpu_busy_ns)
            shares[f"{name}.cpu"] = busy_ns / (window_ns * node.cores)
        if node.storage_parallel is not None:
            busy_ns = within_window(record, node.storage_busy_ns)
            shares[f"{name}.storage"] = busy_ns / (window_ns * node.storage_parallel)
    return shares


def _node_names(nodes: Sequence[NodeRecord]) -> dict[int, str]:
    holders = Counter(node.role for node in nodes)
    return {
        node.node: node.role
        if node.role and holders[node.role] == 1 and "/" not in node.role
        else f"n{node.node}"
        for node in nodes
    }


def bottleneck(runs: Sequence[Mapping[str, float]]) -> dict[str, Any] | None:
    """The busiest resource, by its mean over the runs that have it; None without stations."""
    means = {
        name: math.fsum(run[name] for run in runs if name in run)
        / sum(1 for run in runs if name in run)
        for run in runs
        for name in run
    }
    if not means:
        return None
    busiest = max(means, key=lambda name: means[name])
    return {"resource": busiest, "utilisation": means[busiest]}


def cache_hit_ratio(records: Sequence[RunRecord]) -> float | None:
    """Over all cache accesses of all nodes in the measured windows; None without any."""
    hits, misses = (
        math.fsum(
            within_window(record, getattr(node, name))
            for record in records
            for node in record.nodes
        )
        for name in ("cache_hits", "cache_misses")
    )
    return hits / (hits + misses) if hits + misses else None


def balance(record: RunRecord) -> dict[str, float | None]:
    """How even the nodes' operations were over the measured window."""
    return evenness([within_window(record, node.operations) for node in record.nodes])


def evenness(operations: Sequence[float]) -> dict[str, float | None]:
    """``jain`` (Jain, Chiu and Hawe, DEC-TR-301, 1984: 1 is even, 1/n is one node for all) and
    ``max_over_mean`` of the nodes' operations; None where there were none.
    """
    total, squares = math.fsum(operations), math.fsum(share * share for share in operations)
    if not total:
        return {"jain": None, "max_over_mean": None}
    count = len(operations)
    return {
        "jain": total * total / (count * squares),
        "max_over_mean": max(operations) * count / total,
    }


def cost_per_hour(record: RunRecord, config: Config) -> float:
    """Cores and memory of all nodes at the config's prices.

    Memory is ``system.memory``, else what the caches may hold; a cache sized in entries holds
    that many of the run's mean size.
    """
    cores = sum(node.cores for node in record.nodes)
    memory_bytes = getattr(config.system.params, "memory", None)
    if memory_bytes is None:
        memory_bytes = len(record.nodes) * _cache_bytes(record, config)
    return cores * config.prices.core + memory_bytes / GIB_BYTES * config.prices.GiB


def _cache_bytes(record: RunRecord, config: Config) -> float:
    slot = getattr(config.system.params, "cache", None)
    capacity = getattr(getattr(slot, "params", None), "size", None)
    if capacity is None:
        return 0.0
    if capacity.in_bytes:
        return float(capacity.amount)
    sizes = record.history.size
    return float(capacity.amount * sizes.mean()) if len(sizes) else 0.0
