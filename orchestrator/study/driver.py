"""The trials of a study under way: asked for, run in as many slots as there are, judged, stored.

A driver shares its study with other drivers, living and dead: :mod:`orchestrator.study.leases` says
whose trial is whose, and the budget of trials is that of all drivers together.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Final, Protocol, Self

from orchestrator.config.schema import SIM, Config, Objective
from orchestrator.core.units import NS_PER_S
from orchestrator.errors import (
    ClusterLost,
    ConfigError,
    EnvironmentFailure,
    InfeasibleError,
    PartLost,
    ResultsFull,
)
from orchestrator.report.model import FAILED, INFEASIBLE
from orchestrator.run import RunResult
from orchestrator.store.parquet import Store
from orchestrator.store.place import is_full
from orchestrator.streak import FAILURES_MAX, Streak
from orchestrator.study.leases import Leases
from orchestrator.study.trials import Asked, Study
from orchestrator.study.verdict import Outcome, best_of, counts, judged

LOOK_S: Final = 1.0
"""How often a waiting driver looks after the trials of others."""
ABANDONED_S: Final = 30.0
"""Within which a run that was abandoned has noticed."""
REFUSALS_PER_TRIAL: Final = 50
LOSSES_MAX: Final = 3
"""A variant that took its driver along that often is not tried again."""


class Slot(Protocol):
    """What runs one configuration at a time."""

    def run_surely(self, config: Config, lost: Callable[[str], None] | None) -> RunResult:
        """Run, check and store it; again, after telling ``lost`` why, where it lost a part."""

    def abandon(self) -> None:
        """End a run that is under way in another thread; it fails there, soon."""


@dataclass(frozen=True)
class News:
    """A trial that has just finished, and where the study stands.

    ``finished`` of ``trials`` count towards the budget. ``best`` is the best feasible outcome
    so far. ``left_s`` estimates the time to the end. ``lost``: why runs of it were made again.
    """

    outcome: Outcome
    summary: Mapping[str, Any] | None
    best: Outcome | None
    finished: int
    trials: int
    left_s: float | None
    lost: Sequence[str] = ()


Listener = Callable[[News], None]


@dataclass
class _Run:
    """A trial in a slot."""

    asked: Asked
    started_s: float
    started_utc: str
    run_s: float = 0.0
    lost: list[str] = field(default_factory=list)


class Driver:
    """Brings a study to ``trials`` trials; a context manager that gives back what is open."""

    def __init__(
        self,
        study: Study,
        leases: Leases,
        store: Store,
        config: Config,
        trials: int,
        listener: Listener | None = None,
    ) -> None:
        self._study = study
        self._leases = leases
        self._store = store
        self._config = config
        self._trials = trials
        self._listener = listener
        self._open: dict[Future[RunResult], _Run] = {}
        self._streak = Streak()
        self._begun_s = time.monotonic()
        self._done_here = 0
        self.stopped: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for future, run in list(self._open.items()):
            finished = future.done() and not future.cancelled() and future.exception() is None
            if finished:
                self._settle(future)
            else:
                del self._open[future]
                self._give_back(run.asked)

    def _give_back(self, asked: Asked) -> None:
        try:
            with self._leases.exclusive():
                self._study.give_back(asked)
        except Exception as error:
            # On a full disk it stays taken, until the next driver finds its taker dead.
            if not is_full(error):
                raise

    # --- where the study stands -----------------------------------------------------------

    def catch_up(self) -> None:
        """Take over what dead drivers left, and store rows that they could not."""
        with self._leases.exclusive():
            self._study.reclaim()
        stored = {file.name for file in self._store.files("trials")}
        for outcome in self._study.outcomes():
            if f"{self._study.name}-{outcome['number']:06d}" not in stored:
                self._store.write_trial(self._config.experiment, outcome)

    def left(self) -> int:
        """How many trials the budget still has, those under way included."""
        return max(0, self._trials - sum(counts(each) for each in self._study.outcomes()))

    def best(self) -> Outcome | None:
        """The best feasible trial so far."""
        return best_of(self._study.outcomes(), self._objective.direction)

    @property
    def _objective(self) -> Objective:
        return self._config.tune.objectives[0]

    # --- the loop -------------------------------------------------------------------------

    def drive(self, slots: Sequence[Slot]) -> None:
        """Run trials until the budget is used up or nothing new is left.

        Raises EnvironmentFailure (or ConfigError, where the objective has no figure) after
        FAILURES_MAX failures in a row for the same reason.
        """
        self._begun_s = time.monotonic()
        free: SimpleQueue[Slot] = SimpleQueue()
        for slot in slots:
            free.put(slot)
        executor = ThreadPoolExecutor(len(slots)) if len(slots) > 1 else None
        try:
            while self._fill(free, len(slots), executor):
                self._wait()
        finally:
            if executor is not None:
                self._end(slots, executor)

    def _end(self, slots: Sequence[Slot], executor: ThreadPoolExecutor) -> None:
        """No thread goes on measuring once the study has ended, for whatever reason."""
        executor.shutdown(wait=False, cancel_futures=True)
        left = [future for future in self._open if not future.done()]
        if left:
            for slot in slots:
                slot.abandon()
            wait(left, timeout=ABANDONED_S)

    def _fill(
        self, free: SimpleQueue[Slot], slots: int, executor: ThreadPoolExecutor | None
    ) -> bool:
        """Start trials while slots are free; False when there is nothing left to wait for."""
        with self._leases.exclusive():
            self._study.reclaim()
        while len(self._open) < slots and self.stopped is None:
            run = self._next()
            if run is None:
                break
            try:
                config = self._study.space.variant(run.asked.values)
            except ConfigError as error:
                self._refuse(run, error)
                continue
            self._launch(run, config, free, executor)
        if self._open:
            return True
        return self.stopped is None and self.left() > 0

    def _next(self) -> _Run | None:
        """A trial to run; None where the budget is used up or under way."""
        with self._leases.exclusive():
            outcomes = self._study.outcomes()
            finished = sum(counts(outcome) for outcome in outcomes)
            if finished + self._study.running() >= self._trials:
                return None
            if len(outcomes) - finished >= REFUSALS_PER_TRIAL * self._trials:
                self.stopped = (
                    f"{len(outcomes) - finished} variants were refused before they ran, the last"
                    f" because of this: {outcomes[-1]['reason']}"
                )
                return None
            asked = self._study.ask()
        if asked is None:
            self.stopped = "the search space holds no further variant"
            return None
        now = datetime.datetime.now(datetime.UTC).isoformat()
        return _Run(asked, time.monotonic(), now)

    def _launch(
        self,
        run: _Run,
        config: Config,
        free: SimpleQueue[Slot],
        executor: ThreadPoolExecutor | None,
    ) -> None:
        def measure() -> RunResult:
            if run.asked.losses >= LOSSES_MAX:
                raise EnvironmentFailure(f"{run.asked.losses} drivers died while they measured it")
            slot = free.get()
            began_s = time.monotonic()
            try:
                return slot.run_surely(config, run.lost.append)
            finally:
                run.run_s = time.monotonic() - began_s
                free.put(slot)

        if executor is not None:
            self._open[executor.submit(measure)] = run
            return
        future: Future[RunResult] = Future()
        self._open[future] = run
        try:
            future.set_result(measure())
        except Exception as error:
            future.set_exception(error)

    def _wait(self) -> None:
        if not self._open:  # others are at work on the last trials
            time.sleep(LOOK_S)
            return
        done, _ = wait(self._open, timeout=LOOK_S, return_when=FIRST_COMPLETED)
        for future in sorted(done, key=lambda each: self._open[each].asked.number):
            self._settle(future)

    # --- settling -------------------------------------------------------------------------

    def _settle(self, future: Future[RunResult]) -> None:
        """Tell, store and report what came of a trial; what is no trial's fault is raised."""
        run = self._open[future]
        error = future.exception()
        match error:
            case None:
                error = self._finish(run, future.result())
            case ConfigError() | InfeasibleError():
                self._refuse(run, error)
            case ClusterLost() | ResultsFull():
                raise error
            case EnvironmentFailure():
                self._tell(run, {"state": FAILED, "reason": str(error)}, {}, None)
            case _:
                raise error
        del self._open[future]
        self._end_on_failures(error)

    def _refuse(self, run: _Run, error: ConfigError | InfeasibleError) -> None:
        refusal = {"state": INFEASIBLE, "reason": error.message}
        self._tell(run, refusal, {"refused": 1.0}, None)

    def _finish(self, run: _Run, result: RunResult) -> PartLost | None:
        """Judge what was measured; returns why it says nothing, where it does not."""
        verdict, constraints = judged(result.summary, result.config, self._objective)
        error = None
        if result.record.lost_parts:
            # That says nothing about the variant, so no sampler may learn from it.
            error = PartLost("; ".join(result.record.lost_parts))
            verdict, constraints = {"state": FAILED, "reason": error.message}, {}
        loaded_s = run.run_s
        if result.config.runtime != SIM:
            loaded_s = result.record.end_ns / NS_PER_S
        measured = {
            "run_id": result.run_id,
            "overhead_s": time.monotonic() - run.started_s - loaded_s,
            "lost_between_trials_s": result.lost_between_runs_s,
        }
        self._tell(run, verdict | measured, constraints, result.summary)
        return error

    def _tell(
        self,
        run: _Run,
        verdict: Mapping[str, Any],
        constraints: Mapping[str, float],
        summary: Mapping[str, Any] | None,
    ) -> None:
        asked = run.asked
        empty = dict.fromkeys(("value", "run_id", "overhead_s", "lost_between_trials_s"))
        outcome = (
            empty
            | dict(verdict)
            | {
                "study": self._study.name,
                "number": asked.number,
                "params": dict(asked.values),
                "is_default": asked.is_default,
                "constraints": list(constraints.values()),
                "lost_runs": len(run.lost),
                "started_utc": run.started_utc,
                "seconds": time.monotonic() - run.started_s,
            }
        )
        with self._leases.exclusive():
            if not self._study.tell(asked, outcome, constraints):
                return  # this driver hung for so long that another one has taken it over
        self._store.write_trial(self._config.experiment, outcome)
        self._done_here += counts(outcome)
        if outcome["state"] == FAILED:
            self._streak.fail(str(outcome["reason"]))
        elif outcome["run_id"] is not None:
            self._streak.succeed()
        if self._listener is not None:
            self._listener(self._news(outcome, summary, run.lost))

    def _news(
        self, outcome: Outcome, summary: Mapping[str, Any] | None, lost: Sequence[str]
    ) -> News:
        outcomes = self._study.outcomes()
        finished = sum(counts(each) for each in outcomes)
        left_s = None
        if self._done_here:
            pace_s = (time.monotonic() - self._begun_s) / self._done_here
            left_s = pace_s * max(0, self._trials - finished)
        best = best_of(outcomes, self._objective.direction)
        return News(outcome, summary, best, finished, self._trials, left_s, lost)

    def _end_on_failures(self, error: BaseException | None) -> None:
        """A study whose every run breaks in the same way is broken itself."""
        if not self._streak.hopeless:
            return
        reason = str(self._study.outcomes()[-1]["reason"]) if error is None else str(error)
        message = f"{FAILURES_MAX} trials in a row failed: {reason}"
        if error is None:
            raise ConfigError(message, path="tune.objectives[0].metric")
        raise EnvironmentFailure(message, hint="the same command goes on where this one stopped")
