"""Whole runs in which data moves, what is refused, and one with real processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.config.load import load_mapping
from orchestrator.core.giving import FENCED, MOVED, MoveParams
from orchestrator.core.layout import (
    ADD_NODE,
    ADD_SHARD,
    REMOVE_NODE,
    Change,
    Planner,
)
from orchestrator.core.levels import LINEARIZABLE
from orchestrator.core.machine import OK, ClaimContext
from orchestrator.core.moving import Moving
from orchestrator.core.record import RunRecord
from orchestrator.core.registry import NoParams
from orchestrator.core.sharding import Shards, sharded
from orchestrator.errors import ConfigError
from orchestrator.fuzz import Wanted, simulate_seed
from orchestrator.plan import plan
from orchestrator.protocols import primary_backup
from orchestrator.protocols.primary_backup import PrimaryBackup
from orchestrator.run import execute, judge
from orchestrator.runtimes.ray_cluster import RayRuntime
from orchestrator.shardings.modulo import Modulo


def modulo(shards: Sequence[int]) -> Modulo:
    return Modulo(NoParams(), shards)


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


@pytest.mark.parametrize("protocol", ["raft", "craq"])
def test_faults_break_no_move(protocol: str) -> None:
    marks = 0
    for seed in range(2):
        _, outcome = simulate_seed(Wanted(protocol, "moving"), seed)
        assert outcome.violation is None, f"seed {seed}: {outcome.violation}"
        marks += outcome.marks.get(MOVED, 0)
    assert marks


def test_no_weak_level_is_promised_of_what_moves() -> None:
    layouts = Planner(2, 2, 1, modulo).plan([Change(ADD_SHARD, 1)])
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
    ([ADD | {"at": "1h"}], {}, f"{OPERATOR}[0].at", "the load is over by then"),
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
