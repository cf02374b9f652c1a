"""Studies: what they refuse, what they find, and that nothing is lost or counted twice."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from made_views import summary as made_summary
from optuna.storages.journal import JournalFileBackend

from orchestrator.cli import main
from orchestrator.config.load import ConfigSource
from orchestrator.errors import ConfigError, EnvironmentFailure, InputError, RunInterrupted
from orchestrator.report.model import TrialView
from orchestrator.run import Runner, RunResult, plan
from orchestrator.store.parquet import Store
from orchestrator.study import view as views
from orchestrator.study.driver import FAILURES_MAX, Driver, News
from orchestrator.study.verdict import constraints_of, feasible
from orchestrator.tune import TuneResult, dry_run, prepare, tune

ROOT = Path(__file__).resolve().parent.parent
# The package has a function of this name.
module = importlib.import_module("orchestrator.tune")

TINY: dict[str, Any] = {
    "experiment": "tiny",
    "runtime": "sim",
    "system": {
        "protocol": {"name": "primary_backup", "mode": "sync", "read_from": "any"},
        "replicas": 2,
        "memory": "48KiB",
        "cache": {"name": "lru", "size": "16KiB"},
        "node": {
            "cpu": {"read": "1ms", "write": "1ms", "message": "200us"},
            "storage": {"read": "4ms", "write": "200us", "parallel": 2},
        },
        "network": {"delay": "100us"},
    },
    "workload": {"name": "ycsb", "mix": "b", "keys": 300},
    "arrival": {"name": "closed", "sessions": 12},
    "client": {"sticky": True},
    "warmup": "20ms",
    "duration": "200ms",
    "slo": {"p99": "80ms"},
    "tune": {
        "trials": 6,
        "search": {
            "system.replicas": {"type": "int", "low": 1, "high": 6},
            "system.cache.size": {"type": "int", "low": "4KiB", "high": "48KiB", "step": "4KiB"},
        },
    },
}
REPLICAS, SIZE = "system.replicas", "system.cache.size"


def source(*overrides: str) -> ConfigSource:
    return ConfigSource(TINY).with_overrides(*overrides)


class MadeUp(Runner):
    """Figures by a formula instead of runs: the best is 4 replicas with 12 KiB each."""

    numbers = itertools.count()

    def run(self, config: Any, *, seed: int | None = None) -> RunResult:
        plan(config)
        replicas, size = config.system.params.replicas, config.system.params.cache.params.size
        kib = size.amount / 1024
        throughput = 1000 * replicas * (1 + kib / 48) / (1 + (replicas / 5) ** 3)
        run_id = f"made-{os.getpid()}-{next(self.numbers)}"
        made = made_summary(throughput, 10.0 * replicas, run_id=run_id, runtime="sim")
        return RunResult(self.judged(made), None, run_id, config)  # type: ignore[arg-type]

    def judged(self, summary: dict[str, Any]) -> dict[str, Any]:
        return summary


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Studies that measure nothing and draw nothing."""
    monkeypatch.setattr(module, "Runner", MadeUp)
    monkeypatch.setattr(module, "write_report", lambda view, results: (Path("report.html"), []))
    # Nothing here refers to anything else, and looking for that takes most of the time.
    monkeypatch.setattr("orchestrator.config.load._interpolated", lambda data: data)
    return monkeypatch


def runner(run: Callable[[MadeUp, Any], RunResult]) -> type[MadeUp]:
    """A runner whose run is a function."""
    return type("Other", (MadeUp,), {"run": lambda self, config, seed=None: run(self, config)})


def check_whole(results: Path, study: str, trials: int) -> list[Any]:
    """The budget is used exactly, nothing is double, and the table says the same."""
    rows = views.outcomes(Store(results), study)
    ran = [row for row in rows if row["run_id"] is not None]
    assert len(ran) == trials
    assert len({row["run_id"] for row in ran}) == trials
    assert max(Counter(json.dumps(row["params"], sort_keys=True) for row in rows).values()) == 1
    assert [row["is_default"] for row in rows].count(True) == 1
    assert not list((results / "studies" / f"{study}.leases").glob("[0-9]*"))
    return rows


# --- what it finds ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[TuneResult, list[News], Path]:
    """A real study in virtual time."""
    results = tmp_path_factory.mktemp("results")
    heard: list[News] = []
    done = tune(source(), results=results, listener=heard.append, command="archbench tune x.yaml")
    return done, heard, results


def test_a_study_is_measured_stored_and_reported(
    study: tuple[TuneResult, list[News], Path],
) -> None:
    done, heard, results = study
    rows = check_whole(results, done.view.study, 6)
    assert done.trials["complete"] == 6
    assert [news.outcome["number"] for news in heard] == [row["number"] for row in rows]
    assert heard[-1].finished == heard[-1].trials == 6
    stored = {row["run_id"]: row for row in Store(results).table("runs").to_pylist()}
    for row in rows:
        if row["run_id"] is None:
            assert row["state"] == "infeasible" and "system.memory" in row["reason"]
        else:
            assert stored[row["run_id"]]["throughput_ops"] == row["value"]
            assert row["seconds"] > row["overhead_s"] > 0
    page = done.report.read_text("utf-8")
    assert done.report == results / "reports" / done.view.study / "report.html"
    assert "archbench tune x.yaml" in page and "system.replicas" in page


def test_the_default_comes_first(study: tuple[TuneResult, list[News], Path]) -> None:
    first = study[1][0].outcome
    assert first["number"] == 0 and first["is_default"]
    assert first["params"] == {REPLICAS: 2, SIZE: "16KiB"}


def test_the_best_is_the_best_feasible_one(study: tuple[TuneResult, list[News], Path]) -> None:
    done = study[0]
    assert done.best is not None and done.view.best is not None
    values = [outcome["value"] for outcome in done.outcomes if feasible(outcome)]
    assert done.best["value"] == max(values)
    assert done.view.best.run_id == done.best["run_id"]
    assert done.view.best_run is not None and len(done.view.best_run.intervals["start_s"])


def test_the_object_has_the_keys_of_the_contract(
    study: tuple[TuneResult, list[News], Path],
) -> None:
    done = study[0].as_json()
    assert list(done) == [
        "study", "trials", "best", "default", "pareto", "overhead_per_trial_s", "report", "results",
    ]  # fmt: skip
    assert list(done["trials"]) == ["complete", "pruned", "infeasible", "failed"]
    assert list(done["best"]) == ["params", "metrics", "run_id", "probability_best"]
    assert list(done["default"]) == ["metrics", "run_id"]
    assert done["best"]["metrics"]["run_id"] == done["best"]["run_id"]
    assert done["best"]["probability_best"] is None and done["pareto"] is None


def test_reasons_are_made_of_what_was_measured(
    study: tuple[TuneResult, list[News], Path],
) -> None:
    done = study[0]
    best = done.view.best
    assert isinstance(best, TrialView) and best.metrics is not None
    said = " ".join(done.view.why)
    assert best.metrics["bottleneck"]["resource"] in said
    nodes, size = best.params[REPLICAS].number, best.params[SIZE].number
    assert nodes is not None and size is not None
    assert f"{100 * nodes * size / (48 * 1024):.3g}\u00a0% of the 48KiB of system.memory" in said
    assert "of the bound of 80\u00a0ms" in said
    assert "Around replicas" in said


def test_the_report_can_be_made_from_the_results_alone(
    study: tuple[TuneResult, list[News], Path],
) -> None:
    done, _, results = study
    store = Store(results)
    assert views.find_study(store, "tiny") == views.find_study(store, done.view.study)
    assert views.find_study(store, "huge") is None
    again = views.study_view(store, done.view.study)
    assert again.trials == done.view.trials and again.parameters == done.view.parameters
    assert again.why == done.view.why and again.slo == {"latency_ms.all.p99": 80.0}
    with pytest.raises(InputError, match="no study 'tinny'"):
        views.study_view(store, "tinny")


def test_a_finished_study_is_not_measured_again(
    study: tuple[TuneResult, list[News], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    done, _, results = study
    monkeypatch.setattr(module, "Runner", None)
    monkeypatch.setattr(module, "write_report", lambda view, results: (done.report, []))
    assert tune(source(), results=results).as_json() == done.as_json()


def test_the_same_seed_asks_for_the_same(tmp_path: Path, made_up: pytest.MonkeyPatch) -> None:
    def asked(name: str, *overrides: str) -> list[Any]:
        done = tune(source("tune.trials=9", *overrides), results=tmp_path / name)
        return [outcome["params"] for outcome in done.outcomes]

    assert asked("a") == asked("b") != asked("c", "seed=2")


def test_a_resumed_study_asks_for_the_same(tmp_path: Path, made_up: pytest.MonkeyPatch) -> None:
    whole = tune(source("tune.trials=9"), results=tmp_path / "a").outcomes
    for trials in (2, 5, 9):
        parts = tune(source(), trials=trials, results=tmp_path / "b")
    # The number of startup trials follows from the budget, so only they are the same for sure.
    assert parts.outcomes[2]["params"] == whole[2]["params"]
    check_whole(tmp_path / "b", parts.view.study, 9)


def test_the_optimum_is_found(tmp_path: Path, made_up: pytest.MonkeyPatch) -> None:
    done = tune(source("tune.trials=20"), results=tmp_path)
    assert done.best is not None
    assert done.best["params"] == {REPLICAS: 4, SIZE: "12KiB"}


# --- what may not win -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"valid": False, "invalid_reasons": ["the generator was late"]}, "infeasible"),
        ({"consistency": {"verdict": "invalid", "strongest": []}}, "infeasible"),
        ({"consistency": {"verdict": "unknown", "strongest": []}}, "infeasible"),
        (
            {
                "slo": {
                    "met": False,
                    "violations": [{"metric": "p99", "bound": 80.0, "value": 99.0, "unit": "ms"}],
                }
            },
            "complete",
        ),
    ],
)
def test_a_great_result_that_is_wrong_never_wins(
    tmp_path: Path, made_up: pytest.MonkeyPatch, changes: dict[str, Any], state: str
) -> None:
    class Cheating(MadeUp):
        def judged(self, summary: dict[str, Any]) -> dict[str, Any]:
            wrong = summary["throughput_ops"] > 2500
            return summary | {"throughput_ops": 1e9} | dict(changes) if wrong else summary

    made_up.setattr(module, "Runner", Cheating)
    done = tune(source("tune.trials=9"), results=tmp_path)
    cheated = [outcome for outcome in done.outcomes if outcome["value"] == 1e9]
    assert cheated and {outcome["state"] for outcome in cheated} == {state}
    assert not any(feasible(outcome) for outcome in cheated)
    assert all(outcome["reason"] for outcome in cheated)
    assert done.best is not None and done.best["value"] < 2500


def test_constraints_are_margins_of_the_slo() -> None:
    config = source("slo.p99=20ms", "slo.error_rate=0.1", "slo.read.p50=4ms").build()
    summary = made_summary(100.0, 15.0)
    summary["latency_ms"]["read"] = {"p50": None}
    found = constraints_of(summary, config)
    assert found["slo.p99"] == pytest.approx(15 / 20 - 1)
    assert found["slo.error_rate"] == pytest.approx(0.01 / 0.1 - 1)
    assert found["slo.read.p50"] == 0.0  # nothing was read, so nothing was late
    assert found["valid"] == found["consistency"] == 0.0
    late = [{"metric": "p99", "bound": 20.0, "value": 30.0, "unit": "ms"}]
    summary = made_summary(100.0, 30.0, slo={"met": False, "violations": late})
    assert constraints_of(summary, config)["slo.p99"] == pytest.approx(0.5)


def test_no_feasible_trial_is_a_bad_verdict(tmp_path: Path, made_up: pytest.MonkeyPatch) -> None:
    class Invalid(MadeUp):
        def judged(self, summary: dict[str, Any]) -> dict[str, Any]:
            return summary | {"valid": False, "invalid_reasons": ["no"]}

    made_up.setattr(module, "Runner", Invalid)
    done = tune(source("tune.trials=3"), results=tmp_path)
    assert not done.good and done.as_json()["best"] is None
    assert done.trials == {"complete": 0, "pruned": 0, "infeasible": 3, "failed": 0} | {
        "infeasible": len(done.outcomes)
    }
    assert done.as_json()["default"]["run_id"] is not None


def test_a_default_outside_of_the_search_is_measured_all_the_same(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    narrow = "tune.search.system.replicas={type: int, low: 3, high: 6}"
    done = tune(source(narrow, "tune.trials=7"), results=tmp_path)
    first = done.outcomes[0]
    assert first["is_default"] and first["params"] == {REPLICAS: 2, SIZE: "16KiB"}
    assert first["state"] == "complete" and first["value"] is not None
    assert all(outcome["params"][REPLICAS] >= 3 for outcome in done.outcomes[1:])
    check_whole(tmp_path, done.view.study, 7)


def test_a_default_that_its_own_limits_forbid_is_the_first_refused(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    done = tune(source("system.replicas=4", "tune.trials=2"), results=tmp_path)
    first = done.outcomes[0]
    assert first["is_default"] and first["state"] == "infeasible" and first["run_id"] is None
    assert done.good and done.as_json()["default"] == {"metrics": None, "run_id": None}


def test_parameters_of_a_plugin_count_only_where_it_is_chosen(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    search = {
        "system.balancer.name": {"type": "categorical", "choices": ["round_robin", "power_of_d"]},
        "system.balancer.d": {"type": "int", "low": 2, "high": 3},
    }
    plain = {**TINY, "tune": {"trials": 10, "search": search}}
    done = tune(plain, results=tmp_path)
    seen = {tuple(outcome["params"].values()) for outcome in done.outcomes}
    assert seen == {("round_robin",), (2, "power_of_d"), (3, "power_of_d")}
    assert [trial.params for trial in done.view.trials if len(trial.params) == 1]
    assert done.note == "the search space holds no further variant"


def test_a_study_of_nothing_feasible_ends(tmp_path: Path, made_up: pytest.MonkeyPatch) -> None:
    made_up.setattr(importlib.import_module("orchestrator.study.driver"), "REFUSALS_PER_TRIAL", 5)
    done = tune(source("system.memory=1KiB", "tune.trials=2"), results=tmp_path)
    assert len(done.outcomes) == 10 and not done.good
    assert done.note is not None and "10 variants were refused" in done.note
    assert "system.memory" in done.note


# --- what is refused before anything runs ---------------------------------------------------


OPEN = "arrival={name: poisson, rate: 100/s}"


@pytest.mark.parametrize(
    ("overrides", "path", "words"),
    [
        ([OPEN], "tune.objectives[0].metric", "fixed open rate"),
        (
            [OPEN, "tune.objectives=[{metric: goodput_ops}]"],
            "tune.objectives[0].metric",
            "fixed open rate",
        ),
        (["tune.objectives=[{metric: throughput}]"], "tune.objectives[0].metric", "throughput_ops"),
        (
            ["tune.objectives=[{metric: throughput_ops}, {metric: cost}]"],
            "tune.objectives",
            "2 objectives",
        ),
        (["tune.search={}"], "tune.search", "nothing is searched"),
        (["client.sticky=false", "system.consistency=linearizable"], "system.consistency", ""),
    ],
)
def test_a_wrong_study_is_refused(
    tmp_path: Path, overrides: list[str], path: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        tune(source(*overrides), results=tmp_path / "new")
    assert caught.value.path == path and words in str(caught.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "override",
    [
        "tune.search={arrival.rate: {type: float, low: 50/s, high: 500/s}}",
        "tune.objectives=[{metric: latency_ms.all.p99, direction: minimize}]",
    ],
)
def test_an_open_load_may_be_searched_in_other_ways(override: str) -> None:
    assert prepare(source(OPEN, override)).trials == 6


@pytest.mark.parametrize(
    "options",
    [
        {"trials": 0},
        {"study": "../up"},
        {"study": ".hidden"},
        {"storage": "redis://x"},
        {"results": "s3://bucket/results"},
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare(source(), **options)
    assert str(caught.value.path) == f"--{next(iter(options))}"


def test_a_study_does_not_mix_configs(tmp_path: Path, made_up: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"results": tmp_path, "study": "mine", "trials": 1}
    tune(source(), **options)
    for change in ("system.memory=64KiB", "seed=2", "slo.p99=81ms"):
        with pytest.raises(ConfigError, match=change.partition("=")[0]):
            tune(source(change), **options)
    assert len(tune(source(), **options | {"trials": 3}).outcomes) >= 3


def test_a_changed_config_is_another_study() -> None:
    name = prepare(source()).name
    assert name.startswith("tiny-")
    assert prepare(source("tune.trials=99")).name == name
    assert prepare(source(), trials=99).name == name
    assert len({name, *(prepare(source(it)).name for it in ("seed=2", "duration=1s"))}) == 3


def test_a_dry_run_says_what_is_left_and_writes_nothing(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    found = dry_run(prepare(source(), results=tmp_path / "new"))
    assert found["runs"] == 6 and found["nodes"] == 6
    assert found["seconds"] > 0 and found["disk_bytes"] > 0
    assert not (tmp_path / "new").exists()
    tune(source(), trials=4, results=tmp_path)
    assert dry_run(prepare(source(), results=tmp_path))["runs"] == 2


# --- what breaks ------------------------------------------------------------------------------


def test_one_failure_is_a_trial_and_three_alike_end_the_study(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    broken: list[bool] = [False, True, True, False, True, True, True]

    def run(self: MadeUp, config: Any) -> RunResult:
        done = MadeUp.run(self, config)  # refused ones are no failures
        if broken.pop(0):
            raise EnvironmentFailure(f"node {len(broken)} did not answer")
        return done

    made_up.setattr(module, "Runner", runner(run))
    with pytest.raises(EnvironmentFailure, match=f"{FAILURES_MAX} trials in a row failed: node 0"):
        tune(source("tune.trials=9"), results=tmp_path)
    states = Counter(row["state"] for row in Store(tmp_path).table("trials").to_pylist())
    assert states["complete"] == 2 and states["failed"] == 5
    made_up.setattr(module, "Runner", MadeUp)
    done = tune(source("tune.trials=9"), results=tmp_path)
    assert done.trials["complete"] == 4 and done.trials["failed"] == 5


def test_an_objective_that_no_run_has_is_said(tmp_path: Path, made_up: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no figure for cost"):
        tune(
            source("tune.objectives=[{metric: cost, direction: minimize}]"),
            results=tmp_path,
        )


def test_what_is_no_trials_fault_ends_the_study_and_gives_the_trial_back(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    def run(self: MadeUp, config: Any) -> RunResult:
        raise ZeroDivisionError("a bug")

    made_up.setattr(module, "Runner", runner(run))
    with pytest.raises(ZeroDivisionError):
        tune(source(), results=tmp_path)
    made_up.setattr(module, "Runner", MadeUp)
    done = tune(source(), results=tmp_path)
    assert done.outcomes[0]["is_default"]
    check_whole(tmp_path, done.view.study, 6)


def test_ctrl_c_keeps_what_is_finished_and_gives_the_rest_back(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    count = itertools.count()

    def run(self: MadeUp, config: Any) -> RunResult:
        done = MadeUp.run(self, config)
        if next(count) == 3:
            signal.raise_signal(signal.SIGINT)
            time.sleep(5)
        return done

    made_up.setattr(module, "Runner", runner(run))
    with pytest.raises(RunInterrupted, match=r"3 of 6 trials; best so far: trial \d+") as caught:
        tune(source(), results=tmp_path)
    assert caught.value.exit_code == 130
    name = prepare(source()).name
    check_whole(tmp_path, name, 3)
    made_up.setattr(module, "Runner", MadeUp)
    whole = tune(source(), results=tmp_path / "whole").outcomes
    done = tune(source(), results=tmp_path).outcomes
    check_whole(tmp_path, name, 6)
    # The trial under way was measured by the next driver, with the same parameters.
    ran = [outcome["params"] for outcome in whole if outcome["run_id"] is not None]
    assert ran[3] in [outcome["params"] for outcome in done]


class Killed(BaseException):
    """Stands for SIGKILL: from then on this driver writes nothing any more."""


def make_dead(folder: Path) -> None:
    """Make the leases of this process those of a dead one."""
    for path in folder.glob("[0-9]*"):
        owner = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps(owner | {"pid": 2**22 + 1}), "utf-8")


@pytest.mark.parametrize("first", range(5))
def test_a_driver_may_die_at_any_write(
    tmp_path: Path, made_up: pytest.MonkeyPatch, first: int
) -> None:
    """Every fifth write of the journal is a driver's last, until the study is done."""
    append = JournalFileBackend.append_logs
    left = first

    def dying(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        nonlocal left
        if left <= 0:
            raise Killed
        left -= 1
        append(self, logs)

    planned = prepare(source(), trials=3, results=tmp_path)
    deaths = 0
    while True:
        made_up.setattr(JournalFileBackend, "append_logs", dying)
        try:
            tune(planned)
            break
        except Killed:
            deaths += 1
            left = 23 + 7 * deaths
            make_dead(tmp_path / "studies" / f"{planned.name}.leases")
    assert deaths > 1
    check_whole(tmp_path, planned.name, 3)


def test_a_row_that_a_dead_driver_could_not_store_is_stored_later(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    done = tune(source(), results=tmp_path)
    before = views.outcomes(Store(tmp_path), done.view.study)
    gone = [file.path for file in Store(tmp_path).files("trials")][1::2]
    for path in gone:
        Path(path).unlink()
    tune(source(), results=tmp_path)
    assert views.outcomes(Store(tmp_path), done.view.study) == before


def test_a_half_written_line_of_the_journal_is_dropped(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    name = tune(source(), trials=2, results=tmp_path).view.study
    with (tmp_path / "studies" / f"{name}.journal").open("a") as journal:
        journal.write('{"op_code": 4, "worker')
    tune(source(), trials=4, results=tmp_path)
    tune(source(), trials=6, results=tmp_path)
    check_whole(tmp_path, name, 6)


def test_a_variant_that_kills_its_drivers_is_given_up(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    def run(self: MadeUp, config: Any) -> RunResult:
        if config.system.params.replicas == 2:
            raise Killed
        return MadeUp.run(self, config)

    made_up.setattr(module, "Runner", runner(run))
    # The death is a real one: nothing is given back.
    made_up.setattr(Driver, "__exit__", lambda *_: None)
    planned = prepare(source(), trials=1, results=tmp_path)
    for _ in range(3):
        with pytest.raises(Killed):
            tune(planned)
        make_dead(tmp_path / "studies" / f"{planned.name}.leases")
    [outcome] = tune(planned).outcomes
    assert outcome["state"] == "failed" and "3 drivers died" in outcome["reason"]


# --- several drivers --------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_two_drivers_share_one_study(
    tmp_path: Path, made_up: pytest.MonkeyPatch, storage: str
) -> None:
    def run(self: MadeUp, config: Any) -> RunResult:
        done = MadeUp.run(self, config)
        time.sleep(0.05)
        return done

    made_up.setattr(module, "Runner", runner(run))
    heard: list[list[int]] = [[], []]

    def drive(index: int) -> None:
        tune(
            source("tune.trials=10"),
            results=tmp_path,
            storage=storage,
            listener=lambda news: heard[index].append(news.outcome["number"]),
        )

    threads = [threading.Thread(target=drive, args=[index]) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    name = prepare(source()).name
    rows = check_whole(tmp_path, name, 10)
    assert sorted(heard[0] + heard[1]) == [row["number"] for row in rows]
    assert heard[0] and heard[1]


def test_slots_run_side_by_side(tmp_path: Path, made_up: pytest.MonkeyPatch) -> None:
    most, inside, lock = 0, 0, threading.Lock()

    def run(self: MadeUp, config: Any) -> RunResult:
        nonlocal most, inside
        done = MadeUp.run(self, config)
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.2)
        with lock:
            inside -= 1
        return done

    made_up.setattr(module, "Runner", runner(run))
    slots = module._Slots

    class Three(slots):  # type: ignore[misc,valid-type]
        def __enter__(self) -> Any:
            super().__enter__()
            self.runners += [module.Runner(tmp_path) for _ in range(2)]
            return self

    made_up.setattr(module, "_Slots", Three)
    done = tune(source("tune.trials=9"), results=tmp_path)
    assert most == 3
    check_whole(tmp_path, done.view.study, 9)


def test_a_driver_that_hung_does_not_settle_what_another_took_over(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    planned = prepare(source(), trials=3, results=tmp_path)
    leases = tmp_path / "studies" / f"{planned.name}.leases"
    others: list[TuneResult] = []

    def run(self: MadeUp, config: Any) -> RunResult:
        done = MadeUp.run(self, config)
        if not others:  # hangs; another driver finds the lease silent and does everything
            made_up.setattr(module, "Runner", MadeUp)
            make_dead(leases)
            others.append(tune(planned))
        return done

    made_up.setattr(module, "Runner", runner(run))
    tune(planned)
    assert len(others) == 1
    check_whole(tmp_path, planned.name, 3)


SCRIPT = """
import importlib, json, sys, time
from pathlib import Path
from orchestrator.cli import main
from orchestrator.config.load import ConfigSource
module = importlib.import_module("orchestrator.tune")
module.write_report = lambda view, results: (Path("report.html"), [])
def tell(news):
    print(news.finished, flush=True)
module.tune(ConfigSource(json.loads(sys.argv[1])), results=sys.argv[2], listener=tell)
"""


def start(results: Path) -> subprocess.Popen[str]:
    """A real study in another process, one line a trial."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(TINY), str(results)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def kill_after(process: subprocess.Popen[str], finished: int, delay_s: float) -> None:
    """SIGKILL somewhat after that many trials."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= finished:
            break
    time.sleep(delay_s)
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_killed_study_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "write_report", lambda view, results: (Path("x.html"), []))
    name = prepare(source()).name
    kill_after(start(tmp_path), 2, 0.05)
    rows = views.outcomes(Store(tmp_path), name)
    finished = {row["run_id"] for row in rows} - {None}
    assert 2 <= len(finished) < 6
    tune(source(), results=tmp_path)
    rows = check_whole(tmp_path, name, 6)
    assert finished <= {row["run_id"] for row in rows}


# --- the command ------------------------------------------------------------------------------


def command(config: Path, made: Mapping[str, Any], *arguments: str) -> int:
    """Exit code of ``archbench tune``."""
    config.write_text(json.dumps(made), "utf-8")  # JSON is YAML
    return main(["tune", str(config), "--results", str(config.parent / "results"), *arguments])


def test_the_command_ends_with_the_path_of_the_report(
    tmp_path: Path, made_up: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path / "a.yaml", TINY, "--trials", "2", "--seed", "3") == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == "report.html"
    assert "[2/2] trial" in told.err and "(default)" in told.err


def test_the_command_says_in_json_that_nothing_is_feasible(
    tmp_path: Path, made_up: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Late(MadeUp):
        def judged(self, summary: dict[str, Any]) -> dict[str, Any]:
            late = {"metric": "p99", "bound": 80.0, "value": 99.0, "unit": "ms"}
            return summary | {"slo": {"met": False, "violations": [late]}}

    made_up.setattr(module, "Runner", Late)
    assert command(tmp_path / "a.yaml", TINY, "--trials", "1", "--json") == 1
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["best"] is None
    assert json.loads(line)["trials"]["complete"] == 1


def test_an_interrupted_command_says_the_best_so_far(
    tmp_path: Path, made_up: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(self: MadeUp, config: Any) -> RunResult:
        if config.system.params.replicas != 2:
            plan(config)
            raise KeyboardInterrupt
        return MadeUp.run(self, config)

    made_up.setattr(module, "Runner", runner(run))
    assert command(tmp_path / "a.yaml", TINY) == 130
    told = capsys.readouterr().err
    assert "best so far: trial 0" in told and "the same command goes on" in told


def test_views_of_made_up_studies_have_no_runs(tmp_path: Path, made_up: pytest.MonkeyPatch) -> None:
    """A run that the results have lost leaves a view without it, and no crash."""
    done = tune(source(), results=tmp_path)
    assert done.view.best is not None and done.view.best.metrics is None
    assert done.view.best_run is None
    assert dataclasses.replace(done.view, why=()).trials == done.view.trials
