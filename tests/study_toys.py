"""A tiny study whose runs cost nothing, for the tests of studies."""

from __future__ import annotations

import importlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_views import summary as made_summary

from orchestrator.config.load import ConfigSource
from orchestrator.plan import plan
from orchestrator.run import Runner, RunResult
from orchestrator.store.parquet import Store
from orchestrator.study import view as views

# The package has a function of this name.
module = importlib.import_module("orchestrator.tune")

TINY: dict[str, Any] = {
    "experiment": "tiny",
    "runtime": "sim",
    "system": {
        "protocol": {
            "name": "primary_backup",
            "mode": "sync",
            "read_from": "any",
            "failover": False,
        },
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
    "duration": "400ms",
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

    def run(self, config: Any, *, seed: int | None = None, repeat: int = 0) -> RunResult:
        plan(config)
        replicas, cache = config.system.params.replicas, config.system.params.cache
        kib = 0.0 if cache is None else cache.params.size.amount / 1024
        throughput = 1000 * replicas * (1 + kib / 48) / (1 + (replicas / 5) ** 3)
        run_id = f"made-{os.getpid()}-{next(self.numbers)}"
        made = made_summary(throughput, 10.0 * replicas, run_id=run_id, runtime="sim")
        nothing: Any = SimpleNamespace(lost_parts=())
        return RunResult(self.judged(made), nothing, run_id, config)

    def judged(self, summary: dict[str, Any]) -> dict[str, Any]:
        return summary


def make_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let studies measure nothing and draw nothing."""
    monkeypatch.setattr(module, "Runner", MadeUp)
    monkeypatch.setattr(module, "write_report", lambda view, results: (Path("report.html"), []))
    # Nothing here refers to anything else, and looking for that takes most of the time.
    monkeypatch.setattr("orchestrator.config.load._interpolated", lambda data: data)


def runner(run: Callable[[MadeUp, Any], RunResult]) -> type[MadeUp]:
    """A runner whose run is a function."""
    return type("Other", (MadeUp,), {"run": lambda self, config, **_: run(self, config)})


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
