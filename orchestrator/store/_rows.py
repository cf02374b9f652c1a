"""Rows of the tables that are about what happened: events, and sampled operations."""

from __future__ import annotations

import pyarrow as pa

from orchestrator.core.machine import KIND_NAMES
from orchestrator.core.record import RunRecord
from orchestrator.core.spans import PARTS, Spans
from orchestrator.core.units import NS_PER_S
from orchestrator.store import tables
from orchestrator.store.tables import block, named, same
from orchestrator.store.text import clean


def event_rows(run_id: str, record: RunRecord) -> pa.Table:
    """The events of a run, in the order of the record."""
    events = record.events
    return block(
        tables.EVENTS,
        {
            "run_id": same(run_id, len(events)),
            "at_s": pa.array([event.at_ns / NS_PER_S for event in events], tables.NUMBER),
            "node": pa.array([event.node for event in events], tables.WHOLE),
            "kind": pa.array([clean(event.kind) for event in events], pa.string()),
            "detail": pa.array([clean(event.detail) for event in events], pa.string()),
        },
    )


def span_rows(run_id: str, record: RunRecord) -> pa.Table:
    """The sampled operations of a run, by intended start; of the measured window alone."""
    spans = Spans.concatenate(each.spans for each in record.clients if each.spans is not None)
    spans = spans.select(spans.intended_ns < record.end_ns)
    count = len(spans)
    return block(
        tables.SPANS,
        {
            "run_id": same(run_id, count),
            "session": spans.session,
            "sequence": spans.sequence,
            "op": named(spans.kind, KIND_NAMES),
            "intended_ns": spans.intended_ns,
            **{f"{part}_ns": spans.parts_ns[:, place] for place, part in enumerate(PARTS)},
            "total_ns": spans.total_ns,
        },
    )
