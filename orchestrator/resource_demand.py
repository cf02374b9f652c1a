"""The fewest resources that carry a given load within the objective: the other side of a capacity.

The *demand* metric of Theodolite (Henning and Hasselbring, "A Configurable Method for Benchmarking
Scalability of Cloud-Native Applications", Empirical Software Engineering 27, 2022): of each load
the smallest value of one dimension of the system, such as its replicas, at which the objective is
met; over several loads a curve that says how the system scales.

Nothing is taken for granted of values that were not measured: every value of the list is run at
every load, once. Then the smallest that met the objective, and the one before it, are run again in
turn (A B A B, so that a drift of the machine favours neither), until each has RUNS runs and most of
them agree. A larger value that fails is named. All values are run with the same seeds, and runs
that are in the results already, and valid, are not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from orchestrator.analysis.slo import bounded
from orchestrator.capacity import RATE, met, point
from orchestrator.config.load import ConfigSource, parse_value
from orchestrator.config.schema import Config
from orchestrator.errors import ConfigError, InfeasibleError, InputError
from orchestrator.plan import plan
from orchestrator.recalled import RecalledRuns
from orchestrator.run import Runner
from orchestrator.study.verdict import slo_bounds

RUNS: Final = 3
"""Of the value that is found, and of the one before it."""


@dataclass
class Trials:
    """What the runs of one value at one load found; ``reason``: why it cannot run at all."""

    value: Any
    summaries: list[dict[str, Any]] = field(default_factory=list)
    reason: str | None = None

    @property
    def met(self) -> bool:
        """Whether most runs met the objective."""
        return 2 * sum(map(met, self.summaries)) > len(self.summaries)

    @property
    def settled(self) -> bool:
        """Whether no further run is needed to say so."""
        return self.reason is not None or len(self.summaries) >= RUNS

    def as_json(self, load_ops: float) -> dict[str, Any]:
        """A point of the curve over values."""
        if not self.summaries:
            empty = dict.fromkeys(POINT_KEYS)
            return empty | {"value": self.value, "met": False, "runs": 0, "reason": self.reason}
        return point(load_ops, self.summaries) | {
            "value": self.value,
            "runs_met": sum(map(met, self.summaries)),
            "cost": self.summaries[-1]["cost"],
            "reason": None,
        }


POINT_KEYS: Final = (
    "value", "offered_ops", "throughput_ops", "goodput_ops", "mean_ms", "p50_ms", "p99_ms", "met",
    "valid", "runs", "runs_met", "cost", "run_id", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class Demand:
    """What one load takes. ``value`` is None where no value carries it; ``contradictions``: larger
    values that did not, though this one did.
    """

    load_ops: float
    path: str
    trials: tuple[Trials, ...]

    @property
    def found(self) -> Trials | None:
        """The smallest value that carries it."""
        return next((each for each in self.trials if each.met), None)

    @property
    def contradictions(self) -> list[Any]:
        """Values behind the one that was found that did not meet the objective."""
        if self.found is None:
            return []
        behind = self.trials[self.trials.index(self.found) + 1 :]
        return [each.value for each in behind if not each.met and each.reason is None]

    def as_json(self) -> dict[str, Any]:
        """The object of one load."""
        found = self.found
        return {
            "load_ops": self.load_ops,
            "path": self.path,
            "value": None if found is None else found.value,
            "confirmed": None if found is None else found.settled,
            "curve": [each.as_json(self.load_ops) for each in self.trials],
            "contradictions": self.contradictions,
            "reason": None if found is not None else self._none(),
        }

    def _none(self) -> str:
        return f"no value of {self.path} carried {self.load_ops:g}/s within the objective"


@dataclass(frozen=True)
class DemandResult:
    """The demands of all loads, in their order. ``runs``: how many were made for it."""

    config: Config
    demands: tuple[Demand, ...]
    runs: int
    results: str

    @property
    def good(self) -> bool:
        """Whether every load is carried, by a value that was confirmed."""
        return all(each.found is not None and each.found.settled for each in self.demands)

    def as_json(self) -> dict[str, Any]:
        """``demand`` is that of the first load."""
        listed = [each.as_json() for each in self.demands]
        return {
            "demand": listed[0],
            "demands": listed,
            "slo": {name: bound for name, (_, bound) in slo_bounds(self.config).items()},
            "runs": self.runs,
            "results": self.results,
        }


Told = Callable[[float, Trials], None]


def resource_demand(
    source: ConfigSource,
    runner: Runner,
    path: str,
    values: Sequence[Any],
    loads: Sequence[str],
    *,
    told: Told | None = None,
    lost: Callable[[str], None] | None = None,
) -> DemandResult:
    """Search the smallest of ``values`` (from the smallest to the largest) at ``path`` that carries
    each of ``loads`` (rates as in a config). ``told`` hears of each run.

    Raises ConfigError for a config without an objective or an open load with a rate, or where no
    value can run, and what a run raises.
    """
    config = _checked(source, path, values)
    rates = [_rate(source, load) for load in loads]
    search = _Search(source, runner, path, config.seed, told, lost)
    demands = []
    for load, rate in zip(loads, rates, strict=True):
        demands.append(Demand(rate, path, search.measure(load, rate, values)))
    return DemandResult(config, tuple(demands), search.runs.made, runner.store.results)


def _checked(source: ConfigSource, path: str, values: Sequence[Any]) -> Config:
    """The config at the first value that can run."""
    if not bounded(source.build().slo):
        raise ConfigError(
            "what carries a load is judged by an objective, and there is none",
            path="slo",
            hint="give one, as in slo: {p99: 20ms, error_rate: 0.001}",
        )
    if not source.knows(RATE):
        raise ConfigError(
            "the arrival has no rate, so it cannot be given a load",
            path="arrival.name",
            hint="use an open one, as in arrival: {name: poisson, rate: 1000/s}",
        )
    for value in values:
        parse_value(source, path, value)
    errors = []
    for value in values:
        try:
            config = source.with_values({path: value}).build()
            plan(config)
        except (ConfigError, InfeasibleError) as error:
            errors.append(error)
        else:
            return config
    raise errors[0]


def _rate(source: ConfigSource, load: str) -> float:
    try:
        return float(parse_value(source, RATE, load))
    except ConfigError as error:
        raise InputError(str(error), path="--load", hint="a rate such as 5000/s") from None


class _Search:
    """Measures, and keeps what was found."""

    def __init__(
        self,
        source: ConfigSource,
        runner: Runner,
        path: str,
        seed: int,
        told: Told | None,
        lost: Callable[[str], None] | None,
    ) -> None:
        self._source, self._path, self._seed = source, path, seed
        self._told = told
        self.runs = RecalledRuns(runner, lost)

    def measure(self, load: str, rate: float, values: Sequence[Any]) -> tuple[Trials, ...]:
        """All values at one load."""
        trials = [Trials(value) for value in values]
        for each in trials:
            self._run(each, load, rate)
        while True:
            # The boundary may move with what its runs find, towards either end.
            boundary = [each for each in _boundary(trials) if not each.settled]
            if not boundary:
                return tuple(trials)
            fewest = min(len(each.summaries) for each in boundary)
            for each in boundary:
                if len(each.summaries) == fewest:
                    self._run(each, load, rate)

    def _run(self, trials: Trials, load: str, rate: float) -> None:
        """One more run of a value."""
        seed = self._seed + len(trials.summaries)
        values = {RATE: load, self._path: trials.value, "seed": seed}
        try:
            planned = plan(self._source.with_values(values).build())
        except (ConfigError, InfeasibleError) as error:
            trials.reason = str(error)
            return
        trials.summaries.append(self.runs.result(planned, len(trials.summaries)))
        if self._told is not None:
            self._told(rate, trials)


def _boundary(trials: Sequence[Trials]) -> list[Trials]:
    """The last value that does not carry the load before the first that does, and that one; the
    largest alone where none does.
    """
    first = next((index for index, each in enumerate(trials) if each.met), None)
    if first is None:
        return list(trials[-1:])
    return list(trials[max(0, first - 1) : first + 1])
