"""How many independent operations a percentile rests on, and what is withheld for want of them."""

from __future__ import annotations

import numpy
import pytest
from made_records import config, record, steady, summary_of
from numpy.typing import NDArray

from orchestrator.analysis.effective import effective_beyond, enough, withheld
from orchestrator.analysis.latency import QUANTILES
from orchestrator.analysis.summary import pool
from orchestrator.config.schema import LatencyBounds, Slo
from orchestrator.core.machine import READ, WRITE
from orchestrator.core.randomness import block_stream
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.study.verdict import judged


def queue(load: float, count: int, name: str) -> NDArray[numpy.int64]:
    """Sojourn times of an M/M/1 (Lindley's recursion), service of 1 ms."""
    chance = block_stream(11, name)
    gap, service = chance.exponential(1 / load, count), chance.exponential(1.0, count)
    walk = numpy.concatenate([[0.0], numpy.cumsum(service[:-1] - gap[1:])])
    sojourn = walk - numpy.minimum.accumulate(walk) + service
    return (sojourn * NS_PER_MS).astype(numpy.int64)


def test_wilks() -> None:
    """Wilks 1941: 299 for 95/99; the first of each that gives an upper bound."""
    for name, least in (("p50", 5), ("p90", 29), ("p99", 299), ("p999", 2995)):
        assert enough(least, QUANTILES[name]) and not enough(least - 1, QUANTILES[name])
    assert not enough(0, 500)


def test_independent_operations_count_whole() -> None:
    latency_ns = block_stream(3, "independent").exponential(1e6, 50_000).astype(numpy.int64)
    found = effective_beyond(latency_ns, QUANTILES)
    for name, whole in (("p50", 25_000), ("p90", 5000), ("p99", 500), ("p999", 50)):
        assert 0.5 * whole <= found[name] <= whole
    assert set(effective_beyond(numpy.full(1000, 5), QUANTILES).values()) == {500, 100, 10, 1}
    assert set(effective_beyond(numpy.empty(0, numpy.int64), QUANTILES).values()) == {0.0}


def test_clusters_count_as_often_as_they_come() -> None:
    """A stall of fifty operations is one event: the p99 of 20 stalls rests on about 20."""
    latency_ns = numpy.full(100_000, NS_PER_MS)
    starts = block_stream(5, "stalls").choice(1999, 20, replace=False) * 50
    for start in starts.tolist():
        latency_ns[start : start + 50] = numpy.arange(50)[::-1] + 9 * NS_PER_MS
    assert 10 <= effective_beyond(latency_ns, {"p99": 990})["p99"] <= 40


def test_a_busy_queue_has_few() -> None:
    """The variance of what is estimated says how many there are: over 200 runs, of the p90."""
    runs = [queue(0.8, 5000, f"run/{number}") for number in range(200)]
    level = 2.302585 / 0.2 * NS_PER_MS  # Kleinrock: exponential with mean 1 / (mu - lambda)
    beyond = numpy.array([(run > level).mean() for run in runs])
    true = beyond.mean() * (1 - beyond.mean()) / beyond.var(ddof=1) * 0.1
    found = numpy.median([effective_beyond(run, {"p90": 900})["p90"] for run in runs])
    assert true / 2 < found < true * 2
    assert true < 20


def test_what_is_withheld_says_why() -> None:
    assert withheld(500, 990) is None and withheld(500, 990, 4.0) is None
    assert "of 100 operations 1.0 lie beyond it where 3.0" in str(withheld(100, 990))
    assert "as good as 1.1 independent operations where 2" in str(withheld(500, 990, 1.1))


STALL_NS = numpy.where(numpy.arange(10_000) // 150 == 20, 50, 1) * NS_PER_MS


def test_one_stall_is_no_percentile() -> None:
    """All that lies beyond the p99 is one event: the p99 is not given, and what it is bad for."""
    bounds = Slo(p50=5 * NS_PER_MS, p99=100 * NS_PER_MS, max=100 * NS_PER_MS)
    found = summary_of(record(steady(10_000, 10 * NS_PER_S, STALL_NS)), config(slo=bounds))
    assert found["latency_effective_samples"]["p99"] < 1.25
    assert found["latency_ms"]["all"]["p99"] is None and found["latency_p99_ci95_ms"] is None
    assert found["latency_ms"]["all"]["p50"] == pytest.approx(1, rel=1e-3)
    [violation] = found["slo"]["violations"]
    assert violation["metric"] == "p99" and violation["value"] is None
    assert "independent operations" in violation["reason"]
    [reason] = found["invalid_reasons"]
    assert reason.startswith("the objective names p99, which cannot be given")
    asked = config(slo=bounds)
    state, constraints = judged(found, asked, asked.tune.objectives[0])
    assert state["state"] == "infeasible" and constraints["slo.p99"] > 0


def test_kinds_go_by_their_counts() -> None:
    kinds = numpy.where(numpy.arange(10_000) % 100 == 0, WRITE, READ)
    whole = record(steady(10_000, 10 * NS_PER_S, kind=kinds))
    bounds = Slo(write=LatencyBounds(p50=5 * NS_PER_MS, p99=5 * NS_PER_MS))
    found = summary_of(whole, config(slo=bounds))
    assert found["latency_ms"]["write"]["p99"] is None
    assert found["latency_ms"]["write"]["p50"] == found["latency_ms"]["read"]["p99"] == 1.0
    assert [each["metric"] for each in found["slo"]["violations"]] == ["write.p99"]
    assert len(found["invalid_reasons"]) == 1 and "write.p99" in found["invalid_reasons"][0]


def test_repeats_add_up() -> None:
    run = record(steady(10_000, 10 * NS_PER_S, STALL_NS))
    alone = summary_of(run)
    every = pool([alone] * 3, [run] * 3, config())
    assert every["latency_effective_samples"]["p99"] == pytest.approx(
        3 * alone["latency_effective_samples"]["p99"]
    )
    assert every["latency_ms"]["all"]["p99"] == pytest.approx(50, rel=1e-3)
