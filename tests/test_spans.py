"""Where the time of sampled operations goes, in virtual time: known constants, and sums."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy
import pytest

from orchestrator.analysis.breakdown import breakdown, parts_ms, spans_of
from orchestrator.analysis.summary import digest
from orchestrator.config.load import load_mapping
from orchestrator.core.machine import READ, WRITE
from orchestrator.core.record import RunRecord
from orchestrator.core.registry import Family, plugins
from orchestrator.core.spans import PARTS, Span, Spans
from orchestrator.runtimes import _client_parts, _sampling, simulated
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._sampling import NONE_LEFT, Sampling
from orchestrator.store._rows import span_rows

US = 1000
CPU = {"read": "100us", "write": "150us", "message": "10us"}
STORED = {"cpu": CPU, "storage": {"read": "300us", "write": "500us"}}
SYNCED = {"cpu": CPU, "storage": {"durability": "fsync", "sync": "1ms", "write": "500us"}}


def parts(system: dict[str, Any] | None = None, **changes: Any) -> Parts:
    """Operations that come one by one over links of 200 us, to nodes of known costs."""
    base = {"name": "replicated_store", "node": {"cpu": CPU}, "network": {"delay": "200us"}}
    config: dict[str, Any] = {
        "experiment": "spans",
        "runtime": "sim",
        "system": base | (system or {}),
        "workload": {"name": "ycsb", "mix": "a", "keys": 100} | changes.pop("workload", {}),
        "arrival": {"name": "constant", "rate": "100/s"},
        "warmup": "100ms",
        "duration": "1s",
    }
    return Parts.of(load_mapping(config | changes))


def sampled(record: RunRecord) -> Spans:
    """Those of the run, each of which adds up to what the history says of the operation."""
    spans = spans_of(record)
    assert spans is not None and len(spans)
    history = record.history
    latency_ns = history.returned_ns - history.intended_ns
    rows = {
        (session, sequence): (latency, kind, intended)
        for session, sequence, latency, kind, intended in zip(
            history.session.tolist(),
            history.sequence.tolist(),
            latency_ns.tolist(),
            history.kind.tolist(),
            history.intended_ns.tolist(),
            strict=True,
        )
    }
    found = zip(
        spans.session.tolist(),
        spans.sequence.tolist(),
        spans.total_ns.tolist(),
        spans.kind.tolist(),
        spans.intended_ns.tolist(),
        strict=True,
    )
    assert all(rows[session, sequence] == tuple(rest) for session, sequence, *rest in found)
    assert spans.parts_ns.min() >= 0
    return spans


def known(record: RunRecord, kind: int) -> set[tuple[int, ...]]:
    """All breakdowns of that kind that there are, in us."""
    spans = sampled(record)
    rows = spans.parts_ns[spans.kind == kind]
    assert not (rows % US).any()
    return {tuple(row) for row in (rows // US).tolist()}


def three(protocol: str, **changes: Any) -> dict[str, Any]:
    return {"protocol": {"name": protocol}, "replicas": 3} | changes


# queue, cpu, cache and storage, network, replication. A message and its answer take 2 x 200 us on
# their way and 2 x 10 us of CPUs; quorum writes ask first; a chain of three has three links.
@pytest.mark.parametrize(
    ("system", "read", "write"),
    [
        ({}, (0, 100, 0, 400, 0), (0, 150, 0, 400, 0)),
        (three("raft"), (0, 100, 0, 400, 420), (0, 150, 0, 400, 420)),
        (three("multi_paxos"), (0, 100, 0, 400, 420), (0, 150, 0, 400, 420)),
        (three("chain"), (0, 100, 0, 400, 0), (0, 150, 0, 400, 630)),
        (three("quorum"), (0, 100, 0, 400, 420), (0, 150, 0, 400, 840)),
        (three("causal"), (0, 100, 0, 400, 0), (0, 150, 0, 400, 0)),
        ({"node": STORED}, (0, 100, 300, 400, 0), (0, 150, 500, 400, 0)),
        ({"node": SYNCED}, (0, 100, 0, 400, 0), (0, 150, 1500, 400, 0)),
        # A read goes through the log, and then for its entry. Of what follower and own storage take
        # at the same time, the own one's comes first.
        (three("raft", node=STORED), (0, 100, 800, 400, 420), (0, 150, 500, 400, 420)),
        (three("raft", node=SYNCED), (0, 100, 1500, 400, 420), (0, 150, 1500, 400, 420)),
        ({"batch": {"max": 4, "linger": "50us"}}, (50, 100, 0, 400, 0), (50, 150, 0, 400, 0)),
    ],
)
def test_known_constants_are_found_to_the_nanosecond(
    system: dict[str, Any], read: tuple[int, ...], write: tuple[int, ...]
) -> None:
    record = simulated.run(parts(system))
    assert known(record, READ) == {read} and known(record, WRITE) == {write}


def test_a_primary_waits_for_its_slower_backup() -> None:
    record = simulated.run(parts(three("primary_backup")))
    assert known(record, READ) == {(0, 100, 0, 400, 0)}
    assert (0, 150, 0, 400, 430) in known(record, WRITE)


def test_a_cache_that_has_the_entry_leaves_storage_out() -> None:
    record = simulated.run(parts({"node": STORED, "cache": {"name": "lru", "size": 50}}))
    assert known(record, READ) == {(0, 100, 0, 400, 0), (0, 100, 300, 400, 0)}
    own = {"policy": {"name": "lru", "size": 50}, "ttl": "1s"}
    record = simulated.run(parts(client={"cache": own}))
    assert known(record, READ) == {(0, 0, 1, 0, 0), (0, 100, 0, 400, 0)}


def test_what_travels_together_waits_at_the_client() -> None:
    batch = {"max": 4, "linger": "50us"}
    record = simulated.run(parts(client={"batch": batch, "connections": 1}))
    assert known(record, READ) == {(50, 100, 0, 400, 0)}


def test_both_halves_of_a_read_and_write_are_sampled() -> None:
    record = simulated.run(parts(workload={"mix": "f"}))
    assert known(record, READ) == {(0, 100, 0, 400, 0)}
    assert known(record, WRITE) == {(0, 150, 0, 400, 0)}


# A look-up takes 20 us of the tier's CPU. Who asks the store himself has its parts as well; what
# the tier asks of it is the tier's storage.
@pytest.mark.parametrize(
    ("pattern", "hit", "miss", "write"),
    [
        ("cache_aside", (0, 20, 0, 400, 0), (0, 120, 300, 800, 0), (0, 170, 500, 800, 0)),
        ("read_through", (0, 20, 0, 400, 0), (0, 20, 820, 400, 0), (0, 170, 500, 800, 0)),
        ("write_through", (0, 20, 0, 400, 0), (0, 20, 820, 400, 0), (0, 20, 1070, 400, 0)),
    ],
)
def test_a_tier_is_storage_to_whom_it_serves(
    pattern: str, hit: tuple[int, ...], miss: tuple[int, ...], write: tuple[int, ...]
) -> None:
    tier = {"pattern": {"name": pattern}, "cache": {"name": "lru", "size": 50}}
    record = simulated.run(parts({"node": STORED, "tier": tier}))
    assert known(record, READ) == {hit, miss} and known(record, WRITE) == {write}


@pytest.mark.parametrize("protocol", sorted(plugins(Family.PROTOCOL)))
def test_parts_add_up_under_load_with_every_protocol(protocol: str) -> None:
    law = {"name": "exponential", "mean": "100us"}
    storage = {"read": law, "write": law, "parallel": 2, "durability": "fsync", "sync": "200us"}
    node = {"cpu": {"read": law, "write": law, "message": "5us"}, "storage": storage}
    replicas = 1 if protocol == "unreplicated" else 3
    system = {"protocol": {"name": protocol}, "replicas": replicas, "node": node}
    system |= {"network": {"delay": law, "loss": 0.0}, "cache": {"name": "lru", "size": 20}}
    load = {"name": "closed", "sessions": 16}
    spans = sampled(simulated.run(parts(system, arrival=load, duration="300ms", clients=2)))
    assert len(spans) > 50 and (spans.parts_ns[:, [1, 3]] > 0).all()
    assert spans.parts_ns[:, 0].sum() > 0 and spans.parts_ns[:, 2].sum() > 0


@pytest.mark.parametrize("protocol", ["raft", "quorum", "chain"])
def test_parts_add_up_where_nodes_crash_and_clients_insist(protocol: str) -> None:
    system = three(protocol, node=SYNCED | {"queue": {"name": "fifo", "limit": 3}})
    client = {"timeout": "500ms", "attempt_timeout": "20ms", "retry": {"attempts": 5}}
    client["hedge"] = {"after": "3ms", "attempts": 1}
    fault = {"name": "crash", "at": "300ms", "restart_after": "300ms", "target": "any"}
    made = parts(
        system | {"network": {"delay": "200us", "loss": 0.01}},
        arrival={"name": "poisson", "rate": "800/s"},
        client=client,
        faults=[fault],
        duration="1500ms",
    )
    record = simulated.run(made)
    spans = sampled(record)
    assert record.clients[0].extra_attempts > 0
    # What was lost, refused or taken over before the answer is waiting, or a leg of its own.
    assert spans.parts_ns[:, 0].max() > 3_000 * US


def test_a_redirection_is_a_leg_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sampling, "DENSEST", 1)
    node = {"cpu": CPU, "storage": {"durability": "async"}}
    fault = {"name": "crash", "target": "leader", "at": "300ms"}
    record = simulated.run(parts(three("raft", node=node), faults=[fault], workload={"mix": "c"}))
    rows = sampled(record).parts_ns // US
    # Every node that knows no leader takes its CPU and the way there and back, and after each time
    # the client waits before it asks again.
    asked = rows[:, 1] // 100
    assert (rows[:, 3] == 400 * asked).all() and (rows[:, 1] == 100 * asked).all()
    assert asked.max() > 50 and (rows[:, 0] >= 5_000 * (asked - 1) // 2).all()


def test_what_is_lost_on_its_way_is_waiting() -> None:
    client = {"attempt_timeout": "10ms", "retry": {"attempts": 9, "backoff": {"base": "1ms"}}}
    made = parts({"network": {"delay": "200us", "loss": 0.3}}, workload={"mix": "c"}, client=client)
    rows = sampled(simulated.run(dataclasses.replace(made))).parts_ns // US
    assert {tuple(row) for row in rows[:, 1:].tolist()} == {(100, 0, 400, 0)}
    waited = rows[:, 0]
    assert (waited == 0).any() and (waited[waited > 0] >= 10_000).all() and (waited > 0).any()


@pytest.mark.parametrize("load", [0.5, pytest.param(0.7, marks=pytest.mark.long)])
def test_waiting_at_a_queue_is_that_of_theory(load: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """M/M/1: rho / (1 - rho) mean services of waiting, and one of service."""
    monkeypatch.setattr(_sampling, "SAMPLES", 1 << 20)
    service = {"name": "exponential", "mean": "1ms"}
    node = {"cpu": {"read": service, "write": service}}
    made = parts(
        {"node": node, "network": {}},
        arrival={"name": "poisson", "rate": f"{1000 * load}/s"},
        warmup="20s",
        duration="300s",
        client={"timeout": "100s"},
    )
    spans = sampled(simulated.run(made))
    means = dict(zip(PARTS, spans.parts_ns.mean(axis=0) / 1e6, strict=True))
    assert means["queue"] == pytest.approx(load / (1 - load), rel=0.03)
    assert means["cpu"] == pytest.approx(1, rel=0.02)
    assert means["network"] == means["replication"] == means["cache_storage"] == 0


def test_sampling_changes_nothing_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, Any] = {"arrival": {"name": "closed", "sessions": 8}, "duration": "200ms"}
    system = three("raft", node=STORED, batch={"max": 4, "linger": "30us"})
    first, again = (simulated.run(parts(system, **changes)) for _ in range(2))
    assert numpy.array_equal(sampled(first).parts_ns, sampled(again).parts_ns)
    monkeypatch.setattr(_client_parts, "make_sampling", lambda *_: None)
    without = simulated.run(parts(system, **changes))
    assert without.clients[0].spans is None and breakdown([without]) is None
    assert digest(first) == digest(again) == digest(without)


# --- which operations -------------------------------------------------------------------


def places(count: int, *, begun_ns: int, warmup_ns: int, end_ns: int | None) -> list[int]:
    """Indices of what is sampled of operations ``begun_ns`` apart, in blocks of 1,000."""
    sampling = Sampling(random.Random(1), 1, warmup_ns, end_ns)
    taken: list[tuple[int, int]] = []
    for end in range(1000, count + 1, 1000):
        left, at_sample = 1000, sampling.place_in(end, 1000)
        while left:
            if left == at_sample:
                place = sampling.take(end - left, (end - left) * begun_ns)
                if place is not None:
                    taken.append((place, end - left))
                at_sample = sampling.place_in(end, left)
                assert at_sample == NONE_LEFT or at_sample < left
            left -= 1
    return [index for place, index in taken if sampling.keeps(place)]


@pytest.mark.parametrize("end_ns", [400_000_000, None])
def test_samples_are_spread_over_the_window(end_ns: int | None) -> None:
    found = places(400_000, begun_ns=1000, warmup_ns=100_000_000, end_ns=end_ns)
    assert _sampling.SAMPLES / 4 < len(found) <= _sampling.SAMPLES
    assert 100_000 <= found[0] < 103_000
    gaps = numpy.diff(found)
    assert gaps.max() < 4 * (300_000 / len(found)) and gaps.min() > 0
    quarters = numpy.histogram(found, bins=4, range=(100_000, 400_000))[0]
    assert quarters.max() <= 1.3 * quarters.min()
    # No turn of a balancer hides.
    assert {index % 4 for index in found} == {0, 1, 2, 3}


def test_few_operations_are_sampled_too() -> None:
    found = places(1000, begun_ns=1_000_000, warmup_ns=100_000_000, end_ns=1_000_000_000)
    assert 200 <= len(found) <= 230 and found[0] < 110


# --- figures ----------------------------------------------------------------------------


def run_of(rows: list[Span]) -> RunRecord:
    record = simulated.run(parts(duration="100ms"))
    clients = (dataclasses.replace(record.clients[0], spans=Spans.of(rows)),)
    return dataclasses.replace(record, clients=clients, warmup_ns=0, end_ns=10**9)


def span(number: int, kind: int, *parts_ns: int) -> Span:
    return Span(1, number, kind, number, *parts_ns)


def test_figures_are_means_that_add_up() -> None:
    fast = [span(i, READ, 0, 10**5, 0, 4 * 10**5, 0) for i in range(90)]
    slow = [span(i, WRITE, 10**6 + i, 10**5, 0, 4 * 10**5, 10**6) for i in range(90, 100)]
    found = breakdown([run_of(fast), run_of(slow)])
    assert found is not None and found["sampled"] == 100
    for name in ("all", "p90"):
        assert sum(found[name][part] for part in PARTS) == pytest.approx(found[name]["total"])
    assert found["all"]["queue"] == pytest.approx(0.1, rel=1e-3)
    assert found["by_kind"]["read"]["total"] == pytest.approx(0.5)
    assert found["by_kind"]["write"]["replication"] == pytest.approx(1)
    whole = parts_ms(found)
    assert whole == {part: found["all"][part] for part in PARTS}
    # One operation is the slowest percent: too few to say.
    assert found["p99"] is None
    assert breakdown([run_of(slow)])["by_kind"]["read"] is None  # type: ignore[index]
    late = [span(2 * 10**9, READ, 1, 1, 1, 1, 1)]
    assert breakdown([run_of(late)]) is None and parts_ms(None) is None


def test_the_tail_is_that_of_the_slowest() -> None:
    rows = [span(i, READ, i * 1000, 10**5, 0, 0, 0) for i in range(2000)]
    found = breakdown([run_of(rows)])
    assert found is not None and 20 <= found["p99"]["operations"] <= 21
    assert found["p99"]["queue"] == pytest.approx(1.9895, abs=0.001)
    assert found["p90"]["operations"] in (200, 201)


def test_rows_are_stored_by_their_start() -> None:
    late = span(2 * 10**9, READ, 1, 1, 1, 1, 1)
    rows = span_rows(
        "r", run_of([span(9, WRITE, 1, 2, 3, 4, 5), late, span(5, READ, 6, 7, 8, 9, 0)])
    )
    found = rows.to_pylist()
    assert [(row["session"], row["sequence"], row["op"]) for row in found] == [
        (1, 5, "read"),
        (1, 9, "write"),
    ]
    names = [*(f"{part}_ns" for part in PARTS), "total_ns"]
    assert [[row[name] for name in names] for row in found] == [
        [6, 7, 8, 9, 0, 30],
        [1, 2, 3, 4, 5, 15],
    ]
