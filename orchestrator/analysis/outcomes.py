"""Counts of what came of operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy

from orchestrator.analysis.latency import Window
from orchestrator.core.machine import CAS, OK, OUTCOME_NAMES


def outcomes_of(windows: Sequence[Window]) -> dict[str, int]:
    """Outcome -> how many of the operations intended within the windows (at least one window)."""
    codes = numpy.concatenate([window.outcome for window in windows])
    counts = numpy.bincount(codes, minlength=len(OUTCOME_NAMES)).tolist()
    return dict(zip(OUTCOME_NAMES, counts, strict=True))


def compared(windows: Sequence[Window]) -> dict[str, int | float] | None:
    """Of the compare-and-sets intended within the windows that were answered, how many there were
    and how many found another value than they expected; None without one.
    """
    of_kind = [(window.kind == CAS) & (window.outcome == OK) for window in windows]
    count = sum(int(rows.sum()) for rows in of_kind)
    unmatched = sum(int(window.unmatched.sum()) for window in windows)
    if not count:
        return None
    return {"compared": count, "unmatched": unmatched, "unmatched_share": unmatched / count}


def error_rate(outcomes: Mapping[str, int]) -> float | None:
    """(fail + unknown) / intended; None without operations."""
    intended = sum(outcomes.values())
    return (intended - outcomes[OUTCOME_NAMES[OK]]) / intended if intended else None
