"""Raft's reads that need no entry in the log: by index, under a lease, and weak ones anywhere."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from machine_bench import Bench, Wanted, among, everything
from raft_watch import RaftWatch, votes_among
from twins_raft import LeaseFromTheAnswer, ReadsBeforeItsTerm, ReadsWithoutRound

from orchestrator.core.levels import CODES
from orchestrator.core.machine import OK, READ, WRITE, ClaimContext, ClusterView, Op, Requested
from orchestrator.protocols._raft_election import ELECTION, FOLLOWER, HEARTBEAT, LEADER
from orchestrator.protocols._raft_log import Append, Appended
from orchestrator.protocols.raft import Params, Raft

THROUGH_LOG = Params(election_timeout=1000, heartbeat=100, in_flight=2)
BY_INDEX = dataclasses.replace(THROUGH_LOG, reads="read_index")
BY_LEASE = dataclasses.replace(THROUGH_LOG, reads="lease", clock_drift=0.0)
SEQUENTIAL, EVENTUAL = CODES["sequential"], CODES["eventual"]


def cluster(params: Params, nodes: int = 3, machine: type[Raft] = Raft) -> Bench:
    """Node 0 leads in term 1, and all have heard that it has committed a write of ``old``."""
    bench = Bench(machine, params, nodes, watch=RaftWatch())
    bench.deliver()
    bench.request(0, write(b"old"))
    bench.deliver()
    beat(bench)
    assert [each.commit for each in bench.machines] == [2] * nodes
    return bench


def beat(bench: Bench, wanted: Wanted = everything, *, leader: int = 0) -> None:
    bench.fire(leader, HEARTBEAT)
    bench.deliver(wanted)


def write(value: bytes, session: int = 1) -> Op:
    return Op(session, 1, WRITE, b"k", value)


def read(session: int = 9, *, level: int = 0, seen: int = 0) -> Op:
    return Op(session, 1, READ, b"k", seen=seen, level=level)


def replace_leader(bench: Bench) -> None:
    """Nodes 1 and 2 elect 1, which commits a write of ``new``; node 0 hears nothing of it."""
    bench.now_ns += 10 * BY_INDEX.election_timeout
    bench.fire(1, ELECTION)
    bench.deliver(among(1, 2))
    bench.request(1, write(b"new", 2))
    bench.deliver(among(1, 2))
    assert bench.machines[1].commit > bench.machines[0].commit
    assert bench.machines[0].role == LEADER


# --- by index ---------------------------------------------------------------------------


def test_a_read_by_index_waits_for_a_majority_and_adds_no_entry() -> None:
    bench = cluster(BY_INDEX)
    records = len(bench.records[0])
    handle = bench.request(0, read())
    assert handle not in bench.replies
    bench.deliver(among(0, 1))
    assert bench.replies[handle].value == b"old"
    assert bench.replies[handle].version == bench.machines[0].applied == 2
    assert bench.machines[0].log.last == 2 and len(bench.records[0]) == records


def test_a_deposed_leader_does_not_serve_a_read() -> None:
    bench = cluster(BY_INDEX)
    replace_leader(bench)
    handle = bench.request(0, read())
    bench.deliver(among(0))
    assert handle not in bench.replies
    beat(bench)
    assert bench.machines[0].role == FOLLOWER
    assert handle not in bench.replies and handle in bench.redirects


def test_without_a_round_it_serves_what_is_old() -> None:
    bench = cluster(BY_INDEX, machine=ReadsWithoutRound)
    replace_leader(bench)
    assert bench.replies[bench.request(0, read())].value == b"old"


def test_an_answer_to_what_was_sent_before_confirms_nothing() -> None:
    bench = cluster(BY_INDEX)
    first = bench.request(0, read(8))
    bench.deliver(lambda source, target, message: isinstance(message, Append))
    answers = [(1, 0, message) for message in bench.sent if isinstance(message, Appended)]
    second = bench.request(0, read(9))
    bench.wire[:] = answers[-1:]
    bench.deliver()
    assert first in bench.replies and second not in bench.replies


def test_reads_that_come_together_share_a_round() -> None:
    bench = cluster(BY_INDEX)
    before = len(bench.sent)
    bench.event(0, Requested(list(range(5)), [read(number) for number in range(10, 15)]))
    assert len(bench.sent) - before == 2, "one message to each follower"
    bench.deliver()
    assert all(bench.replies[handle].value == b"old" for handle in range(5))


def test_rounds_under_way_are_bounded_and_the_rest_wait_for_the_next() -> None:
    bench = cluster(BY_INDEX)
    before = len(bench.sent)
    handles = [bench.request(0, read(number)) for number in range(10, 20)]
    assert len(bench.sent) - before == 2 * 2
    bench.deliver()
    assert all(bench.replies[handle].outcome == OK for handle in handles)
    # Eight of them shared the third round.
    assert bench.machines[0]._rounds.number == 3


def test_an_append_carries_the_round_of_reads_that_came_with_the_write() -> None:
    bench = cluster(BY_INDEX)
    before = len(bench.sent)
    bench.event(0, Requested([1, 2], [read(8), write(b"new", 7)]))
    assert len(bench.sent) - before == 2
    bench.deliver()
    assert {bench.replies[1].outcome, bench.replies[2].outcome} == {OK}


def test_a_lost_round_is_made_up_for_by_a_heartbeat() -> None:
    bench = cluster(BY_INDEX)
    handle = bench.request(0, read())
    bench.wire.clear()
    beat(bench)
    assert bench.replies[handle].value == b"old"


def new_leader_that_knows_little(machine: type[Raft]) -> tuple[Bench, int]:
    """Node 1 leads; it has a write that node 0 had acknowledged, and does not know so."""
    bench = cluster(BY_INDEX, machine=machine)
    acknowledged = bench.request(0, write(b"new", 2))
    bench.deliver()
    assert bench.replies[acknowledged].outcome == OK
    assert bench.machines[1].commit == 2
    bench.crash(0)
    bench.now_ns += 10 * BY_INDEX.election_timeout
    bench.fire(1, ELECTION)
    bench.deliver(votes_among([1, 2]))
    assert bench.machines[1].role == LEADER
    handle = bench.request(1, read())
    # Its own entry is lost, the round is not: who refuses the empty append answers all the same.
    bench.deliver(without_entries)
    return bench, handle


def without_entries(source: int, target: int, message: Any) -> bool:
    return not (isinstance(message, Append) and message.ops)


def test_a_new_leader_reads_only_once_its_own_term_has_committed() -> None:
    bench, handle = new_leader_that_knows_little(Raft)
    assert handle not in bench.replies
    for _ in range(3):
        beat(bench, among(1, 2), leader=1)
    assert bench.replies[handle].value == b"new"


def test_a_new_leader_that_does_not_wait_reads_what_is_old() -> None:
    bench, handle = new_leader_that_knows_little(ReadsBeforeItsTerm)
    assert bench.replies[handle].value == b"old"


def test_a_lone_node_needs_nobody() -> None:
    bench = cluster(BY_INDEX, nodes=1)
    assert bench.replies[bench.request(0, read())].value == b"old"


def test_a_lone_node_serves_all_that_came_before_its_term_committed() -> None:
    bench = Bench(Raft, BY_INDEX, 1)
    bench.syncs = False
    bench.crash(0)
    bench.restart(0)
    bench.sync(0)
    bench.now_ns += 10 * BY_INDEX.election_timeout
    bench.fire(0, ELECTION)
    bench.sync(0)
    handles = [bench.request(0, read(number)) for number in range(10, 20)]
    assert bench.machines[0].role == LEADER and not bench.replies
    bench.sync(0)
    assert all(handle in bench.replies for handle in handles)


# --- under a lease ----------------------------------------------------------------------


def test_a_lease_serves_at_once_and_runs_out() -> None:
    bench = cluster(BY_LEASE)
    beat(bench)
    began_ns = bench.now_ns
    before = len(bench.sent)
    bench.now_ns = began_ns + 999
    assert bench.replies[bench.request(0, read())].value == b"old"
    assert len(bench.sent) == before
    bench.now_ns = began_ns + 1000
    handle = bench.request(0, read(8))
    assert handle not in bench.replies
    bench.deliver()
    assert bench.replies[handle].value == b"old", "by a round, which renews the lease"
    assert bench.request(0, read(7)) in bench.replies


def test_drifting_clocks_shorten_a_lease() -> None:
    params = dataclasses.replace(BY_LEASE, clock_drift=0.25)
    assert params.lease_ns == 800
    bench = cluster(params)
    beat(bench)
    bench.now_ns += 800
    assert bench.request(0, read()) not in bench.replies


@pytest.mark.parametrize(("machine", "leased"), [(Raft, False), (LeaseFromTheAnswer, True)])
def test_a_lease_runs_from_when_the_leader_spoke(machine: type[Raft], leased: bool) -> None:
    bench = cluster(BY_LEASE, machine=machine)
    bench.fire(0, HEARTBEAT)
    asked_ns = bench.now_ns
    bench.deliver(lambda source, target, message: isinstance(message, Append))
    answers = [(1, 0, message) for message in bench.sent if isinstance(message, Appended)]
    bench.now_ns += 900
    bench.wire[:] = answers[-1:]
    bench.deliver()
    bench.now_ns = asked_ns + 1000
    assert (bench.request(0, read()) in bench.replies) is leased


def test_a_follower_keeps_its_promise_when_it_comes_back() -> None:
    bench = cluster(BY_LEASE)
    beat(bench)
    began_ns = bench.now_ns
    for node in (1, 2):
        bench.crash(node)
        bench.restart(node)
    bench.now_ns = began_ns + 500
    bench.fire(1, ELECTION)
    bench.now_ns = began_ns + 999
    bench.deliver(among(1, 2))
    assert bench.machines[1].role == FOLLOWER


def test_handing_over_ends_the_lease_for_the_whole_term() -> None:
    bench = cluster(BY_LEASE)
    beat(bench)
    assert bench.request(0, read(20)) in bench.replies
    bench.admin(0, "transfer", 2)
    bench.wire.clear()  # TimeoutNow may still arrive, however late
    redirected = bench.request(0, read(21))
    assert bench.redirects[redirected].node == -1
    for _ in range(12):
        beat(bench, among(0, 1))
    assert bench.machines[0].role == LEADER and bench.machines[0]._transfer is None
    handle = bench.request(0, read(22))
    assert handle not in bench.replies
    bench.deliver(among(0, 1))
    assert bench.replies[handle].value == b"old"


# --- weak reads -------------------------------------------------------------------------


def test_any_member_serves_a_session_what_it_has_seen() -> None:
    bench = cluster(BY_INDEX)
    written = bench.request(0, write(b"new", 2))
    bench.deliver(among(0, 1))
    version = bench.replies[written].version
    early = bench.request(2, read(2, level=SEQUENTIAL, seen=version))
    assert early not in bench.replies
    other = bench.replies[bench.request(2, read(3, level=SEQUENTIAL))]
    assert (other.value, other.version) == (b"old", 2)
    for _ in range(3):
        beat(bench)
    assert bench.replies[early].value == b"new"
    assert bench.replies[early].version == version


def test_an_eventual_read_waits_for_nothing() -> None:
    bench = cluster(BY_INDEX)
    reply = bench.replies[bench.request(2, read(level=EVENTUAL, seen=1000))]
    assert (reply.value, reply.version) == (b"old", 2)


def test_a_level_that_is_strong_goes_to_the_leader() -> None:
    bench = cluster(BY_INDEX)
    for level in ("linearizable", "regular"):
        handle = bench.request(2, read(level=CODES[level]))
        assert bench.redirects[handle].node == 0


def test_in_log_mode_weak_reads_stay_out_of_the_log() -> None:
    bench = cluster(THROUGH_LOG)
    bench.event(0, Requested([1, 2], [read(3, level=EVENTUAL), read(4)]))
    assert bench.replies[1].value == b"old" and 2 not in bench.replies
    assert bench.machines[0].log.last == 3


def test_who_may_be_asked() -> None:
    view = ClusterView((0, 1, 2, 3), writer=1, reader=2)
    assert Raft.candidates(BY_INDEX, write(b""), view) == (1,)
    assert Raft.candidates(BY_INDEX, read(), view) == (2,)
    assert Raft.candidates(BY_INDEX, read(level=SEQUENTIAL), view) == view.nodes


# --- claims -----------------------------------------------------------------------------


def test_nothing_is_claimed_where_nodes_come_back_without_their_votes() -> None:
    forgetful = ClaimContext(3, True, "memory", restarts=True)
    assert Raft.claims(BY_INDEX, forgetful) == Raft.read_levels(BY_INDEX, forgetful) == frozenset()
    assert "a majority of 2 of 3 may contain one that forgot" in Raft.why_not(
        BY_INDEX, forgetful, "linearizable"
    )
    for fine in (ClaimContext(3, True, "memory"), ClaimContext(3, True, "fsync", restarts=True)):
        assert Raft.claims(BY_INDEX, fine) == {"linearizable"}
        assert {"sequential", "eventual"} < Raft.read_levels(BY_INDEX, fine)
        assert Raft.why_not(BY_INDEX, fine, "linearizable") == ""


def test_spare_nodes_are_allowed_and_missing_ones_are_not() -> None:
    assert Raft.validate(BY_INDEX, 3, 5) is None
    assert "2 nodes" in str(Raft.validate(BY_INDEX, 3, 2))
