"""A run is repeated until its figures are known as precisely as was asked, and no more often."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_records import record as made
from made_records import steady, summary_of
from small_runs import YAML, small

import orchestrator
from orchestrator import cli
from orchestrator.core.units import NS_PER_S
from orchestrator.errors import InputError
from orchestrator.precise import figures_of, parse_precision, precision_of, run_precisely
from orchestrator.run import Runner
from orchestrator.store.parquet import Store

OPEN = ("arrival={name: poisson, rate: 2000/s}", "duration=1s")


def test_what_is_asked() -> None:
    assert parse_precision("5%") == parse_precision("0.05") == parse_precision(0.05) == 0.05
    for wrong in ("", "5", "-1%", "0", "60%", "x%", "nan"):
        with pytest.raises(InputError) as caught:
            parse_precision(wrong)
        assert caught.value.path == "--precision"


def test_which_figures_must_be_known() -> None:
    assert figures_of(small()) == ("throughput_ops", "p50", "p99")
    assert figures_of(small("slo.p90=5ms", "slo.read.p999=5ms")) == ("throughput_ops", "p90")


def test_half_of_the_interval_over_the_figure() -> None:
    summary = summary_of(made(steady(10_000, 10 * NS_PER_S)))
    summary["throughput_ci95_ops"] = [summary["throughput_ops"] * x for x in (0.96, 1.06)]
    found = precision_of(summary, small(), 0.05)
    assert found["by_figure"]["throughput_ops"] == pytest.approx(0.05) == found["reached"]
    assert found["by_figure"]["p99"] == pytest.approx(0)
    summary["latency_p99_ci95_ms"] = None
    assert precision_of(summary, small(), 0.5) | {"by_figure": 0} == {
        "asked": 0.5, "reached": None, "met": False, "by_figure": 0,
    }  # fmt: skip


def test_it_ends_when_it_is_known(tmp_path: Path) -> None:
    told: list[tuple[int, bool]] = []

    def hear(runs: int, found: Any) -> None:
        told.append((runs, found["met"]))

    with Runner(tmp_path) as runner:
        done = run_precisely(small(*OPEN, "slo.p50=1s"), runner, 0.03, repeats_max=20, told=hear)
        rows = Store(tmp_path).table("runs").to_pylist()
    runs = len(told)
    assert 3 <= runs < 20 and [met for _, met in told[2:]] == [False] * (runs - 3) + [True]
    assert sorted(row["seed"] for row in rows) == list(range(1, runs + 1))
    found = done.summary["precision"]
    assert found["met"] and found["reached"] <= found["asked"] == 0.03
    low, high = done.summary["throughput_ci95_ops"]
    assert (high - low) / 2 <= 0.03 * done.summary["throughput_ops"]
    assert len(done.summary["repeats"]) == runs
    assert done.summary["repeats"][0]["precision"] is None


def test_it_ends_at_the_limit_and_says_so(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(YAML, encoding="utf-8")
    arguments = ["run", str(path), *OPEN, "--results", str(tmp_path / "r"), "--precision", "0.1%"]
    assert cli.main([*arguments, "--repeat-max", "2", "--json"]) == 1
    heard = capsys.readouterr()
    found = json.loads(heard.out)
    assert found["valid"] and found["precision"]["met"] is False
    assert found["precision"]["asked"] == 0.001 and len(found["repeats"]) == 2
    assert "[2] within" in heard.err
    assert cli.main([*arguments, "--repeat-max", "1"]) == 1
    assert "precision" in capsys.readouterr().out
    for extra, place in ((["--repeat", "2"], "--repeat"), (["--repeat-max", "0"], "--repeat-max")):
        assert cli.main([*arguments, *extra, "--json"]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["path"] == place
    assert cli.main([*arguments, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == 30


def test_one_run_that_is_known_well_is_enough(tmp_path: Path) -> None:
    done = orchestrator.run(small(*OPEN), results=tmp_path, precision="20%", repeat_max=5)
    assert done.summary["precision"]["met"] and not done.repeats


def test_percentiles_of_all_repeats_together_count(tmp_path: Path) -> None:
    """One run has too few operations for the p99 that the objective names, and several have not."""
    config = small("arrival={name: poisson, rate: 500/s}", "duration=300ms", "slo.p99=1s")
    with Runner(tmp_path) as runner:
        alone = runner.run(config).summary
        assert not alone["valid"] and alone["slo"]["met"] is False
        several = runner.run_repeated(config, 5).summary
    assert several["valid"] and several["slo"]["met"] is True, several["invalid_reasons"]
    assert several["latency_ms"]["all"]["p99"] is not None
