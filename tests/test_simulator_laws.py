"""The simulator against operational laws, and its links against what they promise."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest
from numpy.typing import NDArray

from orchestrator.analysis.resources import bottleneck, utilisations
from orchestrator.config.load import load_mapping
from orchestrator.core.history import History
from orchestrator.core.machine import FAIL, OK, READ, REPLICATE, REQUEST, UNKNOWN, WRITE
from orchestrator.core.record import RunRecord
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.runtimes import simulated
from orchestrator.runtimes._network import LOST, Link, Sender
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._simulated_client import HEADER_BYTES
from orchestrator.runtimes._station import Station
from orchestrator.runtimes.simulated import SimulatedCluster
from orchestrator.systems.replicated_store import MODELLED

KEY_BYTES, VALUE_BYTES = 16, 100
FREE = {"read": "0s", "write": "0s", "message": "0s"}


def parts_of(system: dict[str, Any], *overrides: str, **config: Any) -> Parts:
    """An unreplicated store that costs nothing, but for what is given."""
    base: dict[str, Any] = {
        "experiment": "laws",
        "runtime": "sim",
        "system": {"name": "replicated_store", "node": {"cpu": FREE}} | system,
        "workload": {"name": "ycsb", "mix": "c", "keys": 100, "value_size": f"{VALUE_BYTES}B"},
        "arrival": {"name": "poisson", "rate": "1000/s"},
        "client": {"timeout": "100s"},
        "warmup": "0s",
        "duration": "1s",
    }
    return Parts.of(load_mapping(base | config, *overrides))


def latency_ms(history: History) -> NDArray[numpy.float64]:
    ok = history.outcome == OK
    return numpy.asarray((history.returned_ns - history.invoked_ns)[ok] / NS_PER_MS)


# --- queueing ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "offered", "waiting"),
    [
        pytest.param(2, 1, 1 / 3, marks=pytest.mark.long),
        pytest.param(3, 2, 4 / 9, marks=pytest.mark.long),
        (5, 4, 0.554113),
        pytest.param(10, 9, 0.668732, marks=pytest.mark.long),
    ],
)
def test_erlang_c_gives_the_share_that_waits(
    cores: int, offered: int, waiting: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Erlang 1917; Kleinrock, Queueing Systems, section 3.5."""
    waits = []
    completion_ns = Station.completion_ns

    def counting(station: Station, now_ns: int, service_ns: int) -> int:
        done_ns = completion_ns(station, now_ns, service_ns)
        waits.append(done_ns - now_ns - service_ns)
        return done_ns

    monkeypatch.setattr(Station, "completion_ns", counting)
    cpu = FREE | {"read": {"name": "exponential", "mean": "1ms"}}
    arrival = {"name": "poisson", "rate": f"{1000 * offered}/s"}
    seconds = 200_000 / (1000 * offered)
    node = {"cores": cores, "cpu": cpu}
    simulated.run(parts_of({"node": node}, seed=4, arrival=arrival, duration=f"{seconds}s"))
    waited_ns = numpy.array(waits[len(waits) // 20 :])
    assert (waited_ns > 0).mean() == pytest.approx(waiting, rel=0.03)
    # Those who wait, wait an exponential time of mean 1 / (c mu - lambda).
    assert waited_ns.mean() / NS_PER_MS == pytest.approx(waiting / (cores - offered), rel=0.06)


def m_m_1_times_ms(seed: int) -> NDArray[numpy.float64]:
    """About a million response times at load .9, mean service 1 ms."""
    cpu = FREE | {"read": {"name": "exponential", "mean": "1ms"}}
    arrival = {"name": "poisson", "rate": "900/s"}
    run = parts_of({"node": {"cpu": cpu}}, seed=seed, arrival=arrival, duration="1100s")
    return latency_ms(simulated.run(run).history)[20_000:]


@pytest.mark.long
def test_m_m_1_at_heavy_load() -> None:
    """Mean 1 / (1 - rho), response exponential: p99 is mean x ln 100.

    Responses follow each other so closely that a seed's p99 spreads by 2.6 %.
    """
    times_ms = m_m_1_times_ms(4)
    assert times_ms.mean() == pytest.approx(10, rel=0.03)
    assert numpy.percentile(times_ms, 99) == pytest.approx(46.0517, rel=0.03)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_m_m_1_at_heavy_load_over_many_seeds() -> None:
    times_ms = numpy.concatenate([m_m_1_times_ms(seed) for seed in range(1, 9)])
    assert times_ms.mean() == pytest.approx(10, rel=0.02)
    assert numpy.percentile(times_ms, 99) == pytest.approx(46.0517, rel=0.02)


@pytest.mark.parametrize("cores", [1, 4])
def test_where_the_bottleneck_is_full_is_what_it_could_serve(cores: int) -> None:
    """M/M/c at .6: a core serves 1,000 a second whatever the load."""
    law = {"name": "exponential", "mean": "1ms"}
    arrival = {"name": "poisson", "rate": f"{600 * cores}/s"}
    node = {"cores": cores, "cpu": FREE | {"read": law}}
    record = simulated.run(parts_of({"node": node}, arrival=arrival, duration="60s"))
    [(name, used)] = utilisations(record, MODELLED).items()
    assert used == pytest.approx(0.6, rel=0.02)
    found = bottleneck([{name: used}], len(record.history) / 60)
    assert found is not None and found["resource"] == name
    assert found["saturates_at_ops"] == pytest.approx(1000 * cores, rel=0.02)


def network_share(record: RunRecord) -> float:
    [share] = [
        share for name, share in utilisations(record, MODELLED).items() if name.endswith(".network")
    ]
    return share


def test_a_link_is_as_busy_as_its_bytes_make_it() -> None:
    """Answers of 176 bytes on one connection, at 500 a second of the 1,000 that fit."""
    answer_bytes = HEADER_BYTES + VALUE_BYTES
    network = {"bandwidth": f"{1000 * answer_bytes}B/s"}
    made = parts_of(
        {"network": network},
        arrival={"name": "constant", "rate": "500/s"},
        client={"connections": 1, "timeout": "100s"},
        duration="5s",
    )
    record = simulated.run(made)
    assert network_share(record) == pytest.approx(0.5, rel=0.005)
    overloaded = simulated.run(
        parts_of(
            {"network": network},
            arrival={"name": "closed", "sessions": 50},
            client={"connections": 1, "timeout": "100s"},
            duration="5s",
        )
    )
    assert network_share(overloaded) == pytest.approx(1, abs=0.005)


# --- closed load ------------------------------------------------------------------------


@pytest.mark.parametrize("cores", [1, 3])
def test_a_saturated_station_is_the_bottleneck(cores: int) -> None:
    arrival = {"name": "closed", "sessions": 20, "think_time": "1ms"}
    node = {"cores": cores, "cpu": FREE | {"read": "1ms"}}
    record = simulated.run(parts_of({"node": node}, arrival=arrival, duration="2s"))
    throughput = len(record.history) / 2
    assert throughput == pytest.approx(1000 * cores, rel=0.01)
    busy = record.nodes[0].cpu_busy_ns.sum() / (2 * NS_PER_S * cores)
    assert busy == pytest.approx(1, abs=0.01)
    # N = X (R + Z), the interactive response time law (Denning and Buzen 1978).
    assert throughput * (latency_ms(record.history).mean() + 1) / 1000 == pytest.approx(
        20, rel=0.02
    )


def test_machine_repair_model() -> None:
    """M/M/1//N: N users think and queue at one exponential server (Kleinrock, section 3.8)."""
    users, think_ms, service_ms = 8, 5.0, 1.0
    ratio = service_ms / think_ms
    idle = 1 / sum(
        math.factorial(users) / math.factorial(users - k) * ratio**k for k in range(users + 1)
    )
    think = {"name": "exponential", "mean": f"{think_ms}ms"}
    arrival = {"name": "closed", "sessions": users, "think_time": think}
    cpu = FREE | {"read": {"name": "exponential", "mean": f"{service_ms}ms"}}
    record = simulated.run(parts_of({"node": {"cpu": cpu}}, arrival=arrival, duration="60s"))
    assert len(record.history) / 60 == pytest.approx((1 - idle) * 1000 / service_ms, rel=0.03)


# --- links ------------------------------------------------------------------------------


def link_of(**network: Any) -> Link:
    return Link(Sender(parts_of({"network": network}).store.network, 1, "here"))


SPREAD = {"name": "exponential", "mean": "1ms"}


def test_fifo_never_overtakes_and_none_does() -> None:
    times = range(0, 2000 * 100_000, 100_000)
    in_order = link_of(delay=SPREAD)
    fifo = [in_order.arrival_ns(now, REQUEST, 0) for now in times]
    free_link = link_of(delay=SPREAD, ordering="none")
    free = [free_link.arrival_ns(now, REQUEST, 0) for now in times]
    assert fifo == sorted(fifo)
    assert free != sorted(free)
    delays = numpy.array(free) - numpy.array(times)
    assert delays.mean() == pytest.approx(NS_PER_MS, rel=0.1)
    # The draws are the same; keeping order can only hold a message back.
    assert (numpy.array(fifo) >= numpy.array(free)).all()
    assert numpy.maximum.accumulate(free).tolist() == fifo


def test_fifo_holds_among_kinds_of_one_link() -> None:
    link = link_of(delay="1ms", delays={"replicate": "5ms"})
    assert link.arrival_ns(0, REPLICATE, 0) == 5 * NS_PER_MS
    assert link.arrival_ns(1, REQUEST, 0) == 5 * NS_PER_MS
    loose = link_of(delay="1ms", delays={"replicate": "5ms"}, ordering="none")
    assert loose.arrival_ns(0, REPLICATE, 0) == 5 * NS_PER_MS
    assert loose.arrival_ns(1, REQUEST, 0) == NS_PER_MS + 1


def test_bandwidth_serialises_messages() -> None:
    link = link_of(delay="2ms", bandwidth="1MB/s")
    sent = [link.arrival_ns(0, REQUEST, 500) for _ in range(4)]
    assert sent == [2_500_000, 3_000_000, 3_500_000, 4_000_000]
    assert link.arrival_ns(10 * NS_PER_MS, REQUEST, 500) == 12_500_000


def test_jitter_adds_to_the_delay() -> None:
    link = link_of(delay="2ms", jitter={"name": "uniform", "low": "0s", "high": "1ms"})
    delays = [link.arrival_ns(now, REQUEST, 0) - now for now in range(0, 10**10, 10**7)]
    assert 2 * NS_PER_MS <= min(delays) < max(delays) <= 3 * NS_PER_MS
    assert numpy.mean(delays) == pytest.approx(2.5 * NS_PER_MS, rel=0.02)


def test_a_share_of_messages_is_lost() -> None:
    link = link_of(loss=0.2, bandwidth="1MB/s")
    due = [link.arrival_ns(0, REQUEST, 1000) for _ in range(5000)]
    assert due.count(LOST) / 5000 == pytest.approx(0.2, abs=0.02)
    # A lost one has taken its time on the link.
    assert max(due) == 5000 * NS_PER_MS


def test_a_delay_without_a_mean_is_a_delay() -> None:
    link = link_of(delay={"name": "pareto", "scale": "1ms", "shape": 0.5})
    assert min(link.arrival_ns(0, REQUEST, 0) for _ in range(100)) >= NS_PER_MS


# --- links under load -------------------------------------------------------------------


def test_a_round_trip_is_what_its_links_cost() -> None:
    network = {"delay": "250us", "bandwidth": "1MB/s"}
    closed = {"name": "closed", "sessions": 1}
    record = simulated.run(parts_of({"network": network}, arrival=closed))
    request_us, response_us = HEADER_BYTES + KEY_BYTES, HEADER_BYTES + VALUE_BYTES
    assert set(latency_ms(record.history)) == {(500 + request_us + response_us) / 1000}


def test_sessions_share_the_bandwidth_of_their_connection() -> None:
    closed = {"name": "closed", "sessions": 16}
    client = {"timeout": "10s", "connections": 2}
    run = parts_of({"network": {"bandwidth": "1MB/s"}}, arrival=closed, client=client)
    record = simulated.run(run)
    per_s = 2 * 1e6 / (HEADER_BYTES + VALUE_BYTES)
    assert len(record.history) == pytest.approx(per_s, rel=0.01)


def test_loss_leads_to_unknown_outcomes() -> None:
    network = {"delay": "1ms", "loss": 0.1}
    client = {"timeout": "50ms", "connections": 4}
    workload = {"name": "ycsb", "mix": "a", "keys": 10}
    run = parts_of({"network": network}, client=client, workload=workload, duration="5s")
    history = simulated.run(run).history
    # Either way may fail.
    assert (history.outcome == UNKNOWN).mean() == pytest.approx(1 - 0.9**2, abs=0.015)
    assert not (history.outcome == FAIL).any()
    assert (history.returned_ns[history.outcome == UNKNOWN] < 0).all()
    assert set(latency_ms(history)) == {2.0}


def test_delays_by_kind_add_up_over_replication() -> None:
    delays = {"request": "1ms", "response": "2ms", "replicate": "10ms", "acknowledge": "20ms"}
    system = {
        "protocol": {"name": "primary_backup"},
        "replicas": 3,
        "network": {"delays": delays},
    }
    workload = {"name": "ycsb", "mix": "a", "keys": 10}
    run = parts_of(system, workload=workload, arrival={"name": "closed", "sessions": 4})
    history = simulated.run(run).history
    writes = history.kind == WRITE
    assert set(latency_ms(history.select(writes))) == {33.0}
    assert set(latency_ms(history.select(history.kind == READ))) == {3.0}


# --- crashes ----------------------------------------------------------------------------


def crashed(durability: str, sync: str = "1ms") -> tuple[SimulatedCluster, History]:
    """One node under writes that crashes at 400 ms and is back at 500 ms."""
    storage = {"durability": durability, "sync": sync}
    system = {"node": {"cpu": FREE | {"write": "100us"}, "storage": storage}}
    run = parts_of(
        system,
        workload={"name": "ycsb", "mix": "a", "keys": 5},
        arrival={"name": "closed", "sessions": 8, "think_time": "1ms"},
        client={"timeout": "1s"},
    )
    cluster = SimulatedCluster(run)
    node = cluster.nodes[0]
    cluster.clock.at(400 * NS_PER_MS, lambda _: node.crash(), None)
    cluster.clock.at(500 * NS_PER_MS, lambda _: node.restart(), None)
    cluster.run()
    return cluster, cluster.clients[0].driver.history()


def test_a_crash_resets_connections_and_takes_what_was_not_synced() -> None:
    cluster, history = crashed("fsync")
    unknown = history.outcome == UNKNOWN
    assert 1 <= unknown.sum() <= 8
    assert not (history.outcome == FAIL).any()
    returned_ns = history.returned_ns[history.outcome == OK]
    assert not ((returned_ns > 400 * NS_PER_MS) & (returned_ns < 500 * NS_PER_MS)).any()
    kept = {(op.session, op.sequence) for ops, *_ in cluster.nodes[0].records for op in ops}
    done = (history.kind == WRITE) & (history.outcome == OK)
    acknowledged = zip(history.session[done], history.sequence[done], strict=True)
    assert {(int(session), int(sequence)) for session, sequence in acknowledged} <= kept
    lost = zip(history.session[unknown], history.sequence[unknown], strict=True)
    assert not {(int(session), int(sequence)) for session, sequence in lost} <= kept


def test_counters_go_on_after_a_restart() -> None:
    cluster, history = crashed("fsync")
    samples = numpy.array(cluster.nodes[0].samples)
    assert (numpy.diff(samples, axis=0) >= 0).all()
    assert samples[-1, 0] == pytest.approx(len(history), rel=0.05)


def test_a_record_of_a_run_is_whole() -> None:
    record: RunRecord = simulated.run(parts_of({}, duration="250ms"))
    assert record.clock == "virtual"
    assert record.history.outcome.tolist() == [OK] * len(record.history)
    assert len(record.nodes[0].operations) == 3
    assert record.nodes[0].operations.sum() == len(record.history)
    assert record.clients[0].lag_ns.max() == 0
