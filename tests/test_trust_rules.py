"""Each rule of the verdict on a run that was made bad on purpose: arrivals, Little's law, hosts,
clocks. What fires on good runs is in test_good_runs.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy
import pytest
from made_records import TIMEOUT_NS, config, generator, history, record, summary_of
from numpy.typing import NDArray
from small_runs import small

from orchestrator.analysis.latency import measured_window
from orchestrator.analysis.rules.arrival import arrival_fit, arrival_reasons
from orchestrator.analysis.rules.hosts import clock_reasons, host_reasons, pooled_hosts
from orchestrator.analysis.rules.littles_law import concurrency, littles_law_reasons
from orchestrator.config.schema import Config
from orchestrator.core.history import NEVER
from orchestrator.core.machine import OK, UNKNOWN
from orchestrator.core.randomness import block_stream
from orchestrator.core.record import HostRecord, RunRecord, worst_by_host
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.plan import plan
from orchestrator.run import execute
from orchestrator.runtimes._host_load import host_record, host_sample
from orchestrator.runtimes._probing import PROBES, probe_times_ns
from orchestrator.systems.replicated_store import MEASURED, MODELLED

# --- arrivals ---------------------------------------------------------------------------

SECONDS = 10


def asks(arrival: str) -> Config:
    return config(arrival=small(f"arrival={arrival}").arrival)


POISSON = asks("{name: poisson, rate: 1000/s}")
CONSTANT = asks("{name: constant, rate: 1000/s}")


def sent(at_ns: NDArray[Any], **changes: Any) -> RunRecord:
    at_ns = at_ns[at_ns < SECONDS * NS_PER_S].astype(numpy.int64)
    whole = history(len(at_ns), intended_ns=at_ns, returned_ns=at_ns + NS_PER_MS)
    return record(whole, offered_ops=None, **changes)


def poisson(name: str = "poisson") -> NDArray[numpy.float64]:
    gaps = block_stream(8, name).exponential(NS_PER_MS, 1200 * SECONDS)
    at_ns: NDArray[numpy.float64] = numpy.cumsum(gaps)
    return at_ns


def judged(run: RunRecord, settings: Config) -> list[str]:
    return arrival_reasons(measured_window(run, TIMEOUT_NS), settings)


EVENLY = numpy.arange(1000 * SECONDS) * float(NS_PER_MS)
VIRTUAL = {"runtime": "sim", "clock": "virtual"}


def test_as_asked() -> None:
    for clock in ({}, VIRTUAL):
        assert judged(sent(poisson(), **clock), POISSON) == []
        assert judged(sent(EVENLY, **clock), CONSTANT) == []


@pytest.mark.parametrize("clock", [{}, VIRTUAL])
def test_another_process_than_asked(clock: dict[str, Any]) -> None:
    [reason] = judged(sent(EVENLY, **clock), POISSON)
    assert "not sent as arrival 'poisson' asks" in reason and "exponential" in reason
    [reason] = judged(sent(poisson(), **clock), CONSTANT)
    assert "not sent as arrival 'constant' asks" in reason and "off by more than 25%" in reason


def test_a_generator_that_is_held_up_every_tenth_of_a_second() -> None:
    """What came due within 50 ms is sent at once: the rate is as asked, the process is not."""
    at_ns = poisson()
    phase_ns = at_ns % (100 * NS_PER_MS)
    blocked = numpy.where(phase_ns < 50 * NS_PER_MS, at_ns - phase_ns + 50 * NS_PER_MS, at_ns)
    [reason] = judged(sent(blocked, **VIRTUAL), POISSON)
    assert "away from exponential ones" in reason


def test_a_tick_is_no_fault() -> None:
    """Sent at the next of ticks of 0.2 ms: gaps are 0 or 0.2 ms, and sums of them as asked."""
    at_ns = numpy.ceil(poisson() / 10 / (NS_PER_MS / 5)) * (NS_PER_MS / 5)
    lags = numpy.full(1000, NS_PER_MS // 5)
    run = sent(at_ns, end_ns=NS_PER_S, warmup_ns=0, clients=(generator(lag_ns=lags),))
    settings = asks("{name: poisson, rate: 10000/s}")
    fit = arrival_fit(measured_window(run, TIMEOUT_NS), settings)
    assert fit is not None and fit.gaps == 100 and fit.distance < fit.limit
    punctual = (generator(lag_ns=numpy.zeros(1000, dtype=numpy.int64)),)
    finely = arrival_fit(
        measured_window(dataclasses.replace(run, clients=punctual), TIMEOUT_NS), settings
    )
    assert finely is not None and finely.distance > 0.3


@pytest.mark.parametrize(
    "arrival",
    [
        "{name: bursty, burst: 3000/s, calm: 300/s}",
        "{name: diurnal, rate: 1000/s, amplitude: 0.95, period: 2s}",
        "{name: ramp, start: 200/s, end: 2000/s, lasts: 2s}",
    ],
)
def test_rates_that_change_are_rescaled(arrival: str) -> None:
    """Sent as asked they pass; the same times are no Poisson process of their mean rate."""
    settings = small(f"arrival={arrival}", "duration=3s", "warmup=100ms", "clients=2")
    run = execute(plan(settings))
    fit = arrival_fit(measured_window(run, settings.client.timeout), settings)
    assert fit is not None and fit.distance < 0.05
    flat = dataclasses.replace(settings, arrival=POISSON.arrival)
    assert len(judged(run, flat)) == 1


def test_what_cannot_be_said() -> None:
    run = sent(EVENLY)
    for arrival in ("{name: closed, sessions: 4}", "{name: partly_open, rate: 100/s}"):
        assert judged(run, asks(arrival)) == []
    limited = dataclasses.replace(POISSON, client=small("client.limit={name: fixed}").client)
    assert judged(run, limited) == []
    assert judged(sent(EVENLY[:2020]), POISSON) == []  # 20 in the measured window


def test_what_follows_upon_a_read_is_not_sent_by_the_arrival() -> None:
    settings = small("workload.mix=f", "arrival={name: poisson, rate: 2000/s}", "duration=2s")
    run = execute(plan(settings))
    assert sum(client.follow_ups for client in run.clients) > 500
    fit = arrival_fit(measured_window(run, TIMEOUT_NS), settings)
    assert fit is not None and fit.distance < 0.05


# --- Little's law -----------------------------------------------------------------------


def counted(run: RunRecord, share: float = 1.0) -> RunRecord:
    """With what a client counts that sees this share of what is under way."""
    at_ns = numpy.sort(block_stream(6, "probes").uniform(0, run.end_ns, 2000)).astype(numpy.int64)
    whole = run.history
    begun = numpy.searchsorted(numpy.sort(whole.invoked_ns), at_ns, side="right")
    ended = numpy.searchsorted(numpy.sort(whole.returned_ns), at_ns, side="right")
    counts = numpy.rint((begun - ended) * share).astype(numpy.int64)
    return dataclasses.replace(run, clients=(generator(probed_ns=at_ns, outstanding=counts),))


def busy() -> RunRecord:
    at_ns = poisson().astype(numpy.int64)
    at_ns = at_ns[at_ns < SECONDS * NS_PER_S]
    took_ns = block_stream(6, "times").exponential(10 * NS_PER_MS, len(at_ns)).astype(numpy.int64)
    return record(history(len(at_ns), intended_ns=at_ns, returned_ns=at_ns + took_ns))


def littles(run: RunRecord) -> list[str]:
    return littles_law_reasons(measured_window(run, TIMEOUT_NS), TIMEOUT_NS)


def test_littles_law_holds() -> None:
    run = counted(busy())
    found = concurrency(measured_window(run, TIMEOUT_NS), TIMEOUT_NS)
    assert found is not None and found.counted == pytest.approx(10, rel=0.1)
    assert found.counted == pytest.approx(found.least, abs=found.error * 3)
    assert littles(run) == []
    figures = summary_of(run, POISSON)["generator"]
    assert figures["outstanding"] == found.counted
    assert figures["outstanding_by_latency"] == found.least


def test_latencies_that_are_too_short() -> None:
    """Each operation is said to have taken two thirds of its time."""
    run = counted(busy())
    whole = run.history
    short = whole.invoked_ns + (whole.returned_ns - whole.invoked_ns) * 2 // 3
    [reason] = littles(
        dataclasses.replace(run, history=dataclasses.replace(whole, returned_ns=short))
    )
    assert reason.startswith("Little's law does not hold: clients counted")


def test_rows_that_are_missing() -> None:
    run = counted(busy())
    assert littles(dataclasses.replace(run, history=run.history.select(slice(None, None, 2))))
    assert littles(counted(busy(), share=0.8))


def test_what_never_came_back_was_under_way_for_some_time() -> None:
    run = counted(busy())
    lost = numpy.arange(len(run.history)) % 100 == 0
    whole = dataclasses.replace(
        run.history,
        returned_ns=numpy.where(lost, NEVER, run.history.returned_ns),
        outcome=numpy.where(lost, UNKNOWN, OK).astype(run.history.outcome.dtype),
    )
    assert littles(dataclasses.replace(run, history=whole)) == []


def test_a_client_that_was_kept_from_running_counts_once() -> None:
    """For a second it does nothing; then all counts that were due come at once."""
    run = counted(busy())
    [client] = run.clients
    stopped = (client.probed_ns > 5 * NS_PER_S) & (client.probed_ns < 6 * NS_PER_S)
    counts = client.outstanding.copy()
    counts[stopped] = 1000
    at_ns = numpy.where(stopped, 6 * NS_PER_S, client.probed_ns)
    kept = dataclasses.replace(client, probed_ns=at_ns, outstanding=counts)
    assert littles(dataclasses.replace(run, clients=(kept,))) == []


def test_clients_count_in_virtual_time() -> None:
    settings = small("clients=3", "arrival={name: poisson, rate: 3000/s}", "duration=1s")
    parts = plan(settings)
    run = execute(parts)
    assert len(run.clients) == 3
    assert all(len(client.outstanding) >= 0.9 * PROBES for client in run.clients)
    found = concurrency(measured_window(run, TIMEOUT_NS), TIMEOUT_NS)
    assert found is not None
    assert found.counted == pytest.approx(found.least, abs=found.allowed) and found.counted > 0.1
    times = list(probe_times_ns(parts, "cluster"))
    assert times == sorted(times) == list(probe_times_ns(parts, "cluster"))
    assert times[-1] < 1.1 * NS_PER_S


# --- hosts and clocks -------------------------------------------------------------------


def loaded(**figures: Any) -> RunRecord:
    return record(host_loads=(HostRecord("h1", busy=0.5), HostRecord("h2", **figures)))


@pytest.mark.parametrize(
    ("figures", "costs", "sentence"),
    [
        ({"steal": 0.06}, MEASURED, "host h2 lost 6.0% of its CPU time"),
        ({"steal": 0.06}, MODELLED, "host h2 lost 6.0% of its CPU time"),
        ({"throttled": 0.02}, MEASURED, "quota held processes on host h2 back for 2.0%"),
        ({"run_queue": 2.5, "pressure": 0.1}, MODELLED, "2.5 tasks waited for a CPU of host h2"),
        ({"pressure": 0.9}, MODELLED, "some task waited for a CPU of host h2 90%"),
        ({"run_queue": 2.5, "pressure": 0.9}, MEASURED, ""),
        ({"steal": 0.05, "throttled": 0.01, "run_queue": 2.0, "pressure": 0.9}, MODELLED, ""),
        ({}, MODELLED, ""),
    ],
)
def test_hosts(figures: dict[str, float], costs: str, sentence: str) -> None:
    found = host_reasons(loaded(**figures), config(costs))
    assert len(found) == bool(sentence)
    assert sentence in "".join(found)
    simulated = dataclasses.replace(loaded(**figures), clock="virtual")
    assert host_reasons(simulated, config(costs)) == []


def test_hosts_in_the_result() -> None:
    found = summary_of(loaded(steal=0.5))
    assert found["hosts"] == [
        {"host": "h1", "busy": 0.5, "steal": None, "run_queue": None, "pressure": None,
         "throttled": None, "loops_us": None},
        {"host": "h2", "busy": None, "steal": 0.5, "run_queue": None, "pressure": None,
         "throttled": None, "loops_us": None},
    ]  # fmt: skip
    assert not found["valid"]
    worst = pooled_hosts([loaded(steal=0.1), loaded(steal=0.3)])
    assert worst is not None and worst[1]["steal"] == 0.3
    assert summary_of(record(host_loads=()))["hosts"] is None


def kernel(root: Path, *, ticks: str, waited: int, pressed: int, throttled: int) -> None:
    """What a kernel says, as files."""
    (root / "proc/pressure").mkdir(parents=True, exist_ok=True)
    (root / "proc/self").mkdir(exist_ok=True)
    group = root / "sys/fs/cgroup/run.slice/one"
    group.mkdir(parents=True, exist_ok=True)
    (root / "proc/stat").write_text(f"cpu  {ticks} 0 0\ncpu0 1 2\n")
    (root / "proc/schedstat").write_text(
        f"version 15\ntimestamp 1\ncpu0 0 0 0 0 0 0 9 {waited} 4\ndomain0 1 2 3\n"
        f"cpu1 0 0 0 0 0 0 9 {waited} 4\n"
    )
    (root / "proc/pressure/cpu").write_text(
        f"some avg10=0.9 avg60=7 avg300=4 total={pressed}\nfull avg10=0 total=0\n"
    )
    (root / "proc/self/cgroup").write_text("9:name=systemd:/\n0::/run.slice/one\n")
    (group / "cpu.stat").write_text("usage_usec 5\n")
    # A quota of a group around it.
    (group.parent / "cpu.stat").write_text(f"nr_throttled 3\nthrottled_usec {throttled}\n")


def test_what_the_kernel_counts(tmp_path: Path) -> None:
    kernel(tmp_path, ticks="10 0 10 70 10 0 0 0", waited=0, pressed=0, throttled=100)
    before = dataclasses.replace(host_sample(tmp_path), at_ns=0)
    kernel(
        tmp_path, ticks="50 0 20 100 10 0 0 20", waited=NS_PER_S, pressed=500_000, throttled=40_100
    )
    after = dataclasses.replace(host_sample(tmp_path), at_ns=2 * NS_PER_S)
    found = host_record("h", before, after)
    assert found.busy == pytest.approx(0.7) and found.steal == pytest.approx(0.2)
    assert found.run_queue == pytest.approx(1.0) and found.pressure == pytest.approx(0.25)
    assert found.throttled == pytest.approx(0.02)
    reasons = host_reasons(record(host_loads=(found,)), config(MEASURED))
    assert len(reasons) == 2 and "quota" in reasons[1]
    [most] = worst_by_host([found, HostRecord("h", busy=0.9)])
    assert (most.busy, most.steal) == (0.9, found.steal)


def test_a_version_one_control_group(tmp_path: Path) -> None:
    kernel(tmp_path, ticks="1 0 1 7 1 0 0 0", waited=0, pressed=0, throttled=0)
    (tmp_path / "proc/self/cgroup").write_text("3:cpu,cpuacct:/job\n0::/\n")
    group = tmp_path / "sys/fs/cgroup/cpu,cpuacct/job"
    group.mkdir(parents=True)
    (group / "cpu.stat").write_text("nr_periods 4\nnr_throttled 1\nthrottled_time 7000\n")
    assert host_sample(tmp_path).throttled_ns == 7000


def test_what_is_missing_is_none(tmp_path: Path) -> None:
    sample = host_sample(tmp_path)
    assert (sample.ticks, sample.waited_ns, sample.pressed_ns, sample.throttled_ns) == (None,) * 4
    assert host_record("h", sample, sample) == HostRecord("h")
    real = host_sample()
    assert real.ticks is not None and real.ticks[2] > 0


def test_clocks_must_be_known_better_than_latencies() -> None:
    apart = record(clock_uncertainty_ns=NS_PER_MS)
    [reason] = clock_reasons(apart, NS_PER_MS)
    assert "known to 1.000 ms, where the median latency is 1.000 ms and 50%" in reason
    assert clock_reasons(apart, 2 * NS_PER_MS) == [] == clock_reasons(apart, None)
    assert clock_reasons(record(), 1) == []
    assert any("clocks of clients' hosts" in each for each in summary_of(apart)["invalid_reasons"])
