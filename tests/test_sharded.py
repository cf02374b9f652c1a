"""Shards of a protocol on every node: who serves what, what is durable, what is claimed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from machine_bench import Bench
from made_layouts import every_node
from shell_rig import Rig

from orchestrator.config.load import load_mapping
from orchestrator.core import levels
from orchestrator.core.levels import CODES, LINEARIZABLE, MONOTONIC_READS, READ_YOUR_WRITES
from orchestrator.core.machine import (
    OK,
    READ,
    SCAN,
    WRITE,
    Access,
    ClaimContext,
    ClusterView,
    Op,
    Send,
)
from orchestrator.core.sharding import Sharded, Shards, sharded
from orchestrator.errors import ConfigError
from orchestrator.fuzz import Wanted, simulate_seed
from orchestrator.fuzzing import draw
from orchestrator.fuzzing.sharding import Division
from orchestrator.plan import plan
from orchestrator.protocols import primary_backup
from orchestrator.protocols.primary_backup import PrimaryBackup
from orchestrator.protocols.raft import Params, Raft
from orchestrator.run import execute, judge
from orchestrator.runtimes._disk import GroupedLog
from orchestrator.runtimes._peers import machine_decoder
from orchestrator.transactions.two_phase_commit import Params as LayerParams
from orchestrator.transactions.two_phase_commit import TwoPhaseCommit

COUNT = 3
LAYOUTS = every_node(COUNT)
KEYS = [next(b"k%d" % n for n in range(99) if LAYOUTS.cell_of(b"k%d" % n) == s) for s in range(3)]
"""One key of each shard."""


def bench(params: Params | None = None, count: int = COUNT) -> Bench:
    made = Bench(sharded(Raft), Shards(every_node(count), params or Params()), 3)
    for node in range(3):
        for shard in range(count):
            if (node, f"{shard}/election") in made.timers and (node + shard) % 3 == 0:
                made.fire(node, f"{shard}/election")
    made.deliver()
    return made


def write(made: Bench, key: bytes, session: int = 1, sequence: int = 1) -> Any:
    """Follow redirects as a client does."""
    op, node = Op(session, sequence, WRITE, key, b"value-%d" % sequence), 0
    for _ in range(3):
        handle = made.request(node, op)
        made.deliver()
        if handle in made.replies:
            return made.replies[handle]
        node = made.redirects[handle].node
    raise AssertionError("nobody serves it")


def test_each_shard_is_led_by_another_node() -> None:
    made = bench()
    for node in range(3):
        roles = made.machines[node].role.split("/")
        assert roles.count("leader") == 1
    for shard, key in enumerate(KEYS):
        handle = made.request((1 - shard) % 3, Op(5, 1, WRITE, key, b"v"))
        assert made.redirects[handle].node == -shard % 3


def test_all_nodes_hold_what_was_written_to_any_shard() -> None:
    made = bench()
    for sequence, key in enumerate(KEYS, 1):
        assert write(made, key, sequence=sequence).outcome == OK
    for node in range(3):
        for shard in range(COUNT):
            if (node, f"{shard}/heartbeat") in made.timers:
                made.fire(node, f"{shard}/heartbeat")
    made.deliver()
    for machine in made.machines:
        assert sorted(machine.contents()) == sorted(KEYS)


def test_versions_of_one_shard_say_nothing_about_another() -> None:
    made = bench()
    for sequence in range(1, 9):
        seen = write(made, KEYS[0], sequence=sequence)
    weak = CODES[levels.SEQUENTIAL]
    for node in range(3):
        # It has seen version 9 of shard 0 and asks shard 1, which is at 1.
        op = Op(1, 9, READ, KEYS[1], seen=seen.version, level=weak, context=seen.context)
        assert made.request(node, op) in made.replies
    behind = Bench(sharded(Raft), Shards(LAYOUTS, Params()), 3)
    op = Op(1, 9, READ, KEYS[0], seen=seen.version, level=weak, context=seen.context)
    assert behind.request(1, op) not in behind.replies


def test_a_snapshot_of_one_shard_leaves_the_records_of_the_others() -> None:
    made = bench(Params(snapshot_every=4))
    write(made, KEYS[1])
    for sequence in range(1, 12):
        write(made, KEYS[0], session=2, sequence=sequence)
    made.fire(2, "1/heartbeat")
    made.deliver()
    before = made.machines[0].contents()
    assert sorted(before) == sorted(KEYS[:2])
    shards = {record.shard for record in made.records[0]}
    assert shards == {0, 1, 2}
    for node in range(3):
        made.crash(node)
        made.restart(node)
    # Whatever of shard 1 was committed is in the log of a majority.
    logs = [machine.machines[1].log.last for machine in made.machines]
    assert sorted(logs)[1] >= 2
    assert all(KEYS[0] in machine.contents() for machine in made.machines)


def test_timers_tokens_and_candidates_are_told_apart() -> None:
    made = bench()
    assert {timer for _, timer in made.timers} <= {
        f"{shard}/{name}" for shard in range(COUNT) for name in ("election", "heartbeat")
    }
    view = ClusterView((0, 1, 2), writer=2, reader=1)
    machine, params = sharded(Raft), Shards(LAYOUTS, Params())
    for key in KEYS:
        assert list(machine.candidates(params, Op(1, 1, WRITE, key), view)) == [2]
        assert list(machine.candidates(params, Op(1, 1, READ, key), view)) == [1]


@pytest.mark.parametrize("layer", [Sharded, TwoPhaseCommit])
def test_messages_and_records_survive_the_wire_and_the_disk(layer: type[Any]) -> None:
    machine = sharded(Raft, layer)
    params = Shards(LAYOUTS, Params(snapshot_every=3), LayerParams())
    made = Bench(machine, params, 3)
    made.deliver()
    for session, key in enumerate(KEYS * 3, 1):
        for node in range(3):
            made.request(node, Op(session, 1, WRITE, key, b"v"))
            made.deliver()
    encode, decode = msgspec.msgpack.Encoder().encode, machine_decoder(machine.Message)
    kinds = {type(message).__name__ for message in made.sent}
    assert kinds == ({"InShard"} if layer is Sharded else {"InShard", "Submit", "Answers"})
    for message in made.sent:
        again = decode(memoryview(encode(message)))
        assert encode(again) == encode(message) and again.link == message.link
    records = [record for each in made.records for record in each]
    assert records
    for record in records:
        again = msgspec.msgpack.decode(encode(record), type=machine.Record)
        assert encode(again) == encode(record)
        assert type(again.record) is type(record.record)


def test_only_what_composes_is_claimed() -> None:
    context = ClaimContext(3, True, "fsync")
    machine = sharded(PrimaryBackup)
    ordered = Shards(every_node(2), primary_backup.Params(read_from="any", session_wait=True))
    assert levels.SEQUENTIAL in PrimaryBackup.claims(ordered.own, context)
    claimed = levels.closure(machine.claims(ordered, context))
    assert {READ_YOUR_WRITES, MONOTONIC_READS, levels.EVENTUAL} <= claimed
    assert levels.SEQUENTIAL not in claimed
    assert "2 shards" in machine.why_not(ordered, context, levels.SEQUENTIAL)
    strong = Shards(every_node(2), primary_backup.Params())
    assert machine.claims(strong, context) == {LINEARIZABLE}
    assert SCAN not in machine.kinds_of(strong)
    assert machine.authority_of(strong) is not None


def test_scans_and_spare_nodes_are_refused() -> None:
    raft = {"protocol": {"name": "raft"}, "replicas": 3, "shards": 2}
    with pytest.raises(ConfigError, match="'scan'"):
        plan(load_mapping({"system": raft, "workload": {"name": "ycsb", "mix": "e"}}))
    transactions = {"transactions": {"name": "two_phase_commit"}}
    with pytest.raises(ConfigError, match="every shard"):
        plan(load_mapping({"system": raft | {"nodes": 4} | transactions}))


def test_the_disk_keeps_the_records_of_other_groups(tmp_path: Path) -> None:
    log = GroupedLog(tmp_path / "node0.log", int)
    for record, replaces, group in ((1, False, 0), (10, False, 1), (11, False, 1), (2, False, 0)):
        log.append(record, replaces, group)
    log.write()
    log.sync()
    log.append(12, True, 1)
    log.append(13, False, 1)
    log.append(3, False, 0)
    log.write()
    log.sync()
    log.close()
    assert GroupedLog(tmp_path / "node0.log", int).recover() == [1, 2, 3, 12, 13]


def test_a_message_waits_for_the_access_that_it_names() -> None:
    effects = [Access(1, b"k", 10, READ), Send(1, "read", after=1), Send(1, "other")]
    rig = Rig({"a": effects}, storage={"read": "5ms"})
    rig.ask("a")
    assert rig.run(20) == [(0, "other"), (5, "read")]


@pytest.mark.parametrize("protocol", ["raft", "chain", "quorum", "causal"])
def test_faults_break_no_shard(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = lambda drawing: Division(2 + drawing._seed % 2)  # noqa: E731
    monkeypatch.setattr(draw._Drawing, "_divided", drawn)
    for seed in range(2):
        scenario, outcome = simulate_seed(Wanted(protocol), seed)
        assert outcome.violation is None, f"seed {seed}: {outcome.violation}"
        assert scenario.system["shards"] > 1


@pytest.mark.parametrize("protocol", ["raft", "craq", "primary_backup", "abd"])
def test_faults_break_no_group_of_some_of_the_nodes(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draw._Drawing, "_divided", lambda drawing: Division(3, 2))
    for seed in range(2):
        scenario, outcome = simulate_seed(Wanted(protocol), seed)
        assert outcome.violation is None, f"seed {seed}: {outcome.violation}"
        assert scenario.nodes > scenario.system["replicas"]


def test_a_sharded_run_is_judged_as_a_whole() -> None:
    config = load_mapping(
        {
            "runtime": "sim",
            "system": {"protocol": {"name": "raft"}, "replicas": 3, "shards": 3},
            "workload": {"name": "ycsb", "mix": "a", "keys": 50},
            "duration": "500ms",
            "warmup": "100ms",
        }
    )
    parts = plan(config)
    record = execute(parts)
    verdict = judge(parts, record)
    assert (verdict.verdict, verdict.strongest) == ("valid", (LINEARIZABLE,))
    assert len({node.contents_digest for node in record.nodes}) == 1
    # Leaders spread out, so all nodes answer writes.
    writers = record.history.node[record.history.kind == WRITE]
    assert sorted(set(writers.tolist())) == [0, 1, 2]
