"""Where a run becomes steady, whether it stays so, and what comes back in it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy
import pytest
from made_records import TIMEOUT_NS, config, generator, history, node, record, steady, summary_of
from numpy.typing import NDArray
from small_runs import small

from orchestrator.analysis.latency import measured_window
from orchestrator.analysis.rules.stationarity import stationarity_reasons, why_unsteady
from orchestrator.analysis.steady_state import drift, mser5, period_bins, warmup
from orchestrator.analysis.warmup import settled
from orchestrator.config.load import load_mapping
from orchestrator.config.render import render_yaml
from orchestrator.config.schema import Config
from orchestrator.core.history import PHASE_RUN, PHASE_WARMUP
from orchestrator.core.randomness import block_stream
from orchestrator.core.record import RunRecord
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.errors import ConfigError
from orchestrator.plan import plan
from orchestrator.run import Runner, execute

QUEUE: dict[str, Any] = {
    "runtime": "sim",
    "system": {
        "protocol": {"name": "unreplicated"},
        "node": {"cpu": {"read": {"name": "exponential", "mean": "1ms"}}},
        "network": {"delay": "0us"},
    },
    "workload": {"name": "ycsb", "mix": "c", "keys": 100},
    "arrival": {"name": "poisson", "rate": "900/s"},
    "client": {"timeout": "60s"},
    "warmup": "auto",
    "duration": "10s",
}


def noisy(level: NDArray[Any], name: str, share: float = 0.2) -> NDArray[Any]:
    return level * (1 + share * block_stream(4, name).uniform(-1, 1, len(level)))


# --- warm-up ----------------------------------------------------------------------------


def test_mser5_cuts_what_is_not_steady() -> None:
    """A level that falls by half over the first tenth, exponentially."""
    level = 1e6 * (1 + numpy.exp(-numpy.arange(10_000) / 250))
    cut = mser5(noisy(level, "falling").astype(numpy.int64), 5000)
    assert cut is not None and 500 <= cut <= 1500
    assert cut % 5 == 0
    flat = mser5(noisy(numpy.full(10_000, 1e6), "flat").astype(numpy.int64), 5000)
    assert flat is not None and flat <= 500
    assert mser5(numpy.arange(99), 50) is None and warmup(numpy.arange(99), 50) is None


@pytest.mark.parametrize(("amount", "lasts"), [(0.5, 0.1), (1.0, 0.2), (3.0, 0.02), (3.0, 0.1)])
def test_most_of_a_transient_is_cut(amount: float, lasts: float) -> None:
    """Of exponential latencies whose mean falls exponentially to a level."""
    place = numpy.arange(10_000) / 10_000
    noise = block_stream(2, f"{amount}/{lasts}").exponential(1e6, 10_000)
    values = ((1 + amount * numpy.exp(-place / lasts)) * noise).astype(numpy.int64)
    cut = warmup(values, 3333)
    assert cut is not None and 0 < cut <= 3333
    assert values[cut:].mean() / 1e6 - 1 < 0.8 * (values.mean() / 1e6 - 1)


def test_mser5_is_its_definition() -> None:
    values = noisy(1e3 + 1e3 * numpy.exp(-numpy.arange(400) / 40), "short").astype(numpy.int64)
    batches = values.reshape(80, 5).mean(axis=1)
    wanted = min(range(41), key=lambda d: batches[d:].var() / (80 - d))
    assert mser5(values, 200) == 5 * wanted > 0
    # No more is cut than may be.
    assert mser5(values, 5 * wanted // 2) == 5 * (wanted // 2)


def test_a_queue_that_starts_empty() -> None:
    """M/M/1 at rho .9: the mean sojourn is 10 service times, and the beginning is below it."""
    for seed in range(1, 4):
        parts = plan(load_mapping(QUEUE, f"seed={seed}"))
        run = execute(parts)
        window = measured_window(run, parts.config.client.timeout)
        assert stationarity_reasons(window, parts.config) == []
        assert run.warmup_ns <= parts.lead_ns and run.end_ns - run.warmup_ns >= 10 * NS_PER_S
    means, plain = [], []
    for number in range(200):
        values = queue(0.9, 5, number, before_s=0).history
        sojourn_ns = values.returned_ns - values.intended_ns
        cut = warmup(sojourn_ns, len(sojourn_ns) // 3)
        assert cut is not None
        means.append(sojourn_ns[cut:].mean() / NS_PER_MS)
        first = mser5(sojourn_ns, len(sojourn_ns) // 3)
        plain.append(sojourn_ns[first:].mean() / NS_PER_MS)
    assert numpy.mean(means) == pytest.approx(10, rel=0.05)
    # MSER-5 alone prefers runs whose first busy spell is gone.
    assert numpy.mean(plain) < 0.98 * numpy.mean(means)


COLD: dict[str, Any] = {
    "system": {
        "protocol": {"name": "unreplicated"},
        "cache": {"name": "lru", "size": 2000, "warm": False},
        "node": {"cpu": {"read": "50us"}, "storage": {"read": "2ms", "parallel": 2}},
    },
    "workload": {"name": "ycsb", "mix": "c", "keys": 20_000, "distribution": "zipfian"},
    "arrival": {"name": "poisson", "rate": "2000/s"},
}


def test_a_cache_that_starts_cold() -> None:
    """Its misses fill the storage's queue, which is empty again once the hot keys are there."""

    def mean_ms(*overrides: str) -> tuple[float, RunRecord]:
        parts = plan(load_mapping(QUEUE | COLD, *overrides))
        run = execute(parts)
        return measured_window(run, TIMEOUT_NS).latency_ns.mean() / NS_PER_MS, run

    long_run, _ = mean_ms("warmup=10s")
    cold, _ = mean_ms("warmup=0s")
    found, run = mean_ms()
    assert 0.05 * NS_PER_S < run.warmup_ns < 5 * NS_PER_S
    assert abs(found / long_run - 1) < 0.1 < abs(cold / long_run - 1)


def test_all_agree_where_the_window_begins(tmp_path: Any) -> None:
    with Runner(tmp_path) as runner:
        done = runner.run(load_mapping(QUEUE | COLD, "duration=3s"))
        [row] = runner.store.table("runs").to_pylist()
    run, summary = done.record, done.summary
    warmup_ns = run.warmup_ns
    assert warmup_ns > 0 and run.end_ns == 4.5 * NS_PER_S
    assert summary["steady_state"]["warmup_s"] == row["warmup_s"] == warmup_ns / NS_PER_S
    assert summary["steady_state"]["method"] == "mser-5"
    within = run.history.intended_ns >= warmup_ns
    assert (run.history.phase[within] == PHASE_RUN).all()
    assert (run.history.phase[~within] == PHASE_WARMUP).all()
    assert summary["latency_ms"]["all"]["count"] == int(within.sum())
    rate = summary["throughput_ops"] * (run.end_ns - warmup_ns) / NS_PER_S
    assert rate == pytest.approx(within.sum(), rel=0.02)


def test_what_was_counted_over_the_whole_load_is_shared_out() -> None:
    latency_ns = numpy.where(numpy.arange(10_000) < 2500, 50, 1) * NS_PER_MS
    whole = record(
        steady(10_000, 10 * NS_PER_S, latency_ns),
        warmup_ns=0,
        nodes=(node(0, "", 10, process_cpu_ns=8 * NS_PER_S),),
        clients=(generator(follow_ups=1000, extra_attempts=400),),
    )
    cut = settled(whole, TIMEOUT_NS, 5 * NS_PER_S)
    assert cut.warmup_ns == 2.5 * NS_PER_S
    assert cut.nodes[0].process_cpu_ns == 6 * NS_PER_S
    assert (cut.clients[0].follow_ups, cut.clients[0].extra_attempts) == (750, 300)
    assert settled(whole, TIMEOUT_NS, 2 * NS_PER_S).warmup_ns <= 2 * NS_PER_S
    few = record(steady(50, 10 * NS_PER_S), warmup_ns=0)
    assert settled(few, TIMEOUT_NS, 3 * NS_PER_S).warmup_ns == 3 * NS_PER_S


def test_auto_in_a_config() -> None:
    parts = plan(small("warmup=auto", "duration=2s"))
    assert "warmup: auto" in render_yaml(parts.config)
    assert (parts.lead_ns, parts.end_ns, parts.recorded_from_ns) == (NS_PER_S, 3 * NS_PER_S, 0)
    with pytest.raises(ConfigError, match="faults strike") as caught:
        plan(small("warmup=auto", "faults=[{name: pause, target: any, at: 100ms, lasts: 50ms}]"))
    assert caught.value.path == "warmup"


# --- drift ------------------------------------------------------------------------------


def test_drift_must_be_large_and_sure() -> None:
    x = numpy.linspace(-0.5, 0.5, 20)
    rising, slight = drift(noisy(1 + 0.5 * x, "a", 0.05)), drift(noisy(1 + 0.08 * x, "b", 0.01))
    assert rising is not None and rising.sure and rising.change == pytest.approx(0.5, rel=0.1)
    assert slight is not None and slight.p < 1e-4 and not slight.sure
    flat = drift(noisy(numpy.ones(20), "c", 0.5))
    assert flat is not None and not flat.sure
    assert drift(numpy.ones(20)).p == 1.0 and drift(1 + 0.3 * x).sure  # type: ignore[union-attr]
    assert drift(numpy.zeros(20)) is None


def queue(load: float, seconds: float, number: int, before_s: int = 20) -> RunRecord:
    """M/M/1, service of 1 ms, begun ``before_s`` before; a run that is recorded for ``seconds``."""
    chance = block_stream(number, f"queue/{load}")
    before_s = before_s if load < 1 else 0
    count = int(load * 1000 * (seconds + before_s) * 1.2)
    gap, service = chance.exponential(1 / load, count), chance.exponential(1.0, count)
    walk = numpy.concatenate([[0.0], numpy.cumsum(service[:-1] - gap[1:])])
    sojourn_ns = (walk - numpy.minimum.accumulate(walk) + service) * NS_PER_MS
    at_ns = numpy.cumsum(gap) * NS_PER_MS - before_s * NS_PER_S
    there = (at_ns >= 0) & (at_ns < seconds * NS_PER_S)
    at_ns, sojourn_ns = at_ns[there].astype(numpy.int64), sojourn_ns[there].astype(numpy.int64)
    whole = history(len(at_ns), intended_ns=at_ns, returned_ns=at_ns + sojourn_ns)
    return record(whole, warmup_ns=0, end_ns=int(seconds * NS_PER_S), offered_ops=None)


def unsteady(run: RunRecord, settings: Config | None = None) -> list[str]:
    return stationarity_reasons(measured_window(run, 3600 * NS_PER_S), settings or config())


@pytest.mark.parametrize(
    ("load", "seconds"), [(0.5, 2), (0.9, 2), (0.9, 10), (0.95, 5), (0.95, 30)]
)
def test_a_queue_near_saturation_is_steady(load: float, seconds: float) -> None:
    assert sum(bool(unsteady(queue(load, seconds, number))) for number in range(60)) == 0


@pytest.mark.parametrize(("load", "seconds"), [(1.2, 5), (1.5, 2)])
def test_a_queue_that_leaks_is_not(load: float, seconds: float) -> None:
    for number in range(10):
        [reason] = unsteady(queue(load, seconds, number))
        assert reason.startswith("latency was not steady: it rose by")


def test_a_run_above_saturation_is_invalid(tmp_path: Any) -> None:
    """End to end: 1,200 operations/s on a node that serves 1,000."""
    with Runner(tmp_path) as runner:
        done = runner.run(load_mapping(QUEUE, "arrival.rate=1200/s", "warmup=1s", "duration=4s"))
    assert not done.summary["valid"] and done.summary["steady_state"]["steady"] is False
    [reason] = done.summary["invalid_reasons"]
    assert reason.startswith("latency was not steady: it rose by")


def test_throughput_that_falls() -> None:
    """A closed load that slows down from 1,400/s to 600/s."""
    at_ns = numpy.sort(block_stream(1, "falling").triangular(0, 0, 18, 14_000) * NS_PER_S)
    at_ns = at_ns[at_ns < 10 * NS_PER_S].astype(numpy.int64)
    whole = history(len(at_ns), intended_ns=at_ns, returned_ns=at_ns + NS_PER_MS)
    [reason] = unsteady(record(whole))
    assert reason.startswith("throughput was not steady: it fell by")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("arrival={name: bursty, burst: 5000/s}",), "arrival 'bursty' varies"),
        (("faults=[{name: pause, target: any, at: 100ms, lasts: 50ms}]",), "faults strike"),
        (("workload.distribution={name: hotspot, moves_every_operations: 10}",), "keys in demand"),
        (("system.node.autoscaler={name: target_utilisation}",), "autoscaler"),
        (("arrival={name: partly_open, rate: 100/s}",), ""),
        (("arrival={name: poisson, rate: 100/s}",), ""),
        ((), ""),
    ],
)
def test_where_no_steady_state_is_expected(overrides: tuple[str, ...], reason: str) -> None:
    found = why_unsteady(small(*overrides))
    assert reason in str(found) if reason else found is None


def test_the_rule_is_silent_where_the_load_varies() -> None:
    varying = dataclasses.replace(
        config(), arrival=small("arrival={name: bursty, burst: 5000/s}").arrival
    )
    assert unsteady(queue(1.5, 2, 0), varying) == []


# --- periodicity ------------------------------------------------------------------------


@pytest.mark.parametrize(("load", "seconds"), [(0.2, 2), (0.8, 10), (0.95, 10)])
def test_a_queue_has_no_period(load: float, seconds: float) -> None:
    runs = [summary_of(queue(load, seconds, number)) for number in range(10)]
    assert [run["steady_state"]["period_s"] for run in runs] == [None] * 10


def test_a_collection_every_two_seconds() -> None:
    run = queue(0.3, 20, 1)
    phase_ns = (run.history.intended_ns + NS_PER_S // 3) % (2 * NS_PER_S)
    stalled_ns = numpy.maximum(0, 50 * NS_PER_MS - phase_ns)
    slowed = dataclasses.replace(run.history, returned_ns=run.history.returned_ns + stalled_ns)
    asked = config(arrival=small("arrival={name: poisson, rate: 300/s}").arrival)
    found = summary_of(dataclasses.replace(run, history=slowed), asked)
    assert found["steady_state"]["period_s"] == pytest.approx(2, rel=0.02)
    assert found["steady_state"]["steady"] is True and found["valid"], found["invalid_reasons"]


def test_a_sine_and_a_ripple() -> None:
    wave = numpy.sin(numpy.arange(600) * 2 * numpy.pi / 75)
    found = period_bins(noisy(1 + 0.4 * wave, "sine", 0.3))
    assert found == pytest.approx(75, rel=0.05)
    assert period_bins(noisy(1 + 0.03 * wave, "ripple", 0.01)) is None  # below a tenth
    assert period_bins(numpy.ones(600)) is None and period_bins(numpy.ones(10)) is None
