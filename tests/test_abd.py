"""ABD: scenarios of the papers on a bench, and clusters under faults."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from machine_bench import Bench, among
from sim_faults import configured, problem_of
from twins_quorum import ReusesTags

from orchestrator.core.levels import CODES, LINEARIZABLE, REGULAR
from orchestrator.core.machine import FAIL, OK, READ, UNKNOWN, WRITE, ClaimContext, Op, Received
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.protocols._quorum_copies import copy_of, next_version
from orchestrator.protocols._quorum_messages import NO_ANSWER, Store, Stored
from orchestrator.protocols.abd import Abd, Params

HARD = {"gap_ns": 40 * NS_PER_MS}
QUICK = {"resend": "40ms", "give_up": "400ms"}


def bench_of(nodes: int = 3, **options: Any) -> Bench:
    return Bench(Abd, Params(), nodes, **options)


def asked(bench: Bench, node: int, op: Op, *reached: int) -> Any:
    """The answer of a coordinator that reaches only these nodes; None without one."""
    handle = bench.request(node, op)
    bench.deliver(among(*(reached or bench.nodes)))
    return bench.replies.get(handle)


def half_written(bench: Bench, op: Op, coordinator: int, receiver: int) -> None:
    """A write whose coordinator crashes when one other node alone has its copy."""
    bench.request(coordinator, op)

    def only(source: int, target: int, message: Any) -> bool:
        return not isinstance(message, Store | Stored) or target == receiver

    bench.deliver(only)
    bench.crash(coordinator)


def test_a_value_that_was_read_is_read_from_then_on() -> None:
    bench = bench_of(5)
    asked(bench, 0, Op(1, 1, WRITE, b"k", b"old"))
    half_written(bench, Op(2, 1, WRITE, b"k", b"new"), coordinator=4, receiver=3)
    assert asked(bench, 3, Op(3, 1, READ, b"k"), 1, 2, 3).value == b"new"
    # Without node 3, which was the only one to have it.
    assert asked(bench, 0, Op(4, 1, READ, b"k"), 0, 1, 2).value == b"new"


def test_a_regular_read_writes_nothing_back() -> None:
    bench = bench_of(5)
    asked(bench, 0, Op(1, 1, WRITE, b"k", b"old"))
    half_written(bench, Op(2, 1, WRITE, b"k", b"new"), coordinator=4, receiver=3)
    regular = Op(3, 1, READ, b"k", level=CODES[REGULAR])
    assert asked(bench, 3, regular, 1, 2, 3).value == b"new"
    assert asked(bench, 0, Op(4, 1, READ, b"k"), 0, 1, 2).value == b"old"


def test_a_read_of_an_agreed_tag_takes_one_round_trip() -> None:
    bench = bench_of()
    asked(bench, 0, Op(1, 1, WRITE, b"k", b"v"))
    bench.sent.clear()
    assert asked(bench, 1, Op(2, 1, READ, b"k")).value == b"v"
    assert len(bench.sent) == 4
    assert not any(isinstance(message, Store) for message in bench.sent)


def test_a_write_takes_two_round_trips() -> None:
    bench = bench_of()
    bench.sent.clear()
    assert asked(bench, 0, Op(1, 1, WRITE, b"k", b"v")).outcome == OK
    assert len(bench.sent) == 8


def test_nothing_is_acknowledged_before_it_is_durable() -> None:
    bench = bench_of()
    bench.syncs = False
    handle = bench.request(0, Op(1, 1, WRITE, b"k", b"v"))
    bench.deliver()
    assert not any(isinstance(message, Store) for message in bench.sent)
    bench.sync(0)
    bench.deliver()
    assert not any(isinstance(message, Stored) for message in bench.sent)
    assert handle not in bench.replies
    bench.sync(1)
    bench.deliver()
    assert bench.replies[handle].outcome == OK


def test_a_coordinator_that_restarts_hands_its_write_on_and_gives_another_tag() -> None:
    bench = bench_of()
    half_written(bench, Op(1, 1, WRITE, b"k", b"first"), coordinator=0, receiver=1)
    bench.now_ns += 1
    bench.restart(0)
    second = asked(bench, 0, Op(2, 1, WRITE, b"k", b"second"), 0, 2)
    bench.fire(0, "tick")
    bench.deliver()
    found = [machine.contents()[b"k"] for machine in bench.machines]
    assert {(entry.value, entry.version) for entry in found} == {(b"second", second.version)}


@pytest.mark.parametrize("machine", [Abd, ReusesTags])
def test_a_tag_that_left_before_a_crash_is_not_given_to_another_value(machine: type[Any]) -> None:
    bench = Bench(machine, Params(), 3)
    bench.syncs = False
    bench.request(0, Op(1, 1, WRITE, b"k", b"first"))
    bench.deliver(lambda source, target, message: not isinstance(message, Store) or target == 1)
    bench.sync(1)
    bench.crash(0)
    bench.wire.clear()
    bench.syncs = True
    bench.now_ns += 1
    bench.restart(0)
    second = asked(bench, 0, Op(2, 1, WRITE, b"k", b"second"), 0, 2)
    assert second.outcome == OK
    left = bench.machines[1].contents().get(b"k")
    reused = left is not None and left.version == second.version
    assert reused == (machine is ReusesTags)


def test_what_nobody_overwrote_is_handed_on_after_a_restart() -> None:
    bench = bench_of()
    half_written(bench, Op(1, 1, WRITE, b"k", b"v"), coordinator=0, receiver=1)
    assert b"k" not in bench.machines[2].contents()
    bench.now_ns += 1
    bench.restart(0)
    bench.fire(0, "tick")
    bench.deliver()
    assert bench.machines[2].contents()[b"k"].value == b"v"


@pytest.mark.parametrize("node", [0, 1, 2])
def test_a_write_repeated_after_its_answer_keeps_its_tag(node: int) -> None:
    bench = bench_of()
    first = Op(1, 1, WRITE, b"k", b"first")
    tag = asked(bench, 0, first, 0, 1).version
    asked(bench, 1, Op(2, 1, WRITE, b"k", b"second"), 0, 1)
    # Node 2 has heard of neither.
    assert asked(bench, node, first).version == tag
    assert asked(bench, 2, Op(3, 1, READ, b"k")).value == b"second"


def test_a_write_that_its_session_has_left_behind_does_nothing() -> None:
    bench = bench_of()
    late = Op(1, 1, WRITE, b"k", b"late")
    asked(bench, 0, late, 0, 1)
    asked(bench, 0, Op(1, 2, WRITE, b"k", b"newer"), 0, 1)
    assert asked(bench, 2, late).outcome == UNKNOWN
    assert asked(bench, 2, Op(3, 1, READ, b"k")).value == b"newer"


def test_answers_to_questions_from_before_a_crash_do_not_count() -> None:
    bench = bench_of()
    bench.request(0, Op(1, 1, WRITE, b"k", b"v"))
    # Each node stores the copy, but what it says of it stays on the wire.
    while any(not isinstance(message, Stored) for _, _, message in bench.wire):
        index = next(i for i, sent in enumerate(bench.wire) if not isinstance(sent[2], Stored))
        bench.deliver_one(index)
    late = list(bench.wire)
    bench.wire.clear()
    assert len(late) == 2
    bench.crash(0)
    bench.records[0].clear()
    bench.now_ns += 5
    bench.restart(0)
    handle = bench.request(0, Op(1, 1, WRITE, b"k", b"v"))
    bench.deliver(lambda source, target, message: not isinstance(message, Stored))
    bench.wire.extend(late)
    bench.deliver()
    assert handle not in bench.replies


def test_without_a_majority_a_write_is_unknown_and_a_read_fails() -> None:
    bench = bench_of()
    bench.crash(1)
    bench.crash(2)
    writing = bench.request(0, Op(1, 1, WRITE, b"k", b"v"))
    reading = bench.request(0, Op(2, 1, READ, b"k"))
    bench.deliver()
    assert not bench.replies
    while bench.now_ns < 2 * NS_PER_S:
        bench.fire(0, "tick")
        bench.deliver()
        if len(bench.replies) == 2:
            break
    assert (bench.replies[writing].outcome, bench.replies[reading].outcome) == (UNKNOWN, FAIL)


def test_what_it_claims() -> None:
    def claimed(durability: str, restarts: bool) -> frozenset[str]:
        return Abd.claims(Params(), ClaimContext(3, False, durability, restarts=restarts))

    assert claimed("fsync", True) == claimed("memory", False) == {LINEARIZABLE}
    forgetful = ClaimContext(3, False, "memory", restarts=True)
    assert not Abd.claims(Params(), forgetful)
    assert not Abd.read_levels(Params(), forgetful)
    assert "majority of 2" in Abd.why_not(Params(), forgetful, LINEARIZABLE)


# --- under faults -----------------------------------------------------------------------


def fault_config(seed: int) -> Any:
    conditions = (
        (),
        ("system.network.ordering=none",),
        ("system.network.loss=0.05", "system.batch.max=1"),
        ("system.node.storage.sync.mean=10ms", "system.replicas=5"),
    )
    system = {"protocol": {"name": "abd"} | QUICK, "replicas": 3}
    return configured(seed, system, "client.sticky=false", *conditions[seed % 4])


@pytest.mark.parametrize("seed", range(12))
def test_histories_are_linearizable_and_nodes_converge(seed: int) -> None:
    assert problem_of(fault_config(seed), faults=HARD) == ""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_many_histories_are_linearizable_and_nodes_converge() -> None:
    for seed in range(1000, 1300):
        assert problem_of(fault_config(seed), faults=HARD) == "", f"seed {seed}"


# --- sessions of plain Redis clients ----------------------------------------------------

LOW, HIGH = (1 << 62 | upper << 52 | 7 for upper in (1, 2))
"""Their lower halves, which is what versions have room for, are the same."""


def test_writes_of_wide_sessions_are_told_apart() -> None:
    bench = Bench(Abd, Params(), 3)
    first = bench.request(0, Op(LOW, 1, WRITE, b"k", b"z"))
    second = bench.request(1, Op(HIGH, 1, WRITE, b"k", b"a"))
    bench.deliver()
    assert [bench.replies[handle].outcome for handle in (first, second)] == [OK, OK]
    encoded = [msgspec.msgpack.encode(message) for message in bench.sent]
    assert [msgspec.msgpack.decode(each, type=Abd.Message) for each in encoded] == bench.sent
    held = [machine._table.held[b"k"] for machine in bench.machines]
    assert {(copy.value, copy.session) for copy in held} == {(b"a", HIGH)}
    again = bench.request(2, Op(HIGH, 1, WRITE, b"k", b"a"))
    bench.deliver()
    assert bench.replies[again].version == bench.replies[second].version


def test_a_read_writes_back_what_shares_its_version_with_another_write() -> None:
    bench = Bench(Abd, Params(), 3)
    version = next_version(0, LOW)
    assert version == next_version(0, HIGH)
    for node, session, value in ((0, LOW, b"z"), (1, HIGH, b"a")):
        copy = copy_of(Op(session, 1, WRITE, b"k", value), version)
        bench.event(node, Received(2, Store(0, [NO_ANSWER], [copy], [])))
    bench.sent.clear()
    handle = bench.request(0, Op(1, 1, READ, b"k"))
    bench.deliver(among(0, 1))
    assert bench.replies[handle].value == b"a"
    assert bench.machines[0]._table.held[b"k"].value == b"a", "a majority holds what was read"
