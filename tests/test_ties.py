"""Reads that wait at two nodes, of which the one that begins tells the other to drop its copy."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from server_rig import Node as Served
from server_rig import connect

from orchestrator.analysis.overload import overload
from orchestrator.analysis.resilience import course_of
from orchestrator.config.load import load_mapping
from orchestrator.core.machine import OK, READ, SCAN, WRITE, Op, Reply
from orchestrator.core.record import RunRecord
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.core.verdict import VALID, Evidence, check_claims
from orchestrator.core.waiting import Cancel, Refusal, Tie
from orchestrator.errors import ConfigError
from orchestrator.plan import plan
from orchestrator.runtimes import _wire, simulated
from orchestrator.runtimes._parts import Parts, make_machine, make_shell
from orchestrator.runtimes._tying import TyingShell
from orchestrator.runtimes._virtual_clock import VirtualClock

READS_ANYWHERE = {"name": "primary_backup", "mode": "async", "read_from": "any", "failover": False}
EXPONENTIAL = {"name": "exponential", "mean": "1ms"}


def parts(client: dict[str, Any], system: dict[str, Any] | None = None, **root: Any) -> Parts:
    """Four nodes of 1,000 reads/s, which any of them may serve."""
    node = {"cpu": {"read": EXPONENTIAL}, "queue": {"name": "fifo", "limit": None}}
    config = {
        "runtime": "sim",
        "seed": 5,
        "system": {
            "protocol": READS_ANYWHERE,
            "replicas": 4,
            "node": node,
            "balancer": {"name": "random"},
            "network": {"delay": "50us"},
        }
        | (system or {}),
        "client": {"timeout": "5s"} | client,
        "workload": {"name": "ycsb", "mix": "c", "keys": 100},
        "arrival": {"name": "poisson", "rate": "2800/s"},
        "warmup": "500ms",
        "duration": "3500ms",
    }
    return plan(load_mapping(config | root))


def told(record: RunRecord, made: Parts) -> dict[str, Any]:
    return overload(record, course_of(record, made.config), made.config.client.timeout)


def took_ms(record: RunRecord, share: float) -> float:
    history = record.history
    assert (history.outcome == OK).all()
    took_ns = (history.returned_ns - history.intended_ns)[history.intended_ns >= NS_PER_S // 2]
    return float(numpy.quantile(took_ns, share)) / NS_PER_MS


def busy_s(record: RunRecord) -> float:
    return float(sum(node.cpu_busy_ns.sum() for node in record.nodes)) / NS_PER_S


# --- what they are for ------------------------------------------------------------------


def test_at_high_load_ties_help_where_hedges_harm_with_a_slow_node_too() -> None:
    slow = [{"name": "slow", "target": 3, "at": "0s", "lasts": "60s", "factor": 20}]
    tied = simulated.run(parts({"tie": {"after": "100us"}}, faults=slow))
    hedged = simulated.run(parts({"hedge": {"percentile": 95}}, faults=slow))
    assert took_ms(tied, 0.99) < took_ms(hedged, 0.99) / 4
    assert took_ms(tied, 0.99) < 60


def test_ties_shorten_the_tail_under_load_for_nearly_no_extra_work() -> None:
    """Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013: queueing is what makes latency vary,
    and two queues with cancellation take it away, where hedging adds work to busy servers.
    """
    alone = simulated.run(parts({}))
    tied = simulated.run(parts({"tie": {"after": "100us"}}))
    hedged = simulated.run(parts({"hedge": {"percentile": 95}}))
    assert took_ms(tied, 0.5) < 0.75 * took_ms(alone, 0.5)
    assert took_ms(tied, 0.99) < took_ms(alone, 0.99) / 2
    assert took_ms(tied, 0.99) < took_ms(hedged, 0.99) / 2
    assert busy_s(tied) < 1.08 * busy_s(alone)
    assert busy_s(hedged) > 1.1 * busy_s(alone)


def test_a_delay_of_two_network_delays_keeps_idle_servers_from_serving_both() -> None:
    """Where both queues are empty both would begin before either has heard of the other."""
    calm = {"name": "poisson", "rate": "200/s"}
    in_vain = {}
    for after in ("0s", "100us"):
        made = parts({"tie": {"after": after}}, arrival=calm)
        record = simulated.run(made)
        in_vain[after] = told(record, made)["answers_in_vain"] / len(record.history)
    assert in_vain["0s"] > 0.7
    assert in_vain["100us"] < 0.02


def test_every_copy_is_answered_answered_in_vain_or_cancelled() -> None:
    made = parts({"tie": {"after": "100us"}}, duration="1500ms")
    record = simulated.run(made)
    figures = told(record, made)
    copies = sum(node.operations.sum() for node in record.nodes)
    ended = len(record.history) + figures["cancelled"] + figures["answers_in_vain"]
    assert figures["cancelled"] > 0.9 * len(record.history)
    # Some are still waiting for their answer in vain when the run ends.
    assert copies - ended in range(5)
    assert figures["attempts_per_operation"] == pytest.approx(2, abs=0.02)
    assert figures["refused"] == 0


def test_only_reads_are_tied() -> None:
    made = parts({"tie": {"after": "100us"}}, workload={"name": "ycsb", "mix": "a", "keys": 100})
    record = simulated.run(made)
    reads = int((record.history.kind == READ).sum())
    assert told(record, made)["cancelled"] <= reads
    writes = (record.history.kind == WRITE) & (record.history.intended_ns >= NS_PER_S // 2)
    share = writes.sum() / (record.history.intended_ns >= NS_PER_S // 2).sum()
    assert told(record, made)["attempts_per_operation"] == pytest.approx(2 - share, abs=0.05)


def test_ties_travel_in_batches() -> None:
    made = parts({"tie": {"after": "0s"}, "connections": 1, "batch": {"max": 4, "linger": "2ms"}})
    record = simulated.run(made)
    assert (record.history.outcome == OK).all()
    requests, operations = record.clients[0].carried
    assert operations / requests > 2
    assert told(record, made)["cancelled"] > 0.5 * len(record.history)


def test_a_full_queue_leaves_the_read_to_the_other_node() -> None:
    node = {"cpu": {"read": EXPONENTIAL}, "queue": {"name": "fifo", "limit": 1}}
    failed = {}
    for tie in (None, "0s"):
        made = parts({"tie": {"after": tie}}, {"node": node})
        record = simulated.run(made)
        assert told(record, made)["refused"] > 0
        failed[tie] = (record.history.outcome != OK).mean()
    assert failed["0s"] < failed[None]


# --- under faults -----------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["abd", "quorum", "causal", "craq"])
def test_levels_hold_and_nothing_hangs_when_nodes_and_links_fail(protocol: str) -> None:
    node = {
        "cpu": {"read": "300us", "write": "300us"},
        "queue": {"name": "fifo"},
        "storage": {"durability": "fsync"},
    }
    system = {"protocol": {"name": protocol}, "replicas": 3, "node": node}
    client = {
        "timeout": "2s",
        "attempt_timeout": "100ms",
        "retry": {"attempts": 20, "backoff": {"base": "5ms", "max": "50ms"}},
        "tie": {"after": "100us"},
    }
    made = parts(
        client,
        system,
        workload={"name": "ycsb", "mix": "a", "keys": 100},
        arrival={"name": "poisson", "rate": "800/s"},
        faults=[
            {"name": "crash", "target": 0, "at": "700ms", "restart_after": "300ms"},
            {"name": "pause", "target": 1, "at": "1500ms", "lasts": "300ms"},
            {"name": "duplication", "target": "all", "at": "2s", "lasts": "1s", "share": 0.3,
             "clients": True},
            {"name": "partition", "shape": "isolate", "target": 2, "at": "3200ms",
             "lasts": "200ms"},
        ],
    )  # fmt: skip
    record = simulated.run(made)
    evidence = Evidence(digests=[node.contents_digest for node in record.nodes])
    claimed = made.system.claims(made.circumstances)
    assert check_claims(record.history, claimed, evidence).verdict == VALID
    reads = record.history.kind == READ
    assert (record.history.outcome[reads] == OK).mean() > 0.99
    assert told(record, made)["cancelled"] > 100


def test_the_same_seed_gives_the_same_history() -> None:
    made = parts({"tie": {"after": "100us"}}, duration="500ms")
    one, other = simulated.run(made), simulated.run(made)
    numpy.testing.assert_array_equal(one.history.returned_ns, other.history.returned_ns)
    assert len(numpy.unique(one.history.returned_ns)) > 1000


def test_nodes_forget_dropped_copies_when_they_tell_of_their_load() -> None:
    """With a balancer that asks, what was dropped is in flight no more."""
    made = parts({"tie": {"after": "100us"}}, {"balancer": {"name": "prequal"}})
    record = simulated.run(made)
    assert told(record, made)["cancelled"] > 0.9 * len(record.history)
    assert took_ms(record, 0.99) < 10
    blind = simulated.run(parts({}, {"balancer": {"name": "prequal"}}))
    assert took_ms(record, 0.99) < 1.5 * took_ms(blind, 0.99)


# --- one node ---------------------------------------------------------------------------


class Outlet:
    """Notes what a node says."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def reply(self, reply: Reply) -> None:
        self.said.append(("answered", reply.handle))

    def refuse(self, refusal: Refusal) -> None:
        self.said.append(("refused", refusal.handle))

    def cancel(self, target: int, cancel: Cancel) -> None:
        self.said.append(("cancel", target, cancel))

    def dropped(self, handle: Any) -> None:
        self.said.append(("dropped", handle))

    def became(self, role: str) -> None:
        """Its role is of no interest."""


def shell() -> tuple[TyingShell, VirtualClock, Outlet]:
    """A node that takes a millisecond for a read, and 100 us for a message."""
    node = {"cpu": {"read": "1ms", "message": "100us"}, "queue": {"name": "fifo", "limit": 2}}
    system = {"protocol": {"name": "unreplicated"}, "replicas": 1, "node": node}
    config = {"runtime": "sim", "system": system, "client": {"tie": {"after": "0s"}}}
    made = Parts.of(load_mapping(config))
    clock, outlet = VirtualClock(0), Outlet()
    found = make_shell(made, 0, make_machine(made, 0), None, clock, outlet)  # type: ignore[arg-type]
    assert isinstance(found, TyingShell)
    found.start([])
    return found, clock, outlet


def copy(node: TyingShell, number: int) -> None:
    node.tied(f"copy {number}", Op(number, 1, READ, b"k"), Tie(1, 1))


def test_who_begins_says_so_and_who_has_begun_goes_on() -> None:
    node, clock, outlet = shell()
    copy(node, 1)
    copy(node, 2)
    assert outlet.said == [("cancel", 1, Cancel(1, 1, 1))]
    node.received(1, Cancel(1, 1, 1))
    node.received(1, Cancel(2, 1, 1))
    clock.run(5 * NS_PER_MS)
    assert outlet.said[1:] == [("answered", "copy 1"), ("dropped", "copy 2")]
    assert node.cancelled == 1
    # A read and two messages.
    assert node.cpu_busy_ns == 1_200_000


def test_a_copy_that_comes_after_it_was_called_off_is_dropped_once() -> None:
    node, clock, outlet = shell()
    node.received(1, Cancel(1, 1, 1))
    clock.run(NS_PER_MS)
    copy(node, 1)
    assert outlet.said == [("dropped", "copy 1")]
    # The pair of another attempt of the same operation is another one.
    node.tied("again", Op(1, 1, READ, b"k"), Tie(1, 2))
    assert outlet.said[1:] == [("cancel", 1, Cancel(1, 1, 2))]


def test_what_was_called_off_and_never_sent_is_forgotten() -> None:
    node, clock, outlet = shell()
    node.received(1, Cancel(1, 1, 1))
    clock.at(2 * NS_PER_S, lambda _: node.received(1, Cancel(2, 1, 1)), None)
    clock.run()
    copy(node, 2)
    copy(node, 1)
    assert outlet.said == [("dropped", "copy 2"), ("cancel", 1, Cancel(1, 1, 1))]


def test_a_copy_that_finds_the_queue_full_is_turned_away_and_calls_nothing_off() -> None:
    node, clock, outlet = shell()
    for number in range(1, 5):
        copy(node, number)
    assert outlet.said == [("cancel", 1, Cancel(1, 1, 1)), ("refused", "copy 4")]
    node.received(1, Cancel(4, 1, 1))
    clock.run(10 * NS_PER_MS)
    assert [each[0] for each in outlet.said].count("answered") == 3
    assert node.cancelled == 0


# --- the wire ---------------------------------------------------------------------------


def test_a_copy_survives_the_wire() -> None:
    node = Served()
    connection, transport = connect(node, own=True)
    read = Op(7 << 22 | 3, 5, SCAN, b"key", None, 40, 9, 20, 2, b"context")
    connection.data_received(_wire.encode_tied(read, Tie(2, 8)))
    assert node.copies == [(read, Tie(2, 8))]
    assert not transport.closed


@pytest.mark.parametrize(
    "command",
    [
        _wire.encode_tied(Op(1, 1, WRITE, b"k", b"v"), Tie(1, 1)),
        _wire.encode_tied(Op(1, 1, READ, b"k"), Tie(1, 1)).replace(b"*5", b"*4", 1)[:-8] + b"\r\n",
        b"*2\r\n$6\r\nABTIED\r\n$8\r\n12345678\r\n",
    ],
    ids=["write", "cut", "short"],
)
def test_what_is_no_copy_ends_the_connection(command: bytes) -> None:
    node = Served()
    connection, transport = connect(node, own=True)
    connection.data_received(command)
    connection.data_received(b"*1\r\n$4\r\nPING\r\n")
    node.flush()
    assert node.copies == []
    assert transport.closed


def test_strangers_have_no_copies() -> None:
    node = Served()
    connection, transport = connect(node)
    connection.data_received(_wire.encode_tied(Op(1, 1, READ, b"k"), Tie(1, 1)))
    node.flush()
    assert node.copies == []
    assert b"NOPROOF" in transport.data


# --- bad input --------------------------------------------------------------------------

QUEUEING = {"queue": {"name": "fifo"}}


@pytest.mark.parametrize(
    ("system", "root", "words"),
    [
        ({"node": {}}, {}, "queue"),
        ({"node": {"costs": "measured"}}, {"runtime": "ray"}, "queue"),
        ({"replicas": 1}, {}, "of 1 nodes"),
        ({"protocol": {"name": "raft"}}, {}, "asks one"),
        ({}, {"workload": {"name": "ycsb", "shares": {"update": 1}}}, "only reads"),
        ({}, {"client": {"tie": {"after": "1s"}, "timeout": "1s"}}, "timed out"),
    ],
)
def test_where_ties_cannot_work_they_are_refused(
    system: dict[str, Any], root: dict[str, Any], words: str
) -> None:
    base = {"protocol": READS_ANYWHERE, "replicas": 3, "node": QUEUEING}
    config = {"runtime": "sim", "system": base | system, "client": {"tie": {"after": "1ms"}}}
    with pytest.raises(ConfigError, match=words) as caught:
        plan(load_mapping(config | root))
    assert caught.value.path == "client.tie.after"


@pytest.mark.parametrize(
    ("client", "path"),
    [
        ({"tie": {"after": "-1ms"}}, "client.tie.after"),
        ({"tie": {"after": "1ms"}, "hedge": {"after": "1ms"}}, "client.tie.after"),
        ({"tie": "1ms"}, "client.tie"),
    ],
)
def test_bad_input(client: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_mapping({"client": client})
    assert caught.value.path == path


def test_real_servers_know_no_ties() -> None:
    with pytest.raises(ConfigError) as caught:
        plan(load_mapping({"system": {"name": "redis"}, "client": {"tie": {"after": "1ms"}}}))
    assert caught.value.path == "client.tie"
