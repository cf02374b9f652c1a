"""Arrivals whose rate changes, stages of several, and sessions that come and leave."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from scipy import stats

from orchestrator.analysis.latency import measured_window
from orchestrator.analysis.validity import invalid_reasons
from orchestrator.arrivals._varying import NEVER_NS
from orchestrator.config.load import load_mapping
from orchestrator.core.load import (
    LEAVES,
    Arrival,
    JoiningTimetable,
    OperationBlock,
    VaryingArrival,
)
from orchestrator.core.record import RunRecord
from orchestrator.core.units import NS_PER_S
from orchestrator.dry_run import BETWEEN_RUNS_S, SIMULATED_OPS, START_S, dry_run
from orchestrator.errors import ConfigError
from orchestrator.plan import plan
from orchestrator.run import execute
from orchestrator.runtimes._session_pool import SessionPool

STAGES = {
    "name": "stages",
    "stages": [
        {"name": "constant", "rate": "1000/s", "lasts": "2s"},
        {"name": "ramp", "start": "1000/s", "end": "4000/s", "lasts": "4s"},
        {"name": "poisson", "rate": "500/s"},
    ],
}
VARYING: dict[str, dict[str, Any]] = {
    "ramp": {"start": "500/s", "end": "4000/s", "lasts": "6s"},
    "staircase": {"rates": ["500/s", "3000/s", "1000/s"], "every": "2s"},
    "flash_crowd": {"base": "500/s", "peak": "5000/s", "at": "2s", "lasts": "3s", "ramp": "1s"},
    "diurnal": {"rate": "2000/s", "amplitude": 1.0, "period": "5s", "phase": 0.25},
    "bursty": {"burst": "9000/s", "calm": "500/s"},
    "stages": STAGES,
}
# Rate over time in seconds, by the definition of each and not by its inverse.
RATES: dict[str, Callable[[Any], Any]] = {
    "ramp": lambda t: numpy.where(t < 6, 500 + 3500 * t / 6, 4000),
    "staircase": lambda t: numpy.where(t < 2, 500, numpy.where(t < 4, 3000, 1000)),
    "flash_crowd": lambda t: numpy.interp(t, [0, 2, 3, 6, 7, 99], [500, 500, 5000, 5000, 500, 500]),
    "diurnal": lambda t: 2000 * (1 + numpy.sin(2 * numpy.pi * (t / 5 + 0.25))),
    "stages": lambda t: numpy.where(t < 2, 1000, numpy.where(t < 6, 1000 + 750 * (t - 2), 500)),
}


def arrival_of(name: str, **given: Any) -> Arrival:
    slot = load_mapping({"arrival": {"name": name} | (given or VARYING[name])}).arrival
    made: Arrival = slot.implementation(slot.params)
    return made


def block(count: int) -> OperationBlock:
    zeros = numpy.zeros(count, dtype=numpy.int64)
    small = zeros.astype(numpy.int32)
    return OperationBlock(zeros.astype(numpy.uint8), zeros, small, small, zeros.astype(bool))


def starts_s(arrival: Arrival, until_s: float, *, clients: int = 1, seed: int = 5) -> Any:
    """Starts of all clients before that time, sorted, in seconds."""
    parts = []
    for client in range(clients):
        table = arrival.timetable(seed, client, clients)
        found = [table.starts_ns(block(4096))]
        while found[-1][-1] < until_s * NS_PER_S:
            found.append(table.starts_ns(block(4096)))
        parts.append(numpy.concatenate(found))
        assert (numpy.diff(parts[-1]) >= 0).all()
    together = numpy.sort(numpy.concatenate(parts)) / NS_PER_S
    return together[together < until_s]


# --- laws -------------------------------------------------------------------------------


@pytest.mark.parametrize("clients", [1, 3])
@pytest.mark.parametrize("name", RATES)
def test_counts_follow_the_rate(name: str, clients: int) -> None:
    edges = numpy.linspace(0, 9, 91)
    fine = numpy.linspace(0, 9, 90 * 200 + 1)
    middles = (fine[1:] + fine[:-1]) / 2
    expected = RATES[name](middles).reshape(90, 200).mean(axis=1) * 0.1
    counts, _ = numpy.histogram(starts_s(arrival_of(name), 9, clients=clients), edges)
    deviations = (counts - expected) ** 2 / numpy.maximum(expected, 1e-9)
    poisson = expected > 5
    if name == "stages":
        poisson &= edges[1:] > 2 + 1e-9
        assert (numpy.abs(counts[:20] - 100) <= 1).all(), "constant distances"
    assert stats.chi2.sf(deviations[poisson].sum(), poisson.sum()) > 1e-4
    assert stats.chi2.cdf(deviations[poisson].sum(), poisson.sum()) > 1e-4


@pytest.mark.parametrize("name", RATES)
def test_what_is_expected_is_the_integral_of_the_rate(name: str) -> None:
    arrival = arrival_of(name)
    assert isinstance(arrival, VaryingArrival)
    for start, end in ((0.0, 9.0), (1.5, 6.5), (7.25, 7.5)):
        fine = numpy.linspace(start, end, 200_001)
        wanted = RATES[name]((fine[1:] + fine[:-1]) / 2).mean() * (end - start)
        found = arrival.expected(1, 2, round(start * NS_PER_S), round(end * NS_PER_S))
        assert found == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("ramp", 2250),
        ("staircase", 1500),
        # 2 s at 500, 3 s at 5000, twice 1 s at 2750 on average.
        ("flash_crowd", (2 * 500 + 3 * 5000 + 2 * 2750) / 7),
        ("diurnal", 2000),
        ("bursty", 0.1 * 9000 + 0.9 * 500),
        ("stages", 500),
    ],
)
def test_rate_is_the_mean_of_the_pattern(name: str, mean: float) -> None:
    assert arrival_of(name).rate_per_s == pytest.approx(mean)


def test_stages_that_end_start_nothing_more() -> None:
    ending = {"stages": [{"name": "poisson", "rate": "1000/s", "lasts": "1s"}] * 2}
    arrival = arrival_of("stages", **ending)
    assert arrival.rate_per_s == pytest.approx(1000)
    starts_ns = arrival.timetable(1, 0, 1).starts_ns(block(4000))
    began = starts_ns[starts_ns < NEVER_NS]
    assert (began < 2 * NS_PER_S).all()
    assert stats.binomtest(len(began), 4000, 0.5).pvalue > 1e-6
    assert (starts_ns[len(began) :] == NEVER_NS).all()
    first, second = began[began < NS_PER_S], began[began >= NS_PER_S] - NS_PER_S
    assert not numpy.isin(second, first).any(), "stages are independent"


@pytest.mark.parametrize("clients", [1, 4])
def test_bursts_scatter_as_the_modulated_process_does(clients: int) -> None:
    """Index of dispersion of counts (Fischer and Meier-Hellstern 1993, section 2)."""
    burst, calm, burst_s, calm_s = 4000.0, 200.0, 0.02, 0.08
    lasts = {"burst_lasts": "20ms", "calm_lasts": "80ms"}
    arrival = arrival_of("bursty", burst="4000/s", calm="200/s", **lasts)
    until_s = 400
    times = starts_s(arrival, until_s, clients=clients)
    mean = 0.2 * burst + 0.8 * calm
    leaves, comes = 1 / burst_s, 1 / calm_s
    dispersion = 1 + 2 * (burst - calm) ** 2 * leaves * comes / (mean * (leaves + comes) ** 3)
    assert arrival.rate_per_s == pytest.approx(mean)
    assert len(times) == pytest.approx(
        mean * until_s, rel=5 * numpy.sqrt(dispersion / (mean * until_s))
    )
    counts, _ = numpy.histogram(times, numpy.arange(0, until_s + 1, 2.0))
    # Windows of 2 s are 125 times the time constant; 200 of them give the variance to 10 %.
    assert counts.var(ddof=1) / counts.mean() == pytest.approx(dispersion, rel=0.35)
    assert isinstance(arrival, VaryingArrival)
    states = arrival.expected(5, clients, 0, until_s * NS_PER_S)
    assert len(times) == pytest.approx(states, abs=5 * numpy.sqrt(states))


def test_a_calm_may_be_silent() -> None:
    arrival = arrival_of("bursty", burst="5000/s", burst_lasts="50ms", calm_lasts="50ms")
    gaps = numpy.diff(starts_s(arrival, 20))
    # Calms show as gaps that 5,000/s would not leave once in the age of the universe.
    long = gaps[gaps > 0.01]
    assert 20 / 0.1 * 0.5 < len(long) < 20 / 0.1
    assert long.mean() == pytest.approx(0.06, rel=0.3)


@pytest.mark.parametrize("name", VARYING)
def test_starts_do_not_depend_on_the_blocks_and_seeds_differ(name: str) -> None:
    arrival = arrival_of(name)
    assert not arrival.closed
    whole = arrival.timetable(9, 1, 3).starts_ns(block(20_000))
    table = arrival_of(name).timetable(9, 1, 3)
    parts = [table.starts_ns(block(count)) for count in (10, 20, 0, 1, 8192, 11_777)]
    numpy.testing.assert_array_equal(numpy.concatenate(parts), whole)
    assert (table.sessions, table.think_ns()) == (0, 0)
    for seed, client in ((10, 1), (9, 2)):
        other = arrival.timetable(seed, client, 3).starts_ns(block(20_000))
        assert (other != whole).mean() > 0.5


# --- runs -------------------------------------------------------------------------------


def run(arrival: dict[str, Any], duration: str = "4s", **given: Any) -> tuple[Any, RunRecord]:
    config = load_mapping(
        {
            "runtime": "sim",
            "system": {"name": "replicated_store", "protocol": {"name": "unreplicated"}},
            "workload": {"name": "ycsb", "mix": "c", "keys": 10},
            "arrival": arrival,
            "warmup": "1s",
            "duration": duration,
            "clients": 2,
        }
        | given
    )
    return config, execute(plan(config))


@pytest.mark.parametrize("name", VARYING)
def test_a_rate_that_changes_does_not_spoil_a_run(name: str) -> None:
    config, record = run({"name": name} | VARYING[name])
    window = measured_window(record, config.client.timeout)
    assert invalid_reasons(window, config, None) == []
    assert record.offered_ops == pytest.approx(len(window) / window.length_s, rel=0.1)
    arrival = arrival_of(name)
    assert isinstance(arrival, VaryingArrival)
    operations = arrival.expected(config.seed, 2, 0, 5 * NS_PER_S)
    wanted = START_S + BETWEEN_RUNS_S + operations / SIMULATED_OPS
    assert dry_run(plan(config))["seconds"] == pytest.approx(wanted, abs=1e-3)


def test_a_rate_that_is_not_reached_still_spoils_it() -> None:
    config, record = run({"name": "ramp"} | VARYING["ramp"])
    assert record.offered_ops is not None
    asked = dataclasses.replace(record, offered_ops=1.2 * record.offered_ops)
    reasons = invalid_reasons(measured_window(asked, config.client.timeout), config, None)
    assert [reason for reason in reasons if "were offered" in reason] == reasons != []


# --- partly open ------------------------------------------------------------------------


def joining(stay: float, seed: int = 1, client: int = 0) -> JoiningTimetable:
    table = arrival_of("partly_open", rate="1000/s", stay=stay).timetable(seed, client, 2)
    assert isinstance(table, JoiningTimetable)
    return table


def test_sessions_come_as_poisson_and_stay_geometrically() -> None:
    table = joining(0.75)
    times_s = numpy.array([table.joins_ns() for _ in range(20_000)]) / NS_PER_S
    # 1000/s of operations, 4 a session, 2 clients.
    assert stats.kstest(numpy.diff(times_s), "expon", args=(0, 1 / 125)).pvalue > 1e-3
    lengths, length = [], 1
    for _ in range(40_000):
        if table.think_ns() == LEAVES:
            lengths.append(length)
            length = 1
        else:
            length += 1
    counts = numpy.bincount(lengths)[1:12]
    expected = len(lengths) * 0.25 * 0.75 ** numpy.arange(11)
    assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-3
    assert [joining(0.75).joins_ns() for _ in range(2)] == [joining(0.75).joins_ns()] * 2
    assert joining(0.75, client=1).joins_ns() != joining(0.75).joins_ns()


def test_without_staying_it_is_an_open_load() -> None:
    _, partly = run({"name": "partly_open", "rate": "300/s", "stay": 0})
    _, poisson = run({"name": "poisson", "rate": "300/s"})
    numpy.testing.assert_array_equal(
        numpy.sort(partly.history.intended_ns), numpy.sort(poisson.history.intended_ns)
    )


def test_a_partly_open_load_reaches_its_rate_and_thinks() -> None:
    arrival = {"name": "partly_open", "rate": "1000/s", "stay": 0.8, "think_time": "20ms"}
    config, record = run(arrival, "10s")
    window = measured_window(record, config.client.timeout)
    assert invalid_reasons(window, config, None) == []
    assert record.offered_ops is None
    # Counts of sessions of geometric length: the variance is (1 + stay) / (1 - stay) a count.
    deviation = numpy.sqrt(10_000 * 1.8 / 0.2)
    assert len(window) == pytest.approx(10_000, abs=4 * deviation)
    history = record.history
    stayed = 0
    for session in numpy.unique(history.session).tolist():
        mine = numpy.flatnonzero(history.session == session)
        mine = mine[numpy.argsort(history.sequence[mine])]
        waited = history.intended_ns[mine][1:] - history.returned_ns[mine][:-1]
        stayed += int((waited == 20_000_000).sum())
        assert (waited >= 0).all()
    assert stats.binomtest(stayed, len(history), 0.8).pvalue > 1e-6


def test_sessions_are_lost_with_a_client_and_others_come() -> None:
    crash = {"name": "crash_client", "target": "0", "at": "2s", "restart_after": "500ms"}
    arrival = {"name": "partly_open", "rate": "2000/s", "stay": 0.5, "think_time": "5ms"}
    _, record = run(arrival, clients=1, faults=[crash])
    intended_s = record.history.intended_ns / NS_PER_S
    assert not ((intended_s > 2.001) & (intended_s < 2.499)).any()
    assert ((intended_s > 3) & (intended_s < 5)).sum() == pytest.approx(4000, rel=0.15)


def test_who_was_to_come_after_a_crash_still_comes() -> None:
    pool = SessionPool(0, 1, joining(0.5))
    pool.port = pool.record = None  # type: ignore[assignment]
    pool.begin(0, 0)
    awaited_ns = pool.waiting[0][0]
    pool.begin_again(awaited_ns - 1)
    assert [due_ns for due_ns, _, _ in pool.waiting] == [awaited_ns]
    pool.begin_again(awaited_ns + 1)
    assert [due_ns > awaited_ns for due_ns, _, _ in pool.waiting] == [True]


# --- bad input --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrival", "path", "message"),
    [
        ({"name": "ramp", "start": "-1/s", "end": "5/s", "lasts": "1s"}, "start", "-1/s"),
        ({"name": "ramp", "start": "1/s", "end": "5/s", "lasts": "0s"}, "lasts", "out of bounds"),
        ({"name": "staircase", "rates": [], "every": "1s"}, "rates", "at least one step"),
        ({"name": "staircase", "rates": ["0/s"], "every": "1s"}, "rates[0]", "above 0"),
        ({"name": "diurnal", "rate": "5/s", "amplitude": 1.1}, "amplitude", "out of bounds"),
        ({"name": "bursty", "burst": "5/s", "calm": "6/s"}, "burst", "above the rate of the calm"),
        ({"name": "bursty", "burst": "1/s"}, "", r"only 0\.1 operations come"),
        ({"name": "flash_crowd", "base": "1/s", "peak": "2/s", "at": "1s"}, "lasts", "required"),
        ({"name": "partly_open", "rate": "1/s", "stay": 1}, "stay", "no session would ever leave"),
        (
            {"name": "partly_open", "rate": "1/s", "think_time": "-1ms"},
            "think_time",
            "-1ms",
        ),
        ({"name": "closed", "think_time": "-1ms"}, "think_time", "-1ms"),
        ({"name": "stages"}, "stages", "at least one stage"),
        ({"name": "stages", "stages": [{"name": "closed"}]}, "stages", "no times of its own"),
        ({"name": "stages", "stages": [{"name": "replay", "speed": "1"}]}, "stages", "no times"),
        (
            {"name": "stages", "stages": [{"name": "partly_open", "rate": "1/s"}]},
            "stages",
            "no times of its own",
        ),
        (
            {"name": "stages", "stages": [{"name": "poisson", "rate": "1/s"}] * 2},
            "stages",
            "stage 0 needs lasts",
        ),
        (
            {"name": "stages", "stages": [{"name": "poisson", "rate": "1/s", "lasts": "-1s"}]},
            "stages[0].lasts",
            "-1s",
        ),
    ],
)
def test_what_cannot_come_is_refused(arrival: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_mapping({"arrival": arrival})
    assert caught.value.path == ("arrival." + path).rstrip(".")


def test_a_trace_is_not_left_behind_by_the_last_stage(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("key\n" + "a\n" * 500)
    trace = {"name": "trace", "path": str(tmp_path / "trace.csv")}
    stage = {"name": "poisson", "rate": "1000/s"}
    _, record = run({"name": "stages", "stages": [stage]}, workload=trace)
    assert len(record.history) == 500
    ending = {"name": "stages", "stages": [stage | {"lasts": "9s"}]}
    for stages in (ending, {"name": "stages", "stages": [ending]}):
        with pytest.raises(ConfigError, match="500 operations of the workload may not be over"):
            run(stages, workload=trace)


def test_moving_keys_need_starts_that_are_known() -> None:
    moving = {"name": "ycsb", "distribution": {"name": "hotspot", "moves_every": "1s"}}
    with pytest.raises(ConfigError, match="'partly_open' does not know beforehand"):
        run({"name": "partly_open", "rate": "100/s"}, workload=moving)


def test_diurnal_inverts_to_the_nanosecond_late_in_a_run() -> None:
    arrival = arrival_of("diurnal", rate="1000/s", amplitude=0.999, period="10s")
    assert isinstance(arrival, VaryingArrival)
    table = arrival.timetable(1, 0, 1)
    starts_ns = numpy.concatenate([table.starts_ns(block(8192)) for _ in range(20)])
    assert starts_ns[-1] > 100 * NS_PER_S
    expected = [arrival.expected(1, 1, 0, int(start)) for start in starts_ns[-2000:]]
    # Unit exponential gaps, as the process was before it was inverted.
    assert stats.kstest(numpy.diff(expected), "expon").pvalue > 1e-3
