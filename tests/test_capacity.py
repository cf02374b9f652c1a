"""Capacities of simulated systems, and `archbench capacity`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator import cli
from orchestrator.analysis.crossing import Crossing, Probe
from orchestrator.capacity import CapacityResult, _one_sided, capacity, knee_ops, point, probe_of
from orchestrator.config.load import ConfigSource, load_mapping
from orchestrator.errors import ConfigError
from orchestrator.run import Runner

QUEUE: dict[str, Any] = {
    "experiment": "queue",
    "runtime": "sim",
    "system": {
        "protocol": {"name": "unreplicated"},
        "node": {"cpu": {"read": {"name": "exponential", "mean": "1ms"}}},
    },
    "workload": {"name": "ycsb", "mix": "c", "keys": 100},
    "arrival": {"name": "poisson", "rate": "300/s"},
    "client": {"timeout": "10s"},
    "warmup": "1s",
    "duration": "10s",
    "slo": {"p99": "46.0517ms"},
}


def search(tmp_path: Path, *overrides: str, **options: Any) -> CapacityResult:
    with Runner(tmp_path / "results") as runner:
        return capacity(ConfigSource.of(QUEUE).with_overrides(*overrides), runner, **options)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_capacity_of_m_m_1_closely(tmp_path: Path) -> None:
    """p99 = ln 100 / (1 - rho) service times: 46.0517 of them at rho = .9 (Kleinrock)."""
    found = search(tmp_path, "duration=120s", precision=0.01)
    assert found.estimate is not None and found.good
    assert found.estimate.rate == pytest.approx(900, rel=0.02)


def test_the_capacity_of_m_m_1(tmp_path: Path) -> None:
    """The same with runs of ten seconds."""
    seen: list[float] = []
    invalid = 0

    def told(each: dict[str, Any], state: Crossing) -> None:
        nonlocal invalid
        seen.append(each["offered_ops"])
        invalid += not each["valid"]

    found = search(tmp_path, precision=0.05, told=told)
    assert found.estimate is not None and found.good
    assert found.estimate.rate == pytest.approx(900, rel=0.05)
    data = found.as_json()
    low, high = data["capacity_ci95_ops"]
    assert low <= data["capacity_ops"] <= high <= 1.1 * low
    assert 300 <= data["knee_ops"] <= 700
    assert data["slo"] == {"p99": 46.0517} and data["contradictions_ops"] == []
    rates = [each["offered_ops"] for each in data["curve"]]
    assert rates == sorted(set(rates)) and {*rates} == {*seen} and found.runs == len(seen)
    assert all(each["met"] for each in data["curve"] if each["offered_ops"] < 0.7 * 900)
    assert all(not each["met"] for each in data["curve"] if each["offered_ops"] > 1.1 * 900)
    again = search(tmp_path, precision=0.05)
    # Those that are not valid came out as they would again.
    assert again.runs == 0 and 0 < invalid < found.runs / 2
    curves = [
        [{**point, "run_id": ""} for point in each["curve"]] for each in (again.as_json(), data)
    ]
    assert curves[0] == curves[1]


def test_a_capacity_that_there_is_not(tmp_path: Path) -> None:
    never = search(tmp_path, "slo.p99=1us", "duration=100ms", "warmup=0s")
    assert never.estimate is None and not never.good
    assert never.as_json()["capacity_ops"] is None and "no rate met" in str(never.reason)
    always = search(
        tmp_path,
        "slo={error_rate: 1.0}",
        "duration=1ms",
        "warmup=0s",
        "arrival.rate=10000/s",
        "system.node.cpu.read=0s",
        runs_max=10,
    )
    assert always.estimate is None
    # A millisecond has too few operations at most of these rates to be believed.
    assert always.reason is not None


def test_why_there_is_none_is_said() -> None:
    def reason(*verdicts: bool) -> str:
        search = Crossing(10.0)
        for rate, met in enumerate(verdicts, start=1):
            search.tell(Probe(float(rate), met))
        return _one_sided(search)

    assert reason(True, True) == "every rate met the objective, up to 2/s"
    assert reason(False, False) == "no rate met the objective, down to 1/s"
    assert (
        reason(False, True)
        == "the objective was missed at the lowest rates, down to 1/s, and met above"
    )


@pytest.mark.parametrize(
    ("override", "path", "words"),
    [
        ("slo={}", "slo", "there is none"),
        ("arrival={name: closed}", "arrival.name", "'closed' has no rate"),
        ("workload.keys=0", "workload.keys", "out of bounds"),
    ],
)
def test_what_has_no_capacity_is_refused(
    tmp_path: Path, override: str, path: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        search(tmp_path, override)
    assert caught.value.path == path and words in caught.value.message


def summary(rate: float, p99: float, *, valid: bool = True) -> dict[str, Any]:
    over = [{"metric": "p99", "bound": 46.0517, "value": p99, "unit": "ms"}]
    return {
        "run_id": f"r{rate}",
        "valid": valid,
        "throughput_ops": rate,
        "goodput_ops": rate,
        "consistency": {"verdict": "valid"},
        "latency_ms": {"all": {"mean": p99 / 4, "p50": p99 / 5, "p99": p99}},
        "slo": {"met": p99 <= 46.0517, "violations": over if p99 > 46.0517 else []},
    }


def test_what_a_run_says_of_its_rate() -> None:
    config = load_mapping(QUEUE)
    met = probe_of(800.0, summary(800.0, 23.02585), config)
    assert met.met and met.margin == pytest.approx(-1)
    missed = probe_of(950.0, summary(950.0, 92.1034), config)
    assert not missed.met and missed.margin == pytest.approx(0.5)
    # Figures that may not be believed meet nothing.
    doubtful = probe_of(800.0, summary(800.0, 10.0, valid=False), config)
    assert not doubtful.met and doubtful.margin is None
    together = point(800.0, [summary(800.0, p99) for p99 in (20.0, 60.0, 30.0)])
    assert together["met"] and together["p99_ms"] == 30.0 and together["runs"] == 3


def test_the_knee_has_the_most_throughput_for_its_latency() -> None:
    """Of M/M/1 at half of the service rate (Kleinrock)."""
    curve = [
        {"offered_ops": 10.0 * n, "throughput_ops": 10.0 * n, "mean_ms": 1 / (100 - 10.0 * n)}
        for n in range(1, 10)
    ]
    assert knee_ops([each | {"valid": True} for each in curve]) == 50
    assert knee_ops([each | {"valid": False} for each in curve]) is None


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "queue.yaml"
    path.write_text(json.dumps(QUEUE | {"duration": "5s"}), encoding="utf-8")
    arguments = ["capacity", str(path), "--precision", "0.1", "--results", str(tmp_path / "r")]
    assert cli.main([*arguments, "--json"]) == 0
    told = capsys.readouterr()
    data = json.loads(told.out)
    assert data["capacity_ops"] == pytest.approx(900, rel=0.15)
    assert Path(data["figure"]).read_bytes().startswith(b"\x89PNG")
    assert "[1] 300" in told.err and "not bracketed yet" in told.err
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "capacity of queue" in printed and "knee" in printed
    # Those that are stored are not made again, but for what could not be believed.
    [again] = re.findall(r"(\d+) runs;", printed)
    assert int(again) < data["runs"] / 2
    for options, place in ((["--precision", "0"], "--precision"), (["--runs", "3"], "--runs")):
        assert cli.main(["capacity", str(path), *options, "--json"]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["path"] == place
