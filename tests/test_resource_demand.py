"""The fewest resources that carry a load, and `archbench capacity --load --over`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator import _demand_question as question
from orchestrator import cli
from orchestrator.config.load import ConfigSource
from orchestrator.errors import ConfigError, InputError
from orchestrator.resource_demand import Demand, Trials, resource_demand
from orchestrator.run import Runner

STATION: dict[str, Any] = {
    "experiment": "carry",
    "runtime": "sim",
    "system": {
        "protocol": {"name": "unreplicated"},
        "node": {"cpu": {"read": {"name": "exponential", "mean": "1ms"}}},
    },
    "workload": {"name": "ycsb", "mix": "c", "keys": 100},
    "arrival": {"name": "poisson", "rate": "300/s"},
    "warmup": "500ms",
    "duration": "2s",
    "prices": {"core": 0.04},
    "slo": {"p99": "20ms"},
}
CORES = "system.node.cores"


def ask(tmp_path: Path, values: list[Any], *loads: str, path: str = CORES, **changes: Any) -> Any:
    with Runner(tmp_path / "results") as runner:
        return resource_demand(ConfigSource.of(STATION | changes), runner, path, values, loads)


def test_each_load_takes_the_fewest_cores_that_can_do_its_work(tmp_path: Path) -> None:
    """Cores of 1,000/s: no fewer than rate / 1,000 can, and one more has room enough."""
    done = ask(tmp_path, [1, 2, 3, 4, 6], "500/s", "1500/s", "3500/s")
    assert done.good and [each.found.value for each in done.demands] == [1, 2, 4]
    runs = {each.value: len(each.summaries) for each in done.demands[2].trials}
    # The boundary three times, all else once.
    assert runs == {1: 1, 2: 1, 3: 3, 4: 3, 6: 1}
    assert done.runs == 7 + 9 + 9
    data = done.as_json()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["demand"] == data["demands"][0] and data["slo"] == {"p99": 20.0}
    last = data["demands"][2]
    assert (last["value"], last["confirmed"], last["contradictions"]) == (4, True, [])
    assert [point["met"] for point in last["curve"]] == [False, False, False, True, True]
    assert last["curve"][-1]["cost"] == pytest.approx(0.24)
    # Everything is there already.
    again = ask(tmp_path, [1, 2, 3, 4, 6], "500/s", "1500/s", "3500/s")
    assert again.runs == 0
    assert again.as_json()["demands"] == data["demands"]


def test_what_nothing_carries(tmp_path: Path) -> None:
    done = ask(tmp_path, [1, 2], "5000/s")
    assert not done.good
    found = done.as_json()["demand"]
    assert found["value"] is None and found["confirmed"] is None
    assert "carried 5000/s" in found["reason"]
    assert [point["runs"] for point in found["curve"]] == [1, 3]


def test_values_that_cannot_run_are_told_and_passed_over(tmp_path: Path) -> None:
    done = ask(tmp_path, [1, 3], "200/s", path="system.replicas")
    assert done.demands[0].found.value == 1 and done.good
    last = done.as_json()["demand"]["curve"][-1]
    assert last["runs"] == 0 and "exactly 1 replica" in last["reason"]
    with pytest.raises(ConfigError, match="exactly 1 replica"):
        ask(tmp_path, [2, 3], "200/s", path="system.replicas")


def test_runs_of_the_boundary_take_turns(tmp_path: Path) -> None:
    order = []

    def told(load_ops: float, trials: Trials) -> None:
        order.append(trials.value)

    with Runner(tmp_path / "results") as runner:
        source = ConfigSource.of(STATION)
        resource_demand(source, runner, CORES, [1, 2, 3], ["1500/s"], told=told)
    assert order == [1, 2, 3, 1, 2, 1, 2]


def summary(*, met: bool, verdict: str | None = "valid", valid: bool = True) -> dict[str, Any]:
    figures = {"mean": 1.0, "p50": 1.0, "p99": 2.0}
    return {
        "valid": valid, "slo": {"met": met}, "consistency": {"verdict": verdict}, "run_id": "r",
        "latency_ms": {"all": figures}, "throughput_ops": 1.0, "goodput_ops": 1.0, "cost": 0.0,
    }  # fmt: skip


def test_more_that_is_not_enough_is_named() -> None:
    trials = [Trials(value, [summary(met=met)]) for value, met in ((1, False), (2, True))]
    trials += [Trials(3, [summary(met=False)]), Trials(4, reason="cannot run")]
    found = Demand(10.0, CORES, tuple(trials))
    assert found.found is trials[1] and found.contradictions == [3]


@pytest.mark.parametrize("verdict", ["invalid", "unknown"])
def test_who_may_have_broken_its_claim_carries_nothing(verdict: str) -> None:
    assert Trials(1, [summary(met=True)]).met
    assert not Trials(1, [summary(met=True, verdict=verdict)]).met
    assert not Trials(1, [summary(met=True, valid=False)]).met


def test_most_runs_decide() -> None:
    said = [True, False, True]
    assert Trials(1, [summary(met=met) for met in said]).met
    assert not Trials(1, [summary(met=met) for met in said[:2]]).met


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a.b=1..4", [1, 2, 3, 4]),
        ("a.b=10..30..10", [10, 20, 30]),
        ("a.b=4,1,8", [4, 1, 8]),
        ("a.b=64MiB,1GiB", ["64MiB", "1GiB"]),
        ("a.b=3", [3]),
    ],
)
def test_values_are_lists_or_ranges(text: str, values: list[Any]) -> None:
    assert question.values_of(text) == ("a.b", values)


@pytest.mark.parametrize("text", ["a.b", "a.b=", "=1,2", "a.b=4..1", "a.b=1..9..0", "a.b=1,1"])
def test_what_names_no_values(text: str) -> None:
    with pytest.raises(InputError, match=r"names|malformed"):
        question.values_of(text)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(STATION), encoding="utf-8")
    asked = ["capacity", str(config), "--results", str(tmp_path / "results")]
    load = ["--load", "1500/s", "--over", f"{CORES}=1..3"]
    assert cli.main([*asked, *load, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["demand"]["value"] == 2 and found["capacity_ops"] is None
    assert Path(found["figure"]).read_bytes().startswith(b"\x89PNG")
    assert cli.main([*asked, *load, "--load", "300/s,1500/s,9000/s"]) == 1
    printed = capsys.readouterr().out
    assert "take system.node.cores = 1" in printed and "no value of" in printed


@pytest.mark.parametrize(
    ("options", "place"),
    [
        (["--load", "1500/s"], "--over"),
        (["--over", f"{CORES}=1..3"], "--load"),
        (["--load", "much", "--over", f"{CORES}=1..3"], "--load"),
        (["--load", "1500/s", "--over", "system.node.core=1..3"], "system.node.core"),
        (["slo.p99=null", "--load", "1500/s", "--over", f"{CORES}=1..3"], "slo"),
        (["arrival={name: closed}", "--load", "9/s", "--over", f"{CORES}=1..3"], "arrival.name"),
    ],
)
def test_bad_questions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], place: str
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(STATION), encoding="utf-8")
    asked = ["capacity", str(config), *options, "--results", str(tmp_path / "results"), "--json"]
    assert cli.main(asked) == 2
    assert json.loads(capsys.readouterr().out)["error"]["path"] == place
