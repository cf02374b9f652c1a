"""What a measured trial is worth: its value, its constraints, and whether it may win.

An *outcome* is the row of the ``trials`` table as plain JSON data. A run that is not valid, or
whose consistency claim was not shown to hold, is infeasible whatever its figures are, so a
search cannot win by being wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.analysis.slo import BOUND_NAMES, may_miss
from orchestrator.config.schema import SLO_KINDS, Config, LatencyBounds, Objective
from orchestrator.core.units import NS_PER_MS
from orchestrator.core.verdict import INVALID, UNDECIDED
from orchestrator.report.model import COMPLETE, FAILED, INFEASIBLE, finite, lookup, metric

Outcome = Mapping[str, Any]


def slo_bounds(config: Config) -> dict[str, tuple[str, float]]:
    """Bound of the SLO by its path below ``slo`` -> (path into a result object, its value)."""
    slo, bounds = config.slo, _latency_bounds("", "latency_ms.all", config.slo)
    for kind in SLO_KINDS:
        bounds |= _latency_bounds(f"{kind}.", f"latency_ms.{kind}", getattr(slo, kind))
    windows = _latency_bounds("windows.", "slo.windows", slo.windows)
    bounds |= {name: (path, may_miss(slo.windows)) for name, (path, _) in windows.items()}
    if slo.staleness_p99 is not None:
        allowed_ms = slo.staleness_p99 / NS_PER_MS
        bounds["staleness_p99"] = ("consistency.staleness_ms.p99", allowed_ms)
    rates = {"error_rate": slo.error_rate}
    for tenant, own in slo.tenants.items():
        whose = f"tenants.{tenant}."
        bounds |= _latency_bounds(whose, f"{whose}latency_ms.all", own)
        rates[f"{whose}error_rate"] = own.error_rate
    return bounds | {path: (path, rate) for path, rate in rates.items() if rate is not None}


def _latency_bounds(prefix: str, path: str, own: LatencyBounds) -> dict[str, tuple[str, float]]:
    """Those of one group of operations, whose figures are below ``path``, in ms."""
    given = {name: getattr(own, name) for name in BOUND_NAMES}
    return {
        prefix + name: (f"{path}.{name}", bound_ns / NS_PER_MS)
        for name, bound_ns in given.items()
        if bound_ns is not None
    }


def constraints_of(summary: Mapping[str, Any], config: Config) -> dict[str, float]:
    """Name -> value, above 0 where broken: the SLO's as value / bound - 1, verdicts as 1."""
    violated = {found["metric"] for found in lookup(summary, "slo.violations") or ()}
    found = {
        "valid": 0.0 if summary["valid"] else 1.0,
        "consistency": float(lookup(summary, "consistency.verdict") in (INVALID, UNDECIDED)),
    }
    for name, (path, bound) in slo_bounds(config).items():
        value = metric(summary, path)
        margin = value / bound - 1 if value is not None and bound > 0 else 0.0
        if name in violated:
            margin = margin if margin > 0 else 1.0
        found[f"slo.{name}"] = margin if name in violated else min(margin, 0.0)
    if lookup(summary, "slo.met") is False and not violated & set(slo_bounds(config)):
        found["slo"] = 1.0
    return found


def feasible(outcome: Outcome) -> bool:
    """Whether the trial may win: measured, believed, and within every constraint."""
    constraints = outcome["constraints"] or ()
    return (
        outcome["state"] == COMPLETE
        and outcome["value"] is not None
        and all(value <= 0 for value in constraints)
    )


def counts(outcome: Outcome) -> bool:
    """Whether the trial counts towards the budget: what was refused before it ran does not."""
    return outcome["run_id"] is not None or outcome["state"] == FAILED


def best_of(outcomes: Sequence[Outcome], direction: str) -> Outcome | None:
    """The best feasible trial, the earliest of equals."""
    sign = -1.0 if direction == "maximize" else 1.0
    may_win = [outcome for outcome in outcomes if feasible(outcome)]
    return min(
        may_win, key=lambda outcome: (sign * outcome["value"], outcome["number"]), default=None
    )


def judged(
    summary: Mapping[str, Any], config: Config, objective: Objective
) -> tuple[dict[str, Any], dict[str, float]]:
    """State, value and reason of a trial that ran, and its constraints."""
    constraints = constraints_of(summary, config)
    value = finite(lookup(summary, objective.metric))
    doubts = list(summary["invalid_reasons"] or ())
    if constraints["consistency"] > 0:
        verdict = lookup(summary, "consistency.verdict")
        doubts.append(f"consistency is {verdict}")
    if constraints["valid"] > 0 or constraints["consistency"] > 0:
        state, reason = INFEASIBLE, "; ".join(doubts) or "the run is not valid"
    elif value is None:
        state, reason = FAILED, f"the run has no figure for {objective.metric}"
    else:
        state = COMPLETE
        reason = "; ".join(_missed(found) for found in lookup(summary, "slo.violations") or ())
    return {"state": state, "value": value, "reason": reason or None}, constraints


def _missed(violation: Mapping[str, Any]) -> str:
    """``p99 362 ms, above its bound of 250 ms``."""
    unit = " ms" if violation["unit"] == "ms" else ""
    if violation["value"] is None:
        return f"{violation['metric']} cannot be given: {violation['reason']}"
    value, bound = f"{violation['value']:.4g}{unit}", f"{violation['bound']:.4g}{unit}"
    return f"{violation['metric']} {value}, above its bound of {bound}"
