"""Intervals of simulated runs hold the truth as often as they say: brief runs of the script."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "coverage.py"
RUNS = 40


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("coverage_script", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["coverage_script"] = module
    spec.loader.exec_module(module)
    return module


def test_brief_runs_hold_the_truth(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "SECONDS", 20)
    found = [script.measure((0.5, seed)) for seed in range(1, RUNS + 1)]
    for name in script.NAMES:
        row = script.row(0.5, name, [each[name] for each in found])
        # Of 95 %, fewer than 32 of 40 would come once in 1,000 times.
        assert row.held >= 32 / RUNS
        assert 0.6 < row.width < 1.5
        assert abs(row.error) < 0.05


def test_the_page_is_of_these_figures(script: Any) -> None:
    rows = [
        script.Row(load, name, 0.95, 1.1, 0.001) for load in script.LOADS for name in script.NAMES
    ]
    ours, stored = (
        [line for line in text.splitlines() if not line.startswith("| 0.")]
        for text in (script.page(rows), script.PAGE.read_text(encoding="utf-8"))
    )
    assert ours == stored
    table = [
        line for line in script.PAGE.read_text(encoding="utf-8").splitlines() if "| 0." in line
    ]
    assert len(table) == len(rows)
    for line in table:
        held, width = (float(cell.strip(" %")) for cell in line.split("|")[3:5])
        assert 90 <= held <= 99
        assert width <= 1.5
