"""What a node counts, sampled at the end of every interval, and the record made of it."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.record import INTERVAL_NS, EventRecord, NodeRecord, ProcessUsage
from orchestrator.core.scaling import changes_of, provided_ns
from orchestrator.core.tier import Pattern
from orchestrator.runtimes._journal import Journal
from orchestrator.runtimes._node import NodeShell
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._process_usage import FIELDS, between

COUNTERS: Final = (
    "operations",
    "messages",
    "refused",
    "cancelled",
    "cpu_busy_ns",
    "storage_busy_ns",
    "cache_hits",
    "cache_misses",
    "cache_evictions",
)
"""By name in NodeShell and in NodeRecord."""

_get = attrgetter(*COUNTERS)
_HITS: Final = COUNTERS.index("cache_hits")


def counted(shell: NodeShell) -> tuple[int, ...]:
    """What the shell has counted so far, in the order of COUNTERS."""
    counts: tuple[int, ...] = _get(shell)
    if isinstance(shell.machine, Pattern):
        cached = shell.machine.cached
        return (*counts[:_HITS], cached.hits, cached.misses, cached.evictions)
    return counts


def node_record(
    parts: Parts,
    node: int,
    host: str,
    role: str,
    samples: NDArray[numpy.int64],
    usage: ProcessUsage | None,
    contents_digest: str,
    events: Iterable[EventRecord],
) -> NodeRecord:
    """The record of an emulated node.

    ``samples``: counters, and behind them how long the busiest of its links was in use, at time 0
    and at the end of each interval, shape (intervals + 1, counters + 1). ``events``: of the node,
    and perhaps of others.
    """
    model = parts.model_of(node)
    counts = numpy.diff(samples, axis=0)
    return NodeRecord(
        node=node,
        host=host,
        role=role,
        cores=model.cores,
        storage_parallel=model.storage.parallel,
        provided_ns=provided_ns(model.cores, changes_of(events, node), len(counts)),
        process_cpu_ns=0 if usage is None else usage.cpu_ns,
        usage=usage,
        contents_digest=contents_digest,
        **{name: counts[:, index] for index, name in enumerate(COUNTERS)},
        network_busy_ns=None if parts.store.network.bandwidth is None else counts[:, -1],
    )


def journal_record(
    parts: Parts,
    node: int,
    host: str,
    journal: Journal,
    role: str,
    warmup_ns: int,
    end_ns: int,
    digest: str,
) -> tuple[NodeRecord, list[EventRecord]]:
    """The record of a node from what its processes have noted."""
    intervals = max(1, -(-end_ns // INTERVAL_NS))
    # The last columns are what the fixed loop took, and what the process used.
    samples = journal.table(intervals, len(COUNTERS) + 1 + 1 + FIELDS)
    first = min(warmup_ns // INTERVAL_NS, intervals)
    used, loops_ns = samples[:, -FIELDS:], numpy.diff(samples[first:, -FIELDS - 1])
    counts, events = samples[:, : -FIELDS - 1], journal.events
    usage = between(used[first], used[intervals], loops_ns)
    return node_record(parts, node, host, role, counts, usage, digest, events), events
