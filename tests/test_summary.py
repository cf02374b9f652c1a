"""The result object of a run, its digest, and repeated runs pooled."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from made_records import claims, config, history, node, record, steady, summary_of

from orchestrator.analysis.summary import KEYS, digest, pool, summarise
from orchestrator.config.schema import Client
from orchestrator.core.history import COLUMNS, NEVER
from orchestrator.core.machine import UNKNOWN
from orchestrator.core.record import EventRecord, RunRecord
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.core.verdict import INVALID, VALID, ClaimsVerdict, Verdict

# --- summary ----------------------------------------------------------------------------

SECTION_KEYS = (
    "run_id", "experiment", "config_hash", "runtime", "clock",
    "seed", "valid", "invalid_reasons", "host_limited", "steady_state",
    "digest",
    "offered_ops", "throughput_ops", "throughput_ci95_ops", "goodput_ops", "latency_ms",
    "latency_p99_ci95_ms", "latency_ci95_ms", "latency_effective_samples",
    "uncorrected_p99_ms", "outcomes", "compare_and_set",
    "consistency",
    "availability", "faults", "resilience", "overload", "scaling", "links", "hosts", "cache",
    "balance",
    "shards", "moves", "bottleneck",
    "utilisations", "latency_breakdown_ms", "latency_breakdown",
    "generator", "harness", "cost", "slo", "model", "placement", "precision", "results", "tenants",
)  # fmt: skip


def test_summary_has_every_key_and_is_json() -> None:
    found = summary_of(record())
    assert sorted(found) == sorted(SECTION_KEYS) == sorted(KEYS)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["valid"] is True and found["digest"] is None
    assert found["throughput_ops"] == pytest.approx(1000, rel=1e-3)
    low, high = found["throughput_ci95_ops"]
    assert low <= found["throughput_ops"] <= high
    assert found["latency_ms"]["read"] == found["latency_ms"]["all"]
    assert found["latency_ms"]["write"]["p99"] is None
    assert found["latency_ms"]["all"]["p99"] == 1.0 == found["uncorrected_p99_ms"]
    assert found["latency_p99_ci95_ms"] == pytest.approx([1.0, 1.0])
    assert found["latency_ci95_ms"]["p50"] == pytest.approx([1.0, 1.0])
    assert found["latency_ci95_ms"]["p999"] is None
    assert found["bottleneck"] == {
        "resource": "leader.cpu",
        "utilisation": pytest.approx(0.3),
        "saturates_at_ops": pytest.approx(found["throughput_ops"] / 0.3),
    }
    assert found["utilisations"]["leader.cpu"] == pytest.approx(0.3)
    assert found["generator"] == {
        "lag_p99_ms": 0.05,
        "cpu": 0.5,
        "operations_per_request": None,
        "outstanding": None,
        "outstanding_by_latency": None,
        "arrival_distance": pytest.approx(0, abs=1e-3),
    }
    assert found["consistency"] == {
        "claimed": "linearizable",
        "verdict": VALID,
        "strongest": ["linearizable"],
        "operations_checked": 9000,
        "witness": None,
        "staleness_ms": {"p50": 0.0, "p99": 0.0},
        "staleness_versions": {"p50": 0.0, "p99": 0.0},
    }


def test_summary_of_nothing_is_whole_and_invalid() -> None:
    empty = record(history(0), nodes=(), clients=(), offered_ops=None, host_loads=())
    found = summarise(empty, config(), None, run_id="r", config_hash="c", results="x")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert sorted(found) == sorted(SECTION_KEYS)
    assert found["invalid_reasons"] == ["only 0 operations were measured; at least 100 are needed"]
    for name in ("latency_breakdown", "latency_breakdown_ms", "utilisations"):
        assert found[name] is None
    for name in ("availability", "bottleneck", "uncorrected_p99_ms", "throughput_ci95_ops"):
        assert found[name] is None
    assert set(found["consistency"].values()) == {None}


def test_several_claims_are_named_together() -> None:
    levels = ("read_your_writes", "monotonic_reads")
    verdicts = tuple(Verdict(VALID, level, 10, 1, (), "") for level in levels)
    together = ClaimsVerdict(VALID, ("monotonic_reads", "read_your_writes"), verdicts)
    found = summarise(record(), config(), together, run_id="r", config_hash="c", results="x")
    assert found["consistency"]["claimed"] == "monotonic_reads+read_your_writes"


def simulated(**changes: Any) -> RunRecord:
    return record(runtime="sim", clock="virtual", host_loads=(), **changes)


def test_digest_sees_every_column() -> None:
    digests = [digest(simulated())]
    for name in COLUMNS:
        column = getattr(simulated().history, name).copy()
        column[-1] += 1
        changed = dataclasses.replace(simulated().history, **{name: column})
        digests.append(digest(simulated(history=changed)))
    for name in ("operations", "messages", "cpu_busy_ns", "storage_busy_ns", "cache_hits",
                 "cache_misses"):  # fmt: skip
        changed_node = node(0, "leader", 10, operations=100, cpu_busy_ns=30 * NS_PER_MS)
        getattr(changed_node, name)[3] += 1
        digests.append(digest(simulated(nodes=(changed_node,))))
    assert len(set(digests)) == len(digests) == 1 + len(COLUMNS) + 6


def test_digest_forgets_the_host() -> None:
    elsewhere = tuple(dataclasses.replace(known, host="other") for known in record().nodes)
    event = EventRecord(0, 0, "role", "leader")
    moved = simulated(nodes=elsewhere, hosts=("other",), setup_ns=5, events=(event,))
    assert digest(moved) == digest(simulated())
    wider = dataclasses.replace(moved.history, kind=moved.history.kind.astype(numpy.int64))
    assert digest(dataclasses.replace(moved, history=wider)) == digest(moved)


def test_digest_is_the_same_in_every_process() -> None:
    script = (
        "import json\n"
        "from test_summary import simulated, summary_of\n"
        "print(json.dumps(summary_of(simulated())))"
    )
    here = Path(__file__).resolve().parent
    root = here.parent
    said = [
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": f"{root}{os.pathsep}{here}"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert json.loads(said[0]) == json.loads(said[1]) == summary_of(simulated())
    assert len(summary_of(simulated())["digest"]) == 64


# --- repeats ----------------------------------------------------------------------------


def test_repeats_are_pooled() -> None:
    runs = [
        record(steady(10_000 * factor, 10 * NS_PER_S, factor * NS_PER_MS), offered_ops=None)
        for factor in (1, 2, 3)
    ]
    summaries = [summary_of(run, run_id=f"r{number}") for number, run in enumerate(runs)]
    summaries[1] = summaries[1] | {"valid": False, "invalid_reasons": ["Late."]}
    pooled = pool(summaries, runs, config())
    assert sorted(pooled) == sorted([*SECTION_KEYS, "repeats"])
    assert json.loads(json.dumps(pooled, allow_nan=False)) == pooled
    assert pooled["run_id"] == "r0" and pooled["repeats"] == summaries
    assert pooled["valid"] is False and pooled["invalid_reasons"] == ["repeat 2: Late."]
    assert pooled["latency_ms"]["all"]["count"] == 8000 * 6
    assert pooled["latency_ms"]["all"]["mean"] == pytest.approx((1 + 4 + 9) / 6)
    assert pooled["latency_ms"]["all"]["p50"] == pytest.approx(2, rel=1e-3)
    assert pooled["outcomes"]["ok"] == 8000 * 6
    assert pooled["throughput_ops"] == pytest.approx(2000, rel=1e-3)
    # t(2, .975) = 4.3027 (tables), s = 1000, n = 3: half width 2484, so the low edge is 0.
    assert pooled["throughput_ci95_ops"] == pytest.approx([0, 4484], rel=2e-3)
    assert pooled["consistency"]["operations_checked"] == 27_000


def test_the_worst_repeat_gives_the_verdict() -> None:
    parts = {"run_id": "r", "config_hash": "c", "results": "x"}
    summaries = [
        summarise(record(), config(), claims(verdict), **parts) for verdict in (VALID, INVALID)
    ]
    pooled = pool(summaries, [record(), record()], config())["consistency"]
    assert pooled["verdict"] == INVALID
    assert pooled["witness"] == [{"session": 1, "op": "read"}]
    assert pooled["strongest"] == ["none"]


def test_one_repeat_is_the_run_itself() -> None:
    alone = summary_of(simulated())
    assert pool([alone], [simulated()], config()) == alone | {"repeats": [alone]}


def test_the_configs_timeout_is_used() -> None:
    lost = steady(10_000, 10 * NS_PER_S, outcome=UNKNOWN, returned_ns=NEVER)
    found = summary_of(record(lost), config(client=Client(timeout=3 * NS_PER_S)))
    assert found["latency_ms"]["all"]["p50"] == 3000.0
    assert found["throughput_ops"] == 0.0
