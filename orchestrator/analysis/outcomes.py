"""Counts of what came of operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy

from orchestrator.analysis.latency import Window
from orchestrator.core.machine import OK, OUTCOME_NAMES


def outcomes_of(windows: Sequence[Window]) -> dict[str, int]:
    """Outcome -> how many of the operations intended within the windows (at least one window)."""
    codes = numpy.concatenate([window.outcome for window in windows])
    counts = numpy.bincount(codes, minlength=len(OUTCOME_NAMES)).tolist()
    return dict(zip(OUTCOME_NAMES, counts, strict=True))


def error_rate(outcomes: Mapping[str, int]) -> float | None:
    """(fail + unknown) / intended; None without operations."""
    intended = sum(outcomes.values())
    return (intended - outcomes[OUTCOME_NAMES[OK]]) / intended if intended else None
