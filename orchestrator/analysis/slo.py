"""The service level objective, judged over all intended operations.

What failed or stayed unknown counts in the percentiles at no less than the timeout, and in the
error rate: (fail + unknown) / intended.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy
from numpy.typing import NDArray

from orchestrator.analysis.latency import ALL, QUANTILES, LatencyHistogram, ms
from orchestrator.config.schema import LatencyBounds, Slo
from orchestrator.core.machine import KIND_NAMES, OUTCOME_NAMES

_BOUND_NAMES: Final = (*QUANTILES, "max")
_GOODPUT_ORDER: Final = ("p99", "p999", "max", "p90", "p50")
"""Which bound tells a good operation: the p99's, else the nearest that is given."""


def judge(
    slo: Slo, histograms: Mapping[str, LatencyHistogram], outcomes: Mapping[str, int]
) -> dict[str, Any]:
    """``{"met", "violations": [{"metric", "bound", "value", "unit"}]}``.

    ``metric`` is the path below ``slo`` in the config. A bound on operations that did not
    occur is met. Without any bound there is no SLO, and ``met`` is None.
    """
    if slo == Slo():
        return {"met": None, "violations": []}
    violations = _latency_violations("", slo, histograms[ALL])
    for kind in KIND_NAMES:
        bounds = getattr(slo, kind, None)
        if bounds is not None and kind in histograms:
            violations += _latency_violations(f"{kind}.", bounds, histograms[kind])
    rate = error_rate(outcomes)
    if slo.error_rate is not None and rate is not None and rate > slo.error_rate:
        violations.append(_violation("error_rate", slo.error_rate, rate, "ratio"))
    return {"met": not violations, "violations": violations}


def error_rate(outcomes: Mapping[str, int]) -> float | None:
    """(fail + unknown) / intended; None without operations."""
    intended = sum(outcomes.values())
    return (intended - outcomes[OUTCOME_NAMES[0]]) / intended if intended else None


def _violation(metric: str, bound: Any, value: Any, unit: str) -> dict[str, Any]:
    return {"metric": metric, "bound": bound, "value": value, "unit": unit}


def _latency_violations(
    prefix: str, bounds: LatencyBounds, histogram: LatencyHistogram
) -> list[dict[str, Any]]:
    violations = []
    for name in _BOUND_NAMES:
        bound_ns: int | None = getattr(bounds, name)
        value_ns = histogram.max_ns if name == "max" else histogram.quantile_ns(QUANTILES[name])
        if bound_ns is not None and value_ns is not None and value_ns > bound_ns:
            violations.append(_violation(prefix + name, ms(bound_ns), ms(value_ns), "ms"))
    return violations


def longest_bound_ns(slo: Slo) -> float:
    """The longest that a good operation of any kind may take; 0 where nothing is bounded."""
    bounds_ns = [_bound_ns(slo, name) for name in KIND_NAMES]
    return max((each for each in bounds_ns if math.isfinite(each)), default=0.0)


def good(
    slo: Slo, kind: NDArray[numpy.uint8], latency_ns: NDArray[numpy.int64]
) -> NDArray[numpy.bool_]:
    """Which operations stayed within the SLO's latency bound of their kind, else of all."""
    bounds_ns = numpy.array([_bound_ns(slo, name) for name in KIND_NAMES], dtype=numpy.float64)
    within: NDArray[numpy.bool_] = latency_ns <= bounds_ns[kind]
    return within


def _bound_ns(slo: Slo, kind: str) -> float:
    for bounds in (getattr(slo, kind, None), slo):
        for name in _GOODPUT_ORDER:
            bound_ns = getattr(bounds, name, None)
            if bound_ns is not None:
                return float(bound_ns)
    return float("inf")
