"""A study: search the parameters of an architecture for the best variant, and show why.

The config's own variant is measured first, then what the sampler proposes, until the budget of
trials is used up. Variants that their own limits forbid are refused before they run and do not
count. Everything finished is in the results folder at once, so the same call goes on where one
before it was stopped, and several of them, on one machine or many, share one study.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config.load import ConfigSource
from orchestrator.config.schema import SIM, Config
from orchestrator.dry_run import dry_run as run_dry
from orchestrator.errors import RunInterrupted
from orchestrator.report.model import StudyView
from orchestrator.run import DEFAULT_RESULTS, Runner
from orchestrator.runtimes._parts import Parts
from orchestrator.store.parquet import Store
from orchestrator.store.place import room_needed
from orchestrator.store.tables import TRIAL_STATES
from orchestrator.store.text import plain_name
from orchestrator.stored import reports_folder
from orchestrator.study import view as views
from orchestrator.study.driver import Driver, Listener
from orchestrator.study.leases import Leases
from orchestrator.study.plan import Plan, check_same, identity, largest, prepare
from orchestrator.study.trials import JOURNAL, Study, open_storage
from orchestrator.study.verdict import Outcome, best_of, counts

__all__ = ["Plan", "TuneResult", "dry_run", "prepare", "tune", "write_study_report"]


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
        return {name: states.count(name) for name in TRIAL_STATES}

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


def dry_run(planned: Plan, *, address: str | None = None) -> dict[str, Any]:
    """What the study would still do; keys as those of :func:`orchestrator.dry_run.dry_run`.

    ``nodes`` is the most of any variant, the rest follows from the config's own one.
    """
    done = 0
    if planned.exists:
        done = sum(counts(each) for each in views.outcomes(Store(planned.results), planned.name))
    runs = max(0, planned.trials - done)
    config = planned.config
    nodes = largest(planned.space, config) - config.clients
    estimate = run_dry(Parts.of(config), repeats=max(1, runs), address=address)
    nothing = {"seconds": 0.0, "disk_bytes": 0} if runs == 0 else {}
    return estimate | nothing | {"runs": runs, "nodes": nodes}


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
    trials in a row in the same way; ResultsFull where no room is left; RunInterrupted on Ctrl-C,
    with the best so far. What was finished is kept, and the same call goes on.
    """
    planned = (
        config
        if isinstance(config, Plan)
        else prepare(config, trials=trials, results=results, study=study, storage=storage)
    )
    store = Store(planned.results)
    store.check_writable()
    with room_needed(planned.results), ExitStack() as stack:
        slots = _Slots(planned, address)
        if not planned.exists:
            # A cluster that cannot be reached must leave no study behind.
            stack.enter_context(slots)
        driver = stack.enter_context(_driver(planned, store, listener))
        driver.catch_up()
        if driver.left():
            if not slots.entered:
                stack.enter_context(slots)
            try:
                driver.drive(slots.runners)
            except KeyboardInterrupt:
                raise _interrupted(planned, driver) from None
        driver.catch_up()
        note = driver.stopped
    with room_needed(planned.results):
        return result_of(store, planned, command=command, note=note)


@contextmanager
def _driver(planned: Plan, store: Store, listener: Listener | None) -> Iterator[Driver]:
    config = planned.config
    planned.folder.mkdir(parents=True, exist_ok=True)
    with Leases(planned.folder / f"{planned.name}.leases") as leases:
        study = Study(
            planned.name,
            lambda: open_storage(planned.storage, planned.folder, planned.name),
            planned.space,
            leases,
            direction=config.tune.objectives[0].direction,
            seed=config.seed,
            startup=startup_trials(planned.trials, len(planned.space.axes)),
        )
        try:
            check_same(study.noted("config", identity(config)), config, planned.name)
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

            size, clients = largest(planned.space, planned.config), planned.config.clients
            self.runners[0].runtime().reserve(size - clients, clients)
            room = math.floor(ray_cluster.cluster_shape()["cpus"] / size)
            for turn in range(1, min(max(1, room), planned.trials)):
                self.runners.append(Runner(planned.results, self._address, turn=turn))
                self.runners[-1].runtime().reserve(size - clients, clients)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for runner in self.runners:
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


def result_of(
    store: Store, planned: Plan, *, command: str = "", note: str | None = None
) -> TuneResult:
    """The study as it is in the results, with its report written."""
    view = views.study_view(store, planned.name, config=planned.config, command=command)
    path, _ = write_report(view, planned.results)
    found = tuple(views.outcomes(store, planned.name))
    return TuneResult(view, found, path, planned.results, note)


def write_study_report(store: Store, study: str) -> tuple[Path, list[Path]]:
    """The report of a stored study: the paths of its page and of its figures."""
    return write_report(views.study_view(store, study), store.results)


def write_report(view: StudyView, results: str) -> tuple[Path, list[Path]]:
    """``reports/<study>/report.html`` and its figures; their paths."""
    from orchestrator.report import page
    from orchestrator.report.figures import study_figures

    figures = study_figures(view)
    # The name may come from results that somebody else has made.
    name = plain_name(view.study, "study")
    folder = reports_folder(results.removeprefix("file://")) / name
    return page.write(folder, page.study_page(view, figures), figures)
