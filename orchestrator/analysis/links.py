"""Whether messages took what was asked of their links, from the probes of a real run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from orchestrator.core.record import LinkRecord, RunRecord
from orchestrator.core.units import NS_PER_MS, NS_PER_US

TOLERATED_NS: Final = 500 * NS_PER_US
TOLERATED_SHARE: Final = 0.1


def figures(records: Sequence[RunRecord]) -> dict[str, Any] | None:
    """The ``links`` of the result object; None where nothing was probed.

    Means over all links, one way. ``lead_ms``: what came off their delays, since messages take
    about that long of themselves. ``excess_p50_ms``: by how much the median probe of the median
    link took longer than it was asked to. ``as_asked``: whether no link is off by more than the
    larger of 0.5 ms and a tenth of what was asked.
    """
    probed = [link for record in records for link in record.links]
    if not probed:
        return None
    return {
        "asked_ms": math.fsum(link.asked_ns for link in probed) / len(probed) / NS_PER_MS,
        "got_ms": math.fsum(link.got_ns for link in probed) / len(probed) / NS_PER_MS,
        "lead_ms": math.fsum(link.lead_ns for link in probed) / len(probed) / NS_PER_MS,
        "excess_p50_ms": statistics.median(link.excess_ns for link in probed) / NS_PER_MS,
        "as_asked": all(map(_as_asked, probed)),
        "worst": _pair(max(probed, key=lambda link: link.excess_ns)),
        "pairs": [_pair(link) for link in probed],
    }


def _as_asked(link: LinkRecord) -> bool:
    return abs(link.excess_ns) <= max(TOLERATED_NS, TOLERATED_SHARE * link.asked_ns)


def _pair(link: LinkRecord) -> Mapping[str, Any]:
    return {
        "source": link.source,
        "target": link.target,
        "asked_ms": link.asked_ns / NS_PER_MS,
        "got_ms": link.got_ns / NS_PER_MS,
        "lead_ms": link.lead_ns / NS_PER_MS,
        "excess_ms": link.excess_ns / NS_PER_MS,
        "probes": link.probes,
    }
