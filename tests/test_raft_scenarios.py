"""Single scenarios of Raft on a bench: who may lead, what counts as committed, how logs mend."""

from __future__ import annotations

import pytest
from machine_bench import Bench, Wanted, among, everything
from raft_watch import RaftWatch

from orchestrator.core.machine import OK, READ, UNKNOWN, WRITE, Op, Requested
from orchestrator.protocols import _raft_replica
from orchestrator.protocols._raft_election import ELECTION, FOLLOWER, HEARTBEAT, LEADER, NOBODY
from orchestrator.protocols._raft_log import Append, Appended, Log
from orchestrator.protocols.raft import Params, Raft

PARAMS = Params(election_timeout=1000, heartbeat=100, in_flight=4)


def cluster(nodes: int = 3, machine: type[Raft] = Raft, batch_max: int = 0) -> Bench:
    """Node 0 leads in term 1, everybody has its first entry."""
    bench = Bench(machine, PARAMS, nodes, watch=RaftWatch(), batch_max=batch_max)
    bench.deliver()
    beat(bench, 0)
    assert bench.machines[0].role == LEADER
    return bench


def elect(bench: Bench, node: int, wanted: Wanted = everything) -> None:
    """Everybody loses patience and ``node`` stands; what is not wanted is lost."""
    bench.now_ns += 10 * PARAMS.election_timeout
    bench.fire(node, ELECTION)
    bench.deliver(wanted)


def beat(bench: Bench, leader: int, wanted: Wanted = everything) -> None:
    """One heartbeat of the leader."""
    bench.fire(leader, HEARTBEAT)
    bench.deliver(wanted)


def write(number: int, key: bytes = b"k") -> Op:
    """The only operation of session ``number``."""
    return Op(number, 1, WRITE, key, b"value %d" % number)


def logs(bench: Bench) -> list[list[bytes | None]]:
    """Values in all logs, no-ops left out."""
    return [[op.value for op in each.log.ops if op.kind == WRITE] for each in bench.machines]


# --- elections --------------------------------------------------------------------------


def test_a_fresh_cluster_elects_node_0_at_once() -> None:
    bench = cluster()
    assert [machine.role for machine in bench.machines] == [LEADER, FOLLOWER, FOLLOWER]
    assert [machine.term for machine in bench.machines] == [1, 1, 1]
    assert [machine.commit for machine in bench.machines] == [1, 1, 1]


def test_a_log_that_is_behind_cannot_win() -> None:
    bench = cluster()
    bench.request(0, write(1))
    bench.deliver(among(0, 1))
    bench.crash(0)
    elect(bench, 2)
    assert bench.machines[2].role == FOLLOWER
    elect(bench, 1)
    assert bench.machines[1].role == LEADER
    assert logs(bench)[2] == [b"value 1"]


def test_a_leader_that_hears_no_majority_steps_down() -> None:
    bench = cluster()
    beats = 0
    while bench.machines[0].role == LEADER and beats < 50:
        beat(bench, 0, among())
        beats += 1
    assert beats * PARAMS.heartbeat <= 2 * PARAMS.election_timeout
    assert bench.machines[0].leader == NOBODY
    handle = bench.request(0, write(1))
    assert bench.redirects[handle].node == -1
    elect(bench, 0)
    assert bench.machines[0].role == LEADER


def test_one_lost_heartbeat_does_not_depose_a_leader() -> None:
    bench = cluster()
    for _ in range(20):
        beat(bench, 0, among())
        beat(bench, 0)
    assert bench.machines[0].role == LEADER
    assert bench.machines[0].term == 1


def test_a_vote_survives_a_restart() -> None:
    bench = cluster()
    while bench.machines[0].role == LEADER:
        beat(bench, 0, among())
    bench.now_ns += 10 * PARAMS.election_timeout
    # Both ask node 2 for term 2, with the same log; only the first may have it.
    bench.fire(0, ELECTION)
    bench.fire(1, ELECTION)
    while not all(machine.term == 2 for machine in bench.machines[:2]):
        bench.deliver_one(0)
    bench.deliver(lambda source, target, message: (source, target) == (0, 2))
    assert bench.machines[2].vote == 0
    bench.crash(2)
    bench.restart(2)
    assert (bench.machines[2].term, bench.machines[2].vote) == (2, 0)


def test_a_vote_is_not_sent_before_it_is_durable() -> None:
    bench = cluster()
    bench.crash(0)
    bench.now_ns += 10 * PARAMS.election_timeout
    bench.fire(1, ELECTION)
    bench.syncs = False
    bench.deliver()
    # The pre-vote went through, but the candidate's own ballot is not on its disk yet.
    assert bench.machines[1].term == 2
    assert bench.machines[2].term == 1
    bench.sync(1)
    bench.deliver()
    assert bench.machines[2].vote == 1
    assert bench.machines[1].role != LEADER
    bench.sync(2)
    bench.deliver()
    assert bench.machines[1].role == LEADER


# --- replication and commitment ---------------------------------------------------------


def test_nothing_is_acknowledged_before_a_majority_has_it_on_disk() -> None:
    bench = cluster()
    bench.syncs = False
    handle = bench.request(0, write(1))
    bench.deliver()
    # The append overlaps the leader's own write; no follower has said anything.
    assert logs(bench) == [[b"value 1"]] * 3
    assert bench.machines[0].commit == 1
    bench.sync(1)
    bench.deliver()
    assert bench.machines[0].commit == 1, "one follower and a leader without its own copy"
    bench.sync(0)
    assert bench.machines[0].commit == 2
    assert bench.replies[handle].outcome == OK


def test_two_followers_may_commit_before_the_leader_has_its_own_copy() -> None:
    bench = cluster()
    bench.syncs = False
    handle = bench.request(0, write(1))
    bench.deliver()
    bench.sync(1)
    bench.sync(2)
    bench.deliver()
    assert bench.machines[0].commit == 2
    assert handle not in bench.replies, "the answer stays behind the leader's own barrier"
    bench.sync(0)
    assert handle in bench.replies


def test_a_conflicting_tail_is_cut_and_its_clients_told_unknown() -> None:
    bench = cluster()
    lost = [bench.request(0, write(number)) for number in (1, 2, 3)]
    bench.wire.clear()
    elect(bench, 1, among(1, 2))
    kept = bench.request(1, write(4))
    bench.deliver(among(1, 2))
    assert bench.replies[kept].outcome == OK
    assert logs(bench)[0] == [b"value 1", b"value 2", b"value 3"]
    for _ in range(4):
        beat(bench, 1)
    assert logs(bench) == [[b"value 4"]] * 3
    assert [bench.replies[handle].outcome for handle in lost] == [UNKNOWN] * 3
    assert bench.machines[0].contents() == bench.machines[1].contents()


def test_an_entry_of_a_deposed_leader_may_still_be_answered() -> None:
    bench = cluster()
    handle = bench.request(0, write(1))
    bench.deliver(lambda source, target, message: (source, target) == (0, 1))
    elect(bench, 1)
    beat(bench, 1)
    assert bench.machines[1].role == LEADER
    assert bench.replies[handle].outcome == OK, "it is committed, and node 0 has the client"


# --- catching up ------------------------------------------------------------------------


def entries_sent(bench: Bench) -> int:
    """Operations in all appends so far."""
    return sum(len(message.ops) for message in bench.sent if isinstance(message, Append))


def test_a_lost_append_costs_one_refusal_and_one_retransmission() -> None:
    bench = cluster(batch_max=1)
    before = len(bench.sent)
    for number in range(1, 5):
        bench.request(0, write(number))
    first_to_2 = next(index for index, sent in enumerate(bench.wire) if sent[1] == 2)
    bench.wire.pop(first_to_2)
    bench.deliver()
    assert logs(bench) == [[b"value %d" % number for number in range(1, 5)]] * 3
    appends = [each for each in bench.sent[before:] if isinstance(each, Append) and each.ops]
    refusals = [each for each in bench.sent if isinstance(each, Appended) and not each.success]
    assert len(refusals) == 3, "those that were pipelined behind the lost one"
    assert len(appends) == 8 + 4, "four are sent again, and none of them twice"


@pytest.mark.parametrize("seed", range(5))
def test_appends_in_any_order_do_not_multiply(seed: int) -> None:
    import random

    chance = random.Random(seed)
    bench = cluster(batch_max=1)
    for number in range(1, 41):
        bench.request(0, write(number))
        for _ in range(4):
            if bench.wire:
                bench.deliver_one(chance.randrange(len(bench.wire)))
        assert len(bench.wire) < 60
    while bench.wire:
        bench.deliver_one(chance.randrange(len(bench.wire)))
    for _ in range(3):
        beat(bench, 0)
    assert logs(bench) == [[b"value %d" % number for number in range(1, 41)]] * 3
    assert entries_sent(bench) < 40 * 2 * 4


def test_lost_answers_do_not_close_the_window() -> None:
    bench = cluster(batch_max=1)
    for number in range(1, 12):
        bench.request(0, write(number))
        bench.deliver(lambda source, target, message: not isinstance(message, Appended))
    beat(bench, 0)
    bench.request(0, write(12))
    bench.deliver()
    assert len(logs(bench)[1]) == 12
    assert all(not progress.window for progress in bench.machines[0]._progress.values())


def test_a_follower_that_was_away_gets_what_it_lacks_and_no_more() -> None:
    bench = cluster(batch_max=8)
    for number in range(1, 101):
        bench.request(0, write(number))
        bench.deliver()
    bench.crash(2)
    for number in range(101, 111):
        bench.request(0, write(number))
        bench.deliver()
    for _ in range(6):
        beat(bench, 0)
    before = entries_sent(bench)
    bench.restart(2)
    for _ in range(3):
        beat(bench, 0)
    assert len(logs(bench)[2]) == 110
    assert bench.machines[2].applied == bench.machines[0].applied
    assert entries_sent(bench) - before <= 10 + 8


def test_the_prefix_that_all_have_applied_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_raft_replica, "_DROP_AT_LEAST", 10)
    bench = cluster()
    for number in range(1, 41):
        bench.request(0, write(number, b"k%d" % (number % 7)))
        bench.deliver()
    for _ in range(3):
        beat(bench, 0)
    assert all(machine.log.base >= 30 for machine in bench.machines)
    assert bench.machines[1].contents() == bench.machines[0].contents()
    # A node that comes back has the whole log and catches up by applying it again.
    bench.crash(2)
    bench.request(0, write(41))
    bench.deliver()
    bench.restart(2)
    assert bench.machines[2].log.base == 0
    for _ in range(2):
        beat(bench, 0)
    assert bench.machines[2].contents() == bench.machines[0].contents()


def test_a_prefix_is_kept_while_one_node_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_raft_replica, "_DROP_AT_LEAST", 10)
    bench = cluster()
    for number in range(1, 41):
        bench.request(0, write(number))
        bench.deliver(among(0, 1))
    for _ in range(3):
        beat(bench, 0, among(0, 1))
    assert bench.machines[0].log.base == 0
    for _ in range(3):
        beat(bench, 0)
    assert bench.machines[2].contents() == bench.machines[0].contents()


def test_a_new_leader_without_the_prefix_mends_a_node_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_raft_replica, "_DROP_AT_LEAST", 10)
    bench = cluster()
    for number in range(1, 31):
        bench.request(0, write(number))
        bench.deliver()
    for _ in range(3):
        beat(bench, 0)
    assert bench.machines[1].log.base > 10
    bench.crash(2)
    bench.crash(0)
    bench.restart(2)
    assert bench.machines[2].log.base == 0
    elect(bench, 1, among(1, 2))
    assert bench.machines[1].role == LEADER
    handle = bench.request(1, write(31))
    bench.deliver(among(1, 2))
    assert bench.replies[handle].outcome == OK
    beat(bench, 1, among(1, 2))
    assert bench.machines[2].contents() == bench.machines[1].contents()


def test_batch_max_bounds_an_append() -> None:
    bench = cluster(batch_max=3)
    ops = [write(number) for number in range(1, 12)]
    bench.event(0, Requested(list(range(11)), ops))
    bench.deliver()
    assert max(len(each.ops) for each in bench.sent if isinstance(each, Append)) == 3
    assert logs(bench) == [[op.value for op in ops]] * 3


def test_reads_go_through_the_log() -> None:
    bench = cluster()
    bench.request(0, write(1))
    reading = bench.request(0, Op(2, 1, READ, b"k"))
    assert reading not in bench.replies
    bench.deliver()
    assert bench.replies[reading].value == b"value 1"


# --- the log ----------------------------------------------------------------------------


def test_a_run_ends_where_the_term_does() -> None:
    log = Log()
    ops = [write(number) for number in range(1, 11)]
    for term, chunk in ((1, ops[:4]), (2, ops[4:5]), (5, ops[5:])):
        log.extend(term, chunk)
    assert log.run_from(1, 100)[0] == 1
    assert 1 <= len(log.run_from(1, 100)[1]) <= 4
    assert log.run_from(5, 100) == (2, ops[4:5])
    assert log.run_from(6, 2) == (5, ops[5:7])
    assert log.run_from(11, 2) == (0, [])
    assert [log.before_term_of(index) for index in (1, 4, 5, 6, 10)] == [0, 0, 4, 5, 5]
    log.drop_through(5)
    assert [log.term_at(index) for index in (5, 6, 10)] == [2, 5, 5]
    assert log.run_from(6, 100) == (5, ops[5:])
    assert log.cut_after(7) == []
    assert (log.last, log.last_term, log.base, log.base_term) == (7, 5, 5, 2)
