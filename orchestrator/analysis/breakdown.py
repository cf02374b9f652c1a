"""Where latency comes from: the means of its parts, over the sampled operations of a run.

The parts of an operation add up to its latency (:mod:`orchestrator.core.spans`), so their means do
to the mean latency of the sample. Of the tail, the parts of the slowest operations say what makes
them slow, which need not be what most of the mean is made of.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy

from orchestrator.core.machine import KIND_NAMES, READ, WRITE
from orchestrator.core.record import RunRecord
from orchestrator.core.spans import PARTS, Spans
from orchestrator.core.units import NS_PER_MS

TAILS: Final = {"p90": 0.9, "p99": 0.99}
TAIL_SIZE: Final = 10
"""A tail is told where it has so many sampled operations."""


def spans_of(record: RunRecord) -> Spans | None:
    """The sampled operations that were intended in the measured window and answered; None where
    nodes do not say what they did.
    """
    found = [client.spans for client in record.clients if client.spans is not None]
    if not found:
        return None
    spans = Spans.concatenate(found)
    within = (spans.intended_ns >= record.warmup_ns) & (spans.intended_ns < record.end_ns)
    return spans.select(numpy.flatnonzero(within))


def breakdown(records: Iterable[RunRecord]) -> dict[str, Any] | None:
    """The sample of all runs together; None without one.

    ``sampled`` counts its operations, and ``all``, ``by_kind`` (reads and writes, and any other
    kind that there was) and the tails (``p90``: those at or above the sample's 90th percentile)
    hold ``operations``, their ``total`` and each of the parts, means in ms; None where there are
    none, or for a tail fewer than TAIL_SIZE.
    """
    found = [spans for record in records if (spans := spans_of(record)) is not None]
    spans = Spans.concatenate(found)
    if not len(spans):
        return None
    kinds = sorted({READ, WRITE, *numpy.unique(spans.kind).tolist()})
    total_ns = spans.total_ns
    tails = {}
    for name, share in TAILS.items():
        edge_ns = numpy.quantile(total_ns, share, method="inverted_cdf")
        slowest = total_ns >= edge_ns
        tails[name] = _means(spans.select(slowest), least=TAIL_SIZE)
    return {
        "sampled": len(spans),
        "all": _means(spans),
        "by_kind": {KIND_NAMES[kind]: _means(spans.select(spans.kind == kind)) for kind in kinds},
        **tails,
    }


def parts_ms(found: dict[str, Any] | None) -> dict[str, float] | None:
    """The means of the parts alone, over all of the sample."""
    return None if found is None else {part: found["all"][part] for part in PARTS}


def _means(spans: Spans, least: int = 1) -> dict[str, Any] | None:
    count = len(spans)
    if count < least:
        return None
    means = spans.parts_ns.mean(axis=0) / NS_PER_MS
    return {
        "operations": count,
        "total": float(spans.total_ns.mean() / NS_PER_MS),
        **{part: float(mean) for part, mean in zip(PARTS, means, strict=True)},
    }
