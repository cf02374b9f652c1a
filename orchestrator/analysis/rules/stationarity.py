"""Of a load that stays the same, throughput and latency must stay the same over the measured window
(:mod:`orchestrator.analysis.steady_state`): a mean over a drift is a figure of no state at all.
What comes back again and again (collections, flushes, compactions) is a label: the system is so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy
from numpy.typing import NDArray

from orchestrator.analysis.latency import Window
from orchestrator.analysis.steady_state import (
    BINS_MAX,
    BLOCKS,
    DRIFT_LEVEL,
    EFFECT,
    OPERATIONS_PER_BIN_MIN,
    OPERATIONS_PER_BLOCK_MIN,
    Drift,
    drift,
    period_bins,
)
from orchestrator.analysis.warmup import GIVEN, METHOD
from orchestrator.config.schema import Config
from orchestrator.core.load import VaryingArrival
from orchestrator.core.parameters import AUTO
from orchestrator.core.units import NS_PER_S

THROUGHPUT: Final = "throughput"
LATENCY: Final = "latency"
_MOVING_KEYS: Final = ("moves_every", "moves_every_operations")


def why_unsteady(config: Config) -> str | None:
    """Why no steady state is to be expected of such a run; None where one is."""
    arrival = config.arrival.implementation(config.arrival.params)
    system = config.system.params
    # A config that was made by hand may lack what the loader fills in.
    workload = config.workload
    keys = getattr(getattr(workload, "params", None), "distribution", None)
    moving = [getattr(getattr(keys, "params", None), name, None) for name in _MOVING_KEYS]
    reasons = (
        (bool(config.faults), "faults strike"),
        (isinstance(arrival, VaryingArrival), f"arrival {config.arrival.name!r} varies"),
        (not arrival.closed and arrival.rate_per_s is None, "the arrival is a recording"),
        (getattr(workload, "name", "") == "trace", "the workload is a recording"),
        (getattr(keys, "name", "") == "flash_crowd" or any(moving), "the keys in demand change"),
        (bool(getattr(system, "administration", ())), "an operator's commands come meanwhile"),
        (_scaled(system), "an autoscaler changes the nodes"),
    )
    return next((words for found, words in reasons if found), None)


def _scaled(system: Any) -> bool:
    return getattr(getattr(system, "node", None), "autoscaler", None) is not None


def drifts(window: Window, config: Config) -> dict[str, Drift]:
    """Of throughput and latency; {} where no steady state is to be expected, or too few operations
    say anything.
    """
    length_ns = window.end_ns - window.start_ns
    few = min(len(window), len(window.completed_ns)) < BLOCKS * OPERATIONS_PER_BLOCK_MIN
    if few or length_ns <= 0 or why_unsteady(config) is not None:
        return {}
    completed = numpy.bincount(_bins(window, window.completed_ns, BLOCKS), minlength=BLOCKS)
    latency_ns = _course(window, BLOCKS)
    found = {
        THROUGHPUT: drift(completed.astype(numpy.float64)),
        LATENCY: None if numpy.isnan(latency_ns).any() else drift(latency_ns),
    }
    return {name: each for name, each in found.items() if each is not None}


def _bins(window: Window, at_ns: NDArray[numpy.int64], count: int) -> NDArray[numpy.int64]:
    return (at_ns - window.start_ns) * count // (window.end_ns - window.start_ns)


def _course(window: Window, count: int) -> NDArray[numpy.float64]:
    """Mean latency of what was intended in each of ``count`` bins, in ns; NaN where nothing was."""
    bins = _bins(window, window.intended_ns, count)
    sizes = numpy.bincount(bins, minlength=count)
    totals = numpy.bincount(bins, window.latency_ns, minlength=count)
    return numpy.where(sizes > 0, totals / numpy.maximum(sizes, 1), numpy.nan)


def period_s(window: Window) -> float | None:
    """With which period the latency goes up and down; None where no period is sure."""
    count = min(BINS_MAX, len(window) // OPERATIONS_PER_BIN_MIN)
    if count == 0 or window.length_s <= 0:
        return None
    course = _course(window, count)
    there = numpy.flatnonzero(~numpy.isnan(course))
    if len(there) < count / 2:
        return None
    course = numpy.interp(numpy.arange(count), there, course[there])
    found = period_bins(course)
    return None if found is None else found * window.length_s / count


def steady_state(window: Window, config: Config) -> dict[str, Any]:
    """``warmup_s``; ``method``: how it was found; ``steady``: None where that is not to be
    expected, or not to be said; ``drift``: of throughput and latency, the ``change`` over the
    window relative to the level, and ``p`` of none; ``period_s``.
    """
    found = drifts(window, config)
    return {
        "warmup_s": window.start_ns / NS_PER_S,
        "method": METHOD if config.warmup == AUTO else GIVEN,
        "steady": not any(each.sure for each in found.values()) if found else None,
        "drift": {name: {"change": each.change, "p": each.p} for name, each in found.items()}
        or None,
        "period_s": None if why_unsteady(config) else period_s(window),
    }


def pooled_steady_state(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of repeats: the longest warm-up, the largest drifts, the first period; steady if all are."""
    said = [part["steady"] for part in parts if part["steady"] is not None]
    known = [part["drift"] for part in parts if part["drift"] is not None]
    names = dict.fromkeys(name for each in known for name in each)
    worst = {
        name: max((each[name] for each in known if name in each), key=lambda d: abs(d["change"]))
        for name in names
    }
    return {
        "warmup_s": max(part["warmup_s"] for part in parts),
        "method": parts[0]["method"],
        "steady": all(said) if said else None,
        "drift": worst or None,
        "period_s": next((part["period_s"] for part in parts if part["period_s"]), None),
    }


def stationarity_reasons(window: Window, config: Config) -> list[str]:
    """One sentence for what drifts."""
    return [
        f"{name} was not steady: it {'rose' if each.change > 0 else 'fell'} by "
        f"{abs(each.change):.0%} of its level over the measured window; above {EFFECT:.0%} it may "
        f"only by chance, which this is not (p = {each.p:.1g}, below {DRIFT_LEVEL:g})"
        for name, each in drifts(window, config).items()
        if each.sure
    ]
