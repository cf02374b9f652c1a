"""Single scenarios of Multi-Paxos on a bench: what a new leader must adopt, who knows what is
chosen, leases and weak reads.
"""

from __future__ import annotations

from typing import Any

from machine_bench import Bench, Wanted, among, everything
from multi_paxos_watch import SlotWatch

from orchestrator.core.levels import CODES, EVENTUAL, SEQUENTIAL
from orchestrator.core.machine import (
    OK,
    READ,
    UNKNOWN,
    WRITE,
    Event,
    Op,
    Received,
)
from orchestrator.protocols._multi_paxos_election import ELECTION, FOLLOWER, HEARTBEAT, LEADER
from orchestrator.protocols._multi_paxos_log import Accept, Accepted, Prepare, Promise
from orchestrator.protocols.multi_paxos import NO_OP, MultiPaxos, Params

PARAMS = Params(election_timeout=1000, heartbeat=100, in_flight=4)
LEASED = Params(election_timeout=1000, heartbeat=100, reads="lease")


def cluster(nodes: int = 3, params: Params = PARAMS, batch_max: int = 0) -> Bench:
    """Node 0 leads, everybody has heard of it."""
    bench = Bench(MultiPaxos, params, nodes, watch=SlotWatch(), batch_max=batch_max)
    bench.deliver()
    assert [machine.role for machine in bench.machines] == [LEADER] + [FOLLOWER] * (nodes - 1)
    return bench


def elect(bench: Bench, node: int, wanted: Wanted = everything) -> None:
    """Everybody loses patience and ``node`` stands; what is not wanted is lost."""
    bench.now_ns += 10 * PARAMS.election_timeout
    bench.fire(node, ELECTION)
    bench.deliver(wanted)


def beat(bench: Bench, leader: int = 0, wanted: Wanted = everything) -> None:
    """One heartbeat of the leader."""
    bench.fire(leader, HEARTBEAT)
    bench.deliver(wanted)


def write(number: int, key: bytes = b"k") -> Op:
    """The only operation of session ``number``."""
    return Op(number, 1, WRITE, key, b"value %d" % number)


def sessions(bench: Bench, node: int) -> list[int]:
    """Whose operations are chosen, as the node knows; -1 for a no-op."""
    machine = bench.machines[node]
    ops = machine.slots.ops[: machine.commit - machine.slots.base]
    return [-1 if op.kind == NO_OP else op.session for op in ops]


# --- phase 2 ----------------------------------------------------------------------------


def test_one_message_a_follower_carries_a_run_of_slots() -> None:
    bench = cluster()
    bench.sent.clear()
    for number in range(1, 5):
        bench.request(0, write(number))
    first = [message for message in bench.sent if isinstance(message, Accept)]
    assert [len(message.ops) for message in first] == [1] * 8, "four may be under way"
    for number in range(5, 9):
        bench.request(0, write(number))
    bench.deliver()
    runs = [len(message.ops) for message in bench.sent if isinstance(message, Accept)][8:]
    assert max(runs) == 4
    assert sessions(bench, 0) == list(range(1, 9))


def test_slots_are_accepted_in_any_order() -> None:
    bench = cluster()
    bench.request(0, write(1))
    bench.request(0, write(2))
    bench.crash(2)
    to_1 = [entry for entry in bench.wire if entry[1] == 1]
    bench.wire[:] = to_1[::-1]
    bench.deliver_one(0)
    follower = bench.machines[1]
    assert (follower.through, follower.slots.last) == (0, 2)
    bench.sent.clear()
    bench.deliver_one(0)
    assert follower.through == 2, "the second needs not be sent again"
    bench.deliver()
    assert sessions(bench, 0) == [1, 2]


def test_nothing_is_chosen_before_a_majority_has_it_on_disk() -> None:
    bench = cluster()
    bench.syncs = False
    handle = bench.request(0, write(1))
    bench.deliver()
    bench.sync(1)
    bench.deliver()
    assert bench.machines[0].commit == 0, "one follower and a leader without its own copy"
    bench.sync(0)
    assert bench.machines[0].commit == 1
    assert bench.replies[handle].outcome == OK


def test_a_follower_that_missed_everything_catches_up() -> None:
    bench = cluster(batch_max=3)
    for number in range(1, 21):
        bench.request(0, write(number))
        bench.deliver(among(0, 1))
    assert bench.machines[2].commit == 0
    for _ in range(12):
        beat(bench)
    assert sessions(bench, 2) == list(range(1, 21))


def test_what_all_nodes_durably_know_is_forgotten() -> None:
    bench = cluster()
    for number in range(1, 1400):
        bench.request(0, write(number))
        bench.deliver()
    beat(bench)
    beat(bench)
    assert [machine.slots.base > 1000 for machine in bench.machines] == [True] * 3
    bench.crash(1)
    bench.restart(1)
    beat(bench)
    beat(bench)
    contents = [machine.contents()[b"k"].value for machine in bench.machines]
    assert contents == [b"value 1399"] * 3


# --- phase 1 ----------------------------------------------------------------------------


def test_a_new_leader_fills_gaps_and_keeps_what_was_accepted() -> None:
    bench = cluster()
    bench.request(0, write(1))
    bench.wire.clear()
    bench.request(0, write(2))
    bench.deliver(lambda source, target, message: (source, target) == (0, 1))
    bench.crash(0)
    elect(bench, 1)
    beat(bench, 1)
    assert sessions(bench, 2) == [-1, 2]


def test_the_value_of_the_highest_ballot_wins() -> None:
    bench = cluster(5)
    bench.request(0, write(1))
    bench.wire.clear()  # only node 0 has it, in its ballot
    bench.crash(0)
    elect(bench, 1, among(1, 2, 3))
    bench.request(1, write(2))
    bench.deliver(among(1, 2))  # accepted by 1 and 2 only, in a higher ballot
    bench.crash(1)
    bench.restart(0)
    elect(bench, 3, among(0, 2, 3))
    beat(bench, 3, among(0, 2, 3))
    assert [sessions(bench, node) for node in (0, 2, 3)] == [[2]] * 3


def test_an_acceptance_of_an_old_ballot_is_not_taken_for_chosen() -> None:
    bench = cluster()
    stale = bench.request(0, write(1))
    bench.wire.clear()
    elect(bench, 1, among(1, 2))
    bench.request(1, write(2))
    bench.deliver(among(1, 2))
    beat(bench, 1, among(1, 2))
    assert sessions(bench, 1) == [2]
    # A heartbeat that tells node 0 what is chosen, but not the value.
    bench.event(0, received(1, Accept(bench.machines[1].promised, 2, 1, 0, 0, [])))
    assert bench.machines[0].commit == 0
    bench.deliver()
    beat(bench, 1)
    assert sessions(bench, 0) == [2]
    assert bench.replies[stale].outcome == UNKNOWN


def received(source: int, message: Any) -> Event:
    """As the runtime hands it in."""
    return Received(source, message)


def test_a_promise_survives_a_restart() -> None:
    bench = cluster()
    old = bench.machines[0].promised
    elect(bench, 1, lambda source, target, message: isinstance(message, Prepare) and target == 2)
    assert bench.machines[2].promised > old
    bench.crash(2)
    bench.restart(2)
    bench.event(2, received(0, Accept(old, 1, 0, 0, 0, [write(1)])))
    answer = bench.wire[-1][2]
    assert isinstance(answer, Accepted)
    assert (answer.promised > old, answer.through) == (True, 0)


def test_what_was_reported_does_not_fall_behind_after_a_restart() -> None:
    bench = cluster()
    for number in range(1, 4):
        bench.request(0, write(number))
        bench.deliver()
    beat(bench)
    elect(bench, 1)
    reported = bench.machines[1]._progress[2].match
    bench.crash(2)
    bench.restart(2)
    assert bench.machines[2].through >= reported == 3


def test_a_node_that_was_cut_off_deposes_nobody() -> None:
    bench = cluster()
    for _ in range(3):
        bench.now_ns += 3 * PARAMS.election_timeout
        beat(bench, 0, among(0, 1))
        bench.fire(2, ELECTION)
        bench.deliver(among(0, 1))
    assert bench.machines[2].promised > bench.machines[0].promised
    bench.deliver()
    bench.fire(2, ELECTION)
    bench.deliver(lambda source, target, message: isinstance(message, Prepare | Promise))
    assert bench.machines[0].role == LEADER, "its followers have heard it lately"


def test_a_leader_that_hears_no_majority_steps_down() -> None:
    bench = cluster()
    beats = 0
    while bench.machines[0].role == LEADER and beats < 50:
        beat(bench, 0, among())
        beats += 1
    assert beats * PARAMS.heartbeat <= 2 * PARAMS.election_timeout
    handle = bench.request(0, write(1))
    assert bench.redirects[handle].node == -1


# --- reads ------------------------------------------------------------------------------


def test_a_leader_with_a_lease_reads_without_messages() -> None:
    bench = cluster(params=LEASED)
    bench.request(0, write(1))
    bench.deliver()
    beat(bench)
    bench.sent.clear()
    handle = bench.request(0, Op(2, 1, READ, b"k"))
    assert bench.replies[handle].value == b"value 1"
    assert bench.sent == []
    bench.now_ns += LEASED.election_timeout * 9 // 10
    late = bench.request(0, Op(3, 1, READ, b"k"))
    assert late not in bench.replies, "the lease is over: through the log"
    bench.deliver()
    assert bench.replies[late].value == b"value 1"


def test_no_phase_1_is_answered_while_a_lease_may_last() -> None:
    bench = cluster(params=LEASED)
    beat(bench)
    bench.event(1, received(2, Prepare(bench.machines[0].promised + 2, 1)))
    assert bench.wire == []
    bench.crash(1)
    bench.restart(1)
    bench.event(1, received(2, Prepare(bench.machines[0].promised + 2, 1)))
    assert bench.wire == [], "it does not know what it acknowledged before the crash"
    bench.now_ns += LEASED.election_timeout
    bench.event(1, received(2, Prepare(bench.machines[0].promised + 2, 1)))
    assert isinstance(bench.wire[0][2], Promise)


def test_weak_reads_are_served_by_any_node() -> None:
    bench = cluster()
    bench.request(0, write(1))
    bench.deliver(among(0, 1))
    reply = bench.replies[1000]
    old = bench.request(2, Op(2, 1, READ, b"k", level=CODES[EVENTUAL]))
    assert (bench.replies[old].value, bench.replies[old].version) == (None, 0)
    own = bench.request(2, Op(1, 2, READ, b"k", seen=reply.version, level=CODES[SEQUENTIAL]))
    assert own not in bench.replies
    beat(bench)
    beat(bench)
    assert bench.replies[own].value == b"value 1"
    assert bench.replies[own].version >= reply.version
