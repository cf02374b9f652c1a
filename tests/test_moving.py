"""Data that moves between groups while it is used: nothing is lost, nothing is applied twice."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from machine_bench import Bench

from orchestrator.core.giving import Carry, MoveParams
from orchestrator.core.holdings import DONE, Cell, Holdings, Piece, encode
from orchestrator.core.keys import KeyRange
from orchestrator.core.layout import (
    ADD_SHARD,
    REMOVE_SHARD,
    Change,
    Layouts,
    Planner,
)
from orchestrator.core.machine import OK, READ, WRITE, Op, Reply
from orchestrator.core.moving import Moving
from orchestrator.core.registry import NoParams
from orchestrator.core.sharding import Shards, sharded
from orchestrator.core.state import VOID, OwnedState
from orchestrator.core.steps import ADOPT, FENCE, RELEASE
from orchestrator.protocols.raft import Params as RaftParams
from orchestrator.protocols.raft import Raft
from orchestrator.protocols.unreplicated import Unreplicated
from orchestrator.runtimes._peers import machine_decoder
from orchestrator.shardings.modulo import Modulo


def layouts_of(*changes: Change, shards: int = 2, nodes: int = 2, replicas: int = 1) -> Layouts:
    planner = Planner(shards, nodes, replicas, lambda shards: Modulo(NoParams(), shards), 2)
    return planner.plan(changes)


ADDED = layouts_of(Change(ADD_SHARD, 1))
LEAVES = [key for key in (b"k%d" % n for n in range(40)) if ADDED.path(ADDED.cell_of(key))[1] == 1]
"""Keys that go from group 0, on node 0, to group 1, on node 1."""
STAYS = next(b"k%d" % n for n in range(40) if b"k%d" % n not in LEAVES)


def bench(layouts: Layouts = ADDED, **params: Any) -> Bench:
    shards = Shards(layouts, NoParams(), MoveParams(**params))
    return Bench(sharded(Unreplicated, Moving), shards, layouts.nodes)


def asked(made: Bench, node: int, op: Op) -> Reply:
    handle = made.request(node, op)
    reply: Reply = made.replies[handle]
    return reply


def command(made: Bench) -> None:
    for node in made.nodes:
        made.admin(node, ADD_SHARD, 1)


def write_all(made: Bench) -> None:
    """Each key that leaves gets its own name as its value."""
    for sequence, key in enumerate(LEAVES, 1):
        assert asked(made, ADDED.groups[0].nodes[0], Op(9, sequence, WRITE, key, key)).outcome == OK


def move(made: Bench) -> None:
    command(made)
    made.deliver()


# --- on the bench -----------------------------------------------------------------------


def test_values_go_over_and_whoever_asks_the_old_group_is_sent_on() -> None:
    made = bench()
    home, key = ADDED.groups[0].nodes[0], LEAVES[0]
    there = ADDED.groups[1].nodes[0]
    assert asked(made, home, Op(1, 1, WRITE, key, b"first")).outcome == OK
    assert asked(made, home, Op(1, 2, WRITE, STAYS, b"stays")).outcome == OK
    move(made)
    late = made.request(home, Op(2, 1, READ, key))
    assert made.redirects[late].node == there
    found = asked(made, there, Op(2, 1, READ, key))
    assert (found.outcome, found.value) == (OK, b"first")
    assert asked(made, home, Op(2, 2, READ, STAYS)).value == b"stays"
    # Versions rise over all groups, though each counts for itself.
    before = asked(bench(), home, Op(1, 1, WRITE, key, b"v")).version
    assert found.version > before
    assert key not in made.machines[home].contents()


def test_a_write_that_is_asked_again_elsewhere_is_applied_once() -> None:
    made = bench()
    home, there = (ADDED.groups[group].nodes[0] for group in (0, 1))
    first = Op(1, 7, WRITE, LEAVES[0], b"first")
    assert asked(made, home, first).outcome == OK
    move(made)
    assert asked(made, there, Op(2, 1, WRITE, LEAVES[0], b"second")).outcome == OK
    assert asked(made, there, first).outcome == OK
    assert asked(made, there, Op(3, 1, READ, LEAVES[0])).value == b"second"


def test_what_is_on_its_way_waits_and_then_is_sent_on() -> None:
    made = bench()
    home, there = (ADDED.groups[group].nodes[0] for group in (0, 1))
    write_all(made)
    command(made)
    # The fence is there, and no piece has arrived.
    assert [type(message) for _, _, message in made.wire] == [Carry]
    cell = made.wire[0][2].cell
    key = next(each for each in LEAVES if ADDED.cell_of(each) == cell)
    other = next(each for each in LEAVES if ADDED.cell_of(each) != cell)
    waits = made.request(home, Op(1, 1, WRITE, key, b"v"))
    assert waits not in made.replies and waits not in made.redirects
    # The other portion is used as ever.
    assert asked(made, home, Op(2, 1, WRITE, other, b"w")).outcome == OK
    made.deliver()
    assert made.redirects[waits].node == there
    assert asked(made, there, Op(3, 1, READ, other)).value == b"w"


def test_nobody_waits_for_longer_than_patience() -> None:
    made = bench(patience=MoveParams().resend)
    write_all(made)
    command(made)
    cell = made.wire[0][2].cell
    home = ADDED.groups[0].nodes[0]
    key = next(each for each in LEAVES if ADDED.cell_of(each) == cell)
    waits = made.request(home, Op(1, 1, READ, key))
    made.wire.clear()
    for _ in range(3):
        made.fire(home, "moving")
        made.wire.clear()
    assert made.redirects[waits].node == -1


@pytest.mark.parametrize("lost", range(6))
def test_whatever_is_lost_is_asked_for_again(lost: int) -> None:
    made = bench(piece=1)
    home, there = (ADDED.groups[group].nodes[0] for group in (0, 1))
    write_all(made)
    command(made)
    for _ in range(lost):
        made.deliver_one(0)
    made.wire.clear()
    while made.machines[home].unfinished:
        made.fire(home, "moving")
        made.deliver()
    for sequence, key in enumerate(LEAVES, 1):
        assert asked(made, there, Op(2, sequence, READ, key)).value == key


@pytest.mark.parametrize("after", range(0, 12, 2))
def test_a_move_survives_the_crash_of_both_nodes(after: int) -> None:
    made = bench(piece=1)
    home, there = (ADDED.groups[group].nodes[0] for group in (0, 1))
    write_all(made)
    command(made)
    for _ in range(after):
        made.deliver_one(0)
    for node in made.nodes:
        made.crash(node)
        made.restart(node)
    made.wire.clear()
    # Who starts later hears the command then.
    command(made)
    while made.machines[home].unfinished:
        made.deliver()
        made.fire(home, "moving")
    for sequence, key in enumerate(LEAVES, 1):
        assert asked(made, there, Op(2, sequence, READ, key)).value == key


def test_messages_and_records_survive_the_wire_and_the_disk() -> None:
    for machine, own in ((Unreplicated, NoParams()), (Raft, RaftParams())):
        replicas = 1 if machine is Unreplicated else 2
        layouts = layouts_of(Change(ADD_SHARD, 1), nodes=3, replicas=replicas)
        made = Bench(sharded(machine, Moving), Shards(layouts, own, MoveParams()), 3)
        made.deliver()
        for sequence, key in enumerate(LEAVES, 1):
            for node in layouts.groups[0].nodes:
                made.request(node, Op(9, sequence, WRITE, key, key))
        made.deliver()
        move(made)
        encoder, decode = msgspec.msgpack.Encoder().encode, machine_decoder(made._machine.Message)
        assert any(isinstance(message, Carry) for message in made.sent)
        for message in made.sent:
            again = decode(memoryview(encoder(message)))
            assert encoder(again) == encoder(message) and again.link == message.link
        for record in [record for each in made.records for record in each]:
            again = msgspec.msgpack.decode(encoder(record), type=made._machine.Record)
            assert encoder(again) == encoder(record)


# --- the state below --------------------------------------------------------------------


def state(group: int, layouts: Layouts = ADDED) -> OwnedState:
    return OwnedState(KeyRange(4, 8), accesses=False, held=Holdings(layouts, group))


def step(of: OwnedState, kind: int, what: Cell | Piece, version: int) -> Any:
    effects: list[Any] = []
    of.step("handle", Op(0, 0, kind, b"", encode(what)), version, effects)
    return effects[0].value


def fenced(*sequences: int) -> tuple[OwnedState, Cell]:
    """A state from which a cell has left, after these writes of session 1 to it."""
    made = state(0)
    for version, sequence in enumerate(sequences, 1):
        assert made.write(Op(1, sequence, WRITE, LEAVES[0], b"v"), version) == version
    cell = Cell(ADDED.cell_of(LEAVES[0]), 1)
    step(made, FENCE, cell, len(sequences) + 1)
    return made, cell


def test_what_comes_behind_the_fence_has_no_effect() -> None:
    made, cell = fenced(1)
    assert made.write(Op(1, 2, WRITE, LEAVES[0], b"late"), 3) == VOID
    assert made.read(LEAVES[0]) == b"v"
    assert made.write(Op(2, 1, WRITE, STAYS, b"other"), 4) == 4
    held = made.holdings
    assert held.valid(cell.cell, 1) and not held.valid(cell.cell, 2)
    assert held.aside[cell.cell].sessions == [1]
    # The void write is not known as done anywhere.
    assert held.aside[cell.cell].sequences == [1]


def test_sessions_count_as_known_elsewhere_once_a_cell_is_released() -> None:
    made, cell = fenced(1)
    other = next(ADDED.cell_of(key) for key in LEAVES if ADDED.cell_of(key) != cell.cell)
    step(made, FENCE, Cell(other, 1), 3)
    # Whoever takes the other cell in first must know of the session, too.
    assert made.holdings.aside[other].sessions == [1]
    step(made, RELEASE, cell, 4)
    assert made.holdings.told == {1: 2}
    assert made.read(LEAVES[0]) is None


def test_pieces_are_taken_in_once_and_in_order() -> None:
    made, cell = state(1), ADDED.cell_of(LEAVES[0])
    assert not made.holdings.holds(cell)
    pieces = [
        Piece(cell, 1, number, number == 2, [LEAVES[0]], [b"%d" % number], [1], [number])
        for number in range(3)
    ]
    assert step(made, ADOPT, pieces[1], 1) == 0
    assert step(made, ADOPT, pieces[0], 2) == 1
    assert step(made, ADOPT, pieces[0], 3) == 1
    assert step(made, ADOPT, pieces[1], 4) == 2
    assert not made.holdings.holds(cell)
    assert step(made, ADOPT, pieces[2], 5) == DONE
    assert made.holdings.holds(cell) and not made.holdings.valid(cell, 4)
    assert made.write(Op(2, 1, WRITE, LEAVES[0], b"new"), 6) == 6
    assert step(made, ADOPT, pieces[2], 7) == DONE
    assert made.read(LEAVES[0]) == b"new"
    assert made.write(Op(1, 2, WRITE, LEAVES[0], b"again"), 8) == 5


def test_a_snapshot_holds_what_has_left_and_what_arrives() -> None:
    made, cell = fenced(1, 2)
    again = state(0)
    again.restore(made.snapshot())
    assert again.holdings.kept() == made.holdings.kept()
    assert again.write(Op(1, 3, WRITE, LEAVES[0], b"late"), 9) == VOID
    step(again, RELEASE, cell, 10)
    assert again.holdings.kept() != made.holdings.kept()


def test_a_cell_may_come_back() -> None:
    back = layouts_of(Change(ADD_SHARD, 1), Change(REMOVE_SHARD, 1))
    made, cell = state(0, back), back.cell_of(LEAVES[0])
    made.write(Op(1, 1, WRITE, LEAVES[0], b"v"), 1)
    step(made, FENCE, Cell(cell, 1), 2)
    # It comes back before its release has been asked for.
    piece = Piece(cell, 2, 0, True, [LEAVES[0]], [b"newer"], [2], [5])
    assert step(made, ADOPT, piece, 3) == DONE
    step(made, RELEASE, Cell(cell, 1), 4)
    assert made.holdings.holds(cell) and made.read(LEAVES[0]) == b"newer"
    assert [made.holdings.valid(cell, place) for place in (1, 2, 3)] == [False, False, True]
    made.holdings.check()
