"""What overload did: operations turned away, attempts for each operation, and whether the system
stayed down after what had brought it down was over.

**Metastable** is a collapse that outlives its cause (Bronson, Aghayev, Charapko and Zhu,
"Metastable Failures in Distributed Systems", HotOS 2021; Huang et al., "Metastable Failures in
the Wild", OSDI 2022): goodput was well before, a fault struck or more was asked for a while, that
is over, no more is asked than before, and yet to the end of the run goodput is below half of what
it was, and not on its way up. What keeps it down is the system's own doing, retries above all.

Goodput is told by when operations were intended, as :mod:`orchestrator.analysis.resilience` tells
it. Closed load asks less of a slow system by itself, so the question is put to open load only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy
from numpy.typing import NDArray

from orchestrator.analysis.intervals import mean
from orchestrator.analysis.recovery import Course
from orchestrator.core.fault_plan import Strike
from orchestrator.core.history import PHASE_FINAL
from orchestrator.core.record import RunRecord
from orchestrator.core.units import NS_PER_S

CELL_NS: Final = NS_PER_S // 2
MORE_SHARE: Final = 1.2
"""A load of more than so many times the usual is a cause of its own."""
AS_BEFORE_SHARE: Final = 1.1
WELL_SHARE: Final = 0.8
"""Good operations, of those intended, where all is well."""
COLLAPSED_SHARE: Final = 0.5
"""Goodput below so much of what it was, in every third of the time that is left."""
CELLS_MIN: Final = 6
"""Of the time before, and of the time after."""
SPIKE: Final = "more load"
_COUNTS: Final = ("refused", "cancelled", "answers_in_vain")


@dataclass(frozen=True)
class Cause:
    """What may have brought the system down; ``until_ns`` None: it is not over."""

    name: str
    at_ns: int
    until_ns: int | None


def overload(record: RunRecord, course: Course, patience_ns: int) -> dict[str, Any]:
    """Over the whole load ``refused``: by the nodes, ``cancelled``: copies that they dropped since
    another node began first, ``answers_in_vain``: to nobody who still waited;
    ``attempts_per_operation`` of the measured window (None where it is empty); ``metastable``: what
    the collapse was, None without one.
    ``patience_ns`` as in :func:`metastable`.
    """
    history = record.history
    window = (history.intended_ns >= record.warmup_ns) & (history.phase != PHASE_FINAL)
    intended = int(window.sum())
    extra = sum(client.extra_attempts for client in record.clients)
    return {
        "refused": int(sum(node.refused.sum() for node in record.nodes)),
        "cancelled": int(sum(node.cancelled.sum() for node in record.nodes)),
        "answers_in_vain": sum(client.answers_in_vain for client in record.clients),
        "attempts_per_operation": 1 + extra / intended if intended else None,
        "metastable": metastable(
            course, record.faults, record.warmup_ns, record.end_ns, patience_ns=patience_ns
        ),
    }


def pooled_overload(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of several runs: all that is counted, the mean of attempts, the first collapse."""
    collapsed = [part["metastable"] for part in parts if part["metastable"] is not None]
    return {
        **{name: sum(part[name] for part in parts) for name in _COUNTS},
        "attempts_per_operation": mean([part["attempts_per_operation"] for part in parts]),
        "metastable": collapsed[0] if collapsed else None,
    }


def metastable(
    course: Course, strikes: Sequence[Strike], start_ns: int, end_ns: int, *, patience_ns: int
) -> dict[str, Any] | None:
    """The collapse that outlived its cause, if there was one.

    ``patience_ns``: for how long clients may wait for what they had asked before the cause ended.
    """
    cells = (end_ns - start_ns) // CELL_NS
    if course.closed or cells < 2 * CELLS_MIN:
        return None
    intended, good = _by_cell(course, start_ns, cells)
    causes = [Cause(each.name, each.at_ns, each.until_ns) for each in strikes]
    causes = sorted([*causes, *_spikes(intended, start_ns)], key=lambda cause: cause.at_ns)
    if not causes or any(cause.until_ns is None for cause in causes):
        return None
    before = slice(0, (causes[0].at_ns - start_ns) // CELL_NS)
    over_ns = max(cause.until_ns or 0 for cause in causes)
    after = slice(-(-(over_ns + patience_ns - start_ns) // CELL_NS), cells)
    if before.stop < CELLS_MIN or cells - after.start < CELLS_MIN:
        return None
    was, asked = _share(good, intended, before), intended[before].mean()
    if was < WELL_SHARE or intended[after].mean() > AS_BEFORE_SHARE * asked:
        return None
    thirds = numpy.array_split(numpy.arange(after.start, cells), 3)
    shares = [_share(good, intended, rows) for rows in thirds]
    if max(shares) >= COLLAPSED_SHARE * was:
        return None
    return {
        "cause": causes[0].name,
        "cause_at_s": causes[0].at_ns / NS_PER_S,
        "cause_over_s": over_ns / NS_PER_S,
        "good_share_before": was,
        "good_share_after": _share(good, intended, after),
    }


def _by_cell(
    course: Course, start_ns: int, cells: int
) -> tuple[NDArray[numpy.int64], NDArray[numpy.int64]]:
    """How many operations were intended in each cell, and how many of them were good."""
    rows = course.between(start_ns, start_ns + cells * CELL_NS)
    cell = (course.intended_ns[rows] - start_ns) // CELL_NS
    intended = numpy.bincount(cell, minlength=cells)
    return intended, numpy.bincount(cell[course.good[rows]], minlength=cells)


def _share(good: NDArray[numpy.int64], intended: NDArray[numpy.int64], rows: Any) -> float:
    return float(good[rows].sum() / max(1, intended[rows].sum()))


def _spikes(intended: NDArray[numpy.int64], start_ns: int) -> list[Cause]:
    """Stretches in which clearly more was asked than in the first cells.

    Five standard deviations of a Poisson count are no chance, whatever the number of cells.
    """
    usual = float(intended[:CELLS_MIN].mean())
    high = intended > MORE_SHARE * usual + 5 * usual**0.5
    edges = numpy.flatnonzero(numpy.diff(numpy.concatenate([[False], high, [False]])))
    # A cell that is partly in it is not above the bound: give it one on either side.
    return [
        Cause(SPIKE, start_ns + int(low - 1) * CELL_NS, start_ns + int(top + 1) * CELL_NS)
        for low, top in zip(edges[::2], edges[1::2], strict=True)
    ]
