"""What binds a run, whether it may be believed, and whether it met its objective."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy
import pytest
from made_records import TIMEOUT_NS, claims, config, generator, node, record, steady, summary_of
from numpy.typing import NDArray

from orchestrator.analysis import harness, resources, slo, validity
from orchestrator.analysis.goodput import good
from orchestrator.analysis.latency import (
    LatencyHistogram,
    measured_window,
)
from orchestrator.config.schema import Config, LatencyBounds, Prices, Slo, TenantBounds
from orchestrator.core.machine import FAIL, OK, READ, WRITE
from orchestrator.core.record import INTERVAL_NS, HostRecord, LinkRecord, ProcessUsage, RunRecord
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.core.verdict import INVALID, UNDECIDED, VALID
from orchestrator.systems.replicated_store import MEASURED, MODELLED

GIB = 1 << 30

# --- resources --------------------------------------------------------------------------


def test_bottleneck_is_the_busiest_station() -> None:
    leader = node(0, "leader", 10, cpu_busy_ns=INTERVAL_NS // 2)
    stores = {"storage_parallel": 2, "storage_busy_ns": INTERVAL_NS * 3 // 2}
    followers = [node(number, "follower", 10, **stores) for number in (1, 2)]
    run = record(nodes=(leader, *followers))
    shares = resources.utilisations(run, MODELLED)
    assert shares == pytest.approx(
        {"leader.cpu": 0.5, "n1.cpu": 0, "n1.storage": 0.75, "n2.cpu": 0, "n2.storage": 0.75}
    )
    assert resources.bottleneck([shares], 600.0) == {
        "resource": "n1.storage",
        "utilisation": pytest.approx(0.75),
        "saturates_at_ops": pytest.approx(800),
    }
    idle = {"resource": "n0.cpu", "utilisation": 0.0, "saturates_at_ops": None}
    assert resources.bottleneck([{"n0.cpu": 0.0}], 600.0) == idle
    assert resources.bottleneck([{}]) is None
    assert list(resources.mean_utilisations([{"a": 0.1, "b": 0.5}, {"b": 0.3}])) == ["b", "a"]


def test_measured_costs_use_the_process() -> None:
    run = record(nodes=(node(0, "", 10, process_cpu_ns=6 * NS_PER_S),))
    assert resources.utilisations(run, MEASURED) == {"n0.cpu": 0.75}


def test_a_cut_interval_counts_by_its_share() -> None:
    run = record(warmup_ns=INTERVAL_NS // 4, end_ns=2 * INTERVAL_NS + INTERVAL_NS // 2)
    counts = numpy.array([100, 10, 4, 1000])
    assert resources.within_window(run, counts) == pytest.approx(75 + 10 + 2)


def test_cache_hits_of_the_window_only() -> None:
    caching = node(0, "", 10, cache_hits=3, cache_misses=1, cache_evictions=2)
    caching.cache_misses[:20] = caching.cache_evictions[:20] = 1000  # the warm-up
    idle = node(1, "", 10)
    found = resources.cache([record(nodes=(caching, idle))])
    assert found["hit_ratio"] == pytest.approx(0.75)
    assert found["evictions"] == 2 * (len(caching.cache_hits) - 20)
    unused = {"hit_ratio": None, "client_hit_ratio": None, "evictions": None}
    assert resources.cache([record(nodes=(idle,))]) == unused


def test_balance() -> None:
    """Jain's index of 1 and 3: 16 / (2 x 10)."""
    run = record(nodes=(node(0, "", 10, operations=1), node(1, "", 10, operations=3)))
    assert resources.balance(run) == pytest.approx({"jain": 0.8, "max_over_mean": 1.5})
    assert resources.balance(record(nodes=(node(0, "", 10),)))["jain"] is None


@pytest.mark.parametrize(
    ("setting", "price"),
    [
        ({"memory": 3 * GIB}, 2 * 4 * 0.5 + 3 * 0.1),
        ({"cache": "1GiB"}, 2 * 4 * 0.5 + 2 * 0.1),
        ({"cache": 1 << 20}, 2 * 4 * 0.5 + 2 * 0.1),
        ({}, 2 * 4 * 0.5),
    ],
)
def test_cost(setting: Mapping[str, Any], price: float) -> None:
    """Entries of 1 KiB: 2^20 of them make a GiB."""
    run = record(
        steady(1000, 10 * NS_PER_S, size=1024),
        nodes=tuple(node(number, "", 10, cores=4) for number in range(2)),
    )
    settings = config(prices=Prices(core=0.5, GiB=0.1), **setting)
    assert resources.cost_per_hour(run, settings) == pytest.approx(price)


# --- validity ---------------------------------------------------------------------------


def reasons(run: RunRecord, settings: Config | None = None, verdict: str = VALID) -> list[str]:
    window = measured_window(run, TIMEOUT_NS)
    return validity.invalid_reasons(window, settings or config(), claims(verdict))


def test_a_good_run_is_valid() -> None:
    assert reasons(record()) == []
    assert reasons(record(), config(MEASURED)) == []
    window = measured_window(record(offered_ops=None), TIMEOUT_NS)
    assert validity.invalid_reasons(window, config(), None) == []


def late(total_s: float) -> ProcessUsage:
    """Its waits ended so much late, all in all."""
    return ProcessUsage(0, 0, 0, 0, 0, round(total_s * NS_PER_S), 0, 0, 0, 0, 0)


LATE = numpy.full(1000, 2 * NS_PER_MS)

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "lag": ({"clients": (generator(lag_ns=LATE),)}, "p99 of 2.000 ms where 1.000 ms"),
    "too slow": ({"offered_ops": 1200.0}, "1000.0 operations/s where 1200.0/s"),
    "too fast": ({"offered_ops": 900.0}, "1000.0 operations/s where 900.0/s"),
    "generator": ({"clients": (generator(), generator(process_cpu_ns=76 * 10**8))}, "95%"),
    "lost": ({"lost_parts": ("client 1", "node 2")}, "2 measuring parts.*client 1, node 2"),
    "few": ({"history": steady(100, 10 * NS_PER_S), "offered_ops": None}, "only 80 operations"),
    "lateness": (
        {"clients": (generator(usage=late(0.3)), generator(usage=late(0.6)))},
        "late by 0.113 ms an operation, 11% of the median",
    ),
    "emulation": ({"host_loads": (HostRecord("h", busy=0.97),)}, "97% busy; above 95%"),
}


@pytest.mark.parametrize("name", BAD)
def test_each_rule_fires_alone(name: str) -> None:
    changes, sentence = BAD[name]
    found = reasons(record(**changes))
    assert len(found) == 1
    assert re.search(sentence, found[0])


@pytest.mark.parametrize("verdict", [INVALID, UNDECIDED])
def test_a_claim_that_is_not_valid_makes_the_run_invalid(verdict: str) -> None:
    assert reasons(record(), verdict=verdict) == [
        f"consistency linearizable must be valid and is {verdict} over 9000 operations: So."
    ]


def test_waits_may_end_a_little_late_and_measured_costs_have_none() -> None:
    little, much = (record(clients=(generator(usage=late(total_s)),)) for total_s in (0.7, 0.9))
    assert reasons(little) == []
    assert reasons(much, config(MEASURED)) == []
    assert len(reasons(much)) == 1


def test_lag_is_measured_against_the_latency() -> None:
    slow = steady(10_000, 10 * NS_PER_S, 30 * NS_PER_MS)
    assert reasons(record(slow, clients=(generator(lag_ns=LATE),))) == []


@pytest.mark.parametrize(
    ("changes", "costs", "broken"),
    [
        ({}, MODELLED, False),
        # It is not there in time: nothing waits for it, or somewhere else, or not all does.
        ({"asked_ns": 0}, MODELLED, True),
        ({"stamped": False}, MODELLED, True),
        ({"source": "n1"}, MODELLED, True),
        ({}, MEASURED, True),
    ],
)
def test_lag_is_made_up_where_operations_wait_at_their_nodes(
    changes: dict[str, Any], costs: str, broken: bool
) -> None:
    link = dataclasses.replace(probed("client 0", 0), asked_ns=NS_PER_MS, stamped=True)
    other = dataclasses.replace(link, **changes)
    links = (other,) if changes.get("source") else (link, other, probed("n0", 0))
    run = record(clients=(generator(lag_ns=LATE),), links=links)
    found = [each for each in reasons(run, config(costs)) if "sent late" in each]
    assert bool(found) is broken
    much = record(clients=(generator(lag_ns=3 * LATE),), links=links)
    assert any("sent late" in each for each in reasons(much, config(costs)))


def test_a_short_poisson_run_is_not_blamed_for_chance() -> None:
    assert reasons(record(steady(1100, 10 * NS_PER_S), offered_ops=100.0)) == []


def test_a_full_host_limits_measured_runs_and_spoils_modelled_ones() -> None:
    full = record(host_loads=(HostRecord("h", busy=0.99),))
    assert validity.host_limited(full, config(MEASURED))
    assert reasons(full, config(MEASURED)) == []
    assert not validity.host_limited(full, config(MODELLED))
    assert not validity.host_limited(record(), config(MEASURED))
    assert reasons(dataclasses.replace(full, runtime="sim", clock="virtual")) == []


# --- objective --------------------------------------------------------------------------


def violated(objective: Slo, latency_ms: NDArray[Any], **outcomes: int) -> list[str]:
    reads = LatencyHistogram.of((latency_ms * NS_PER_MS).astype(numpy.int64))
    parts = {"all": reads, "read": reads, "write": LatencyHistogram(), "scan": LatencyHistogram()}
    counts = {"ok": len(latency_ms), "fail": 0, "unknown": 0} | outcomes
    judged = slo.judge(objective, parts, counts)
    assert judged["met"] is (not judged["violations"])
    return [violation["metric"] for violation in judged["violations"]]


def test_objective_on_latency() -> None:
    latency = numpy.arange(1, 1001)
    wide, narrow = 995 * NS_PER_MS, 980 * NS_PER_MS
    assert violated(Slo(p99=wide), latency) == []
    assert violated(Slo(p99=narrow, max=narrow, p50=wide), latency) == ["p99", "max"]
    assert violated(Slo(read=LatencyBounds(p999=narrow)), latency) == ["read.p999"]
    assert violated(Slo(write=LatencyBounds(p50=1)), latency) == []


def test_objective_on_errors() -> None:
    latency = numpy.ones(1000)
    assert violated(Slo(error_rate=0.01), latency, ok=990, fail=6, unknown=4) == []
    assert violated(Slo(error_rate=0.01), latency, ok=989, fail=6, unknown=5) == ["error_rate"]
    assert violated(Slo(error_rate=0.0), latency) == []


def test_no_objective_is_neither_met_nor_missed() -> None:
    assert summary_of(record())["slo"] == {"met": None, "violations": [], "windows": None}


def test_objective_counts_failures_at_the_timeout() -> None:
    outcome = numpy.where(numpy.arange(10_000) % 50 == 0, FAIL, OK)
    objective = Slo(p99=20 * NS_PER_MS, error_rate=0.001)
    found = summary_of(
        record(steady(10_000, 10 * NS_PER_S, outcome=outcome)), config(slo=objective)
    )
    assert found["slo"] == {
        "met": False,
        "violations": [
            {"metric": "p99", "bound": 20.0, "value": 1000.0, "unit": "ms", "reason": None},
            {
                "metric": "error_rate",
                "bound": 0.001,
                "value": 0.02,
                "unit": "ratio",
                "reason": None,
            },
        ],
        "windows": None,
    }
    assert found["outcomes"] == {"ok": 7840, "fail": 160, "unknown": 0}
    assert found["availability"] == pytest.approx(0.98)
    assert found["goodput_ops"] == pytest.approx(980, rel=1e-3)


def test_good_operations_by_kind() -> None:
    objective = Slo(p50=5, p99=20, max=90, read=LatencyBounds(max=10))
    kind = numpy.array([READ, READ, WRITE, WRITE], dtype=numpy.uint8)
    latency_ns = numpy.array([10, 11, 20, 21])
    assert good(objective, kind, latency_ns).tolist() == [True, False, True, False]
    assert good(Slo(), kind, numpy.full(4, 2**40)).all()
    tenants = {"gold": TenantBounds(p50=9, p99=10), "free": TenantBounds(error_rate=0.1)}
    of_tenants = dataclasses.replace(objective, tenants=tenants)
    assert good(of_tenants, kind, latency_ns, "gold").tolist() == [True, False, False, False]
    for name in ("free", "lab"):
        assert good(of_tenants, kind, latency_ns, name).tolist() == [True, False, True, False]


# --- what measuring takes -----------------------------------------------------------------


def probed(source: str, *excesses_us: float) -> LinkRecord:
    excesses_ns = tuple(1000 * each for each in sorted(excesses_us))
    return LinkRecord(source, "n1", 0.0, 0.0, excesses_ns[0], len(excesses_ns), excesses_ns)


def test_the_floor_is_a_hop_of_the_client_and_one_of_the_node_that_replicates() -> None:
    client, peer = probed("client 0", 10, 20, 60), probed("n0", 5, 5, 5)
    alone, both = record(links=(client,)), record(links=(client, peer))
    assert harness.floor_ns([alone], 0.5) == 40_000
    assert harness.floor_ns([both], 0.5) == 50_000
    assert harness.harness([both], 100, 2.0) == {
        "floor_ms": pytest.approx(0.05),
        "floor_p99_ms": pytest.approx(0.13),
        "share": pytest.approx(0.025),
        "late_ms": 0,
    }
    # What is too early is off, too.
    assert harness.floor_ns([record(links=(probed("client 0", -30),))], 0.5) == 60_000
    assert harness.harness([record()], 100, 2.0) is None


@pytest.mark.parametrize(
    ("floor_us", "costs", "broken"),
    [(49, MODELLED, False), (51, MODELLED, True), (400, MEASURED, False)],
)
def test_modelled_costs_must_be_well_above_the_floor(
    floor_us: float, costs: str, broken: bool
) -> None:
    run = record(links=(probed("client 0", floor_us),))
    found = summary_of(run, config(costs))
    reasons = [each for each in found["invalid_reasons"] if "null operation" in each]
    assert bool(reasons) is broken
    assert found["harness"]["share"] == pytest.approx(2 * floor_us / 1000)
    if broken:
        assert "off by 0.102 ms, 10% of the median" in reasons[0]
