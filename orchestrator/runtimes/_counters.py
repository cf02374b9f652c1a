"""What a node counts, sampled at the end of every interval, and the record made of it."""

from __future__ import annotations

from operator import attrgetter
from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.record import NodeRecord
from orchestrator.runtimes._node import NodeShell
from orchestrator.runtimes._parts import Parts

COUNTERS: Final = (
    "operations",
    "messages",
    "cpu_busy_ns",
    "storage_busy_ns",
    "cache_hits",
    "cache_misses",
)
"""By name in NodeShell and in NodeRecord."""

_get = attrgetter(*COUNTERS)


def counted(shell: NodeShell) -> tuple[int, ...]:
    """What the shell has counted so far, in the order of COUNTERS."""
    counts: tuple[int, ...] = _get(shell)
    return counts


def node_record(
    parts: Parts,
    node: int,
    host: str,
    role: str,
    samples: NDArray[numpy.int64],
    process_cpu_ns: int,
    contents_digest: str,
) -> NodeRecord:
    """The record of an emulated node.

    ``samples``: counters at time 0 and at the end of each interval, shape
    (intervals + 1, counters).
    """
    model = parts.store.node
    counts = numpy.diff(samples, axis=0)
    return NodeRecord(
        node=node,
        host=host,
        role=role,
        cores=model.cores,
        storage_parallel=model.storage.parallel,
        process_cpu_ns=process_cpu_ns,
        contents_digest=contents_digest,
        **{name: counts[:, index] for index, name in enumerate(COUNTERS)},
    )
