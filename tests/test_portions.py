"""Messages between nodes stay far below what a link takes, however far behind somebody is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from machine_bench import Bench
from made_layouts import every_node
from view_bench import LEASE_NS, cluster_of, members, pass_time, without

from orchestrator.core.machine import OK, READ, TRANSACTION, WRITE, Op, Requested
from orchestrator.core.parameters import ParameterError
from orchestrator.core.portions import PORTION_BYTES, ops_end, portions, requests
from orchestrator.core.sharding import Shards, sharded
from orchestrator.core.transactions import encode_ops
from orchestrator.core.units import NS_PER_S
from orchestrator.protocols import (
    abd,
    causal,
    chain,
    craq,
    epaxos,
    gossip,
    multi_paxos,
    primary_backup,
    quorum,
    raft,
)
from orchestrator.protocols._chain_links import ChainParams
from orchestrator.protocols._multi_paxos_election import ELECTION, LEADER
from orchestrator.protocols._multi_paxos_log import Prepare, Promise
from orchestrator.protocols._order import Replicate, Transfer
from orchestrator.protocols._pieces import Arrival, Image
from orchestrator.protocols._quorum_messages import Fetched
from orchestrator.transactions._tasks import Answers, Submit
from orchestrator.transactions.two_phase_commit import Params as CommitParams
from orchestrator.transactions.two_phase_commit import TwoPhaseCommit

VALUE = bytes(1 << 20)
MANY = 20
"""So many of these values take more than two portions."""
AWAY = 2
MESSAGE_BYTES = 256
"""What a message takes besides a portion of entries, at the most."""
BEHIND: dict[str, tuple[type[Any], Any, int]] = {
    "abd": (abd.Abd, abd.Params(), NS_PER_S),
    "causal": (causal.Causal, causal.Params(), NS_PER_S),
    "causal state": (causal.Causal, causal.Params(keep=4), NS_PER_S),
    "epaxos": (epaxos.EPaxos, epaxos.Params(), NS_PER_S),
    "gossip": (gossip.Gossip, gossip.Params(), NS_PER_S),
    "multi_paxos": (multi_paxos.MultiPaxos, multi_paxos.Params(), NS_PER_S // 10),
    "quorum": (quorum.Quorum, quorum.Params(), NS_PER_S),
    "quorum siblings": (quorum.Quorum, quorum.Params(conflicts="siblings"), NS_PER_S),
    "raft": (raft.Raft, raft.Params(), NS_PER_S // 10),
}
"""Machine, parameters, and for how long a node is away besides the writes."""
VIEWS: dict[str, tuple[type[Any], type[Any], dict[str, Any]]] = {
    "chain": (chain.Chain, ChainParams, {}),
    "craq": (craq.Craq, ChainParams, {}),
    "primary_backup": (primary_backup.PrimaryBackup, primary_backup.Params, {}),
}


def large(number: int, kind: int = WRITE) -> Op:
    """Session ``number`` writes a large value to a key of its own."""
    value = b"%03d" % number + VALUE
    return Op(number, 1, kind, b"k%03d" % number, value, len(value))


def write_many(bench: Bench, node: int = 0) -> None:
    """While one node is away."""
    for number in range(1, MANY + 1):
        handle = bench.request(node, large(number))
        bench.deliver(without(AWAY))
        assert bench.replies[handle].outcome == OK


def sizes(bench: Bench, kind: Any = object) -> list[int]:
    """Bytes of the messages that were sent."""
    once = {id(each): each for each in bench.sent if isinstance(each, kind)}
    return [len(msgspec.msgpack.encode(message)) for message in once.values()]


def expect_portions(found: list[int]) -> None:
    """Some messages are full, and none is more than that."""
    assert PORTION_BYTES * 3 // 4 < max(found) < PORTION_BYTES + MESSAGE_BYTES


def expect_caught_up(bench: Bench) -> None:
    """The node that was away holds what the others hold."""
    held = [
        {key: entry.value for key, entry in bench.machines[node].contents().items()}
        for node in bench.nodes
    ]
    assert len(held[0]) == MANY
    assert held[AWAY] == held[0]


@pytest.mark.parametrize("name", BEHIND)
def test_who_was_away_is_brought_up_to_date_in_portions(name: str) -> None:
    machine, params, away_ns = BEHIND[name]
    bench = Bench(machine, params, 3)
    bench.deliver()
    write_many(bench)
    pass_time(bench, away_ns, without(AWAY))
    bench.sent.clear()
    pass_time(bench, 3 * NS_PER_S)
    expect_caught_up(bench)
    expect_portions(sizes(bench))


@pytest.mark.parametrize(("keep", "kind"), [(4, Transfer), (100, Replicate)])
@pytest.mark.parametrize("name", VIEWS)
def test_a_node_outside_the_view_catches_up_in_portions(name: str, keep: int, kind: Any) -> None:
    machine, params, choices = VIEWS[name]
    bench = cluster_of(machine, params, 3, **choices | {"keep": keep})
    pass_time(bench, 4 * LEASE_NS, without(AWAY))
    assert members(bench) == [0, 1]
    write_many(bench)
    bench.sent.clear()
    pass_time(bench, NS_PER_S)
    assert AWAY in members(bench)
    expect_caught_up(bench)
    expect_portions(sizes(bench, kind))


@pytest.mark.parametrize("lost", [False, True])
def test_a_member_gets_a_state_piece_by_piece(lost: bool) -> None:
    bench = cluster_of(
        primary_backup.PrimaryBackup,
        primary_backup.Params,
        3,
        mode="async",
        failover=False,
        keep=4,
    )
    write_many(bench)
    bench.sent.clear()
    seen: list[Any] = []

    def wanted(source: int, target: int, message: Any) -> bool:
        """The second piece is lost once, and writes go on while pieces are on their way."""
        if isinstance(message, Transfer):
            seen.append(message)
            if len(seen) == 1:
                for number in range(MANY):
                    bench.request(0, Op(100, number + 1, WRITE, b"k001", b"small"))
            return not lost or len(seen) != 2
        return True

    pass_time(bench, NS_PER_S, wanted)
    expect_caught_up(bench)
    offsets = [message.offset for message in seen]
    assert len({message.position for message in seen}) == 1, "one state will do"
    assert len(offsets) == (4 if lost else 3)
    assert sorted(offsets) == offsets
    expect_portions(sizes(bench))


def test_a_new_leader_is_told_in_portions_what_was_accepted() -> None:
    bench = Bench(multi_paxos.MultiPaxos, multi_paxos.Params(), 3)
    bench.deliver()
    write_many(bench)
    bench.crash(0)
    bench.now_ns += 10 * NS_PER_S
    bench.sent.clear()
    bench.fire(AWAY, ELECTION)
    began_ns = bench.now_ns
    twice: list[Any] = []
    while bench.wire:
        message = bench.wire[0][2]
        if isinstance(message, Promise) and message not in twice:
            # A part that comes once more is no news.
            twice.append(message)
            bench.wire.append(bench.wire[0])
            bench.now_ns += 1
        bench.deliver_one(0)
    assert bench.machines[AWAY].role == LEADER
    expect_caught_up_pair(bench)
    asked = [message.first for message in bench.sent if isinstance(message, Prepare)]
    assert asked[0] == asked[1] < asked[2] < asked[3]
    assert len(asked) == 4, "two more parts, each asked for once"
    assert bench.machines[1]._heard_ns > began_ns
    expect_portions(sizes(bench, Promise))


def expect_caught_up_pair(bench: Bench) -> None:
    """The new leader and the node that is left have chosen all."""
    pass_time(bench, NS_PER_S)
    held = [bench.machines[node].contents() for node in (1, AWAY)]
    assert len(held[1]) == MANY
    assert held[0] == held[1]


def test_many_reads_at_once_are_answered_in_portions() -> None:
    bench = Bench(quorum.Quorum, quorum.Params(), 3)
    write_many(bench)
    bench.sent.clear()
    handles = list(range(MANY))
    ops = [Op(100 + number, 1, READ, b"k%03d" % (number + 1)) for number in handles]
    bench.event(AWAY, Requested(handles, ops))
    bench.deliver()
    assert [bench.replies[handle].value[:3] for handle in handles] == [
        b"%03d" % (number + 1) for number in handles
    ]
    expect_portions(sizes(bench, Fetched))


def test_steps_for_other_nodes_and_their_answers_go_in_portions() -> None:
    """Node 0 leads the first shard, node 2 the second."""
    shards = Shards(every_node(2), raft.Params(), CommitParams())
    bench = Bench(sharded(raft.Raft, TwoPhaseCommit), shards, 3)
    bench.deliver()
    keys = [
        key for key in (b"k%d" % n for n in range(4 * MANY)) if every_node(2).cell_of(key) == 1
    ][:MANY]
    for sequence, value in ((1, VALUE), (2, None)):
        ops = []
        for session, key in enumerate(keys, 1):
            kind = READ if value is None else WRITE
            packed = encode_ops([(kind, key, value)])
            ops.append(Op(session, sequence, TRANSACTION, key, packed, len(packed)))
        handles = [(sequence, op.session) for op in ops]
        bench.event(0, Requested(handles, ops))
        pass_time(bench, NS_PER_S // 10)
        assert {bench.replies[handle].outcome for handle in handles} == {OK}
    expect_portions(sizes(bench, Submit))
    expect_portions(sizes(bench, Answers))


# --- the parts of it --------------------------------------------------------------------


def test_what_cannot_be_cut_is_a_portion_of_its_own() -> None:
    items = [3, PORTION_BYTES + 1, PORTION_BYTES, 1, PORTION_BYTES - 1, 1]
    found = list(portions(items, lambda item: item))
    assert found == [items[:1], items[1:2], items[2:3], items[3:5], items[5:]]
    assert list(portions([], len)) == []
    whole = [1, 2]
    assert next(portions(whole, lambda item: item)) is whole


def test_a_machine_is_asked_for_a_portion_at_a_time() -> None:
    ops = [large(number) for number in range(MANY)]
    parts = list(requests(Requested(list(range(MANY)), ops)))
    assert [len(part.ops) for part in parts] == [7, 7, 6]
    assert [op for part in parts for op in part.ops] == ops
    assert [handle for part in parts for handle in part.handles] == list(range(MANY))


def test_what_operations_say_to_weigh_is_believed_only_where_it_is_little() -> None:
    modest = [Op(number, 1, WRITE, b"k", VALUE, 0) for number in range(MANY)]
    assert ops_end(modest, 0, MANY) == MANY
    modest.append(Op(MANY, 1, WRITE, b"k", b"", PORTION_BYTES))
    assert ops_end(modest, 0, MANY + 1) == 7
    boastful = [Op(number, 1, WRITE, b"k", b"", PORTION_BYTES) for number in range(MANY)]
    assert ops_end(boastful, 0, MANY) == MANY


def test_a_state_arrives_whatever_order_its_pieces_come_in() -> None:
    data = bytes(range(256)) * (10 << 12)
    image = Image(7, data)
    first, second = ((offset, *image.piece(offset)) for offset in (0, PORTION_BYTES))
    assert image.large and not Image(8, data[:PORTION_BYTES]).large
    arrival = Arrival()
    assert arrival.add((1, 7), *second) is None
    assert (arrival.asks, arrival.size) == (True, 0), "what comes before it is missing"
    assert arrival.add((1, 7), *first) is None
    assert (arrival.asks, arrival.size) == (True, PORTION_BYTES)
    assert arrival.add((1, 7), *first) is None
    assert not arrival.asks, "an answer would bring the second piece twice"
    assert arrival.add((2, 7), *first) is None
    assert arrival.add((2, 7), *second) == data


def test_a_piece_is_asked_for_again_ever_less_often() -> None:
    arrival = Arrival()
    arrival.add((1, 7), 0, b"some", False)
    overdue = [look for look in range(1, 125) if arrival.overdue()]
    assert overdue == [4, 12, 28, 60, 124]
    assert arrival.stalled
    arrival.add((1, 7), 4, b"more", False)
    assert not arrival.stalled


def test_a_chunk_of_raft_snapshots_is_no_more_than_a_portion() -> None:
    assert raft.Params(snapshot_chunk=PORTION_BYTES).snapshot_chunk == PORTION_BYTES
    with pytest.raises(ParameterError, match="8MiB"):
        raft.Params(snapshot_chunk=PORTION_BYTES + 1)
