"""What a page is made from: plain values, already read from the results and already computed.

A *summary* is the object that ``archbench run --json`` prints for one run, as nested mappings;
parts that a run does not have are None. The report never reads a file and never measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy
from numpy.typing import NDArray

Summary = Mapping[str, Any]
Column = Sequence[Any] | NDArray[Any]
Columns = Mapping[str, Column]
"""Column name -> values; all columns of one table have the same length."""

COMPLETE: Final = "complete"
INFEASIBLE: Final = "infeasible"
PRUNED: Final = "pruned"
FAILED: Final = "failed"
STATES: Final = (COMPLETE, INFEASIBLE, PRUNED, FAILED)
FEASIBLE: Final = "feasible"
OUTCOMES: Final = (FEASIBLE, INFEASIBLE, PRUNED, FAILED)


@dataclass(frozen=True)
class Value:
    """A parameter's value: as people write it, and as a number (None: a word).

    ``number`` is in the parameter's own integer unit: nanoseconds, bytes, per second.
    """

    text: str
    number: float | None = None


@dataclass(frozen=True)
class ParameterView:
    """One searched config path.

    ``range_text``: what was searched, for people ("1 to 7"). ``log``: searched on a logarithmic
    scale. ``quantity``: one of core.parameters' DURATION, SIZE, RATE, BANDWIDTH, or "" for a
    bare number or a word; it picks the unit of an axis.
    """

    path: str
    range_text: str
    log: bool = False
    quantity: str = ""


@dataclass(frozen=True)
class TrialView:
    """One trial of a study.

    ``state`` is one of STATES. ``metrics`` is None where the variant never ran or broke.
    ``reason`` says why a trial is not feasible ("" where it is).
    """

    number: int
    state: str
    params: Mapping[str, Value]
    metrics: Summary | None = None
    reason: str = ""
    run_id: str | None = None

    @property
    def feasible(self) -> bool:
        """Whether the trial may win: it ran, is valid, and breaks no constraint."""
        if self.state != COMPLETE or self.metrics is None:
            return False
        slo = self.metrics.get("slo") or {}
        return self.metrics.get("valid") is not False and slo.get("met") is not False

    @property
    def outcome(self) -> str:
        """One of OUTCOMES; a complete trial that breaks a constraint counts as infeasible."""
        if self.feasible:
            return FEASIBLE
        return self.state if self.state in (PRUNED, FAILED) else INFEASIBLE


@dataclass(frozen=True)
class EventView:
    """Something that happened once in a run; ``at_s`` counts from the start of the load."""

    at_s: float
    kind: str
    node: str = ""
    detail: str = ""


@dataclass(frozen=True)
class RunView:
    """One run in detail.

    ``intervals``: start_s, throughput_ops, p50_ms, p99_ms, ok, fail, unknown, phase ("warmup"
    or "run"), jain (may be missing); missing values are None or NaN. ``latencies``: kind of
    operation ("all", "read", "write", ...) -> histogram of (values_ms ascending, counts).
    ``nodes``: one row a node and interval with node (index or name), role (may be missing),
    start_s, cpu_utilisation and storage_utilisation (shares of capacity, None where there is no
    limit). Times ascend within each. Any of them may be empty.
    """

    summary: Summary
    intervals: Columns = field(default_factory=dict)
    latencies: Mapping[str, tuple[Column, Column]] = field(default_factory=dict)
    nodes: Columns = field(default_factory=dict)
    events: Sequence[EventView] = ()
    config_yaml: str = ""

    @property
    def measured_from_s(self) -> float | None:
        """Where the first interval after the warm-up starts, None without a warm-up."""
        starts, phases = column(self.intervals, "start_s"), self.intervals.get("phase", ())
        if len(starts) != len(phases) or "warmup" not in {str(phase) for phase in phases}:
            return None
        after = [
            float(start)
            for start, phase in zip(starts, phases, strict=True)
            if str(phase) != "warmup"
        ]
        return min(after, default=None)


@dataclass(frozen=True)
class StudyView:
    """A whole study.

    ``objective_metric`` is a dotted path into a summary, ``direction`` maximize or minimize.
    ``default`` is the variant that the config file describes, ``best`` the best feasible trial.
    ``importance``: path -> share of the objective's variance (sums to 1; empty: unknown).
    ``why``: sentences on why the winner won. ``slo``: dotted path into a summary (or
    "error_rate") -> upper bound in that metric's unit.
    """

    title: str
    study: str
    experiment: str
    objective_metric: str
    direction: str
    parameters: Sequence[ParameterView] = ()
    trials: Sequence[TrialView] = ()
    default: TrialView | None = None
    best: TrialView | None = None
    importance: Mapping[str, float] = field(default_factory=dict)
    best_run: RunView | None = None
    default_run: RunView | None = None
    command: str = ""
    config_yaml: str = ""
    why: Sequence[str] = ()
    slo: Mapping[str, float] = field(default_factory=dict)

    @property
    def maximize(self) -> bool:
        """Whether more of the objective is better."""
        return self.direction == "maximize"


def summary_of(trial: TrialView | None) -> Summary | None:
    """A trial's summary, None where there is no trial or no summary."""
    return trial.metrics if trial is not None else None


def lookup(summary: Summary | None, path: str) -> Any:
    """The value at a dotted path, None where any part of the way is missing."""
    value: Any = summary
    for part in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def finite(value: object) -> float | None:
    """``value`` as a float; None where it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, numpy.number)):
        return None
    number = float(value)
    return number if numpy.isfinite(number) else None


def metric(summary: Summary | None, path: str) -> float | None:
    """A number of a summary; ``error_rate`` is computed from its outcomes."""
    if path != "error_rate":
        return finite(lookup(summary, path))
    counts = [finite(lookup(summary, f"outcomes.{name}")) for name in ("ok", "fail", "unknown")]
    ok, fail, unknown = (0.0 if count is None else count for count in counts)
    total = ok + fail + unknown
    return (fail + unknown) / total if total > 0 else None


def interval(summary: Summary | None, path: str) -> tuple[float, float] | None:
    """The 95 % interval that a summary holds for a metric, where it holds one."""
    where = {"throughput_ops": "throughput_ci95_ops", "latency_ms.all.p99": "latency_p99_ci95_ms"}
    name = path.removeprefix("latency_ms.all.")
    place = where.get(path, f"latency_ci95_ms.{name}" if name != path else "")
    bounds = lookup(summary, place) if place else None
    if not isinstance(bounds, Sequence) or isinstance(bounds, str) or len(bounds) != 2:
        return None
    low, high = finite(bounds[0]), finite(bounds[1])
    return None if low is None or high is None or low > high else (low, high)


def column(columns: Columns, name: str) -> NDArray[numpy.float64]:
    """A numeric column; missing values are NaN, a missing column is empty."""
    values = [finite(value) for value in columns.get(name, ())]
    return numpy.array([numpy.nan if value is None else value for value in values])


def simulated(summary: Summary | None) -> bool:
    """Whether the figures of this run are of virtual time."""
    return bool(lookup(summary, "clock") == "virtual" or lookup(summary, "runtime") == "sim")
