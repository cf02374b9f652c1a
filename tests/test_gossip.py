"""Gossip: joins, trees that find differences, rumours, and increments that count once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from machine_bench import Bench, Wanted, among, everything

from orchestrator.core import levels
from orchestrator.core.keys import KeyRange
from orchestrator.core.machine import (
    ADD,
    FAIL,
    INCREMENT,
    KIND_NAMES,
    OK,
    READ,
    WRITE,
    ClaimContext,
    Op,
    Persist,
    Requested,
    Started,
)
from orchestrator.core.randomness import scalar_stream
from orchestrator.core.units import NS_PER_MS
from orchestrator.protocols._gossip_data import COUNTER, DATA, REGISTER, SET
from orchestrator.protocols._gossip_tree import DEPTH, Cell, Cells, Digests, Listing, Store
from orchestrator.protocols.gossip import Gossip, Params

ROUND = "round"
CHANGES = {REGISTER: WRITE, COUNTER: INCREMENT, SET: ADD}
every_type = pytest.mark.parametrize("data", [REGISTER, COUNTER, SET])


def bench_of(data: str, nodes: int = 3, **params: Any) -> Bench:
    """Nodes that have only started."""
    return Bench(Gossip, replace(Params(data=data), **params), nodes)


def rounds(bench: Bench, count: int = 10, wanted: Wanted = everything) -> None:
    """Every node that is up compares itself with another, several times."""
    for _ in range(count):
        for node in bench.nodes:
            if not bench.down[node]:
                bench.fire(node, ROUND)
                bench.deliver(wanted)


def fill(bench: Bench, node: int, first: int, count: int, size: int) -> None:
    """So many writes of a key each, all in one event."""
    ops = [Op(n + 1, 1, WRITE, b"k%d" % n, bytes(size)) for n in range(first, first + count)]
    bench.event(node, Requested(list(range(first, first + count)), ops))


def value(bench: Bench, node: int, key: bytes = b"k") -> Any:
    """What a read finds."""
    return bench.replies[bench.request(node, Op(1 << 20, 1, READ, key))].value


def copies(bench: Bench) -> list[dict[bytes, tuple[bytes, int]]]:
    return [
        {key: (entry.value, entry.version) for key, entry in machine.contents().items()}
        for machine in bench.machines
    ]


class Session:
    """A client process that counts, wherever it is sent, and asks again when it is told to."""

    def __init__(self, bench: Bench, number: int) -> None:
        self._bench = bench
        self._number = number
        self._sequence = 0
        self._context = b""

    def add(self, *nodes: int, key: bytes = b"k", amount: bytes | None = None) -> None:
        """One increment, which all these nodes are asked for."""
        self._sequence += 1
        op = Op(self._number, self._sequence, INCREMENT, key, amount, context=self._context)
        replies = [self._bench.replies[self._bench.request(node, op)] for node in nodes]
        assert all(reply.outcome == OK for reply in replies)
        assert len({reply.context for reply in replies}) == 1
        self._context = replies[0].context


# --- data types -------------------------------------------------------------------------


@every_type
@pytest.mark.parametrize("push", [False, True])
def test_updates_of_all_nodes_meet(data: str, push: bool) -> None:
    bench = bench_of(data, nodes=5, push=push)
    for number in range(50):
        key = b"k%d" % (number % 7)
        bench.request(number % 5, Op(number + 1, 1, CHANGES[data], key, b"%d" % number))
        bench.deliver()
    rounds(bench)
    assert copies(bench) == [copies(bench)[0]] * 5
    assert len(copies(bench)[0]) == 7


@every_type
def test_joins_are_commutative_associative_and_idempotent(data: str) -> None:
    made = [DATA[data](node, KeyRange(0, 8), accesses=False) for node in range(3)]
    shuffled = scalar_stream(1, "joins")
    contexts: dict[int, bytes] = {}
    for number in range(60):
        session, key = number % 7, b"k%d" % shuffled.randrange(3)
        op = Op(session, number, CHANGES[data], key, b"%d" % number)
        op.context = contexts.get(session, b"")
        contexts[session] = made[shuffled.randrange(3)].update(op)[1]
    cells = [stored.cell for each in made for stored in each.store.cells.values()]
    results = []
    for _ in range(5):
        copy = DATA[data](9, KeyRange(0, 8), accesses=False)
        order = cells * 2
        shuffled.shuffle(order)
        copy.join_all(order)
        copy.check()
        copy.store.check()
        results.append((copy.store.tree, sorted(copy.store.cells)))
    assert results == [results[0]] * 5


def test_the_last_writer_wins() -> None:
    bench = bench_of(REGISTER)
    bench.request(2, Op(1, 1, WRITE, b"k", b"early"))
    bench.now_ns = NS_PER_MS
    bench.request(0, Op(2, 1, WRITE, b"k", b"late"))
    rounds(bench)
    assert [value(bench, node) for node in bench.nodes] == [b"late"] * 3


def test_a_counter_sums_signed_amounts_and_starts_at_zero() -> None:
    bench = bench_of(COUNTER)
    preloaded = b"user000000000000"
    assert value(bench, 0, preloaded) == b"0"
    for number, amount in enumerate((None, b"41", b"-100", b"+7", b"no number", b"9" * 30)):
        Session(bench, number + 1).add(number % 3, key=preloaded, amount=amount)
    rounds(bench)
    assert [value(bench, node, preloaded) for node in bench.nodes] == [b"-49"] * 3


def test_a_set_answers_its_sorted_elements() -> None:
    bench = bench_of(SET)
    assert msgspec.msgpack.decode(value(bench, 0)) == []
    for number, element in enumerate((b"c", b"a", b"b", b"a")):
        bench.request(number % 3, Op(number + 1, 1, ADD, b"k", element))
    rounds(bench)
    assert [msgspec.msgpack.decode(value(bench, node)) for node in bench.nodes] == [
        [b"a", b"b", b"c"]
    ] * 3


# --- once -------------------------------------------------------------------------------


def test_an_increment_counts_once_whoever_is_asked_again() -> None:
    bench = bench_of(COUNTER, push=False)
    session = Session(bench, 1)
    session.add(0, 1, 2, 0)
    assert [value(bench, node) for node in bench.nodes] == [b"1"] * 3
    session.add(1, 2)
    session.add(2)
    rounds(bench)
    session.add(0, 1)
    rounds(bench)
    assert [value(bench, node) for node in bench.nodes] == [b"4"] * 3


@pytest.mark.parametrize("seed", range(20))
def test_increments_count_once_under_retries_losses_and_crashes(seed: int) -> None:
    chance = scalar_stream(seed, "retries")
    bench = bench_of(COUNTER, nodes=4, push=seed % 2 == 0)
    sessions = [Session(bench, number + 1) for number in range(5)]
    wanted = {b"a": 0, b"b": 0}
    for _ in range(150):
        key, amount = chance.choice((b"a", b"b")), chance.randint(-3, 3)
        nodes = chance.choices(bench.nodes, k=chance.choice((1, 1, 2, 3)))
        chance.choice(sessions).add(*nodes, key=key, amount=b"%d" % amount)
        wanted[key] += amount
        bench.deliver(lambda *_: chance.random() > 0.3)
        if chance.random() < 0.1:
            rounds(bench, 1, lambda *_: chance.random() > 0.3)
        if chance.random() < 0.05:
            node = chance.choice(bench.nodes)
            bench.crash(node)
            bench.restart(node)
    rounds(bench, 20)
    for key, total in wanted.items():
        assert [value(bench, node, key) for node in bench.nodes] == [b"%d" % total] * 4
    # What is kept grows with sessions and keys, not with increments.
    assert [len(machine._store.cells) for machine in bench.machines] == [10] * 4


def test_a_write_asked_for_again_does_not_undo_a_later_one() -> None:
    bench = bench_of(REGISTER, push=False)
    first = Op(1, 1, WRITE, b"k", b"first")
    bench.request(0, first)
    bench.now_ns = NS_PER_MS
    bench.request(0, Op(2, 1, WRITE, b"k", b"second"))
    rounds(bench)
    bench.now_ns = 2 * NS_PER_MS
    bench.request(2, first)
    rounds(bench)
    assert [value(bench, node) for node in bench.nodes] == [b"second"] * 3


def test_a_session_without_context_counts_at_its_node() -> None:
    bench = bench_of(COUNTER)
    for sequence in (1, 2, 2, 3):
        bench.request(1, Op(1, sequence, INCREMENT, b"k"))
    assert value(bench, 1) == b"3"


@pytest.mark.parametrize("context", [b"\xff" * 8, b"x" * 40])
def test_a_malformed_context_is_refused(context: bytes) -> None:
    bench = bench_of(COUNTER)
    handle = bench.request(0, Op(1, 1, INCREMENT, b"k", context=context))
    assert bench.replies[handle].outcome == FAIL
    assert value(bench, 0) == b"0"


# --- the tree ---------------------------------------------------------------------------


def test_the_tree_is_that_of_the_cells_whatever_happened_to_them() -> None:
    chance = scalar_stream(2, "tree")
    store, expected = Store(), Store()
    kept: dict[bytes, Cell] = {}
    for number in range(400):
        key = b"%d" % chance.randrange(60)
        if key in kept and chance.random() < 0.3:
            del kept[key]
            store.drop(key, b"")
        else:
            kept[key] = Cell(key, b"", number, b"v%d" % number)
            store.put(kept[key])
        store.check()
    for key in sorted(kept):
        expected.put(kept[key])
    assert store.tree == expected.tree


def test_a_converged_pair_exchanges_roots_and_no_more() -> None:
    bench = bench_of(REGISTER)
    for number in range(100):
        bench.request(0, Op(number + 1, 1, WRITE, b"k%d" % number, b"v"))
    rounds(bench)
    bench.sent.clear()
    rounds(bench, 3)
    assert len(bench.sent) == 3 * 3
    assert all(type(each) is Digests and each.level == 0 for each in bench.sent)


def test_one_difference_costs_one_path_down() -> None:
    bench = bench_of(REGISTER, nodes=2, push=False)
    fill(bench, 0, 0, 2000, 100)
    rounds(bench)
    bench.request(0, Op(5000, 1, WRITE, b"k7", bytes(100)))
    bench.sent.clear()
    bench.fire(0, ROUND)
    bench.deliver()
    assert copies(bench)[0] == copies(bench)[1]
    assert len(bench.sent) <= 2 + DEPTH + 2
    size = sum(len(msgspec.msgpack.encode(each)) for each in bench.sent)
    assert size < 2000, "of 240,000 bytes of data"


def test_messages_are_bounded() -> None:
    bench = bench_of(REGISTER, nodes=2, push=False)
    for node in bench.nodes:
        fill(bench, node, 1500 * node, 1500, 20)
    bench.sent.clear()
    bench.fire(0, ROUND)
    bench.deliver()
    assert copies(bench)[0] == copies(bench)[1]
    assert len(copies(bench)[0]) == 3000
    for message in bench.sent:
        match message:
            case Digests():
                assert len(message.places) <= 1024
            case Listing():
                assert len(message.names) <= 600
            case Cells():
                assert len(message.cells) <= 512
                assert len(message.wanted) <= 512


def test_rumours_need_no_round_and_die_out() -> None:
    bench = bench_of(REGISTER, nodes=5, fanout=4)
    bench.request(0, Op(1, 1, WRITE, b"k", b"v"))
    bench.deliver()
    assert [value(bench, node) for node in bench.nodes] == [b"v"] * 5
    assert len(bench.sent) <= 5 * 4
    quiet = bench_of(REGISTER, push=False)
    quiet.request(0, Op(1, 1, WRITE, b"k", b"v"))
    assert not quiet.wire


# --- life -------------------------------------------------------------------------------


@every_type
def test_what_was_answered_survives_a_crash(data: str) -> None:
    bench = bench_of(data, push=False)
    for number in range(10):
        bench.request(0, Op(number + 1, 1, CHANGES[data], b"k", b"%d" % number))
    before = copies(bench)[0]
    bench.crash(0)
    rounds(bench, 2)
    bench.restart(0)
    assert copies(bench)[0] == before
    rounds(bench)
    assert copies(bench) == [before] * 3


def test_nodes_that_are_left_meet_without_the_one_that_is_gone() -> None:
    bench = bench_of(SET, push=False)
    bench.request(0, Op(1, 1, ADD, b"k", b"a"))
    rounds(bench, 20, among(0, 1))
    bench.crash(0)
    rounds(bench)
    assert copies(bench)[1] == copies(bench)[2]
    assert msgspec.msgpack.decode(value(bench, 2)) == [b"a"]


def test_what_gossip_serves_and_claims() -> None:
    def claimed(data: str = REGISTER, durability: str = "fsync", **more: bool) -> set[str]:
        context = ClaimContext(3, more.pop("sticky", True), durability, **more)
        return set(Gossip.claims(Params(data=data), context))

    stays = {levels.EVENTUAL, levels.READ_YOUR_WRITES, levels.MONOTONIC_READS}
    assert claimed() == stays
    assert claimed(sticky=False) == claimed(crashes=True) == {levels.EVENTUAL}
    assert claimed(COUNTER) == {levels.EVENTUAL}
    assert claimed(durability="memory", restarts=True) == set()
    for data, kind in CHANGES.items():
        kinds = Gossip.kinds_of(Params(data=data))
        assert {READ, kind} <= kinds <= Gossip.kinds, [KIND_NAMES[each] for each in kinds]
    context = ClaimContext(3, False, "fsync")
    assert "changes its node" in Gossip.why_not(Params(), context, levels.READ_YOUR_WRITES)


def test_a_lone_node_talks_to_nobody() -> None:
    bench = bench_of(COUNTER, nodes=1)
    Session(bench, 1).add(0)
    assert not bench.wire
    assert not bench.timers
    effects = bench.machines[0].handle(Started([]), 0)
    assert not [effect for effect in effects if isinstance(effect, Persist)]
