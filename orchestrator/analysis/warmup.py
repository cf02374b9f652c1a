"""``warmup: auto``: the measured window begins where the data say that the run had become steady.

The run was recorded from its start; here its warm-up is cut by MSER-5 over response times
(:mod:`.steady_state`), and what was counted over the whole load is brought to what is left of it
by its share of the time: CPU time of processes, follow-ups, attempts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy

from orchestrator.analysis.latency import latencies_ns
from orchestrator.analysis.steady_state import warmup
from orchestrator.core.history import PHASE_RUN, PHASE_WARMUP, History
from orchestrator.core.record import ClientRecord, NodeRecord, ProcessUsage, RunRecord

METHOD: Final = "mser-5"
GIVEN: Final = "given"


def settled(record: RunRecord, timeout_ns: int, lead_ns: int) -> RunRecord:
    """The record with its warm-up cut, which lies within the lead; all of it is where there is too
    little data to tell.
    """
    warmup_ns = warmup_end_ns(record, timeout_ns, lead_ns)
    share = (record.end_ns - warmup_ns) / record.end_ns if record.end_ns else 1.0
    return replace(
        record,
        warmup_ns=warmup_ns,
        history=_told_apart(record.history, warmup_ns),
        nodes=tuple(_node(node, share) for node in record.nodes),
        tier=tuple(_node(node, share) for node in record.tier),
        clients=tuple(_client(client, share) for client in record.clients),
    )


def warmup_end_ns(record: RunRecord, timeout_ns: int, lead_ns: int) -> int:
    """When the first operation was intended that is not to be cut."""
    history = record.history
    intended_ns = history.intended_ns
    rows = numpy.flatnonzero((intended_ns >= 0) & (intended_ns < record.end_ns))
    rows = rows[numpy.argsort(intended_ns[rows], kind="stable")]
    intended_ns = intended_ns[rows]
    within = int(numpy.searchsorted(intended_ns, lead_ns))
    cut = warmup(latencies_ns(history, timeout_ns)[rows], within)
    if cut is None:
        return lead_ns
    return min(int(intended_ns[cut]), lead_ns) if cut else 0


def _told_apart(history: History, warmup_ns: int) -> History:
    """Final reads, and what was loaded, stay what they are."""
    phase = history.phase.copy()
    phase[(phase == PHASE_RUN) & (history.intended_ns < warmup_ns)] = PHASE_WARMUP
    return replace(history, phase=phase)


def _node(node: NodeRecord, share: float) -> NodeRecord:
    return replace(
        node, process_cpu_ns=round(node.process_cpu_ns * share), usage=_usage(node.usage, share)
    )


def _usage(usage: ProcessUsage | None, share: float) -> ProcessUsage | None:
    return None if usage is None else usage.times(share)


def _client(client: ClientRecord, share: float) -> ClientRecord:
    return replace(
        client,
        extra_attempts=round(client.extra_attempts * share),
        follow_ups=round(client.follow_ups * share),
        usage=_usage(client.usage, share),
    )
