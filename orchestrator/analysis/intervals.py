"""95 % intervals for figures of one run (batch means) and of several (repeats).

Operations of one run are correlated, so their own variance says little; means of long batches
are nearly independent (Law, "Simulation Modeling and Analysis", section 9.5.3). For a quantile
the batches scatter around the quantile of the whole run and not around their own mean, which
carries the bias of small batches (sectioning: Asmussen and Glynn, "Stochastic Simulation",
section III.5b). 10 to 30 batches are enough (Schmeiser, Operations Research 30(3), 1982).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy
from numpy.typing import NDArray
from scipy.special import stdtrit

from orchestrator.core.units import NS_PER_S

CONFIDENCE: Final = 0.95
BATCHES: Final = 20
BATCHES_MIN: Final = 10
COMPLETIONS_PER_BATCH_MIN: Final = 10
"""Fewer completions make a batch's count too coarse to be taken for normal."""
P99_OPERATIONS_PER_BATCH_MIN: Final = 100
"""Fewer operations have no 99th percentile apart from their maximum."""

Interval = tuple[float, float]


def student_interval(estimates: Sequence[float], centre: float | None = None) -> Interval | None:
    """Student t interval of independent estimates; None for fewer than two.

    Around ``centre`` (default: their mean) with the estimates' scatter around it.
    """
    count = len(estimates)
    if count < 2:
        return None
    middle = math.fsum(estimates) / count if centre is None else centre
    variance = math.fsum((estimate - middle) ** 2 for estimate in estimates) / (count - 1)
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * math.sqrt(variance / count)
    return max(0.0, middle - half), middle + half


def throughput_interval_ops(
    returned_ns: NDArray[numpy.int64], start_ns: int, end_ns: int
) -> Interval | None:
    """Interval of completions per second from their times within [start_ns, end_ns).

    None with fewer than 100 completions.
    """
    batches = min(BATCHES, len(returned_ns) // COMPLETIONS_PER_BATCH_MIN)
    if batches < BATCHES_MIN or end_ns <= start_ns:
        return None
    counts = numpy.bincount(
        (returned_ns - start_ns) * batches // (end_ns - start_ns), minlength=batches
    )
    batch_s = (end_ns - start_ns) / NS_PER_S / batches
    return student_interval((counts / batch_s).tolist())


def p99_interval_ns(latency_ns: NDArray[numpy.int64], p99_ns: float) -> Interval | None:
    """Interval of the 99th percentile around the run's own ``p99_ns``.

    ``latency_ns`` is in order of time. None with fewer than 1,000 operations.
    """
    batches = min(BATCHES, len(latency_ns) // P99_OPERATIONS_PER_BATCH_MIN)
    if batches < BATCHES_MIN:
        return None
    length = len(latency_ns) // batches
    rows = latency_ns[: length * batches].reshape(batches, length)
    position = -(-length * 99 // 100) - 1
    return student_interval(numpy.partition(rows, position, axis=1)[:, position].tolist(), p99_ns)


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of what is there; None where nothing is."""
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there) if there else None
