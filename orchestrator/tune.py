"""A study: search the parameters of an architecture for the best variant, and show why.

The config's own variant is measured first, then what the sampler proposes, until the budget of
trials is used up. Variants that their own limits forbid are refused before they run and do not
count. Everything finished is in the results folder at once, so the same call goes on where one
before it was stopped, and several of them, on one machine or many, share one study.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orchestrator.config.load import ConfigSource
from orchestrator.config.render import resolved
from orchestrator.config.schema import SIM, Config
from orchestrator.core.units import NS_PER_S
from orchestrator.errors import ConfigError, InfeasibleError, InputError, RunInterrupted, suggestion
from orchestrator.report import page
from orchestrator.report.figures import study_figures
from orchestrator.report.model import STATES, StudyView
from orchestrator.run import DEFAULT_RESULTS, Runner, plan
from orchestrator.store import tables
from orchestrator.store.parquet import Store
from orchestrator.study import view as views
from orchestrator.study.driver import Driver, Listener
from orchestrator.study.leases import Leases
from orchestrator.study.space import SearchSpace
from orchestrator.study.trials import JOURNAL, Study, open_storage, storage_file
from orchestrator.study.verdict import Outcome, best_of, counts

THROUGHPUT_METRICS: Final = ("throughput_ops", "goodput_ops")
OVERHEAD_S: Final = 1.0
"""Of one trial beyond its load, for the estimate of a dry run."""
HASH_DIGITS: Final = 8

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RATE_PATHS: Final = ("arrival.name", "arrival.rate", "arrival.speed")


@dataclass(frozen=True)
class Plan:
    """A study that may start: its config, search space, name, budget and where it is kept."""

    config: Config
    space: SearchSpace
    name: str
    trials: int
    results: str
    folder: Path
    storage: str

    @property
    def exists(self) -> bool:
        """Whether it was started before."""
        return storage_file(self.storage, self.folder, self.name).exists()


@dataclass(frozen=True)
class TuneResult:
    """A study as it stands, and its report. ``note``: why it ended before its budget, if so."""

    view: StudyView
    outcomes: tuple[Outcome, ...]
    report: Path
    results: str
    note: str | None = None

    @property
    def best(self) -> Outcome | None:
        """The best feasible trial."""
        return best_of(self.outcomes, self.view.direction)

    @property
    def good(self) -> bool:
        """Whether any trial is feasible."""
        return self.best is not None

    @property
    def trials(self) -> dict[str, int]:
        """Number of trials by state."""
        states = [outcome["state"] for outcome in self.outcomes]
        return {name: states.count(name) for name in STATES}

    @property
    def overhead_per_trial_s(self) -> float | None:
        """Mean seconds that a trial took beyond its load; None where none ran."""
        known = [each["overhead_s"] for each in self.outcomes if each["overhead_s"] is not None]
        return math.fsum(known) / len(known) if known else None

    def as_json(self) -> dict[str, Any]:
        """The object that ``archbench tune --json`` prints."""
        best, default = self.best, views.default_of(self.outcomes)
        return {
            "study": self.view.study,
            "trials": self.trials,
            "best": None
            if best is None or self.view.best is None
            else {
                "params": best["params"],
                "metrics": self.view.best.metrics,
                "run_id": best["run_id"],
                "probability_best": None,
            },
            "default": None
            if default is None or self.view.default is None
            else {"metrics": self.view.default.metrics, "run_id": default["run_id"]},
            "pareto": None,
            "overhead_per_trial_s": self.overhead_per_trial_s,
            "report": str(self.report),
            "results": self.results,
        }


# --- before anything runs ---------------------------------------------------------------


def prepare(
    config: Config | ConfigSource | Mapping[str, Any],
    *,
    trials: int | None = None,
    results: str | os.PathLike[str] = DEFAULT_RESULTS,
    study: str | None = None,
    storage: str = JOURNAL,
) -> Plan:
    """Everything that can be wrong with a study, checked before it starts.

    The name of a study defaults to that of the experiment and a hash of all that decides its
    figures, so the same command resumes it and a changed config begins another. Raises
    ConfigError, or what :func:`orchestrator.run.plan` raises of the config's own variant.
    """
    source = ConfigSource.of(config)
    built = source.build()
    if trials is not None and trials < 1:
        raise ConfigError(f"{trials} is no number of trials", path="--trials", hint="at least 1")
    _check_objective(built)
    space = SearchSpace(source, built)
    with suppress(InfeasibleError):  # then it is the first refused trial
        plan(built)
    name = study if study is not None else _study_name(built)
    if _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"{name!r} cannot name a study",
            path="--study",
            hint="1 to 100 letters, digits, '.', '_' or '-', the first a letter or digit",
        )
    folder = _local(results) / "studies"
    storage_file(storage, folder, name)
    return Plan(
        built, space, name, trials or built.tune.trials, os.fspath(results), folder, storage
    )


def _check_objective(config: Config) -> None:
    objectives = config.tune.objectives
    if len(objectives) > 1:
        raise ConfigError(
            f"{len(objectives)} objectives at once cannot be searched",
            path="tune.objectives",
            hint="give one, and bound the others in slo",
        )
    metric = objectives[0].metric
    at = "tune.objectives[0].metric"
    types = tables.RUNS.schema
    known = [
        ".".join(path)
        for column, path in tables.SUMMARY_PATHS.items()
        if types.field(column).type in (tables.NUMBER, tables.WHOLE)
    ]
    if metric not in known:
        raise ConfigError(
            f"{metric!r} is no figure of a run", path=at, hint=suggestion(metric, known)
        )
    arrival = config.arrival.implementation(config.arrival.params)
    searched = any(path in config.tune.search for path in _RATE_PATHS)
    if metric in THROUGHPUT_METRICS and not arrival.closed and not searched:
        raise ConfigError(
            f"{metric} cannot be searched for under a fixed open rate: every variant that keeps up"
            " has the same",
            path=at,
            hint="use arrival: {name: closed, ...}, put arrival.rate into tune.search, or make a"
            " latency or the cost the objective",
        )


def _identity(config: Config) -> dict[str, Any]:
    """All that decides what the study finds: the config without the length of the search."""
    plain: dict[str, Any] = json.loads(tables.json_text(resolved(config)))
    del plain["tune"]["trials"]
    return plain


def _study_name(config: Config) -> str:
    text = json.dumps(_identity(config), sort_keys=True)
    hashed = hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]
    return f"{config.experiment[:80]}-{hashed}"


def _local(results: str | os.PathLike[str]) -> Path:
    scheme, address, path = os.fspath(results).partition("://")
    if address and scheme not in ("file", "local"):
        raise ConfigError(
            "a study keeps its journal and its leases in the results folder, which must be local",
            path="--results",
            hint="tune into a local folder, and copy it afterwards",
        )
    return Path(path if address else os.fspath(results))


def _check_same(noted: Mapping[str, Any], config: Config, name: str) -> None:
    """A study's trials must be comparable, so its config must not have changed."""
    changed = sorted(_differences(noted, _identity(config)))
    if changed:
        listed = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
        raise ConfigError(
            f"the study {name!r} was started with another configuration: {listed} changed",
            path="--study",
            hint="name another study, or take the change back",
        )


def _differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in sorted({*one, *other}):
            below = f"{path}.{name}" if path else name
            yield from _differences(one.get(name), other.get(name), below)
    elif one != other:
        yield path


def largest(space: SearchSpace, config: Config) -> int:
    """The most nodes and clients that a variant at the ends of the search has."""
    ends: list[dict[str, Any]] = [{}, {}]
    for axis in space.axes:
        values = [axis.value(end) for end in axis.choices or (axis.low, axis.high)]
        ends += [{axis.path: value} for value in values]
        ends[1][axis.path] = values[-1]
    most = _processes(config)
    for values in ends:
        with suppress(InputError):
            most = max(most, _processes(space.variant(values)))
    return most


def _processes(config: Config) -> int:
    nodes: int = config.system.implementation(config.system.params).nodes
    return nodes + config.clients


def dry_run(planned: Plan) -> dict[str, Any]:
    """What the study would still do: runs, most nodes at once, seconds, bytes on disk."""
    done = 0
    if planned.exists:
        done = sum(counts(each) for each in views.outcomes(Store(planned.results), planned.name))
    runs = max(0, planned.trials - done)
    config = planned.config
    loaded_s = (config.warmup + config.duration) / NS_PER_S
    return {
        "runs": runs,
        "nodes": largest(planned.space, config) - config.clients,
        "seconds": runs * (loaded_s + OVERHEAD_S),
        "disk_bytes": runs * _disk_bytes(config),
    }


def _disk_bytes(config: Config) -> int:
    """A run without operations: measured at 40 KiB, and 200 bytes an interval and node."""
    intervals = (config.warmup + config.duration) / NS_PER_S * 10
    return 40 * 1024 + int(200 * intervals * _processes(config))


# --- the study --------------------------------------------------------------------------


def tune(
    config: Config | ConfigSource | Mapping[str, Any] | Plan,
    *,
    trials: int | None = None,
    results: str | os.PathLike[str] = DEFAULT_RESULTS,
    study: str | None = None,
    storage: str = JOURNAL,
    address: str | None = None,
    command: str = "",
    listener: Listener | None = None,
) -> TuneResult:
    """Search until ``trials`` trials (default: the config's) are measured; then the report.

    ``results``: a local folder. ``study``: its name. ``storage``: journal, sqlite or the URL of
    an SQLite file. ``address``: a Ray cluster. ``command``: what the report says to repeat.
    ``listener`` is told of every finished trial. A :class:`Plan` brings all but the last three.

    Raises what :func:`prepare` raises; EnvironmentFailure where the runtime fails, or three
    trials in a row in the same way; RunInterrupted on Ctrl-C, with the best so far. What was
    finished is kept, and the same call goes on.
    """
    planned = config if isinstance(config, Plan) else prepare(
        config, trials=trials, results=results, study=study, storage=storage
    )
    store = Store(planned.results)
    with ExitStack() as stack:
        slots = _Slots(planned, address)
        if not planned.exists:
            # A cluster that cannot be reached must leave no study behind.
            stack.enter_context(slots)
        driver = stack.enter_context(_driver(planned, store, listener))
        driver.catch_up()
        if driver.left():
            if planned.exists and not slots.entered:
                stack.enter_context(slots)
            try:
                driver.drive(slots.runners)
            except KeyboardInterrupt:
                raise _interrupted(planned, driver) from None
        driver.catch_up()
        note = driver.stopped
    return report(store, planned, command=command, note=note)


@contextmanager
def _driver(planned: Plan, store: Store, listener: Listener | None) -> Iterator[Driver]:
    config = planned.config
    planned.folder.mkdir(parents=True, exist_ok=True)
    with Leases(planned.folder / f"{planned.name}.leases") as leases:
        study = Study(
            planned.name,
            open_storage(planned.storage, planned.folder, planned.name),
            planned.space,
            leases,
            direction=config.tune.objectives[0].direction,
            seed=config.seed,
            startup=startup_trials(planned.trials, len(planned.space.axes)),
        )
        try:
            _check_same(study.noted("config", _identity(config)), config, planned.name)
            with Driver(study, leases, store, config, planned.trials, listener) as driver:
                yield driver
        finally:
            study.close()


def startup_trials(trials: int, axes: int) -> int:
    """How many trials cover the space evenly before a model is trusted: up to a third."""
    return max(2, min(trials // 3, 4 + 2 * axes))


class _Slots:
    """The runners of a study: as many as the cluster has room for, with warm actors."""

    def __init__(self, planned: Plan, address: str | None) -> None:
        self._planned = planned
        self._address = address
        self.runners: list[Runner] = []
        self.entered = False

    def __enter__(self) -> _Slots:
        self.entered = True
        planned = self._planned
        self.runners.append(Runner(planned.results, self._address))
        if planned.config.runtime == SIM:
            return self
        try:
            from orchestrator.runtimes import ray_cluster

            size = largest(planned.space, planned.config)
            self.runners[0].runtime().reserve(size)
            room = math.floor(ray_cluster.cluster_shape()["cpus"] / size)
            for _ in range(1, min(max(1, room), planned.trials)):
                self.runners.append(Runner(planned.results, self._address))
                self.runners[-1].runtime().reserve(size)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # The first one leaves the cluster, so it goes last.
        if self._planned.config.runtime != SIM:
            for runner in self.runners[1:]:
                runner.runtime().close()
        for runner in self.runners[:1]:
            runner.close()
        self.runners.clear()


def _interrupted(planned: Plan, driver: Driver) -> RunInterrupted:
    done = planned.trials - driver.left()
    best = driver.best()
    words = "no feasible trial yet"
    if best is not None:
        params = ", ".join(f"{path}={value}" for path, value in best["params"].items())
        metric = planned.config.tune.objectives[0].metric
        words = f"best so far: trial {best['number']}, {metric} {best['value']:.6g} with {params}"
    return RunInterrupted(
        f"stopped after {done} of {planned.trials} trials; {words}",
        hint="the same command goes on",
    )


def report(
    store: Store, planned: Plan, *, command: str = "", note: str | None = None
) -> TuneResult:
    """The study as it is in the results, with its page written."""
    view = views.study_view(store, planned.name, config=planned.config, command=command)
    path = write_report(view, _local(planned.results))
    found = tuple(views.outcomes(store, planned.name))
    return TuneResult(view, found, path, planned.results, note)


def write_report(view: StudyView, results: Path) -> Path:
    """``reports/<study>/report.html`` below a results folder, with its figures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        figures: Sequence[Any] = study_figures(view)
    folder = results / "reports" / view.study
    written, _ = page.write(folder, page.study_page(view, figures), figures)
    return written
