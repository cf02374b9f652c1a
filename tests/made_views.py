"""Views of made-up studies and runs, for the tests of the report."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from orchestrator.report.model import (
    EventView,
    ParameterView,
    RunView,
    StudyView,
    TrialView,
    Value,
)

HOSTILE = "<script>alert(1)</script>"


def summary(throughput: float, p99: float, **changes: Any) -> dict[str, Any]:
    return {
        "run_id": f"run-{throughput:.0f}",
        "experiment": "made-up",
        "config_hash": "c0ffee",
        "runtime": "sim",
        "clock": "virtual",
        "seed": 1,
        "valid": True,
        "invalid_reasons": [],
        "throughput_ops": throughput,
        "throughput_ci95_ops": [throughput * 0.98, throughput * 1.02],
        "goodput_ops": throughput,
        "latency_ms": {
            "all": {"count": 500, "p50": p99 / 5, "p99": p99, "p999": p99 * 2, "max": p99 * 3},
            "read": {},
            "write": {},
        },
        "latency_p99_ci95_ms": [p99 * 0.9, p99 * 1.1],
        "outcomes": {"ok": 990, "fail": 4, "unknown": 6},
        "consistency": {"verdict": "valid", "strongest": ["linearizable"]},
        "cache": {"hit_ratio": 0.8},
        "bottleneck": {"resource": "node.cpu", "utilisation": 0.97},
        "cost": None,
        "slo": {"met": True, "violations": []},
    } | changes


def run_view(throughput: float = 4000.0, p99: float = 15.0, **changes: Any) -> RunView:
    start = [index / 10 for index in range(30)]
    rows = [(f"n{node}", at) for node in range(3) for at in start]
    return RunView(
        summary=summary(throughput, p99, **changes),
        intervals={
            "start_s": start,
            "throughput_ops": [throughput * (0.9 + 0.01 * (index % 7)) for index in range(30)],
            "p50_ms": [p99 / 5] * 30,
            "p99_ms": [None if index == 4 else p99 + index % 3 for index in range(30)],
            "ok": [10] * 30,
            "fail": [0] * 30,
            "unknown": [0] * 29 + [2],
            "phase": ["warmup"] * 10 + ["run"] * 20,
        },
        latencies={"all": ([1.0, 2.0, 5.0, p99], [500, 400, 90, 10])},
        nodes={
            "node": [name for name, _ in rows],
            "start_s": [at for _, at in rows],
            "cpu_utilisation": [0.9 if name == "n0" else 0.4 for name, _ in rows],
            "storage_utilisation": [None] * len(rows),
        },
        events=[EventView(1.5, "crash", "n1", "killed"), EventView(2.0, "restart", "n1")],
        config_yaml="experiment: made-up\n",
    )


def trial(number: int, throughput: float | None, *, replicas: int = 3, **changes: Any) -> TrialView:
    params = {
        "system.replicas": Value(str(replicas), replicas),
        "system.cache.size": Value("8MiB", float(8 << 20)),
        "system.protocol.name": Value("raft" if number % 2 else "primary_backup"),
    }
    metrics = None if throughput is None else summary(throughput, 10.0 + number)
    made = TrialView(number, "complete", params, metrics, "", f"run-{number}")
    return dataclasses.replace(made, **changes)


def study_view(count: int = 12, /, **changes: Any) -> StudyView:
    made = [
        trial(number, 3000.0 + 100 * number, replicas=1 + number % 7) for number in range(count)
    ]
    made.append(trial(count, None, state="infeasible", reason="needs more memory"))
    made.append(trial(count + 1, None, state="pruned", reason="slow"))
    made.append(trial(count + 2, None, state="failed", reason="a node died"))
    late = summary(9000.0, 99.0, slo={"met": False, "violations": ["p99 99 ms > 45 ms"]})
    made.append(trial(count + 3, 9000.0, metrics=late, state="infeasible", reason="p99 too high"))
    view = StudyView(
        title="How many replicas?",
        study="made-up-study",
        experiment="made-up",
        objective_metric="throughput_ops",
        direction="maximize",
        parameters=[
            ParameterView("system.replicas", "1 to 7"),
            ParameterView("system.cache.size", "1MiB to 64MiB", log=True, quantity="size"),
            ParameterView("system.protocol.name", "primary_backup or raft"),
        ],
        trials=made,
        default=made[0],
        best=made[count - 1],
        importance={"system.replicas": 0.7, "system.cache.size": 0.2, "system.protocol.name": 0.1},
        best_run=run_view(4100.0),
        default_run=run_view(3000.0),
        command="archbench tune configs/made-up.yaml",
        config_yaml="experiment: made-up\n",
        why=["More replicas serve more reads."],
        slo={"latency_ms.all.p99": 45.0},
    )
    return dataclasses.replace(view, **changes)


def hostile_view(hostile: str = HOSTILE) -> StudyView:
    text = hostile + " $x_1$ & \x00\x1b ]]> -- \ud800 名前"
    base = study_view(2)
    paths = [f"system.{hostile}", "system.cache.size"]
    made = [
        dataclasses.replace(
            item,
            reason=text,
            run_id=text,
            params={paths[0]: Value(text), paths[1]: Value(text, 8.0)},
        )
        for item in base.trials
    ]
    run = run_view(
        experiment=text,
        bottleneck={"resource": text, "utilisation": 0.9},
        consistency={"verdict": text, "strongest": [text]},
        slo={"met": False, "violations": [text]},
        valid=False,
        invalid_reasons=[text],
    )
    rows = len(run.nodes["node"])
    run = dataclasses.replace(
        run,
        nodes={**run.nodes, "node": [text] * rows},
        events=[EventView(1.0, text, text, text)],
        latencies={text: ([1.0, 2.0], [5, 5]), "read": ([1.0, 2.0], [5, 5])},
        config_yaml=text,
    )
    return dataclasses.replace(
        base,
        title=text,
        study=text,
        experiment=text,
        parameters=[ParameterView(path, text) for path in paths],
        trials=made,
        default=made[0],
        best=dataclasses.replace(made[1], metrics=run.summary),
        importance={paths[0]: 1.0},
        best_run=run,
        default_run=None,
        command=text,
        config_yaml=text,
        why=[text],
    )


def without(**changes: Any) -> StudyView:
    """A small study without runs, and without what ``changes`` say."""
    small: dict[str, Any] = {
        "best_run": None,
        "default_run": None,
        "parameters": [ParameterView("system.replicas", "1 to 7")],
        "importance": {},
    }
    return study_view(3, **{**small, **changes})


EMPTY = {
    "no trial": without(trials=[], best=None, default=None),
    "nothing feasible": without(
        trials=[trial(0, None, state="infeasible", reason="needs more memory")] * 2,
        best=None,
        default=trial(0, None, state="infeasible", reason="needs more memory"),
    ),
    "one trial": without(trials=[trial(0, 10.0)], best=trial(0, 10.0)),
    "no default": without(default=None),
    "no parameter": without(parameters=[]),
    "no metrics": without(best=trial(1, None), default=None, best_run=RunView({})),
    "missing figures": without(
        best=trial(2, 5.0, metrics={"throughput_ops": math.nan, "slo": None, "latency_ms": None})
    ),
    "minimize": without(objective_metric="latency_ms.all.p99", direction="minimize"),
    "other objective": without(objective_metric="made_up.figure_ms"),
}


BROKEN_RUNS: dict[str, dict[str, Any]] = {
    "nothing": {"intervals": {}, "latencies": {}, "nodes": {}, "events": ()},
    "not a number": {
        "intervals": {"start_s": [0.0], "throughput_ops": [math.nan], "p99_ms": []},
        "latencies": {"all": ([], [])},
        "nodes": {"node": ["n0"], "start_s": [0.0], "cpu_utilisation": []},
    },
    "no times": {"intervals": {"start_s": [None]}, "nodes": {"node": ["n0"], "start_s": [None]}},
    "all zero": {
        "intervals": {"start_s": [0.0, 0.1], "throughput_ops": [0, 0], "p99_ms": [0, 0]},
        "latencies": {"all": ([0.0], [3])},
    },
    "no summary": {"summary": {}},
}
