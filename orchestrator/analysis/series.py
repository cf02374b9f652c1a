"""How a run went over time: columns with one row an interval, from clients and from nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy
from numpy.typing import NDArray

from orchestrator.analysis.goodput import good
from orchestrator.analysis.latency import latencies_ns
from orchestrator.analysis.resources import evenness
from orchestrator.config.schema import Slo
from orchestrator.core.history import PHASE_NAMES, PHASE_RUN, PHASE_WARMUP
from orchestrator.core.machine import OK, OUTCOME_NAMES
from orchestrator.core.record import INTERVAL_NS, NodeRecord, RunRecord
from orchestrator.core.units import NS_PER_MS, NS_PER_S

Columns = dict[str, list[Any]]

_SERIES_QUANTILES: Final = {"p50_ms": 50, "p99_ms": 99}


def client_series(
    record: RunRecord, timeout_ns: int, slo: Slo, interval_ns: int = INTERVAL_NS
) -> Columns:
    """What clients saw, over [0, end of the run), as columns of equal length.

    ``start_s`` and ``duration_s`` (the last interval may be shorter, and rates are per its
    true length); ``intended`` and of these ``ok``, ``fail``, ``unknown``; ``throughput_ops``
    and ``goodput_ops``: OK operations per second that *returned* in the interval (good: within
    the SLO's latency bound); ``p50_ms`` and ``p99_ms`` of those intended in it (None where
    none was); ``phase`` (an interval that begins in the warm-up belongs to it).
    """
    history = record.history
    edges_ns = _edges_ns(record.end_ns, interval_ns)
    count = len(edges_ns) - 1
    length_s = numpy.diff(edges_ns) / NS_PER_S

    chosen = (history.intended_ns >= 0) & (history.intended_ns < record.end_ns)
    interval = history.intended_ns[chosen] // interval_ns
    latency_ns = latencies_ns(history, timeout_ns)

    outcome = history.service_outcome
    succeeded = (outcome == OK) & (history.returned_ns >= 0)
    succeeded &= history.returned_ns < record.end_ns
    returned_in = history.returned_ns[succeeded] // interval_ns
    good_too = good(slo, history.kind[succeeded], latency_ns[succeeded])

    columns: Columns = {
        "start_s": (edges_ns[:-1] / NS_PER_S).tolist(),
        "duration_s": length_s.tolist(),
        "intended": numpy.bincount(interval, minlength=count).tolist(),
    }
    for code, name in enumerate(OUTCOME_NAMES):
        these = interval[outcome[chosen] == code]
        columns[name] = numpy.bincount(these, minlength=count).tolist()
    for name, rows in (("throughput_ops", returned_in), ("goodput_ops", returned_in[good_too])):
        columns[name] = (numpy.bincount(rows, minlength=count) / length_s).tolist()
    columns |= _quantile_columns_ms(interval, latency_ns[chosen], count)
    columns["phase"] = [
        PHASE_NAMES[PHASE_WARMUP if start_ns < record.warmup_ns else PHASE_RUN]
        for start_ns in edges_ns[:-1].tolist()
    ]
    return columns


def _edges_ns(end_ns: int, interval_ns: int) -> NDArray[numpy.int64]:
    starts_ns = numpy.arange(0, end_ns, interval_ns, dtype=numpy.int64)
    return numpy.append(starts_ns, numpy.int64(end_ns))


def _quantile_columns_ms(
    interval: NDArray[numpy.int64], latency_ns: NDArray[numpy.int64], count: int
) -> Columns:
    """Exact order statistics of each interval, by one sort of all."""
    ordered_ns = latency_ns[numpy.lexsort((latency_ns, interval))]
    sizes = numpy.bincount(interval, minlength=count)
    firsts = numpy.cumsum(sizes) - sizes
    columns: Columns = {}
    for name, percent in _SERIES_QUANTILES.items():
        positions = firsts + numpy.maximum(1, -(-sizes * percent // 100)) - 1
        columns[name] = [
            float(ordered_ns[position]) / NS_PER_MS if size else None
            for position, size in zip(positions.tolist(), sizes.tolist(), strict=True)
        ]
    return columns


def balance_series(record: RunRecord) -> Columns:
    """How even the nodes' operations were in each interval of INTERVAL_NS over [0, end of the
    run): ``jain`` and ``max_over_mean`` as of :func:`.resources.evenness`.
    """
    count = len(_edges_ns(record.end_ns, INTERVAL_NS)) - 1
    counts = numpy.zeros((count, len(record.nodes)))
    for column, node in enumerate(record.nodes):
        operations = node.operations[:count]
        counts[: len(operations), column] = operations
    found = [evenness(row) for row in counts.tolist()]
    return {name: [each[name] for each in found] for name in ("jain", "max_over_mean")}


_COUNTED: Final = (
    "operations", "messages", "refused", "cancelled", "cache_hits", "cache_misses",
    "cache_evictions",
)  # fmt: skip


def node_series(nodes: Sequence[NodeRecord]) -> Columns:
    """What nodes counted, one row a node and interval of INTERVAL_NS, as columns.

    ``node``, ``start_s``, ``operations``, ``messages``, ``refused``, ``cancelled``,
    ``cpu_utilisation`` (of all cores), ``storage_utilisation`` (None where parallel requests have
    no limit), ``cache_hits``, ``cache_misses``, ``cache_evictions``.
    """
    columns: Columns = {
        name: []
        for name in (
            "node", "start_s", "operations", "messages", "refused", "cancelled",
            "cpu_utilisation", "storage_utilisation", "cache_hits", "cache_misses",
            "cache_evictions",
        )
    }  # fmt: skip
    for node in nodes:
        count = len(node.operations)
        columns["node"] += [node.node] * count
        columns["start_s"] += (numpy.arange(count) * INTERVAL_NS / NS_PER_S).tolist()
        for name in _COUNTED:
            columns[name] += getattr(node, name).tolist()
        columns["cpu_utilisation"] += (node.cpu_busy_ns / node.provided_ns).tolist()
        columns["storage_utilisation"] += (
            [None] * count
            if node.storage_parallel is None
            else (node.storage_busy_ns / (INTERVAL_NS * node.storage_parallel)).tolist()
        )
    return columns
