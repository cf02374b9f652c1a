"""Tenants: their shares, keys, figures and objectives; and shares of operations of one's own."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy
import pytest
from rich.console import Console
from scipy import stats

from orchestrator._terminal import show_run
from orchestrator.analysis.latency import measured_window
from orchestrator.analysis.summary import pool, summarise
from orchestrator.config.load import load_mapping, override
from orchestrator.config.render import resolved
from orchestrator.config.schema import Config
from orchestrator.core.load import ChunkedStream, OperationBlock
from orchestrator.core.machine import KIND_NAMES, READ, SCAN, WRITE
from orchestrator.core.record import RunRecord
from orchestrator.core.verdict import VALID
from orchestrator.errors import ConfigError
from orchestrator.plan import plan
from orchestrator.report.wording import metric_name
from orchestrator.run import RunResult, execute, judge
from orchestrator.study.verdict import constraints_of, slo_bounds
from orchestrator.workloads.tenants import Tenants
from orchestrator.workloads.ycsb import Ycsb

TENANTS: dict[str, Any] = {
    "gold": {
        "share": 0.1,
        "workload": {"name": "ycsb", "mix": "d", "keys": 50, "value_size": "20B"},
    },
    "free": {
        "share": 0.6,
        "workload": {
            "name": "ycsb", "mix": "a", "keys": 30, "distribution": "sequential",
            "value_size": {"name": "uniform", "most": "99B"},
        },
    },
    "lab_1": {"share": 0.3, "workload": {"name": "ycsb", "mix": "e", "keys": 40}},
}  # fmt: skip
NAMES = list(TENANTS)


def tenants(**changes: Any) -> Tenants:
    given = {"name": "tenants", "tenants": TENANTS | changes}
    made: Tenants = Tenants(load_mapping({"workload": given}).workload.params)
    return made


def assert_equal(one: OperationBlock, other: OperationBlock) -> None:
    for name in ("kind", "key", "size", "count", "follow_up"):
        numpy.testing.assert_array_equal(getattr(one, name), getattr(other, name))


# --- operations -------------------------------------------------------------------------


def test_tenants_have_their_shares_and_their_own_workloads() -> None:
    workload = tenants()
    block = workload.stream(7, 1, 2).block(60_000)
    counts = numpy.bincount(block.key % 3)
    assert stats.chisquare(counts, numpy.array([0.1, 0.6, 0.3]) * 60_000).pvalue > 1e-3
    gold, free, lab = (block.select(block.key % 3 == tenant) for tenant in range(3))
    # Each tenant's operations are those of its workload, in order: sequential keys show it.
    picked = free.key // 3
    numpy.testing.assert_array_equal(picked, (1 + 2 * numpy.arange(len(picked))) % 30)
    inserted = (gold.key // 3)[gold.kind == WRITE]
    numpy.testing.assert_array_equal(inserted, 51 + 2 * numpy.arange(len(inserted)))
    assert stats.binomtest(len(inserted), len(gold), 0.05).pvalue > 1e-4
    assert stats.binomtest(int((lab.kind == SCAN).sum()), len(lab), 0.95).pvalue > 1e-4
    assert set(gold.size.tolist()) == {16 + 20 + len("gold/")}
    assert len(set(free.size.tolist())) > 10


def test_tenants_do_not_disturb_each_other_and_blocks_may_be_cut() -> None:
    whole = tenants().stream(3, 0, 2).block(20_000)
    stream = tenants().stream(3, 0, 2)
    parts = [stream.block(count) for count in (10, 0, 8191, 11_799)]
    assert_equal(OperationBlock.concatenate(parts), whole)
    skewed = {"share": 0.6, "workload": {"name": "ycsb", "mix": "c", "keys": 30}}
    other = tenants(free=skewed).stream(3, 0, 2).block(20_000)
    mine = whole.key % 3 == 0
    assert_equal(other.select(other.key % 3 == 0), whole.select(mine))
    assert (tenants().stream(4, 0, 2).block(100).key != whole.key[:100]).any()


def test_keys_and_preloads_are_those_of_the_tenants() -> None:
    workload = tenants()
    names, preload = workload.key_names, workload.preload()
    assert [names[index] for index in (0, 1, 2, 3, 3 * 60)] == [
        b"gold/user000000000000",
        b"free/user000000000000",
        b"lab_1/user000000000000",
        b"gold/user000000000001",
        b"gold/user000000000060",
    ]
    assert list(names) == list(names[0 : len(names)]) == [names[i] for i in range(3 * 50)]
    assert names[5:8] == [names[5], names[6], names[7]]
    held = [name for name in names if preload.get(name) is not None]
    assert len(held) == 50 + 30 + 40
    assert len(preload.get(names[0]) or b"") == 20
    strangers = [b"user000000000000", b"gold", b"gold/", b"silver/user000000000000", b"gold/x"]
    assert [preload.get(key) for key in strangers] == [None] * 5
    every = sorted(held)
    for start in (b"", b"free/", b"free/user000000000029", b"g", b"gold/user000000000049x", b"z"):
        later = [key for key in every if key >= start]
        assert list(preload.keys_from(start, 35)) == later[:35]
    again = pickle.loads(pickle.dumps(preload))
    assert again.get(names[0]) == preload.get(names[0])


def test_tenants_keys_may_move_by_time() -> None:
    crowd = {"name": "flash_crowd", "keys": 1, "share": 1.0, "at": "1s", "lasts": "9s"}
    law = {"name": "uniform", "most": "500B"}
    moving = {"name": "ycsb", "mix": "c", "keys": 40, "distribution": crowd, "value_size": law}
    workload = tenants(gold={"share": 0.1, "workload": moving})
    stream = workload.stream(1, 0, 1)
    assert isinstance(stream, ChunkedStream)
    assert stream.timed
    block = stream.block(5000)
    moved = stream.at(block, numpy.full(5000, 2 * 10**9))
    gold = block.key % 3 == 0
    assert set(moved.key[gold].tolist()) == {39 * 3}
    assert len(set(moved.size[gold].tolist())) == 1
    assert_equal(moved.select(~gold), block.select(~gold))
    still = tenants().stream(1, 0, 1)
    assert isinstance(still, ChunkedStream)
    assert not still.timed


# --- figures ----------------------------------------------------------------------------


def run(**slo: Any) -> tuple[Config, RunRecord, dict[str, Any]]:
    parts = plan(
        load_mapping(
            {
                "runtime": "sim",
                "system": {"name": "replicated_store", "protocol": {"name": "raft"}},
                "workload": {"name": "tenants", "tenants": TENANTS},
                "warmup": "50ms",
                "duration": "300ms",
                "clients": 2,
                "slo": slo,
            }
        )
    )
    record = execute(parts)
    verdict = judge(parts, record)
    assert verdict.verdict == VALID
    names = {"run_id": "r", "config_hash": "c", "results": "results"}
    return parts.config, record, summarise(record, parts.config, verdict, **names)


def test_figures_of_tenants_are_those_of_their_operations() -> None:
    config, record, found = run()
    window = measured_window(record, config.client.timeout)
    owners = [record.history.key_names[key].split(b"/")[0].decode() for key in window.key.tolist()]
    assert list(found["tenants"]) == NAMES
    for name in NAMES:
        mine = numpy.array(owners) == name
        told = found["tenants"][name]
        for kind in (READ, WRITE, SCAN):
            latency_ns = numpy.sort(window.latency_ns[mine & (window.kind == kind)])
            figures = told["latency_ms"][KIND_NAMES[kind]]
            assert figures["count"] == len(latency_ns)
            if len(latency_ns):
                assert figures["mean"] == pytest.approx(latency_ns.mean() / 1e6)
                assert figures["max"] == latency_ns[-1] / 1e6
        assert told["outcomes"]["ok"] == mine.sum() == told["latency_ms"]["all"]["count"] > 0
        assert told["error_rate"] == 0
    for figure in ("throughput_ops", "goodput_ops"):
        together = sum(found["tenants"][name][figure] for name in NAMES)
        assert together == pytest.approx(found[figure])
    pooled = pool([found, found], [record, record], config)
    twice = pooled["tenants"]["gold"]["latency_ms"]["all"]["count"]
    assert twice == 2 * found["tenants"]["gold"]["latency_ms"]["all"]["count"]
    text = io.StringIO()
    show_run(Console(file=text, width=120), RunResult(found, record, "r", config))
    assert "tenant gold" in text.getvalue()


def test_tenants_have_objectives() -> None:
    bounds = {"gold": {"p99": "1ns"}, "free": {"p50": "1s", "max": "1ns", "error_rate": 0}}
    config, _, found = run(tenants=bounds)
    violated = {each["metric"]: each["value"] for each in found["slo"]["violations"]}
    latencies = {name: found["tenants"][name]["latency_ms"]["all"] for name in NAMES}
    assert violated == {
        "tenants.gold.p99": latencies["gold"]["p99"],
        "tenants.free.max": latencies["free"]["max"],
    }
    assert slo_bounds(config) == {
        "tenants.gold.p99": ("tenants.gold.latency_ms.all.p99", 1e-6),
        "tenants.free.p50": ("tenants.free.latency_ms.all.p50", 1000.0),
        "tenants.free.max": ("tenants.free.latency_ms.all.max", 1e-6),
        "tenants.free.error_rate": ("tenants.free.error_rate", 0.0),
    }
    # Each by its own bound: the p99's, else the nearest that is given.
    told = found["tenants"]
    assert told["gold"]["goodput_ops"] == told["free"]["goodput_ops"] == 0
    assert told["lab_1"]["goodput_ops"] == told["lab_1"]["throughput_ops"] > 0
    constraints = constraints_of(found, config)
    assert constraints["slo.tenants.gold.p99"] > 0
    assert constraints["slo.tenants.free.p50"] < 0
    name = metric_name("tenants.gold.latency_ms.all.p99")
    assert (name.label, name.unit) == ("p99 latency of tenant gold", "ms")


@pytest.mark.parametrize("workload", ["ycsb", "tenants"])
def test_an_objective_needs_its_tenant(workload: str) -> None:
    given = {"name": workload} | ({"tenants": TENANTS} if workload == "tenants" else {})
    config = load_mapping(
        {"runtime": "sim", "workload": given, "slo": {"tenants": {"golf": {"p99": "1s"}}}}
    )
    with pytest.raises(ConfigError, match="no tenant 'golf'") as caught:
        plan(config)
    assert caught.value.path == "slo.tenants.golf"


def test_a_queue_knows_the_tenants_that_there_are() -> None:
    queue = {"name": "priority", "tenants": ["gold", "fre"]}
    given = {"runtime": "sim", "system": {"node": {"queue": queue}}}
    with pytest.raises(ConfigError, match="no tenant 'fre'") as caught:
        plan(load_mapping(given | {"workload": {"name": "tenants", "tenants": TENANTS}}))
    assert caught.value.path == "system.node.queue.tenants"
    assert "free" in str(caught.value.hint)


def crowded(queue: dict[str, Any]) -> dict[str, Any]:
    """Figures by tenant: a server of 1,000 ops/s is asked for 2,500 in the second second. The
    crowd is tenant free's; gold stays below a third of what can be served.
    """
    law = {"name": "exponential", "mean": "1ms"}
    tenants = {
        "gold": {"share": 0.12, "workload": {"name": "ycsb", "mix": "a", "keys": 100}},
        "free": {"share": 0.88, "workload": {"name": "ycsb", "mix": "a", "keys": 100}},
    }
    parts = plan(
        load_mapping(
            {
                "runtime": "sim",
                "system": {"node": {"cpu": {"read": law, "write": law}, "queue": queue}},
                "workload": {"name": "tenants", "tenants": tenants},
                "arrival": {
                    "name": "flash_crowd", "base": "500/s", "peak": "2500/s",
                    "at": "1s", "lasts": "1s",
                },
                "warmup": "0s",
                "duration": "3s",
                "slo": {"p99": "1s", "tenants": {"gold": {"p99": "20ms"}}},
            }
        )
    )  # fmt: skip
    names = {"run_id": "r", "config_hash": "c", "results": "results"}
    told: dict[str, Any] = summarise(execute(parts), parts.config, None, **names)["tenants"]
    return told


def test_a_crowd_of_one_tenant_is_shed_without_hurting_the_other() -> None:
    blind = crowded({"name": "priority", "order": ["read"], "limit": 50})
    told = crowded({"name": "priority", "order": ["read"], "tenants": ["gold"], "limit": 50})
    asked = sum(told["gold"]["outcomes"].values()) / 3
    # Gold loses much where nobody looks whose an operation is, and next to nothing where one does.
    assert blind["gold"]["goodput_ops"] < 0.8 * asked
    assert told["gold"]["error_rate"] == 0
    assert told["gold"]["goodput_ops"] > 0.99 * asked
    assert told["gold"]["latency_ms"]["all"]["p99"] < 20
    # What the other is served is what is left, with or without: the server is as busy.
    assert told["free"]["error_rate"] > 0.3
    served = [each["gold"]["throughput_ops"] + each["free"]["throughput_ops"]
              for each in (blind, told)]  # fmt: skip
    assert served[1] == pytest.approx(served[0], rel=0.03)


def test_tenants_load_back_and_can_be_overridden() -> None:
    config = load_mapping({"workload": {"name": "tenants", "tenants": TENANTS}})
    assert load_mapping(resolved(config)) == config
    changed = override(config, {"workload.tenants.gold.workload.keys": 99})
    assert changed.workload.params.tenants["gold"].workload.params.keys == 99


ENDLESS = {"name": "ycsb"}


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        ({}, "", "these give 0"),
        ({"a": {"share": 0.5, "workload": ENDLESS}}, "", r"these give 0\.5"),
        ({"a": {"share": 1.0}, "b": {"share": 0.0}}, ".b.share", "above 0"),
        ({"a": {"share": -0.1}}, ".a.share", "out of bounds"),
        ({"a": {}}, ".a.share", "missing"),
        ({"a/b": {"share": 1.0}}, "", "cannot name a tenant"),
        (
            {"a": {"share": 1.0, "workload": {"name": "transactions"}}},
            ".a.workload",
            "transactions",
        ),
        (
            {
                "a": {"share": 0.5},
                "b": {"share": 0.5, "workload": {"name": "ycsb", "update": "add"}},
            },
            "",
            "must be the same for all tenants",
        ),
    ],
)
def test_tenants_that_cannot_be_are_refused(given: Any, path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_mapping({"workload": {"name": "tenants", "tenants": given}})
    assert caught.value.path == "workload.tenants" + path


# --- shares of one's own ----------------------------------------------------------------


def ycsb(**given: Any) -> Ycsb:
    made: Ycsb = Ycsb(
        load_mapping({"workload": {"name": "ycsb", "keys": 100} | given}).workload.params
    )
    return made


def test_shares_stand_for_the_mix() -> None:
    shares = {"read": 0.3, "update": 0.25, "insert": 0.2, "scan": 0.15, "read_modify_write": 0.1}
    block = ycsb(shares=shares).stream(1, 0, 1).block(100_000)
    reads, writes = block.kind == READ, block.kind == WRITE
    observed = [
        (reads & (block.follow_up == READ)).sum(),
        (writes & (block.key < 100)).sum(),
        (writes & (block.key >= 100)).sum(),
        (block.kind == SCAN).sum(),
        (block.follow_up == WRITE).sum(),
    ]
    assert stats.chisquare(observed, 100_000 * numpy.array(list(shares.values()))).pvalue > 1e-3
    published = {"read": 0.95, "update": 0.05}
    assert_equal(
        ycsb(shares=published).stream(1, 0, 1).block(9000),
        ycsb(mix="b").stream(1, 0, 1).block(9000),
    )
    tenths = ycsb(shares={"read": 0.6, "update": 0.3, "scan": 0.1})
    assert tenths._params.operations.scan == 0.1
    config = load_mapping({"workload": {"name": "ycsb", "shares": published}})
    assert load_mapping(resolved(config)) == config
    assert load_mapping({}, "workload.shares.read=1").workload.params.shares.read == 1


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        ({"shares": {"read": 0.5}}, ".shares", r"these give 0\.5"),
        ({"shares": {}}, ".shares", "these give 0"),
        ({"shares": {"read": 1.5, "update": -0.5}}, ".shares.read", "out of bounds"),
        ({"shares": {"reads": 1}}, ".shares.reads", "unknown key"),
        ({"shares": {"scan": 1}, "update": "add"}, ".update", "only values allow"),
    ],
)
def test_shares_that_are_none_are_refused(given: Any, path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        ycsb(**given)
    assert caught.value.path == "workload" + path
