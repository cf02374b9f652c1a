"""Latencies, intervals and series of one run, against published values and numpy."""

from __future__ import annotations

import dataclasses
import math

import numpy
import pytest
from made_records import TIMEOUT_NS, history, node, record, skewed, steady
from numpy.typing import NDArray

from orchestrator.analysis import intervals
from orchestrator.analysis.latency import (
    LatencyHistogram,
    histograms,
    latencies_ns,
    measured_window,
    quantile_ns,
    uncorrected_ns,
)
from orchestrator.analysis.series import balance_series, client_series, node_series
from orchestrator.config.schema import Slo
from orchestrator.core.history import NEVER
from orchestrator.core.machine import FAIL, OK, UNKNOWN
from orchestrator.core.randomness import block_stream
from orchestrator.core.record import INTERVAL_NS
from orchestrator.core.units import NS_PER_MS, NS_PER_S

# --- coordinated omission ---------------------------------------------------------------


def test_stall_from_intended_starts() -> None:
    """Gil Tene's stall: 1 ms every 10 ms for 100 s, then 100 s of silence."""
    before, stalled = (
        numpy.full(10_000, NS_PER_MS),
        (10_000 - numpy.arange(10_000)) * 10 * NS_PER_MS,
    )
    latency = numpy.concatenate([before, stalled])
    intended = numpy.arange(20_000) * 10 * NS_PER_MS
    returned = intended + latency
    previous = numpy.concatenate([[NEVER], returned[:-1]])
    stall = history(20_000, intended_ns=intended, returned_ns=returned, previous_return_ns=previous)

    figures = LatencyHistogram.of(latencies_ns(stall, 200 * NS_PER_S)).figures_ms()
    corrected = LatencyHistogram.of(latencies_ns(stall, 200 * NS_PER_S))
    assert figures["count"] == 20_000
    assert figures["p50"] == pytest.approx(1, rel=1e-3)
    assert corrected.quantile_ns(750) == pytest.approx(50 * NS_PER_S, rel=1e-3)
    assert figures["p90"] == pytest.approx(80_000, rel=1e-3)
    assert figures["p99"] == pytest.approx(98_000, rel=1e-3)
    assert figures["mean"] == pytest.approx(25_003, rel=1e-5)
    assert quantile_ns(uncorrected_ns(stall, 200 * NS_PER_S), 990) == NS_PER_MS


def test_stall_as_a_closed_tool_saw_it() -> None:
    """The same stall by a tool that waits: 10,001 operations, mean 10.9989 ms."""
    latency = numpy.append(numpy.full(10_000, NS_PER_MS), 100 * NS_PER_S)
    seen = LatencyHistogram.of(latency)
    assert seen.quantile_ns(990) == pytest.approx(NS_PER_MS, rel=1e-3)
    assert seen.mean_ns == pytest.approx(10.9989 * NS_PER_MS, rel=1e-5)


def test_stall_by_the_librarys_own_expansion() -> None:
    """HdrHistogram's correction of the closed tool's figures: mean 25.0005 s within 0.1 %."""
    raw = LatencyHistogram()
    raw.histogram.record_value(NS_PER_MS, 10_000)
    raw.histogram.record_corrected_value(100 * NS_PER_S, 10 * NS_PER_MS)
    expanded = LatencyHistogram.decode(raw.encode())
    assert expanded.count == 20_000
    assert expanded.mean_ns == pytest.approx(25.0005 * NS_PER_S, rel=1e-3)
    for thousandths, seconds in ((500, 0.001), (750, 50), (900, 80), (990, 98)):
        assert expanded.quantile_ns(thousandths) == pytest.approx(seconds * NS_PER_S, rel=1e-3)


# --- latency ----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 1000, 50_000])
def test_percentiles_against_numpy(count: int) -> None:
    latency = skewed(count)
    figures = LatencyHistogram.of(latency).figures_ms()
    for name, quantile in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)):
        truth = numpy.quantile(latency, quantile, method="inverted_cdf") / NS_PER_MS
        if count * math.log(quantile) <= math.log(0.05):
            assert truth <= (figures[name] or 0) <= truth * 1.001 + 1e-6
        else:
            assert figures[name] is None
        assert quantile_ns(latency, round(quantile * 1000)) == pytest.approx(truth * NS_PER_MS)
    assert figures["count"] == count
    assert figures["max"] == latency.max() / NS_PER_MS
    assert figures["mean"] == pytest.approx(latency.mean() / NS_PER_MS, rel=1e-12)


def test_vectorised_recording_is_the_librarys() -> None:
    latency = numpy.concatenate([skewed(2000), [0, 1, 2047, 2048, 2049, 4095, 4096, 2**40 - 1]])
    ours, theirs = LatencyHistogram.of(latency), LatencyHistogram()
    for value in latency.tolist():
        theirs.histogram.record_value(value)
    assert ours.buckets() == theirs.buckets()
    assert ours.histogram.max_value == theirs.histogram.max_value


def test_merging_loses_nothing() -> None:
    parts = [skewed(5000, f"client {client}") for client in range(3)]
    merged = LatencyHistogram.merged(LatencyHistogram.of(part) for part in parts)
    at_once = LatencyHistogram.of(numpy.concatenate(parts))
    assert merged.buckets() == at_once.buckets()
    assert merged.figures_ms() == at_once.figures_ms()


def test_payload_keeps_the_counts() -> None:
    original = LatencyHistogram.of(skewed(5000))
    decoded = LatencyHistogram.decode(original.encode())
    assert decoded.buckets()[1] == original.buckets()[1]
    assert decoded.quantile_ns(990) == original.quantile_ns(990)
    assert decoded.mean_ns == pytest.approx(original.mean_ns, rel=1e-3)
    assert decoded.max_ns == pytest.approx(original.max_ns, rel=1e-3)
    assert LatencyHistogram.decode(LatencyHistogram().encode()).count == 0


def test_equal_latencies_are_exact() -> None:
    figures = LatencyHistogram.of(numpy.full(300, 1_234_567)).figures_ms()
    assert {figures[name] for name in ("mean", "p50", "p99", "max")} == {1.234567}


def test_no_latency_has_no_figure() -> None:
    figures = LatencyHistogram().figures_ms()
    assert figures.pop("count") == 0
    assert set(figures.values()) == {None}


def test_what_was_not_answered_counts_at_the_timeout() -> None:
    rows = history(
        4,
        intended_ns=[0, 0, 0, 0],
        returned_ns=[5, 7, NEVER, 3 * NS_PER_S],
        outcome=[OK, FAIL, UNKNOWN, UNKNOWN],
    )
    expected = [5, TIMEOUT_NS, TIMEOUT_NS, 3 * NS_PER_S]
    assert latencies_ns(rows, TIMEOUT_NS).tolist() == expected


def test_the_window_goes_by_intention_and_throughput_by_return() -> None:
    intended = numpy.array([-1, 0, 1, 9, 9]) * NS_PER_S + 2 * NS_PER_S
    returned = numpy.array([1, 1, 9, 9, 3]) * NS_PER_S
    rows = history(5, intended_ns=intended - NS_PER_S, returned_ns=returned, kind=[0, 1, 0, 0, 1])
    window = measured_window(record(rows, warmup_ns=NS_PER_S, end_ns=3 * NS_PER_S), TIMEOUT_NS)
    assert window.latency_ns.tolist() == [0, 7 * NS_PER_S]
    assert window.completed_ns.tolist() == [NS_PER_S, NS_PER_S]
    assert {name: found.count for name, found in histograms(window).items()} == {
        "all": 2, "read": 1, "write": 1, "scan": 0,
    }  # fmt: skip


# --- intervals --------------------------------------------------------------------------


def test_student_interval() -> None:
    """1 2 3 4 5: mean 3, s = 1.5811, t(4, .975) = 2.7764 (tables): half width 1.9632."""
    low, high = intervals.student_interval([1, 2, 3, 4, 5]) or (0, 0)
    assert (low, high) == pytest.approx((3 - 1.96324, 3 + 1.96324), abs=1e-4)
    assert intervals.student_interval([3.0]) is None


def test_throughput_intervals_cover() -> None:
    """Poisson completions: about 95 of 100 intervals hold the true rate."""
    chance, covered = block_stream(3, "coverage"), 0
    for _ in range(200):
        returned_ns = numpy.sort(chance.integers(0, 10 * NS_PER_S, chance.poisson(5000)))
        found = intervals.throughput_interval_ops(returned_ns, 0, 10 * NS_PER_S)
        assert found is not None
        covered += found[0] <= 500 <= found[1]
    assert 180 <= covered <= 199


@pytest.mark.parametrize("per_mille", [500, 990])
def test_intervals_of_quantiles_cover(per_mille: int) -> None:
    """Independent latencies, and those of M/M/1 at half of its capacity, which are not: sojourn
    times are exponential, too, with mean 1 / (1 - rho) service times.
    """
    truth = -math.log(1 - per_mille / 1000)
    covered = {"independent": 0, "queue": 0}
    for seed in range(200):
        chance = block_stream(seed, "coverage")
        for name, latency in (
            ("independent", chance.exponential(1.0, 20_000)),
            ("queue", sojourn_times(chance, 0.5, 20_000) / 2),
        ):
            latency_ns = (latency * NS_PER_MS).astype(numpy.int64)
            found = intervals.quantile_intervals_ns(latency_ns, {"one": per_mille})["one"]
            assert found is not None
            covered[name] += found[0] <= truth * NS_PER_MS <= found[1]
    assert all(180 <= count <= 199 for count in covered.values()), covered


def sojourn_times(
    chance: numpy.random.Generator, load: float, count: int
) -> NDArray[numpy.float64]:
    """In service times, by Lindley's recursion from an empty queue, the first tenth left out."""
    extra = count // 10
    gaps = chance.exponential(1 / load, count + extra)
    services = chance.exponential(1.0, count + extra)
    walk = numpy.concatenate([[0.0], numpy.cumsum(services[:-1] - gaps[1:])])
    waits = walk - numpy.minimum.accumulate(walk)
    found: NDArray[numpy.float64] = (waits + services)[extra:]
    return found


def test_too_few_samples_have_no_interval() -> None:
    for count, per_mille in ((2000, 990), (20_000, 999), (40, 500), (200, 100)):
        for these, known in ((count, True), (count - 10, False)):
            found = intervals.quantile_intervals_ns(skewed(these), {"one": per_mille})
            assert (found["one"] is not None) == known
    assert intervals.throughput_interval_ops(numpy.arange(99), 0, 100) is None
    assert intervals.throughput_interval_ops(numpy.arange(100), 0, 100) is not None


# --- series -----------------------------------------------------------------------------


def test_client_series() -> None:
    intended = numpy.array([0, 50, 110, 120, 190, 240]) * NS_PER_MS
    latency = numpy.array([10, 60, 5, 0, 30, 20]) * NS_PER_MS
    rows = history(
        6,
        intended_ns=intended,
        returned_ns=numpy.where(numpy.arange(6) == 3, NEVER, intended + latency),
        outcome=[OK, OK, OK, UNKNOWN, FAIL, OK],
    )
    run = record(rows, warmup_ns=100 * NS_PER_MS, end_ns=250 * NS_PER_MS)
    columns = client_series(run, TIMEOUT_NS, Slo(p99=20 * NS_PER_MS))
    assert columns == {
        "start_s": [0.0, 0.1, 0.2],
        "duration_s": pytest.approx([0.1, 0.1, 0.05]),
        "intended": [2, 3, 1],
        "ok": [2, 1, 1],
        "fail": [0, 1, 0],
        "unknown": [0, 1, 0],
        "throughput_ops": pytest.approx([10, 20, 0]),
        "goodput_ops": pytest.approx([10, 10, 0]),
        "p50_ms": [10.0, 1000.0, 20.0],
        "p99_ms": [60.0, 1000.0, 20.0],
        "phase": ["warmup", "run", "run"],
    }


def test_series_quantiles_against_numpy() -> None:
    latency = skewed(5000)
    columns = client_series(record(steady(5000, 10 * NS_PER_S, latency)), TIMEOUT_NS, Slo())
    for number, chunk in enumerate(latency.reshape(100, 50)):
        for name, quantile in (("p50_ms", 0.5), ("p99_ms", 0.99)):
            truth = numpy.quantile(chunk, quantile, method="inverted_cdf")
            assert columns[name][number] == truth / NS_PER_MS


def test_intervals_without_operations_have_no_quantile() -> None:
    run = record(history(0), warmup_ns=0, end_ns=2 * INTERVAL_NS)
    columns = client_series(run, TIMEOUT_NS, Slo())
    assert columns["intended"] == [0, 0] and columns["p99_ms"] == [None, None]


def test_balance_series() -> None:
    even, late = node(0, "a", 1, operations=30), node(1, "b", 1, operations=30)
    uneven = dataclasses.replace(late, operations=numpy.array([30, 10, 0, 50, 50, 50]))
    idle = dataclasses.replace(even, operations=numpy.array([30, 30, 0, 0, 50, 50, 9]))
    run = record(nodes=(idle, uneven), warmup_ns=0, end_ns=4 * INTERVAL_NS + 1)
    columns = balance_series(run)
    # One node of two: 1/2; shares of 3/4 and 1/4: 16 / (2 * 10).
    assert columns["jain"] == [1.0, pytest.approx(0.8), None, 0.5, 1.0]
    assert columns["max_over_mean"] == [1.0, 1.5, None, 2.0, 1.0]
    # A node that ended early has done nothing since.
    short = dataclasses.replace(
        run, nodes=(dataclasses.replace(idle, operations=numpy.ones(2, dtype=numpy.int64)), even)
    )
    assert balance_series(short)["jain"][2:] == [0.5] * 3
    assert balance_series(dataclasses.replace(run, nodes=()))["jain"] == [None] * 5


def test_node_series() -> None:
    busy = {"cpu_busy_ns": INTERVAL_NS, "cores": 2, "cache_hits": 3}
    limited = {"storage_busy_ns": INTERVAL_NS, "storage_parallel": 4}
    columns = node_series([node(0, "a", 1, **busy), node(1, "b", 1, **limited)])
    assert {len(column) for column in columns.values()} == {20}
    assert columns["node"] == [0] * 10 + [1] * 10
    assert columns["start_s"][9:11] == pytest.approx([0.9, 0.0])
    assert columns["cpu_utilisation"][0] == 0.5
    assert columns["storage_utilisation"][9:11] == [None, 0.25]
    assert columns["cache_hits"][0] == 3
