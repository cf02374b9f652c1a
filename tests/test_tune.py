"""Studies: what they find, what may win, and how they are reported."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from made_views import summary as made_summary
from study_toys import REPLICAS, SIZE, TINY, MadeUp, check_whole, make_up, module, runner, source

from orchestrator.cli import main
from orchestrator.config.load import ConfigSource
from orchestrator.errors import InputError
from orchestrator.plan import plan
from orchestrator.report.model import TrialView
from orchestrator.run import RunResult
from orchestrator.store.parquet import Store
from orchestrator.study import view as views
from orchestrator.study.driver import News
from orchestrator.study.space import SearchSpace
from orchestrator.study.verdict import constraints_of, feasible
from orchestrator.tune import TuneResult, tune


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Studies that measure nothing and draw nothing."""
    make_up(monkeypatch)
    return monkeypatch


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


def test_a_whole_part_may_come_and_go(tmp_path: Path, made_up: pytest.MonkeyPatch) -> None:
    """With or without a cache, or a tier: what lies below counts where the part is there."""
    tier = {"pattern": {"name": "write_back"}, "cache": {"name": "lru", "size": 50}}
    search = {
        "system.cache": {"type": "categorical", "choices": [None, {"name": "sieve", "size": 9}]},
        "system.cache.size": {"type": "categorical", "choices": ["8KiB", "16KiB"]},
        "system.tier": {"type": "categorical", "choices": [None, tier]},
        "system.tier.nodes": {"type": "int", "low": 1, "high": 2},
    }
    system = TINY["system"] | {"protocol": {"name": "raft"}}
    plain = {**TINY, "system": system, "tune": {"trials": 30, "search": search}}
    done = tune(plain, results=tmp_path)
    seen = [outcome["params"] for outcome in done.outcomes]
    # The default has another policy, so it lies outside; then no cache or two sizes of one, and
    # no tier or two sizes of it.
    assert seen[0]["system.cache"]["name"] == "lru" and seen[0]["system.tier"] is None
    assert "system.tier.nodes" not in seen[0] and done.outcomes[0]["state"] == "complete"
    assert len(seen) == 1 + 3 * 3
    for params in seen[1:]:
        assert ("system.cache.size" in params) == (params["system.cache"] is not None)
        assert ("system.tier.nodes" in params) == (params["system.tier"] is not None)
    told = {view.params["system.cache"].text for view in done.view.trials[1:]}
    assert told == {"none", "sieve size=9"}
    texts = {view.range_text for view in done.view.parameters}
    assert "none or pattern=write_back cache=(lru size=50)" in texts
    again = tune(plain, results=tmp_path)
    assert [outcome["params"] for outcome in again.outcomes] == seen
    # The config's own variant is one of the search, where that offers what it has.
    within = {**plain, "system": system | {"cache": None}}
    params, _ = SearchSpace(ConfigSource(within), ConfigSource(within).build()).default()
    assert params is not None and params["system.cache"] == params["system.tier"] == "null"


def test_a_default_with_an_empty_slot_is_measured(
    tmp_path: Path, made_up: pytest.MonkeyPatch
) -> None:
    search: dict[str, Any] = {
        "system.cache.name": {"type": "categorical", "choices": ["lru", "arc"]}
    }
    plain = {
        **TINY,
        "system": TINY["system"] | {"cache": None},
        "tune": {"trials": 6, "search": search},
    }
    done = tune(plain, results=tmp_path)
    assert done.outcomes[0]["params"] == {}
    assert done.outcomes[0]["is_default"] and done.outcomes[0]["state"] == "complete"
    # A cache needs a size, which the search does not give.
    assert {outcome["state"] for outcome in done.outcomes[1:]} == {"infeasible"}
    search["system.cache"] = {"type": "categorical", "choices": [None, {"name": "lru", "size": 9}]}
    done = tune(plain, results=tmp_path)
    assert done.outcomes[0]["params"] == {"system.cache": None}
    seen = [outcome["params"] for outcome in done.outcomes[1:]]
    whole = {"name": "lru", "size": 9}
    named = [{"system.cache": whole, "system.cache.name": name} for name in ("arc", "lru")]
    assert sorted(seen, key=str) == sorted(named, key=str)


def test_a_study_of_nothing_feasible_ends(tmp_path: Path, made_up: pytest.MonkeyPatch) -> None:
    made_up.setattr(importlib.import_module("orchestrator.study.driver"), "REFUSALS_PER_TRIAL", 5)
    done = tune(source("system.memory=1KiB", "tune.trials=2"), results=tmp_path)
    assert len(done.outcomes) == 10 and not done.good
    assert done.note is not None and "10 variants were refused" in done.note
    assert "system.memory" in done.note


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
