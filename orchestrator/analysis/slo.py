"""The service level objective, judged over all intended operations.

What failed or stayed unknown counts in the percentiles at no less than the timeout, and in the
error rate: (fail + unknown) / intended.

Bounds of ``slo.windows`` are looked at window by window, which a stall of a second cannot hide
from as it can from a percentile of the whole run. Windows are cut by intended starts from the
start of the measured one; what is left at its end is none. One without operations holds every
bound. Percentiles are exact order statistics.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy

from orchestrator.analysis.effective import withheld
from orchestrator.analysis.latency import (
    ALL,
    QUANTILES,
    LatencyHistogram,
    Window,
    ms,
    quantile_ns,
)
from orchestrator.analysis.outcomes import error_rate
from orchestrator.analysis.tenants import TenantFigures
from orchestrator.config.schema import SLO_KINDS, LatencyBounds, Slo, TenantBounds, WindowBounds

BOUND_NAMES: Final = (*QUANTILES, "max")


def judge(
    slo: Slo,
    histograms: Mapping[str, LatencyHistogram],
    outcomes: Mapping[str, int],
    windows: Sequence[Window] = (),
    tenants: Mapping[str, TenantFigures] | None = None,
    effective: Mapping[str, float] | None = None,
    staleness_ms: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """``{"met", "violations": [{"metric", "bound", "value", "unit", "reason"}], "windows"}``.

    ``metric`` is the path below ``slo`` in the config. A bound on operations that did not
    occur is met; one on a percentile that too few lie beyond (``effective``: independent ones of
    all, by percentile) is missed: its value is None, and ``reason`` says why. ``staleness_ms``: how
    old what reads returned was, by quantile; None without reads. Without any bound there is no
    SLO, and ``met`` is None. ``windows`` has the share of windows that missed each bound of
    ``slo.windows``, None where there is none.
    """
    if not bounded(slo):
        return {"met": None, "violations": [], "windows": None}
    missed = missed_shares(slo.windows, windows)
    violations = _latency_violations("", slo, histograms[ALL], effective)
    for kind in SLO_KINDS:
        if kind in histograms:
            violations += _latency_violations(f"{kind}.", getattr(slo, kind), histograms[kind])
    allowed = may_miss(slo.windows)
    violations += [
        _violation(f"windows.{name}", allowed, share, "ratio")
        for name, share in missed.items()
        if share > allowed
    ]
    violations += _error_violations("", slo.error_rate, error_rate(outcomes))
    stale_ms, allowed_ms = (staleness_ms or {}).get("p99"), ms(slo.staleness_p99)
    if stale_ms is not None and allowed_ms is not None and stale_ms > allowed_ms:
        violations.append(_violation("staleness_p99", allowed_ms, stale_ms, "ms"))
    for name, figures in (tenants or {}).items():
        prefix, tenant = f"tenants.{name}.", slo.tenants.get(name, TenantBounds())
        violations += _latency_violations(prefix, tenant, figures.latencies[ALL])
        violations += _error_violations(prefix, tenant.error_rate, error_rate(figures.outcomes))
    return {"met": not violations, "violations": violations, "windows": missed or None}


def bounded(slo: Slo) -> bool:
    """Whether anything is asked for."""
    kinds = [getattr(slo, kind) for kind in SLO_KINDS]
    tenants = slo.tenants.values()
    rates = [slo.error_rate, slo.staleness_p99, *(tenant.error_rate for tenant in tenants)]
    latencies = (slo, slo.windows, *kinds, *tenants)
    return any(map(_bounds, latencies)) or any(rate is not None for rate in rates)


def may_miss(bounds: WindowBounds) -> float:
    """The share of the windows in which a bound need not hold, free of the binary remainder."""
    return round(1 - bounds.share, 12)


def _bounds(bounds: LatencyBounds) -> dict[str, int]:
    given = {name: getattr(bounds, name) for name in BOUND_NAMES}
    return {name: bound_ns for name, bound_ns in given.items() if bound_ns is not None}


def missed_shares(bounds: WindowBounds, windows: Sequence[Window]) -> dict[str, float]:
    """Of each bound that is given the share of all windows that missed it; {} without a window."""
    given = _bounds(bounds)
    missed = dict.fromkeys(given, 0)
    total = 0
    for window in windows if given else ():
        count = (window.end_ns - window.start_ns) // bounds.length
        total += count
        edges_ns = window.start_ns + bounds.length * numpy.arange(count + 1)
        edges = numpy.searchsorted(window.intended_ns, edges_ns).tolist()
        for begin, end in itertools.pairwise(edges):
            within = window.latency_ns[begin:end]
            for name, bound_ns in given.items():
                found_ns = quantile_ns(within, QUANTILES.get(name, 1000))
                missed[name] += found_ns is not None and found_ns > bound_ns
    return {name: count / total for name, count in missed.items()} if total else {}


def _error_violations(prefix: str, bound: float | None, rate: float | None) -> list[dict[str, Any]]:
    if bound is None or rate is None or rate <= bound:
        return []
    return [_violation(f"{prefix}error_rate", bound, rate, "ratio")]


def _violation(
    metric: str, bound: Any, value: Any, unit: str, reason: str | None = None
) -> dict[str, Any]:
    return {"metric": metric, "bound": bound, "value": value, "unit": unit, "reason": reason}


def _latency_violations(
    prefix: str,
    bounds: LatencyBounds,
    histogram: LatencyHistogram,
    effective: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    violations = []
    unknown = not_given(bounds, histogram.count, effective)
    for name, bound_ns in _bounds(bounds).items():
        value_ns = histogram.max_ns if name == "max" else histogram.quantile_ns(QUANTILES[name])
        if name in unknown:
            missing = _violation(prefix + name, ms(bound_ns), None, "ms", unknown[name])
            violations.append(missing)
        elif value_ns is not None and value_ns > bound_ns:
            violations.append(_violation(prefix + name, ms(bound_ns), ms(value_ns), "ms"))
    return violations


def not_given(
    bounds: LatencyBounds, count: int, effective: Mapping[str, float] | None = None
) -> dict[str, str]:
    """The percentiles that have a bound and cannot be given, and why; {} without operations."""
    reasons = {
        name: withheld(count, QUANTILES[name], effective[name] if effective else None)
        for name in _bounds(bounds)
        if count and name in QUANTILES
    }
    return {name: reason for name, reason in reasons.items() if reason is not None}
