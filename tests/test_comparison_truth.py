"""Comparisons of simulated systems of which it is known whether they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.analysis.comparison import judged, of_groups
from orchestrator.compare import METRICS, compare_configs
from orchestrator.config.load import ConfigSource
from orchestrator.report.model import metric
from orchestrator.run import Runner

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def queue(mean: str, duration: str) -> ConfigSource:
    """One node at some 60 % of what it can do."""
    return ConfigSource.of(
        {
            "experiment": "queue",
            "runtime": "sim",
            "system": {
                "protocol": {"name": "unreplicated"},
                "node": {"cpu": {"read": {"name": "exponential", "mean": mean}}},
            },
            "workload": {"name": "ycsb", "mix": "c", "keys": 100},
            "arrival": {"name": "poisson", "rate": "600/s"},
            "client": {"timeout": "10s"},
            "warmup": "500ms",
            "duration": duration,
        }
    )


def test_of_a_hundred_comparisons_of_the_same_few_find_a_difference(tmp_path: Path) -> None:
    """Five runs against five others, of seeds of their own."""
    source, different = queue("1ms", "2s"), 0
    with Runner(tmp_path / "results") as runner:
        for comparison in range(100):
            runs: list[dict[str, Any]] = [
                runner.run(source.with_values({"seed": 10 * comparison + n}).build()).summary
                for n in range(1, 11)
            ]
            figures = {
                name: [float(metric(each, name) or 0.0) for each in runs] for name in METRICS
            }
            effects = {name: of_groups(each[:5], each[5:]) for name, each in figures.items()}
            found = judged(effects, METRICS)
            different += any(each.verdict in ("better", "worse") for each in found.values())
    assert different <= 8


def test_a_slowdown_of_a_twentieth_is_found(tmp_path: Path) -> None:
    """Of modelled costs, in pairs of runs of five seconds."""
    found = 0
    with Runner(tmp_path / "results") as runner:
        for comparison in range(10):
            base, candidate = (
                queue(mean, "5s").with_values({"seed": 100 * comparison + 1})
                for mean in ("1ms", "1.05ms")
            )
            found += compare_configs(base, candidate, runner, pairs=5).verdict == "worse"
    assert found >= 9
