"""Which operations were good: within the objective's latency bound, as goodput counts them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.analysis.latency import Window
from orchestrator.config.schema import LatencyBounds, Slo
from orchestrator.core.machine import KIND_NAMES

_ORDER: Final = ("p99", "p999", "max", "p90", "p50")
"""Which bound tells a good operation: the p99's, else the nearest that is given."""


def good(
    slo: Slo, kind: NDArray[numpy.uint8], latency_ns: NDArray[numpy.int64], tenant: str = ""
) -> NDArray[numpy.bool_]:
    """Which operations stayed within the bound of their kind, else of all; those of a ``tenant``
    that has a bound of its own within that.
    """
    bounds_ns = numpy.array([_of_kind_ns(slo, name) for name in KIND_NAMES], dtype=numpy.float64)
    own_ns = _told_ns(slo.tenants.get(tenant))
    if own_ns is not None:
        bounds_ns[:] = own_ns
    within: NDArray[numpy.bool_] = latency_ns <= bounds_ns[kind]
    return within


def goodput_ops(windows: Sequence[Window], slo: Slo, tenant: str = "") -> float | None:
    """Good operations per second of the windows; None where they have no length."""
    total_s = math.fsum(window.length_s for window in windows)
    count = sum(
        int(good(slo, window.completed_kind, window.completed_latency_ns, tenant).sum())
        for window in windows
    )
    return count / total_s if total_s > 0 else None


def longest_bound_ns(slo: Slo) -> float:
    """The longest that a good operation of any kind may take; 0 where nothing is bounded."""
    bounds_ns = [_of_kind_ns(slo, name) for name in KIND_NAMES]
    return max((each for each in bounds_ns if math.isfinite(each)), default=0.0)


def _of_kind_ns(slo: Slo, kind: str) -> float:
    for bounds in (getattr(slo, kind, None), slo):
        bound_ns = _told_ns(bounds)
        if bound_ns is not None:
            return bound_ns
    return math.inf


def _told_ns(bounds: LatencyBounds | None) -> float | None:
    """The bound that tells a good operation; None where there is none."""
    for name in _ORDER if bounds is not None else ():
        bound_ns = getattr(bounds, name)
        if bound_ns is not None:
            return float(bound_ns)
    return None
