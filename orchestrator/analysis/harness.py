"""What measuring itself takes: the harness floor, from the probes of a real run.

A null operation goes the way of every other (a client's socket, a node's, an emulated wait where
costs are modelled, and back) and does nothing. By how much it is off from the emulated times is the
floor, and no figure of the system can be told from it that is not well above. Either side counts:
what links take of themselves comes off their delays, so that some messages are too early, which
would hide those that are late in any mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy

from orchestrator.core.record import LinkRecord, RunRecord
from orchestrator.core.units import NS_PER_MS

SHARE_MAX: Final = 0.1
"""Of the median latency, with modelled costs. Above it the host says more than the model."""

_CLIENT: Final = "client"


def floor_ns(records: Sequence[RunRecord], share: float) -> float | None:
    """That quantile of by how much a null operation is off, over all probes; None without probes.

    Nodes that replicate wait for their peers as a client waits for them, so their hop there and
    back comes on top.
    """
    links = [link for record in records for link in record.links]
    trips = [
        _quantile(found, share)
        for found in (
            _round_trips(link for link in links if link.source.startswith(_CLIENT)),
            _round_trips(link for link in links if not link.source.startswith(_CLIENT)),
        )
        if found
    ]
    return math.fsum(trips) if trips else None


def waits_at_nodes(record: RunRecord) -> bool:
    """Whether all that clients send has an emulated delay, and waits for its end where it arrives:
    then what they send late is there in time all the same.
    """
    links = [link for link in record.links if link.source.startswith(_CLIENT)]
    return bool(links) and all(link.stamped and link.asked_ns > 0 for link in links)


def _round_trips(links: Iterable[LinkRecord]) -> list[float]:
    return [2 * abs(each) for link in links for each in link.excesses_ns]


def _quantile(values: Sequence[float], share: float) -> float:
    return float(numpy.quantile(values, share, method="inverted_cdf"))


def late_ns(records: Sequence[RunRecord], operations: int) -> float:
    """By how much emulated waits ended late in the mean of an operation, under load, where nothing
    made up for it: those of all nodes, and those at whose end clients had their answers.
    """
    used = [node.usage for record in records for node in record.counted]
    used += [client.usage for record in records for client in record.clients]
    return math.fsum(each.late_ns for each in used if each) / max(1, operations)


def harness(
    records: Sequence[RunRecord], operations: int, median_ms: float | None
) -> dict[str, Any] | None:
    """The ``harness`` of the result object; None where nothing was probed.

    ``share``: of the median latency, what the floor is. ``late_ms``: as :func:`late_ns`.
    """
    floor = floor_ns(records, 0.5)
    worst = floor_ns(records, 0.99)
    if floor is None or worst is None:
        return None
    return {
        "floor_ms": floor / NS_PER_MS,
        "floor_p99_ms": worst / NS_PER_MS,
        "share": floor / NS_PER_MS / median_ms if median_ms else None,
        "late_ms": late_ns(records, operations) / NS_PER_MS,
    }
