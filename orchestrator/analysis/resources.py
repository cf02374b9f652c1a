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
from orchestrator.core.record import INTERVAL_NS, SCALED, NodeRecord, RunRecord
from orchestrator.core.registry import Slot
from orchestrator.core.scaling import changes_of
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


def mean_cores(record: RunRecord, node: NodeRecord) -> float:
    """Of a node, in service over the measured window."""
    length_ns = within_window(record, numpy.full_like(node.provided_ns, INTERVAL_NS))
    return within_window(record, node.provided_ns) / length_ns if length_ns > 0 else node.cores


def utilisations(record: RunRecord, costs: str) -> dict[str, float]:
    """Busy share of each station over the measured window, by resource name.

    Names are ``n0.cpu``, or ``leader.cpu`` where only that node has the role.
    Storage without a limit of parallel requests is no station: it cannot be full, and nor can a
    network without one of its bandwidth; with one it is the busiest link out of the node. Under
    measured costs the CPU is the node's process against one core, as its loop is one thread.
    """
    window_ns = record.end_ns - record.warmup_ns
    if window_ns <= 0:
        return {}
    names = _node_names(record.counted)
    shares: dict[str, float] = {}
    for node in record.counted:
        name = names[node.node]
        if costs == MEASURED and (record.clock == "real" or node.usage is not None):
            shares[f"{name}.cpu"] = node.process_cpu_ns / window_ns
        else:
            busy_ns = within_window(record, node.cpu_busy_ns)
            shares[f"{name}.cpu"] = busy_ns / (window_ns * mean_cores(record, node))
        if node.storage_parallel is not None:
            busy_ns = within_window(record, node.storage_busy_ns)
            shares[f"{name}.storage"] = busy_ns / (window_ns * node.storage_parallel)
        if node.network_busy_ns is not None:
            shares[f"{name}.network"] = within_window(record, node.network_busy_ns) / window_ns
    return shares


def _node_names(nodes: Sequence[NodeRecord]) -> dict[int, str]:
    holders = Counter(node.role for node in nodes)
    return {
        node.node: node.role
        if node.role and holders[node.role] == 1 and "/" not in node.role
        else f"n{node.node}"
        for node in nodes
    }


def mean_utilisations(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each resource, over the runs that have it; the busiest come first."""
    means = {
        name: math.fsum(run[name] for run in runs if name in run)
        / sum(1 for run in runs if name in run)
        for run in runs
        for name in run
    }
    return dict(sorted(means.items(), key=lambda found: -found[1]))


def bottleneck(
    runs: Sequence[Mapping[str, float]], rate_ops: float | None = None
) -> dict[str, Any] | None:
    """The busiest resource, by its mean over the runs that have it; None without stations.

    ``saturates_at_ops``: by the utilisation law, U = X * S, an operation keeps it busy for
    S = U / X on average, so it is full at 1 / S = X / U operations a second, as long as that does
    not change (Lazowska et al., "Quantitative System Performance", 1984, section 3.2); None where
    nothing was done, or kept it busy.
    """
    means = mean_utilisations(runs)
    if not means:
        return None
    busiest, used = next(iter(means.items()))
    full_at = rate_ops / used if rate_ops and used else None
    return {"resource": busiest, "utilisation": used, "saturates_at_ops": full_at}


def cache(records: Sequence[RunRecord]) -> dict[str, float | int | None]:
    """``hit_ratio`` of all cache accesses of all nodes, a tier's too, in the measured windows, and
    ``evictions`` in them: entries that left for want of room. None without any access.
    ``client_hit_ratio``: of all look-ups of clients in caches of their own; None without any.
    """
    clients = [client for record in records for client in record.clients]
    lookups = sum(client.cache_lookups for client in clients)
    own = sum(client.cache_hits for client in clients) / lookups if lookups else None
    hits, misses, evictions = (
        math.fsum(
            within_window(record, getattr(node, name))
            for record in records
            for node in record.counted
        )
        for name in ("cache_hits", "cache_misses", "cache_evictions")
    )
    if not hits + misses:
        return {"hit_ratio": None, "client_hit_ratio": own, "evictions": None}
    ratio = hits / (hits + misses)
    return {"hit_ratio": ratio, "client_hit_ratio": own, "evictions": round(evictions)}


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


def scaling(records: Sequence[RunRecord], config: Config) -> dict[str, Any] | None:
    """What autoscalers did in the measured windows: ``actions`` (changes of a node's cores, of all
    runs), ``mean_cores`` and ``most_cores`` of all nodes together; None without one.
    """
    if getattr(getattr(config.system.params, "node", None), "autoscaler", None) is None:
        return None
    actions = sum(
        event.kind == SCALED and record.warmup_ns <= event.at_ns < record.end_ns
        for record in records
        for event in record.events
    )
    means = [math.fsum(mean_cores(record, node) for node in record.nodes) for record in records]
    return {
        "actions": actions,
        "mean_cores": math.fsum(means) / len(means),
        "most_cores": max(_most_cores(record) for record in records),
    }


def _most_cores(record: RunRecord) -> int:
    """At once, within the measured window."""
    cores = {node.node: node.cores for node in record.nodes}
    changes = sorted(
        (at_ns, node, now) for node in cores for at_ns, now in changes_of(record.events, node)
    )
    most = 0
    for at_ns, node, now in [*changes, (record.end_ns, -1, 0)]:
        if at_ns > record.warmup_ns:
            most = max(most, sum(cores.values()))
        if at_ns >= record.end_ns:
            break
        cores[node] = now
    return most


def cost_per_hour(record: RunRecord, config: Config) -> float:
    """All nodes, their cores in service and their memory at the config's prices.

    Memory is ``system.memory``, else what the nodes' caches may hold, and what those of a tier may;
    a cache sized in entries holds that many of the run's mean size.
    """
    params, prices = config.system.params, config.prices
    model = getattr(params, "node", None)
    cores = math.fsum(mean_cores(record, node) for node in record.nodes)
    cost = cores * prices.of_core(getattr(model, "speed", 1.0)) + len(record.counted) * prices.node
    # Cores of a tier are of speed 1.
    cost += sum(node.cores for node in record.tier) * prices.of_core(1.0)
    memory_bytes = getattr(params, "memory", None)
    if memory_bytes is None:
        memory_bytes = len(record.nodes) * _cache_bytes(record, getattr(params, "cache", None))
    tier = getattr(params, "tier", None)
    if tier is not None:
        memory_bytes += len(record.tier) * _cache_bytes(record, tier.cache)
    return cost + memory_bytes / GIB_BYTES * prices.GiB


def _cache_bytes(record: RunRecord, slot: Slot | None) -> float:
    capacity = getattr(getattr(slot, "params", None), "size", None)
    if capacity is None:
        return 0.0
    if capacity.in_bytes:
        return float(capacity.amount)
    sizes = record.history.size
    return float(capacity.amount * sizes.mean()) if len(sizes) else 0.0
