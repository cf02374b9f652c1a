"""The highest rate at which a configuration meets its objective, and the curve on the way.

:mod:`orchestrator.analysis.crossing` says at which rate to measure next; each probe is a run of its
own seed. A run whose figures may not be believed did not meet the objective. Runs that are in the
results already, and valid, are not made again, so the same command goes on where it was stopped.

Once the crossing is known it is confirmed by runs just below its interval, most of which must meet
the objective; where they do not, the search goes on with what they found. Then rates are measured
that the curve lacks, which is also what tells whether less load is ever worse.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from orchestrator.analysis.crossing import Crossing, Estimate, Probe
from orchestrator.analysis.slo import bounded
from orchestrator.config.load import ConfigSource
from orchestrator.config.schema import Config
from orchestrator.errors import ConfigError
from orchestrator.plan import plan
from orchestrator.recalled import RecalledRuns
from orchestrator.run import Runner, is_good
from orchestrator.study.verdict import constraints_of, slo_bounds

RATE: Final = "arrival.rate"
CONFIRMATIONS: Final = 3
_ROUNDS: Final = 3
SHARES: Final = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.1)
"""Rates that every curve has, by what they are of the capacity."""
_APART: Final = 0.04
"""Rates nearer than this to one that was measured are on the curve already."""
_LEAST_SHARE: Final = 1e-3
_MOST_SHARE: Final = 1e3
"""Of the first rate: the lowest and highest that are asked for."""


@dataclass(frozen=True)
class CapacityResult:
    """``estimate`` is None where every rate met the objective, or none did: ``reason`` says which.
    ``curve``: a point a rate, in order; ``confirmed`` None where nothing was to be confirmed.
    """

    config: Config
    KEYS: ClassVar[tuple[str, ...]] = (
        "capacity_ops", "capacity_ci95_ops", "confirmed", "precise", "reason", "slo", "curve",
        "knee_ops", "contradictions_ops", "demand", "demands", "runs", "results",
    )  # fmt: skip

    estimate: Estimate | None
    confirmed: bool | None
    curve: list[dict[str, Any]]
    contradictions: list[float]
    runs: int
    reason: str | None
    results: str

    @property
    def good(self) -> bool:
        """Whether there is a capacity that was confirmed, as precisely as was asked."""
        return self.estimate is not None and self.estimate.sure and bool(self.confirmed)

    def as_json(self) -> dict[str, Any]:
        """The object of ``capacity --json``."""
        found = self.estimate
        return {
            "capacity_ops": None if found is None else found.rate,
            "capacity_ci95_ops": _finite(found),
            "confirmed": self.confirmed,
            "precise": None if found is None else found.sure,
            "reason": self.reason,
            "slo": {name: bound for name, (_, bound) in slo_bounds(self.config).items()},
            "curve": self.curve,
            "knee_ops": knee_ops(self.curve),
            "contradictions_ops": self.contradictions,
            "demand": None,
            "demands": None,
            "runs": self.runs,
            "results": self.results,
        }


def _finite(found: Estimate | None) -> list[float] | None:
    if found is None or not math.isfinite(found.high):
        return None
    return [found.low, found.high]


def knee_ops(curve: Sequence[Mapping[str, Any]]) -> float | None:
    """The rate of the curve with the most throughput for its mean latency: Kleinrock's power
    ("Power and Deterministic Rules of Thumb for Probabilistic Problems in Computer Communications",
    ICC 1979). None without a valid point.
    """
    points = [point for point in curve if point["valid"] and point["mean_ms"]]
    best = max(points, key=lambda each: each["throughput_ops"] / each["mean_ms"], default=None)
    return None if best is None else float(best["offered_ops"])


def capacity(
    source: ConfigSource,
    runner: Runner,
    *,
    precision: float = 0.02,
    runs_max: int = 60,
    told: Callable[[dict[str, Any], Crossing], None] | None = None,
    lost: Callable[[str], None] | None = None,
) -> CapacityResult:
    """Search the capacity of a config. ``told`` hears of each run: its point, and the search.

    Raises ConfigError for a config without an objective or an open load with a rate, and what a run
    raises.
    """
    config = source.build()
    rate = _first_rate(source, config)
    search = Crossing(
        rate,
        precision=precision,
        probes_max=runs_max,
        least=rate * _LEAST_SHARE,
        most=rate * _MOST_SHARE,
    )
    prober = _Prober(source, config, runner, search, told, lost)
    confirmed: bool | None = None
    for _ in range(_ROUNDS):
        prober.search()
        estimate = search.estimate()
        if estimate is None:
            break
        confirmed = prober.confirm(estimate, precision)
        if confirmed:
            break
    reason = _one_sided(search) if estimate is None else None
    if estimate is not None:
        prober.complete(estimate.rate)
        # What completed the curve may have told more.
        estimate = search.estimate() or estimate
    return CapacityResult(
        config,
        estimate,
        confirmed,
        prober.curve(),
        search.contradictions,
        prober.runs.made,
        reason,
        runner.store.results,
    )


def _first_rate(source: ConfigSource, config: Config) -> float:
    if not bounded(config.slo):
        raise ConfigError(
            "a capacity is the highest rate that meets an objective, and there is none",
            path="slo",
            hint="give one, as in slo: {p99: 20ms, error_rate: 0.001}",
        )
    rate = getattr(config.arrival.params, "rate", None)
    if not isinstance(rate, (int, float)) or not source.knows(RATE):
        raise ConfigError(
            f"arrival {config.arrival.name!r} has no rate to search",
            path="arrival.name",
            hint="use an open one, as in arrival: {name: poisson, rate: 1000/s}",
        )
    plan(config)
    return float(rate)


def _one_sided(search: Crossing) -> str:
    """Why there is no crossing."""
    verdicts = {probe.met for probe in search.probes}
    rates = [probe.rate for probe in search.probes]
    if verdicts == {True}:
        return f"every rate met the objective, up to {max(rates):g}/s"
    if verdicts == {False}:
        return f"no rate met the objective, down to {min(rates):g}/s"
    return f"the objective was missed at the lowest rates, down to {min(rates):g}/s, and met above"


class _Prober:
    """Measures, and keeps what was found."""

    def __init__(
        self,
        source: ConfigSource,
        config: Config,
        runner: Runner,
        search: Crossing,
        told: Callable[[dict[str, Any], Crossing], None] | None,
        lost: Callable[[str], None] | None,
    ) -> None:
        self._source, self._config = source, config
        self._search, self._told = search, told
        self._seeds = itertools.count(config.seed)
        self.runs = RecalledRuns(runner, lost)
        self._found: dict[float, list[dict[str, Any]]] = {}

    def probe(self, rate: float) -> dict[str, Any]:
        """One run at a rate, or the stored one of the same config; its result object."""
        # A short text in the config; all that follows is about the rate that was run.
        rate = float(f"{rate:.5g}")
        values = {RATE: f"{rate!r}/s", "seed": next(self._seeds)}
        config = self._source.with_values(values).build()
        # Each probe of a rate on other hosts.
        summary = self.runs.result(plan(config), len(self._found.get(rate, ())))
        self._found.setdefault(rate, []).append(summary)
        self._search.tell(probe_of(rate, summary, self._config))
        if self._told is not None:
            self._told(point(rate, [summary]), self._search)
        return summary

    def search(self) -> None:
        """Probe until the search wants no more."""
        while (rate := self._search.next()) is not None:
            self.probe(rate)

    def confirm(self, estimate: Estimate, precision: float) -> bool:
        """Whether most runs just below the interval meet the objective."""
        rate = (estimate.low or estimate.rate) * (1 - precision)
        verdicts = [met(self.probe(rate)) for _ in range(CONFIRMATIONS)]
        return 2 * sum(verdicts) > len(verdicts)

    def complete(self, rate: float) -> None:
        """Measure what the curve lacks."""
        for share in SHARES:
            wanted = share * rate
            if not any(abs(wanted / there - 1) <= _APART for there in self._found):
                self.probe(wanted)

    def curve(self) -> list[dict[str, Any]]:
        """A point a rate, in order."""
        return [point(rate, self._found[rate]) for rate in sorted(self._found)]


def met(summary: Mapping[str, Any]) -> bool:
    """Whether a run met the objective: in figures that may be believed, and without a doubt that
    it kept the consistency it claims.
    """
    return is_good(summary) and bool(summary["slo"]["met"])


def probe_of(rate: float, summary: Mapping[str, Any], config: Config) -> Probe:
    """What a run says of its rate."""
    constraints = constraints_of(summary, config)
    if constraints["valid"] > 0 or constraints["consistency"] > 0:
        # That is no matter of how much.
        return Probe(rate, False)
    worst = max(
        (each for name, each in constraints.items() if name.startswith("slo")),
        default=-1.0,
    )
    # value / bound - 1 there.
    return Probe(rate, met(summary), 1 - 1 / (1 + worst) if worst > -1 else None)


def point(rate: float, summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The runs at one rate as a point of the curve: medians over them."""

    def middle(values: Iterator[float | None]) -> float | None:
        there = sorted(value for value in values if value is not None)
        return there[len(there) // 2] if there else None

    latencies = [summary["latency_ms"]["all"] for summary in summaries]
    good = sum(map(met, summaries))
    return {
        "offered_ops": rate,
        "throughput_ops": middle(summary["throughput_ops"] for summary in summaries),
        "goodput_ops": middle(summary["goodput_ops"] for summary in summaries),
        **{
            f"{name}_ms": middle(each[name] for each in latencies)
            for name in ("mean", "p50", "p99")
        },
        "met": 2 * good > len(summaries),
        "valid": all(summary["valid"] for summary in summaries),
        "runs": len(summaries),
        "run_id": summaries[-1]["run_id"],
    }
