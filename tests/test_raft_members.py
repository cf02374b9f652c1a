"""Raft's members change one at a time, and leadership is handed over."""

from __future__ import annotations

from typing import Any

import pytest
from machine_bench import Bench, Wanted, among, everything
from raft_watch import RaftWatch, votes_among
from twins_raft import ChangesAtOnce

from orchestrator.core.levels import CODES
from orchestrator.core.machine import OK, READ, WRITE, Op
from orchestrator.protocols._raft_election import (
    CANDIDATE,
    ELECTION,
    FOLLOWER,
    HEARTBEAT,
    LEADER,
    TimeoutNow,
    VoteRequest,
)
from orchestrator.protocols._raft_log import Append
from orchestrator.protocols._raft_members import Membership
from orchestrator.protocols.raft import Params, Raft

PARAMS = Params(election_timeout=1000, heartbeat=100, reads="read_index")


def cluster(nodes: int = 5, replicas: int = 3, machine: type[Raft] = Raft) -> Bench:
    """Node 0 leads the first ``replicas`` nodes in term 1."""
    bench = Bench(machine, PARAMS, nodes, replicas=replicas, watch=RaftWatch())
    bench.deliver()
    beat(bench)
    assert bench.machines[0].role == LEADER
    return bench


def beat(bench: Bench, wanted: Wanted = everything, leader: int = 0) -> None:
    bench.fire(leader, HEARTBEAT)
    bench.deliver(wanted)


def stand(bench: Bench, node: int, wanted: Wanted = everything) -> None:
    """Everybody has lost patience, and ``node`` stands."""
    bench.now_ns += 10 * PARAMS.election_timeout
    bench.fire(node, ELECTION)
    bench.deliver(wanted)


def write(bench: Bench, node: int, number: int, wanted: Wanted = everything) -> Any:
    handle = bench.request(node, Op(number, 1, WRITE, b"k", b"%d" % number))
    bench.deliver(wanted)
    return handle


def members(bench: Bench, node: int) -> tuple[int, ...]:
    return tuple(bench.machines[node].members.current)


def change(bench: Bench, command: str, node: int, leader: int = 0) -> None:
    """A command that every node hears, and two heartbeats."""
    for each in bench.nodes:
        if not bench.down[each]:
            bench.admin(each, command, node)
    bench.deliver()
    for _ in range(2):
        if bench.machines[leader].role == LEADER:
            beat(bench, leader=leader)


# --- who is a member --------------------------------------------------------------------


def test_spare_nodes_wait() -> None:
    bench = cluster()
    assert members(bench, 4) == (0, 1, 2)
    for node in (3, 4):
        bench.now_ns += 10 * PARAMS.election_timeout
        bench.fire(node, ELECTION)
        assert bench.machines[node].role == FOLLOWER and not bench.machines[node].holds_copy
    assert not bench.wire
    handle = bench.request(4, Op(9, 1, READ, b"k", level=CODES["eventual"]))
    assert handle in bench.redirects, "it has no copy to read"
    assert not [each for each in bench.sent if isinstance(each, VoteRequest) and each.term > 1]


def test_a_spare_node_catches_up_and_is_added() -> None:
    bench = cluster()
    for number in range(1, 20):
        write(bench, 0, number)
    change(bench, "add", 3)
    assert [members(bench, node) for node in range(4)] == [(0, 1, 2, 3)] * 4
    assert bench.machines[3].contents() == bench.machines[0].contents()
    assert bench.machines[3].holds_copy
    assert bench.machines[0].members.majority == 3
    handle = write(bench, 0, 30, among(0, 1))
    assert handle not in bench.replies, "two of four are no majority"


def test_a_learner_has_no_vote_until_it_has_caught_up() -> None:
    bench = cluster()
    for number in range(1, 20):
        write(bench, 0, number)
    bench.admin(0, "add", 3)
    bench.deliver(lambda source, target, message: target != 3)
    assert members(bench, 0) == (0, 1, 2)
    assert bench.replies[write(bench, 0, 30, among(0, 1))].outcome == OK
    for _ in range(3):
        beat(bench)
    assert members(bench, 0) == (0, 1, 2, 3)


def test_a_learner_that_does_not_answer_is_given_up() -> None:
    bench = cluster()
    bench.crash(3)
    bench.admin(0, "add", 3)
    bench.admin(0, "add", 4)
    for _ in range(14):
        beat(bench)
    assert members(bench, 0) == (0, 1, 2, 4)
    assert 3 not in bench.machines[0]._progress


def test_a_member_is_removed_and_knows_it() -> None:
    bench = cluster(3)
    change(bench, "remove", 2)
    beat(bench)
    assert [members(bench, node) for node in range(3)] == [(0, 1)] * 3
    assert 2 not in bench.machines[0]._progress
    before = len(bench.sent)
    stand(bench, 2)
    assert bench.machines[2].role == FOLLOWER and len(bench.sent) == before
    assert bench.replies[write(bench, 0, 1, among(0, 1))].outcome == OK


def test_a_removed_member_that_has_not_heard_so_disturbs_nobody_and_hears_it() -> None:
    bench = cluster(3)
    bench.admin(0, "remove", 2)
    bench.deliver(among(0, 1))
    for _ in range(15):
        beat(bench, among(0, 1))
    assert 2 not in bench.machines[0]._progress and members(bench, 2) == (0, 1, 2)
    stand(bench, 2)
    assert [each.term for each in bench.machines] == [1, 1, 1]
    assert 2 in bench.machines[0]._progress
    for _ in range(3):
        beat(bench)
    assert members(bench, 2) == (0, 1)
    assert 2 not in bench.machines[0]._progress


def test_a_leader_that_is_removed_makes_room() -> None:
    bench = cluster(3)
    handle = write(bench, 0, 1)
    change(bench, "remove", 0)
    assert bench.replies[handle].outcome == OK
    assert bench.machines[0].role == FOLLOWER and not bench.machines[0]._may_stand()
    leaders = [node for node in (1, 2) if bench.machines[node].role == LEADER]
    assert len(leaders) == 1, "it told one to stand at once"
    assert members(bench, leaders[0]) == (1, 2)
    assert bench.replies[write(bench, leaders[0], 2, among(1, 2))].outcome == OK


def test_a_leader_that_is_being_removed_does_not_count_itself() -> None:
    bench = cluster(3)
    bench.admin(0, "remove", 0)
    bench.deliver(among(0, 1))
    assert bench.machines[0].commit == 1, "one of nodes 1 and 2 is no majority"
    bench.fire(0, HEARTBEAT)
    bench.deliver()
    assert bench.machines[0].members.at(bench.machines[0].commit) == (1, 2)


def test_the_last_member_stays() -> None:
    bench = cluster(2, 1)
    change(bench, "remove", 0)
    assert members(bench, 0) == (0,) and bench.machines[0].role == LEADER


def test_commands_that_change_nothing_change_nothing() -> None:
    bench = cluster()
    last = bench.machines[0].log.last
    for command, node in (("add", 1), ("remove", 4), ("transfer", 4), ("transfer", 0)):
        change(bench, command, node)
    assert bench.machines[0].log.last == last and not bench.machines[0]._changes.asked


def test_a_cluster_is_replaced_node_by_node() -> None:
    bench = cluster(6)
    for number in range(1, 10):
        write(bench, 0, number)
    for node in (3, 4, 5):
        change(bench, "add", node)
    for node in (1, 2, 0):
        change(bench, "remove", node)
    leader = next(node for node in (3, 4, 5) if bench.machines[node].role == LEADER)
    beat(bench, leader=leader)
    assert [members(bench, node) for node in (3, 4, 5)] == [(3, 4, 5)] * 3
    for node in (0, 1, 2):
        bench.crash(node)
    handle = bench.request(leader, Op(99, 1, READ, b"k"))
    bench.deliver()
    assert bench.replies[handle].value == b"9"


# --- configurations and the log ---------------------------------------------------------


def test_a_configuration_that_is_cut_off_is_out_of_force() -> None:
    bench = cluster(3)
    bench.admin(0, "remove", 2)
    bench.wire.clear()
    assert members(bench, 0) == (0, 1)
    stand(bench, 1, among(1, 2))
    beat(bench, leader=1)
    beat(bench, leader=1)
    assert [members(bench, node) for node in range(3)] == [(0, 1, 2)] * 3
    assert bench.replies[write(bench, 1, 5)].outcome == OK


def test_who_is_being_removed_stands_after_a_restart_too() -> None:
    """It alone has the entry that removes it, so the other member cannot lead without it; and what
    was committed before its crash it does not know any more.
    """
    bench = cluster(5)
    change(bench, "add", 3)
    change(bench, "add", 4)
    for gone in (2, 1, 0):
        change(bench, "remove", gone)
    leader, other = (3, 4) if bench.machines[3].role == LEADER else (4, 3)
    beat(bench, leader=leader)
    assert members(bench, leader) == (3, 4)
    bench.admin(leader, "remove", leader)
    bench.wire.clear()
    bench.crash(leader)
    bench.restart(leader)
    assert members(bench, leader) == (other,) and bench.machines[leader].commit == 0
    stand(bench, other)
    assert bench.machines[other].role != LEADER, "its log is the shorter one"
    stand(bench, leader)
    for _ in range(3):
        if bench.machines[leader].role == LEADER:
            beat(bench, leader=leader)
    assert not bench.machines[leader]._may_stand()
    assert bench.machines[other].role == LEADER and members(bench, other) == (other,)
    assert bench.replies[write(bench, other, 9)].outcome == OK


@pytest.mark.parametrize("snapshot_every", [None, 4])
def test_members_survive_a_restart(snapshot_every: int | None) -> None:
    params = Params(election_timeout=1000, heartbeat=100, snapshot_every=snapshot_every)
    bench = Bench(Raft, params, 4, replicas=3, watch=RaftWatch())
    bench.deliver()
    change(bench, "add", 3)
    change(bench, "remove", 1)
    for number in range(1, 10):
        write(bench, 0, number)
    for node in bench.nodes:
        bench.crash(node)
    for node in bench.nodes:
        bench.restart(node)
    assert [members(bench, node) for node in (0, 2, 3)] == [(0, 2, 3)] * 3


def test_membership_looks_up_and_cuts() -> None:
    known = Membership((0, 1, 2))
    known.append(5, (0, 1, 2, 3))
    known.append(9, (0, 1, 2, 3, 4))
    assert [known.at(index) for index in (0, 4, 5, 8)] == [(0, 1, 2)] * 2 + [(0, 1, 2, 3)] * 2
    assert (known.index, known.majority) == (9, 3)
    assert known.within(5, 9) and known.within(4, 5) and not known.within(5, 8)
    known.append(12, (0, 1, 2))
    needed = [[node for node in range(6) if known.may_need(node, at)] for at in (4, 5, 9, 12)]
    assert needed == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2]]
    known.cut_after(11)
    known.drop_through(6)
    assert known.at(6) == (0, 1, 2, 3)
    known.cut_after(8)
    assert (known.index, known.current) == (5, (0, 1, 2, 3))


# --- one change at a time, and none before the own term ---------------------------------


def test_a_change_waits_for_the_last_one() -> None:
    bench = cluster()
    bench.admin(0, "remove", 1)
    bench.admin(0, "remove", 2)
    assert members(bench, 0) == (0, 2)
    bench.deliver()
    assert members(bench, 0) == (0,)


def two_leaders_change(machine: type[Raft]) -> Bench:
    """The schedule of the correction: four members, and two leaders that take turns.

    Node 0 of term 1 begins to remove 1, which only itself has. Node 1 of term 2 is told to
    remove 0 before an entry of its own is committed, and does so with node 2. Node 0 returns.
    """
    bench = cluster(4, 4, machine)
    bench.admin(0, "remove", 1)
    bench.wire.clear()
    stand(bench, 1, votes_among([1, 2, 3]))
    assert bench.machines[1].role == LEADER
    bench.admin(1, "remove", 0)
    for _ in range(2):
        beat(bench, among(1, 2), leader=1)
    while bench.machines[0].role == LEADER:
        beat(bench, among(0))
    return bench


def test_a_change_waits_for_an_entry_of_the_own_term() -> None:
    bench = two_leaders_change(Raft)
    assert members(bench, 1) == (0, 1, 2, 3), "two of four have committed nothing"
    beat(bench, among(1, 2, 3), leader=1)
    beat(bench, among(1, 2, 3), leader=1)
    assert members(bench, 1) == (1, 2, 3)
    for _ in range(2):
        stand(bench, 0, among(0, 3))
        assert bench.machines[0].role != LEADER, "node 3 has what node 0 lacks"


def test_without_that_a_committed_write_is_lost() -> None:
    bench = two_leaders_change(ChangesAtOnce)
    assert members(bench, 1) == (1, 2, 3)
    handle = write(bench, 1, 7, among(1, 2))
    assert bench.replies[handle].outcome == OK
    # Node 0 comes to lead its own three, of whom node 3 has heard of nothing.
    with pytest.raises(AssertionError, match="leader 0 of term 3 lacks committed entry"):
        for _ in range(2):
            stand(bench, 0, votes_among([0, 3]))


# --- leadership transfer ----------------------------------------------------------------


def test_leadership_is_handed_over_without_waiting_for_a_timeout() -> None:
    bench = cluster(3)
    write(bench, 0, 1)
    now_ns = bench.now_ns
    bench.admin(0, "transfer", 2)
    bench.deliver()
    assert bench.now_ns == now_ns
    assert [each.role for each in bench.machines] == [FOLLOWER, FOLLOWER, LEADER]
    assert bench.replies[write(bench, 2, 2)].outcome == OK


def test_the_next_leader_first_gets_the_whole_log() -> None:
    bench = cluster(3)
    for number in range(1, 5):
        write(bench, 0, number, among(0, 1))
    bench.admin(0, "transfer", 2)
    bench.deliver(lambda source, target, message: not isinstance(message, Append))
    assert not [each for each in bench.sent if isinstance(each, TimeoutNow)]
    refused = write(bench, 0, 9, among())
    assert bench.redirects[refused].node == -1
    for _ in range(3):
        if bench.machines[0].role == LEADER:
            beat(bench)
    assert bench.machines[2].role == LEADER
    assert len(bench.machines[2].contents()) == 1


def test_a_transfer_that_fails_ends_at_its_deadline() -> None:
    bench = cluster(3)
    bench.crash(2)
    bench.admin(0, "transfer", 2)
    assert bench.redirects[write(bench, 0, 1)].node == -1
    for _ in range(11):
        beat(bench)
    assert bench.replies[write(bench, 0, 2)].outcome == OK


def test_an_old_request_to_stand_is_ignored() -> None:
    bench = cluster(3)
    stand(bench, 1)
    beat(bench, leader=1)
    bench.wire.append((0, 2, TimeoutNow(1)))
    bench.deliver()
    assert bench.machines[2].role == FOLLOWER and bench.machines[1].role == LEADER


# --- a lone voter -----------------------------------------------------------------------


def test_a_lone_voter_leads_only_once_its_ballot_is_durable() -> None:
    """Else it could lead, crash, and lead once more in the same term, with other entries."""
    bench = cluster(2, 1)
    bench.crash(0)
    bench.restart(0)
    bench.syncs = False
    bench.now_ns += 10 * PARAMS.election_timeout
    bench.fire(0, ELECTION)
    assert bench.machines[0].role == CANDIDATE
    bench.sync(0)
    assert bench.machines[0].role == LEADER
