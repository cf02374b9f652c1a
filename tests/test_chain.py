"""Chain replication and CRAQ: who sends what to whom, who may answer, and who takes over."""

from __future__ import annotations

from typing import Any

import pytest
from machine_bench import Bench
from sim_faults import configured, problem_of
from view_bench import (
    HEARTBEAT_NS,
    LEASE_NS,
    QUICK,
    RESEND_NS,
    cluster_of,
    members,
    pass_time,
    read,
    without,
    write,
)

from orchestrator.core import levels
from orchestrator.core.machine import (
    OK,
    READ,
    SCAN,
    UNKNOWN,
    WRITE,
    ClaimContext,
    Op,
    Received,
    Requested,
)
from orchestrator.core.registry import Family, plugins
from orchestrator.core.units import NS_PER_MS
from orchestrator.protocols._chain_links import ChainParams
from orchestrator.protocols._order import Acknowledge, Replicate
from orchestrator.protocols.chain import Chain
from orchestrator.protocols.craq import Ask, Craq, Told

BOTH = pytest.mark.parametrize("machine", [Chain, Craq])


def cluster(machine: type[Any], nodes: int = 3) -> Bench:
    return cluster_of(machine, ChainParams, nodes)


def roles(bench: Bench) -> list[str]:
    return [machine.role for machine in bench.machines[: len(bench.nodes)]]


# --- normal operation -------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("nodes", [2, 3, 5])
def test_a_write_costs_as_many_messages_as_the_docstring_says(
    machine: type[Any], nodes: int
) -> None:
    bench = cluster(machine, nodes)
    bench.sent.clear()
    handle = write(bench, 0, 1)
    assert bench.replies[handle].outcome == OK
    assert len(bench.sent) == 2 * (nodes - 1)
    kinds = [type(message) for message in bench.sent]
    assert kinds.count(Replicate) == nodes - 1
    assert kinds.count(Acknowledge) == nodes - 1
    # All know that it is committed, nobody has anything left to say.
    bench.sent.clear()
    states = [each.contents() for each in bench.machines[:nodes]]
    assert all(state[b"k"].value == b"1" for state in states)
    pass_time(bench, 3 * RESEND_NS)
    assert not any(isinstance(message, Replicate) for message in bench.sent)


@BOTH
def test_a_batch_shares_the_messages(machine: type[Any]) -> None:
    bench = cluster(machine)
    bench.sent.clear()
    ops = [Op(number, 1, WRITE, b"k%d" % number, b"v") for number in range(1, 11)]
    bench.event(0, Requested(list(range(10)), ops))
    bench.deliver()
    assert len(bench.sent) == 4
    assert [bench.replies[handle].version for handle in range(10)] == list(range(1, 11))


@BOTH
def test_the_head_answers_only_what_the_tail_has(machine: type[Any]) -> None:
    bench = cluster(machine)
    handle = write(bench, 0, 1, without(2))
    assert handle not in bench.replies
    assert not bench.machines[0].contents() and not bench.machines[1].contents()
    pass_time(bench, 2 * RESEND_NS)
    assert bench.replies[handle].outcome == OK


@BOTH
def test_what_goes_up_and_is_lost_is_asked_for(machine: type[Any]) -> None:
    bench = cluster(machine)
    bench.request(0, Op(1, 1, WRITE, b"k", b"1"), 7)
    bench.deliver(lambda source, target, message: not isinstance(message, Acknowledge))
    assert 7 not in bench.replies
    pass_time(bench, 3 * RESEND_NS)
    assert bench.replies[7].outcome == OK
    assert all(each.contents()[b"k"].value == b"1" for each in bench.machines[:3])


def test_the_tail_of_a_chain_serves_reads_and_others_say_so() -> None:
    bench = cluster(Chain)
    write(bench, 0, 1)
    assert [bench.redirects[read(bench, node)].node for node in (0, 1)] == [2, 2]
    assert bench.replies[read(bench, 2)].value == b"1"
    assert bench.redirects[write(bench, 2, 2)].node == 0


# --- weaker reads -----------------------------------------------------------------------


@BOTH
def test_weak_reads_are_served_anywhere_without_a_message(machine: type[Any]) -> None:
    bench = cluster(machine)
    answered = bench.replies[write(bench, 0, 1)]
    bench.sent.clear()
    for node in bench.nodes:
        for level in (levels.EVENTUAL, levels.SEQUENTIAL):
            handle = read(bench, node, level=levels.CODES[level], seen=answered.version)
            assert bench.replies[handle].value == b"1"
    assert not bench.sent


@BOTH
def test_a_sequential_read_waits_for_what_its_session_has_seen(machine: type[Any]) -> None:
    bench = cluster(machine)
    write(bench, 0, 1)
    # The middle node does not hear of the second write that it is committed.
    seen = bench.replies[write(bench, 0, 2, lambda s, t, m: (s, t) != (2, 1))].version
    behind = read(bench, 1, level=levels.CODES[levels.EVENTUAL], seen=seen)
    assert bench.replies[behind].value == b"1"
    waiting = read(bench, 1, level=levels.CODES[levels.SESSIONS], seen=seen)
    assert waiting not in bench.replies
    pass_time(bench, 2 * RESEND_NS)
    assert bench.replies[waiting].value == b"2"


@BOTH
def test_what_it_claims_and_offers(machine: type[Any]) -> None:
    name = "chain" if machine is Chain else "craq"
    params = plugins(Family.PROTOCOL)[name].params()
    context = ClaimContext(3, False, "fsync", restarts=True)
    assert machine.claims(params, context) == {levels.LINEARIZABLE}
    assert machine.read_levels(params, context) >= {levels.SEQUENTIAL, levels.EVENTUAL}
    forgetful = ClaimContext(3, False, "memory", restarts=True)
    assert not machine.claims(params, forgetful) and not machine.read_levels(params, forgetful)
    assert "comes back empty" in machine.why_not(params, forgetful, levels.LINEARIZABLE)


# --- CRAQ's reads -----------------------------------------------------------------------


def test_a_clean_key_is_read_without_a_message_at_every_node() -> None:
    bench = cluster(Craq)
    write(bench, 0, 1)
    bench.sent.clear()
    assert [bench.replies[read(bench, node)].value for node in bench.nodes] == [b"1"] * 3
    assert not bench.sent


def test_dirty_keys_cost_one_question_for_all_reads_that_came_together() -> None:
    bench = cluster(Craq)
    write(bench, 0, 1)
    # The tail has the second write, and nobody else knows.
    write(bench, 0, 2, lambda source, target, message: source != 2)
    bench.sent.clear()
    ops = [Op(number, 1, READ, b"k") for number in range(20, 30)]
    ops.append(Op(30, 1, SCAN, b"a", count=3))
    bench.event(1, Requested(list(range(11)), ops))
    bench.event(1, Requested([11], [Op(31, 1, READ, b"clean")]))
    assert bench.replies[11].outcome == OK and 0 not in bench.replies
    bench.deliver()
    assert [type(message) for message in bench.sent if type(message) in (Ask, Told)] == [Ask, Told]
    assert [bench.replies[handle].value for handle in range(10)] == [b"2"] * 10
    assert bench.replies[10].value[0] == (b"k", b"2")


def test_a_write_that_the_tail_does_not_have_is_not_shown() -> None:
    bench = cluster(Craq)
    write(bench, 0, 1)
    write(bench, 0, 2, without(2))
    assert [bench.replies[read(bench, node)].value for node in bench.nodes] == [b"1"] * 3


def test_a_question_that_is_lost_is_asked_again() -> None:
    bench = cluster(Craq)
    write(bench, 0, 1, lambda source, target, message: source != 2)
    handle = read(bench, 0, lambda source, target, message: not isinstance(message, Told))
    assert handle not in bench.replies

    def to_the_head(source: int, target: int, message: Any) -> bool:
        return source != 2 or target == 0

    pass_time(bench, RESEND_NS - 1, to_the_head)
    assert handle not in bench.replies
    pass_time(bench, 2 * HEARTBEAT_NS, to_the_head)
    assert bench.replies[handle].value == b"1"


def test_an_answer_counts_however_long_its_way_and_answers_what_was_asked_before() -> None:
    bench = cluster(Craq)
    write(bench, 0, 1, lambda source, target, message: source != 2)
    first = bench.request(0, Op(50, 1, READ, b"k"))
    second = bench.request(0, Op(51, 1, READ, b"k"))
    asked = [message for message in bench.sent if isinstance(message, Ask)]
    pass_time(bench, 2 * RESEND_NS, lambda source, target, message: source != 2 or target == 3)
    assert first not in bench.replies and second not in bench.replies
    again = [message for message in bench.sent if isinstance(message, Ask)][len(asked) :]
    assert again and all(message == asked[1] for message in again)
    assert members(bench) == [0, 1, 2]
    bench.event(0, Received(2, Told(asked[0].epoch, asked[1].number, 1)))
    assert bench.replies[first].value == bench.replies[second].value == b"1"


def test_an_answer_to_a_question_from_before_a_crash_is_not_taken() -> None:
    bench = cluster(Craq)
    write(bench, 0, 1, lambda source, target, message: source != 2)
    bench.request(0, Op(50, 1, READ, b"k"))
    (asked,) = [message for message in bench.sent if isinstance(message, Ask)]
    bench.wire.clear()
    bench.crash(0)
    bench.now_ns += 1
    bench.restart(0)
    bench.deliver(lambda source, target, message: target == 3 or source == 3)
    bench.request(0, Op(51, 1, READ, b"k"))
    again = [message for message in bench.sent if isinstance(message, Ask)][-1]
    assert again.number != asked.number


def test_a_node_that_was_cut_off_serves_no_strong_read() -> None:
    bench = cluster(Craq)
    write(bench, 0, 1)
    while members(bench) == [0, 1, 2]:
        pass_time(bench, HEARTBEAT_NS, without(1))
    bench.replies.clear()
    assert bench.replies[write(bench, 0, 2, without(1))].outcome == OK
    assert read(bench, 1, without(1)) not in bench.replies
    eventual = read(bench, 1, without(1), level=levels.CODES[levels.EVENTUAL])
    assert bench.replies[eventual].value == b"1"


# --- failures (sections 3.2 and 3.3) ----------------------------------------------------


@BOTH
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_the_chain_closes_up_around_a_lost_node(machine: type[Any], lost: int) -> None:
    bench = cluster(machine)
    write(bench, 0, 1)
    bench.crash(lost)
    left = [node for node in bench.nodes if node != lost]
    on_its_way = write(bench, 0, 2) if lost else None
    pass_time(bench, 3 * LEASE_NS)
    assert members(bench) == left
    assert [roles(bench)[node] for node in left] == ["head", "tail"]
    if on_its_way is not None:
        assert bench.replies[on_its_way].outcome == OK
    newest = write(bench, left[0], 3)
    assert bench.replies[newest].outcome == OK
    assert bench.replies[read(bench, left[-1])].value == b"3"
    bench.restart(lost)
    pass_time(bench, 3 * LEASE_NS)
    assert members(bench) == [*left, lost]
    assert bench.replies[read(bench, lost)].value == b"3"


@BOTH
def test_a_deposed_tail_stops_before_its_successor_commits(machine: type[Any]) -> None:
    bench = cluster(machine)
    write(bench, 0, 1)
    blocked = write(bench, 0, 2, without(2))
    while blocked not in bench.replies:
        pass_time(bench, HEARTBEAT_NS, without(2))
        if blocked not in bench.replies:
            continue
        assert members(bench) == [0, 1]
    assert bench.now_ns > LEASE_NS
    assert read(bench, 2, without(2)) not in bench.replies


@BOTH
def test_a_deposed_heads_writes_are_unknown_and_gone(machine: type[Any]) -> None:
    bench = cluster(machine)
    write(bench, 0, 1)
    lost = write(bench, 0, 2, without(0))
    pass_time(bench, 3 * LEASE_NS, without(0))
    write(bench, 1, 3)
    pass_time(bench, 3 * LEASE_NS)
    assert bench.replies[lost].outcome == UNKNOWN
    assert members(bench) == [1, 2, 0]
    assert all(each.contents()[b"k"].value == b"3" for each in bench.machines[:3])


@BOTH
def test_two_neighbours_that_do_not_reach_each_other_are_separated(machine: type[Any]) -> None:
    bench = cluster(machine)

    def cut(source: int, target: int, message: Any) -> bool:
        return {source, target} != {0, 1}

    blocked = write(bench, 0, 1, cut)
    pass_time(bench, 20 * LEASE_NS, cut)
    assert bench.replies[blocked].outcome == OK
    assert 0 in members(bench) and 2 in members(bench)


@BOTH
def test_claims_hold_under_crashes_and_cuts(machine: type[Any]) -> None:
    name = "chain" if machine is Chain else "craq"
    for seed in range(6):
        system = {"protocol": {"name": name} | QUICK, "replicas": 3 + seed % 3}
        mix = "client.reads={linearizable: 0.5, sequential: 0.3, eventual: 0.2}"
        config = configured(seed, system, "client.sticky=false", "duration=1s", mix)
        assert problem_of(config, faults={"gap_ns": 40 * NS_PER_MS}) == ""
