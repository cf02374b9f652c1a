"""Raft's snapshots: taken, kept on disk, sent in chunks, and installed where the log is behind."""

from __future__ import annotations

from typing import Any

import pytest
from machine_bench import Bench, Wanted, among, everything
from raft_watch import RaftWatch
from twins_raft import ForgetsSessions, InstallsOverMore

from orchestrator.core.machine import OK, READ, UNKNOWN, WRITE, Op
from orchestrator.protocols._raft_election import ELECTION, HEARTBEAT, LEADER, Ballot
from orchestrator.protocols._raft_log import Append, Entries
from orchestrator.protocols._raft_snapshot import Installing, InstallSnapshot, Saved
from orchestrator.protocols.raft import Params, Raft

PARAMS = Params(election_timeout=1000, heartbeat=100, snapshot_every=10, snapshot_chunk=16)


def cluster(machine: type[Raft] = Raft, params: Params = PARAMS) -> Bench:
    """Node 0 leads in term 1."""
    bench = Bench(machine, params, 3, watch=RaftWatch())
    bench.deliver()
    beat(bench)
    assert bench.machines[0].role == LEADER
    return bench


def beat(bench: Bench, wanted: Wanted = everything, leader: int = 0) -> None:
    bench.fire(leader, HEARTBEAT)
    bench.deliver(wanted)


def write(number: int, session: int = 1) -> Op:
    return Op(session, number, WRITE, b"k%d" % (number % 5), b"%d" % number)


def fill(bench: Bench, count: int, wanted: Wanted = everything, first: int = 1) -> None:
    """That many writes, one after the other."""
    for number in range(first, first + count):
        bench.request(0, write(number))
        bench.deliver(wanted)


def of_kind(bench: Bench, kind: type[Any]) -> list[Any]:
    return [message for message in bench.sent if isinstance(message, kind)]


def contents(bench: Bench) -> list[dict[bytes, tuple[bytes, int]]]:
    return [
        {key: (entry.value, entry.version) for key, entry in each.contents().items()}
        for each in bench.machines
    ]


def test_a_snapshot_stands_for_all_records_before_it() -> None:
    bench = cluster()
    fill(bench, 25)
    beat(bench)
    for node in bench.nodes:
        kinds = [type(record) for record in bench.records[node]]
        assert kinds[0] is Saved and kinds.count(Saved) == 1
        assert Ballot not in kinds and kinds.count(Entries) < 12
        assert bench.records[node][0].index == 20
        assert bench.machines[node].log.base == 10, "one interval more stays in memory"


def test_a_node_comes_back_from_its_snapshot_and_what_follows() -> None:
    bench = cluster()
    fill(bench, 27)
    beat(bench)
    before, term = contents(bench)[1], bench.machines[1].term
    bench.crash(1)
    bench.restart(1)
    assert bench.machines[1].term == term
    assert bench.machines[1].applied == 20 and bench.machines[1].log.last == 28
    beat(bench)
    assert contents(bench)[1] == before
    assert not of_kind(bench, InstallSnapshot)


def test_all_nodes_come_back_from_snapshots() -> None:
    bench = cluster()
    fill(bench, 33)
    beat(bench)
    before = contents(bench)[0]
    for node in bench.nodes:
        bench.crash(node)
    for node in bench.nodes:
        bench.restart(node)
    bench.now_ns += 10 * PARAMS.election_timeout
    bench.fire(2, ELECTION)
    bench.deliver()
    beat(bench, leader=2)
    assert contents(bench) == [before] * 3


def test_a_vote_survives_in_a_snapshot() -> None:
    bench = cluster()
    bench.crash(0)
    bench.now_ns += 10 * PARAMS.election_timeout
    bench.fire(1, ELECTION)
    bench.deliver()
    for number in range(1, 25):
        bench.request(1, write(number))
        bench.deliver()
    beat(bench, leader=1)
    assert not any(isinstance(record, Ballot) for record in bench.records[2])
    bench.crash(2)
    bench.restart(2)
    assert (bench.machines[2].term, bench.machines[2].vote) == (2, 1)


def test_who_is_behind_the_log_gets_a_snapshot_in_bounded_chunks() -> None:
    bench = cluster()
    fill(bench, 3)
    bench.crash(2)
    fill(bench, 40, among(0, 1), first=4)
    bench.restart(2)
    beat(bench)
    beat(bench)
    chunks = of_kind(bench, InstallSnapshot)
    assert len(chunks) > 2
    assert max(len(chunk.data) for chunk in chunks) == PARAMS.snapshot_chunk
    assert [chunk.last for chunk in chunks].count(True) == 1
    assert contents(bench)[2] == contents(bench)[0]
    assert bench.machines[2].log.last == bench.machines[0].log.last
    fill(bench, 1, first=60)
    beat(bench)
    assert contents(bench)[2] == contents(bench)[0], "appends go on behind it"
    assert isinstance(bench.records[2][0], Saved)


def test_chunks_in_any_order_with_losses_arrive_all_the_same() -> None:
    import random

    for seed in range(20):
        chance = random.Random(seed)
        bench = cluster()
        bench.crash(2)
        fill(bench, 40, among(0, 1))
        bench.restart(2)
        for _ in range(40):
            bench.fire(0, HEARTBEAT)
            for _ in range(12):
                if bench.wire:
                    keeps = everything if chance.random() < 0.7 else among()
                    bench.deliver_one(chance.randrange(len(bench.wire)), keeps)
        bench.deliver()
        beat(bench)
        assert contents(bench)[2] == contents(bench)[0], f"seed {seed}"


def test_a_receiver_that_crashed_is_sent_the_snapshot_from_its_beginning() -> None:
    bench = cluster()
    bench.crash(2)
    fill(bench, 40, among(0, 1))
    bench.restart(2)
    beat(bench, lambda source, target, message: not isinstance(message, Installing))
    bench.fire(0, HEARTBEAT)
    bench.deliver_one(1)
    assert bench.machines[2]._arrival.size > 0
    bench.crash(2)
    bench.restart(2)
    for _ in range(3):
        beat(bench)
    assert contents(bench)[2] == contents(bench)[0]


def test_compaction_leaves_what_follows_a_snapshot_under_way() -> None:
    bench = cluster()
    bench.crash(2)
    fill(bench, 40, among(0, 1))
    bench.restart(2)
    beat(bench, lambda source, target, message: not isinstance(message, Installing))
    image = bench.machines[0]._progress[2].image
    assert image is not None
    fill(bench, 40, among(0, 1), first=41)
    assert bench.machines[0].log.base <= image.index
    beat(bench)
    installed = {chunk.index for chunk in of_kind(bench, InstallSnapshot)}
    assert installed == {image.index}
    beat(bench)
    assert contents(bench)[2] == contents(bench)[0]


def test_who_does_not_answer_holds_up_no_compaction() -> None:
    bench = cluster()
    bench.crash(2)
    fill(bench, 40, among(0, 1))
    for _ in range(30):
        beat(bench, among(0, 1))
    fill(bench, 40, among(0, 1), first=41)
    assert bench.machines[0].log.base >= 60
    assert bench.machines[0]._image is None


def test_a_node_without_snapshots_of_its_own_sends_one_where_it_must(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orchestrator.protocols._raft_replica._DROP_AT_LEAST", 5)
    bench = Bench(Raft, Params(election_timeout=1000, heartbeat=100), 4, replicas=3)
    bench.deliver()
    fill(bench, 20)
    for _ in range(2):
        beat(bench)
    assert bench.machines[0].log.base > 10
    bench.admin(0, "add", 3)
    bench.deliver()
    for _ in range(3):
        beat(bench)
    assert len(of_kind(bench, InstallSnapshot)) == 1
    assert contents(bench)[3] == contents(bench)[0]


def late_snapshot(machine: type[Raft]) -> Bench:
    """Node 2 has long had more when the last chunk of a snapshot arrives once more."""
    bench = cluster(machine, Params(election_timeout=1000, heartbeat=100, snapshot_every=10))
    bench.crash(2)
    fill(bench, 40, among(0, 1))
    bench.restart(2)
    for _ in range(2):
        beat(bench)
    late = of_kind(bench, InstallSnapshot)[-1]
    fill(bench, 3, first=41)
    beat(bench)
    bench.wire.append((0, 2, late))
    bench.deliver()
    return bench


def test_a_late_snapshot_changes_nothing() -> None:
    bench = late_snapshot(Raft)
    assert bench.machines[2].applied == bench.machines[0].applied
    assert contents(bench)[2] == contents(bench)[0]


def test_installing_a_late_snapshot_loses_what_was_acknowledged() -> None:
    bench = late_snapshot(InstallsOverMore)
    assert bench.machines[2].log.last < bench.machines[0]._progress[2].match


def test_a_snapshot_of_what_the_log_has_keeps_what_follows() -> None:
    """Figure 13, rule 6: the entries are there, only not known to be committed."""
    bench = cluster()
    fill(bench, 3, lambda source, target, message: isinstance(message, Append))
    machine = bench.machines[2]
    assert (machine.commit, machine.log.last) == (1, 4)
    bench.wire.append((0, 2, InstallSnapshot(1, 3, 1, 0, 0, b"never read", False)))
    bench.deliver()
    assert (machine.commit, machine.log.last) == (3, 4)


def test_waiting_clients_of_a_log_that_is_replaced_are_told_unknown() -> None:
    bench = cluster()
    fill(bench, 3)
    lost = bench.request(0, write(4))
    bench.wire.clear()
    bench.now_ns += 10 * PARAMS.election_timeout
    bench.fire(1, ELECTION)
    bench.deliver(among(1, 2))
    for number in range(10, 50):
        bench.request(1, write(number, 2))
        bench.deliver(among(1, 2))
    for _ in range(4):
        beat(bench, leader=1)
    assert bench.replies[lost].outcome == UNKNOWN
    assert contents(bench)[0] == contents(bench)[1]


@pytest.mark.parametrize(("machine", "kept"), [(Raft, True), (ForgetsSessions, False)])
def test_a_retried_write_takes_effect_once_across_a_snapshot(
    machine: type[Raft], kept: bool
) -> None:
    bench = cluster(machine)
    first = bench.request(0, Op(7, 1, WRITE, b"x", b"first"))
    bench.deliver()
    bench.request(0, Op(8, 1, WRITE, b"x", b"second"))
    bench.deliver()
    fill(bench, 30)
    beat(bench)
    for node in bench.nodes:
        bench.crash(node)
    for node in bench.nodes:
        bench.restart(node)
    bench.now_ns += 10 * PARAMS.election_timeout
    bench.fire(1, ELECTION)
    bench.deliver()
    again = bench.request(1, Op(7, 1, WRITE, b"x", b"first"))
    reading = bench.request(1, Op(9, 1, READ, b"x"))
    bench.deliver()
    assert bench.replies[again].outcome == OK
    assert (bench.replies[again].version == bench.replies[first].version) is kept
    assert bench.replies[reading].value == (b"second" if kept else b"first")
