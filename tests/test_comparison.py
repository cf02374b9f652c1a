"""Two variants side by side: effects, verdicts, and `archbench compare`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy
import pytest
from scipy import stats
from small_runs import small

from orchestrator import cli
from orchestrator.analysis.comparison import (
    Effect,
    judged,
    of_groups,
    of_intervals,
    of_pairs,
    together,
)
from orchestrator.run import Runner

QUEUE: dict[str, Any] = {
    "experiment": "base",
    "runtime": "sim",
    "system": {
        "protocol": {"name": "unreplicated"},
        "node": {"cpu": {"read": {"name": "exponential", "mean": "1ms"}}},
    },
    "workload": {"name": "ycsb", "mix": "c", "keys": 100},
    "arrival": {"name": "poisson", "rate": "600/s"},
    "client": {"timeout": "10s"},
    "warmup": "500ms",
    "duration": "4s",
}


def test_pairs_are_a_paired_t_test() -> None:
    base, candidate = [10.0, 12.0, 9.0, 11.0], [11.0, 13.5, 10.1, 11.8]
    found = of_pairs(base, candidate)
    logs = numpy.log(base), numpy.log(candidate)
    assert found.p == pytest.approx(stats.ttest_rel(*logs).pvalue)
    assert found.ratio == pytest.approx(math.exp((logs[1] - logs[0]).mean()))
    low, high = found.interval or (0.0, 0.0)
    assert low < (found.ratio or 0.0) < high
    assert math.sqrt(low * high) == pytest.approx(found.ratio)


def test_groups_are_welchs_test() -> None:
    base, candidate = [10.0, 12.0, 9.0, 11.0], [15.0, 11.5, 18.1]
    found = of_groups(base, candidate)
    expected = stats.ttest_ind(numpy.log(candidate), numpy.log(base), equal_var=False)
    assert found.p == pytest.approx(expected.pvalue)
    bounds = expected.confidence_interval()
    assert found.interval == pytest.approx((math.exp(bounds.low), math.exp(bounds.high)))


def test_two_runs_are_compared_by_their_intervals() -> None:
    far = of_intervals(100.0, (95.0, 105.3), 150.0, (142.0, 158.0))
    assert far.ratio == pytest.approx(1.5) and far.p is not None and far.p < 1e-6
    near = of_intervals(100.0, (95.0, 105.3), 103.0, (98.0, 108.0))
    assert near.p is not None and near.p > 0.05
    assert of_intervals(0.0, (0.0, 0.0), 1.0, (1.0, 1.0)).ratio is None


def test_figures_that_never_differ() -> None:
    assert of_pairs([5.0] * 3, [5.0] * 3).p == 1.0
    moved = of_pairs([5.0] * 3, [6.0] * 3)
    assert moved.p == 0.0 and moved.interval == pytest.approx((1.2, 1.2))
    assert of_pairs([0.0] * 3, [0.0] * 3).verdict == "same"
    assert of_pairs([0.0, 1.0], [0.0, 1.0]).verdict == "inconclusive"
    assert of_pairs([5.0], [6.0]).p is None and of_groups([5.0], [6.0, 7.0]).p is None


@pytest.mark.parametrize(
    ("ratio", "interval", "p", "verdict"),
    [
        (1.10, (1.05, 1.15), 0.001, "better"),
        (0.90, (0.85, 0.95), 0.001, "worse"),
        (1.10, (0.95, 1.25), 0.3, "inconclusive"),
        (1.005, (0.99, 1.015), 0.4, "same"),
        # Surely different, and by nothing that matters.
        (1.01, (1.005, 1.015), 1e-9, "same"),
        (1.015, (1.005, 1.025), 1e-9, "inconclusive"),
    ],
)
def test_verdicts(ratio: float, interval: tuple[float, float], p: float, verdict: str) -> None:
    effect = Effect(1.0, ratio, ratio, interval, p)
    opposite = {"better": "worse", "worse": "better"}
    assert judged({"x": effect}, {"x": True})["x"].verdict == verdict
    assert judged({"x": effect}, {"x": False})["x"].verdict == opposite.get(verdict, verdict)


def test_p_values_are_corrected_for_all_figures_together() -> None:
    """Holm: .01, .04, .03, .005 become .03, .06, .06, .02."""
    p_values = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    effects = {name: Effect(1, 1.2, 1.2, (1.1, 1.3), p) for name, p in p_values.items()}
    found = judged(effects, dict.fromkeys(effects, True))
    corrected = {name: each.p for name, each in found.items()}
    assert corrected == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert [found[name].verdict for name in "abcd"] == [
        "better",
        "inconclusive",
        "inconclusive",
        "better",
    ]


def test_one_word_for_all() -> None:
    assert together(["same", "better", "worse"]) == "worse"
    assert together(["same", "better", "inconclusive"]) == "better"
    assert together(["same", "same"]) == "same"
    assert together(["same", "inconclusive"]) == "inconclusive"
    assert together([]) == "inconclusive"


def test_what_is_the_same_is_seldom_called_different() -> None:
    """Eight figures of 10 pairs each, a hundred times; some of the figures go together."""
    chance = numpy.random.default_rng(4)
    different = 0
    for _ in range(100):
        common = chance.normal(size=(2, 10)) * 0.05
        effects = {
            str(n): of_pairs(*numpy.exp(common + chance.normal(size=(2, 10)) * 0.05).tolist())
            for n in range(8)
        }
        found = judged(effects, dict.fromkeys(effects, True))
        different += any(each.verdict in ("better", "worse") for each in found.values())
    assert different <= 8


# --- the command ------------------------------------------------------------------------


def written(tmp_path: Path, name: str, **more: Any) -> str:
    path = tmp_path / f"{name}.yaml"
    path.write_text(json.dumps(QUEUE | {"experiment": name} | more), encoding="utf-8")
    return str(path)


def slower(by: float) -> dict[str, Any]:
    cpu = {"read": {"name": "exponential", "mean": f"{by}ms"}}
    return {"system": QUEUE["system"] | {"node": {"cpu": cpu}}}


def test_a_slower_candidate_is_a_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, candidate = written(tmp_path, "base"), written(tmp_path, "slow", **slower(1.05))
    results = ["--results", str(tmp_path / "results")]
    assert cli.main(["compare", base, candidate, "--pairs", "6", *results, "--json"]) == 1
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["verdict"] == "worse" and found["paired"]
    mean = found["metrics"]["latency_ms.all.mean"]
    # M/M/1: 1 / (1/1.05 - .6) against 1 / (1 - .6).
    assert mean["ratio_ci95"][0] < 1.135 < mean["ratio_ci95"][1] and mean["verdict"] == "worse"
    assert found["metrics"]["throughput_ops"]["verdict"] == "same"
    assert [len(found["runs"][name]) for name in ("base", "candidate")] == [6, 6]
    assert "[6/6] candidate" in told.err
    # The other way round it is an improvement.
    assert cli.main(["compare", candidate, base, "--pairs", "6", *results]) == 0
    assert "the candidate is better" in capsys.readouterr().out
    # What is stored is enough: as groups, where pairs no longer cancel anything out.
    assert cli.main(["compare", "base", "slow", *results, "--json"]) in (0, 1)
    stored = json.loads(capsys.readouterr().out)
    assert not stored["paired"] and stored["metrics"]["latency_ms.all.mean"]["ratio"] > 1
    # Of two runs the intervals are their own.
    one, other = found["runs"]["base"][0], found["runs"]["candidate"][0]
    assert cli.main(["compare", one, other, *results, "--json"]) in (0, 1)
    runs = json.loads(capsys.readouterr().out)
    assert runs["runs"] == {"base": [one], "candidate": [other]}
    assert runs["metrics"]["latency_ms.all.p50"]["ratio_ci95"] is not None


def test_the_same_config_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = written(tmp_path, "base")
    options = ["--pairs", "3", "--results", str(tmp_path / "results"), "duration=500ms"]
    assert cli.main(["compare", base, base, *options]) == 0
    assert "the candidate is the same" in capsys.readouterr().out


def test_runs_that_are_not_valid_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, few = written(tmp_path, "base"), written(tmp_path, "few", duration="1ms", warmup="0s")
    options = ["--pairs", "3", "--results", str(tmp_path / "results")]
    assert cli.main(["compare", base, few, *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "inconclusive" and found["invalid_runs"] == 3
    assert found["metrics"] == {} and found["runs"] == {"base": [], "candidate": []}
    assert cli.main(["compare", "base", "few", *options]) == 2
    assert "no run of 'few' is valid" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{base}", "nothing"], "one is a config and one is not"),
        (["nothing", "small"], "no file, and no run or experiment"),
        (["{base}", "{base}", "--pairs", "1"], "3 or more"),
        (["{base}", "{base}", "--threshold", "2"], "a part of the base's figure"),
        (["{base}", "none.yaml"], "none.yaml"),
        (["{base}", "{base}", "workload.keys=0"], "out of bounds"),
    ],
)
def test_bad_input(
    tmp_path: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    results = str(tmp_path / "results")
    with Runner(results) as runner:
        runner.run(small("duration=50ms"))
    given = [word.format(base=written(tmp_path, "base")) for word in arguments]
    assert cli.main(["compare", *given, "--results", results, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert words in f"{error['path']} {error['message']} {error['hint']}"
