"""Change points: published series, what chance alone makes of none, and `archbench changes`."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy
import pytest
from small_runs import small

from orchestrator import cli
from orchestrator.analysis.changes import LEAST_POINTS, _Splits, changes
from orchestrator.run import Runner


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ([1.02, 0.95, 0.99, 1.00, 1.12, 0.90, 0.50, 0.51, 0.48, 0.48, 0.55], [6]),
        ([0.0] * 1000 + [1.0] * 1000, [1000]),
        ([5.0] * 40, []),
        ([2.02, 2.03, 2.01, 2.04, 1.82, 1.85, 1.79, 1.81, 1.80, 1.76, 1.78], [4]),
        ([1.0], []),
        ([], []),
        ([1, 2, 3], []),
    ],
)
def test_series_with_known_changes(series: list[float], expected: list[int]) -> None:
    """The examples of the e-divisive implementations of MongoDB and DataStax (Hunter)."""
    assert [change.index for change in changes(series)] == expected


def test_levels_between_the_changes() -> None:
    chance = numpy.random.default_rng(5)
    levels = [10.0, 12.0, 9.0]
    series = numpy.concatenate([level + chance.normal(size=40) * 0.3 for level in levels])
    found = changes(series.tolist())
    assert [change.index for change in found] == [40, 80]
    assert [change.before for change in found] == pytest.approx(levels[:2], abs=0.2)
    assert [change.after for change in found] == pytest.approx(levels[1:], abs=0.2)
    assert found[0].relative == pytest.approx(0.2, abs=0.03)
    assert all(change.p <= 0.05 for change in found)
    assert changes(series.tolist()) == found


def test_relative_to_nothing_there_is_no_change() -> None:
    [change] = changes([0.0] * 20 + [3.0] * 20)
    assert change.relative is None and (change.before, change.after) == (0.0, 3.0)


def test_of_series_without_a_change_few_seem_to_have_one() -> None:
    chance = numpy.random.default_rng(2)
    wrong = sum(bool(changes(chance.exponential(size=50).tolist(), seed=n)) for n in range(100))
    # More than 12 of 100 would come once in 1,000 times at 5 %.
    assert wrong <= 12


def test_statistics_are_those_of_the_distances() -> None:
    """Matteson and James, equation 6, by its sums over all pairs."""
    points = numpy.random.default_rng(1).normal(size=14)
    points[3] = points[9]
    splits = _Splits.of(points)
    assert splits is not None

    def mean(pairs: list[tuple[float, float]]) -> float:
        return sum(abs(one - other) for one, other in pairs) / len(pairs)

    expected = []
    for at in range(LEAST_POINTS, len(points) - LEAST_POINTS + 1):
        one, other = points[:at].tolist(), points[at:].tolist()
        energy = 2 * mean(list(itertools.product(one, other)))
        energy -= mean(list(itertools.combinations(one, 2)))
        energy -= mean(list(itertools.combinations(other, 2)))
        expected.append(at * (len(points) - at) / len(points) * energy)
    assert splits.statistics() == pytest.approx(expected)


# --- the command ------------------------------------------------------------------------


def test_the_command_reads_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "history.csv"
    path.write_text("day,ops\n" + "\n".join(f"{n},{100 - 20 * (n > 9)}" for n in range(20)) + "\n")
    assert cli.main(["changes", str(path), "--column", "ops", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["points"] == 20 and found["column"] == "ops"
    [change] = found["changes"]
    assert (change["index"], change["before"], change["after"]) == (10, 100, 80)
    assert change["relative"] == pytest.approx(-0.2) and change["run_id"] is None
    assert cli.main(["changes", str(path), "--column", "ops"]) == 0
    assert "-20.0 %" in capsys.readouterr().out
    assert cli.main(["changes", str(path), "--column", "ops", "--significance", "0.001"]) == 0
    assert "no change in 20 points" in capsys.readouterr().out


def test_the_command_reads_stored_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = str(tmp_path / "results")
    ids = []
    with Runner(results) as runner:
        for seed in range(12):
            slow = "system.node.cpu.write=300us" if seed >= 6 else "seed=0"
            ids.append(runner.run(small(slow, f"seed={seed + 1}", "duration=100ms")).run_id)
    arguments = ["changes", "small", "--column", "latency_ms_all_p50", "--results", results]
    where = ["--where", "seed > 0"]
    assert cli.main([*arguments, *where, "--json"]) == 0
    [change] = json.loads(capsys.readouterr().out)["changes"]
    assert (
        change["index"] == 6 and change["run_id"] == ids[6] and change["after"] > change["before"]
    )
    assert cli.main([*arguments, *where]) == 0
    assert ids[6] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing", "--column", "throughput_ops"], "no such run of an experiment 'nothing'"),
        (["it's", "--column", "throughput_ops"], "no such run"),
        (["x", "--column", "throughput"], "did you mean 'throughput_ops'"),
        (["x", "--column", "run_id"], "is no figure of a run"),
        (["x.csv", "--column", "a"], "No such file"),
        (["x", "--column", "seed", "--significance", "2"], "a probability between 0 and 1"),
        (["x", "--column", "seed", "--where", "nonsense"], "nonsense"),
    ],
)
def test_bad_input(
    tmp_path: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    results = str(tmp_path / "results")
    with Runner(results) as runner:
        runner.run(small("duration=50ms"))
    assert cli.main(["changes", *arguments, "--results", results, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert words in error["message"] + (error["hint"] or "")
