"""Data that moves between groups while it is used: nothing is lost, nothing is applied twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from machine_bench import Bench

from orchestrator.config.load import load_mapping
from orchestrator.core.giving import FENCED, MOVED, Carry, MoveParams
from orchestrator.core.holdings import DONE, Cell, Holdings, Piece, encode
from orchestrator.core.keys import KeyRange
from orchestrator.core.layout import (
    ADD_NODE,
    ADD_SHARD,
    REMOVE_NODE,
    REMOVE_SHARD,
    Change,
    Layouts,
    Planner,
)
from orchestrator.core.levels import LINEARIZABLE
from orchestrator.core.machine import OK, READ, WRITE, ClaimContext, Op, Reply
from orchestrator.core.moving import Moving
from orchestrator.core.record import RunRecord
from orchestrator.core.registry import NoParams
from orchestrator.core.sharding import Shards, sharded
from orchestrator.core.state import VOID, OwnedState
from orchestrator.core.steps import ADOPT, FENCE, RELEASE
from orchestrator.errors import ConfigError
from orchestrator.fuzz import Wanted, simulate_seed
from orchestrator.plan import plan
from orchestrator.protocols import primary_backup
from orchestrator.protocols.primary_backup import PrimaryBackup
from orchestrator.protocols.raft import Params as RaftParams
from orchestrator.protocols.raft import Raft
from orchestrator.protocols.unreplicated import Unreplicated
from orchestrator.run import execute, judge
from orchestrator.runtimes._peers import machine_decoder
from orchestrator.runtimes.ray_cluster import RayRuntime
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


# --- whole runs -------------------------------------------------------------------------


def system(name: str, *commands: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "protocol": {"name": name},
        "replicas": 1 if name == "unreplicated" else 3,
        "nodes": 5,
        "shards": 4,
        "sharding": {"name": "ring"},
        "administration": list(commands),
        "network": {"delay": "250us"},
    } | more


ADD: dict[str, Any] = {"command": ADD_SHARD, "shard": 3, "at": "300ms"}


def simulated(described: dict[str, Any], **root: Any) -> tuple[RunRecord, Any]:
    config = {
        "runtime": "sim",
        "system": described,
        "workload": {"name": "ycsb", "mix": "a", "keys": 200},
        "arrival": {"name": "poisson", "rate": "2000/s"},
        "warmup": "100ms",
        "duration": "900ms",
    }
    parts = plan(load_mapping(config | root))
    record = execute(parts)
    return record, judge(parts, record)


@pytest.mark.parametrize(
    "protocol", ["unreplicated", "raft", "primary_backup", "chain", "craq", "multi_paxos"]
)
def test_a_shard_is_added_and_a_node_leaves_under_load(protocol: str) -> None:
    leaves = {"command": REMOVE_NODE, "node": 0, "at": "600ms"}
    record, verdict = simulated(system(protocol, ADD, leaves))
    assert (verdict.verdict, verdict.strongest) == ("valid", (LINEARIZABLE,))
    assert (record.history.outcome == OK).all()
    kinds = [event.kind for event in record.events]
    assert kinds.count(FENCED) == kinds.count(MOVED) > 16
    # Who has left holds nothing, and is asked no more but by those who have not heard of it.
    late = record.history.invoked_ns > 900_000_000
    assert (record.history.node[late] == 0).mean() < 0.02
    assert len(set(record.history.node[late].tolist())) >= 3


def test_a_leader_that_is_killed_meanwhile_loses_nothing() -> None:
    described = system(
        "raft",
        ADD,
        protocol={"name": "raft", "election_timeout": "50ms", "heartbeat": "10ms"},
        moving={"portions": 64, "resend": "20ms"},
        node={"storage": {"durability": "fsync", "sync": "200us"}},
    )
    fault = {"name": "crash", "target": "leader", "at": "320ms", "restart_after": "200ms"}
    record, verdict = simulated(described, faults=[fault])
    assert verdict.verdict == "valid"
    moved = [event.at_ns for event in record.events if event.kind == MOVED]
    assert min(moved) < 320_000_000 < max(moved)


@pytest.mark.parametrize(
    "protocol", ["unreplicated", "raft", "primary_backup", "chain", "craq", "multi_paxos"]
)
def test_faults_break_no_move(protocol: str) -> None:
    marks = 0
    for seed in range(2):
        _, outcome = simulate_seed(Wanted(protocol, "moving"), seed)
        assert outcome.violation is None, f"seed {seed}: {outcome.violation}"
        marks += outcome.marks.get(MOVED, 0)
    assert marks


def test_no_weak_level_is_promised_of_what_moves() -> None:
    layouts = layouts_of(Change(ADD_SHARD, 1))
    machine, context = sharded(PrimaryBackup, Moving), ClaimContext(1, True, "fsync")
    shards = Shards(layouts, primary_backup.Params(), MoveParams())
    assert machine.claims(shards, context) == {LINEARIZABLE}
    assert machine.read_levels(shards, context) == frozenset()


OPERATOR, MOVES = "system.administration", "system.moving"
RING = {"name": "ring"}
REFUSED: list[tuple[list[dict[str, Any]], dict[str, Any], str, str]] = [
    ([ADD | {"shard": 4}], {}, f"{OPERATOR}[0].shard", "shards are 0 to 3"),
    ([{"command": ADD_SHARD, "node": 3, "at": "1s"}], {}, f"{OPERATOR}[0]", "needs shard"),
    ([ADD | {"command": "add_chard"}], {}, f"{OPERATOR}[0].command", "add_shard"),
    ([{"command": REMOVE_NODE, "node": 7, "at": "1s"}], {}, OPERATOR, "no node 7"),
    ([ADD, ADD], {}, OPERATOR, "shard 3 is there already"),
    ([{"command": ADD_NODE, "node": 4, "at": "1s"}], {"shards": 1}, OPERATOR, "move nothing"),
    ([ADD], {"protocol": {"name": "quorum"}}, OPERATOR, "one order"),
    ([ADD], {"protocol": {"name": "primary_backup", "read_from": "any"}}, OPERATOR, "not linear"),
    ([ADD], {"nodes": 3, "transactions": {"name": "two_phase_commit"}}, OPERATOR, "transactions"),
    ([], {"sharding": RING | {"virtual_nodes": 0}}, "system.sharding.virtual_nodes", "1 to 4096"),
    ([], {"sharding": RING | {"weights": [1, -1, 1, 1]}}, "system.sharding.weights[1]", "1e-06"),
    ([], {"sharding": RING | {"weights": [1, 1]}}, "system.sharding.weights", "shard 3 needs"),
    ([], {"sharding": {"name": "rink"}}, "system.sharding.name", "ring"),
    ([], {"shards": 0}, "system.shards", "allowed: 1 to"),
    ([], {"nodes": 2}, "system.replicas", "2 nodes cannot hold 3"),
    ([ADD], {"moving": {"bandwidth": "0B/s"}}, f"{MOVES}.bandwidth", "above 0"),
    ([ADD], {"moving": {"portions": 0}}, f"{MOVES}.portions", "allowed: 1 to"),
]


@pytest.mark.parametrize(("commands", "more", "path", "words"), REFUSED)
def test_what_makes_no_sense_is_refused_at_load(
    commands: Sequence[dict[str, Any]], more: dict[str, Any], path: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(load_mapping({"runtime": "sim", "system": system("raft", *commands, **more)}))
    assert (caught.value.path or "").startswith(path)
    assert words in f"{caught.value} {caught.value.hint}"


@pytest.mark.serial
def test_data_moves_between_real_processes(runtime: RayRuntime) -> None:
    described = system(
        "raft",
        {"command": ADD_SHARD, "shard": 2, "at": "1s"},
        nodes=3,
        replicas=2,
        shards=3,
        node={"costs": "measured", "storage": {"durability": "fsync"}},
        network={},
    )
    config = {
        "system": described,
        "workload": {"name": "ycsb", "mix": "a", "keys": 300, "value_size": "100B"},
        "arrival": {"name": "closed", "sessions": 8, "think_time": "5ms"},
        "warmup": "0s",
        "duration": "3s",
    }
    parts = plan(load_mapping(config))
    record = runtime.run(parts, settle=True)
    assert not record.lost_parts
    assert judge(parts, record).verdict == "valid"
    kinds = [event.kind for event in record.events]
    assert kinds.count(MOVED) > 8
    last = max(event.at_ns for event in record.events if event.kind == MOVED)
    after = record.history.invoked_ns > last
    assert after.any() and (record.history.outcome[after] == OK).all()
