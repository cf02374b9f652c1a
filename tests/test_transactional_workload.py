"""Transactional workloads, and what becomes of them in histories, verdicts and tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy
import pytest

from orchestrator.analysis.summary import digest
from orchestrator.config.load import load, load_mapping
from orchestrator.core.history import History, element_id
from orchestrator.core.levels import LINEARIZABLE, SERIALIZABLE
from orchestrator.core.load import OperationBlock
from orchestrator.core.machine import APPEND, FAIL, OK, READ, TRANSACTION, UNKNOWN, WRITE, Op
from orchestrator.core.models import TXN
from orchestrator.core.record import RunRecord
from orchestrator.core.registry import Family, Slot
from orchestrator.core.transactions import decode_ops, encode_reads
from orchestrator.core.verdict import INVALID, VALID, Evidence, check, operation
from orchestrator.errors import ConfigError, DataError
from orchestrator.fuzzing.scenario import Scenario, Step, dump
from orchestrator.fuzzing.scenario import load as load_scenario
from orchestrator.keys.zipfian import ZipfianParams
from orchestrator.plan import checked_levels, plan
from orchestrator.run import execute, judge
from orchestrator.runtimes._transacted import Transacted, register_value, transaction_value
from orchestrator.store.parquet import operation_rows
from orchestrator.workloads.transactions import Transactions, TransactionsParams

ROOT = Path(__file__).resolve().parent.parent
NAMES = [b"a", b"b", b"c"]


def block(count: int, **params: Any) -> OperationBlock:
    return Transactions(TransactionsParams(**params)).stream(7, 0, 1).block(count)


def steps(found: OperationBlock) -> list[tuple[tuple[int, int], ...]]:
    assert found.steps is not None
    listed: list[tuple[tuple[int, int], ...]] = found.steps.tolist()
    return listed


# --- what is asked ----------------------------------------------------------------------


def test_transactions_do_not_depend_on_how_they_are_read() -> None:
    stream = Transactions(TransactionsParams()).stream(7, 0, 1)
    parts = OperationBlock.concatenate([stream.block(1), stream.block(5000), stream.block(999)])
    assert steps(parts) == steps(block(6000))
    assert parts.key.tolist() == block(6000).key.tolist()


def test_lengths_shares_and_keys_are_as_asked() -> None:
    found = block(4000, keys=50, operations_min=2, operations_max=5, read_share=0.7)
    lengths = numpy.bincount([len(one) for one in steps(found)])
    assert lengths[:2].sum() == 0 and len(lengths) == 6
    assert all(900 < count < 1100 for count in lengths[2:])
    assert found.count.tolist() == [len(one) for one in steps(found)]
    kinds = [kind for one in steps(found) for kind, _ in one]
    assert set(kinds) == {READ, APPEND}
    assert 0.68 < kinds.count(READ) / len(kinds) < 0.72
    assert all(len({key for _, key in one}) == len(one) for one in steps(found))
    assert {key for one in steps(found) for _, key in one} == set(range(50))
    assert set(found.kind.tolist()) == {TRANSACTION}


def test_few_keys_are_used_again() -> None:
    found = block(100, keys=1, operations_min=3, operations_max=3, update="write")
    assert all([key for _, key in one] == [0, 0, 0] for one in steps(found))
    assert {kind for one in steps(found) for kind, _ in one} == {READ, WRITE}
    chosen = Slot(Family.KEYS, "zipfian", ZipfianParams(3.0))
    skewed = block(500, keys=1000, operations_max=4, distribution=chosen)
    assert max(len(one) for one in steps(skewed)) == 4


@pytest.mark.parametrize(
    "wrong", ["operations_max: 200", "operations_min: 5", "value_size: 8B", "update: add"]
)
def test_wrong_parameters_are_refused(wrong: str) -> None:
    name, value = wrong.split(": ")
    with pytest.raises(ConfigError, match=name):
        load_mapping({"workload": {"name": "transactions", name: value}})


# --- what came of it --------------------------------------------------------------------


def test_what_is_written_is_named_by_its_place() -> None:
    value = transaction_value(3, 4, ((APPEND, 0), (READ, 1), (APPEND, 0), (WRITE, 2)), NAMES, b"pp")
    first, read, second, write = decode_ops(value)
    assert first[:2] == (APPEND, b"a") and first[2] == element_id(3, 4, 0).to_bytes(8, "big")
    assert read == (READ, b"b", None)
    assert second[2] == element_id(3, 4, 2).to_bytes(8, "big")
    assert write[2] == register_value(3, 4, 3, b"pp") and len(write[2] or b"") == 11
    names = {element_id(s, n, i) for s in (1, 2) for n in (1, 2, 200) for i in range(128)}
    assert len(names) == 2 * 3 * 128
    assert max(names) < 2**63 > element_id((1 << 31) - 1, (1 << 25) - 1, 127)


def test_values_hold_what_transactions_read() -> None:
    transacted = Transacted()
    value = transaction_value(3, 4, ((READ, 0), (APPEND, 1), (READ, 1), (READ, 2)), NAMES, b"")
    own = element_id(3, 4, 1)
    found = encode_reads([b"", own.to_bytes(8, "big") * 2, None])
    op = Op(3, 4, TRANSACTION, b"a", value)
    assert transacted.note(op, OK, found) == 1
    assert transacted.values[1] == (
        ("read", "a", ()),
        ("append", "b", own),
        ("read", "b", (own, own)),
        ("read", "c", None),
    )
    for outcome in (FAIL, UNKNOWN):
        number = transacted.note(op, outcome, None)
        assert [one[2] for one in transacted.values[number]] == [None, own, None, None]
    register = register_value(5, 6, 0, b"padding")
    assert transacted.values[transacted.note(Op(5, 6, WRITE, b"c", register), OK, None)] == (
        element_id(5, 6, 0)
    )
    read = transacted.note(Op(5, 7, READ, b"c"), OK, register)
    assert transacted.values[read] == element_id(5, 6, 0)


def ran(workload: dict[str, Any] | None = None, **system: Any) -> tuple[Any, RunRecord]:
    config = load_mapping(
        {
            "runtime": "sim",
            "system": {
                "protocol": {"name": "raft"},
                "replicas": 3,
                "shards": 2,
                "transactions": {"name": "two_phase_commit"},
            }
            | system,
            "workload": workload or {"name": "transactions", "keys": 20},
            "arrival": {"name": "closed", "sessions": 6},
            "clients": 2,
            "warmup": "100ms",
            "duration": "400ms",
        }
    )
    parts = plan(config)
    return parts, execute(parts)


def test_a_run_is_judged_by_the_levels_of_transactions() -> None:
    parts, record = ran()
    assert checked_levels(parts) == (SERIALIZABLE,)
    found = judge(parts, record)
    assert (found.verdict, found.strongest) == (VALID, (SERIALIZABLE,))
    history = record.history
    assert set(history.kind.tolist()) == {TRANSACTION}
    assert len(set(history.client.tolist())) == 2
    assert history.values is not None
    # Every row has its own value, whichever client it is of.
    assert sorted(history.value_id.tolist()) == list(range(1, len(history.values)))
    for row in range(0, len(history), 50):
        written = [v for op, _, v in history.values[history.value_id[row]] if op == "append"]
        first = element_id(int(history.session[row]), int(history.sequence[row]), 0)
        assert all(first <= element < first + 128 for element in written)
    assert operation(history, 0)["ops"]


def test_a_spoilt_run_is_found_out() -> None:
    _, record = ran()
    history = record.history
    assert history.values is not None
    values = list(history.values)
    row = next(
        row
        for row in range(len(history) - 1, 0, -1)
        if any(op == "read" and v and len(v) > 2 for op, _, v in values[history.value_id[row]])
    )
    at = int(history.value_id[row])
    values[at] = tuple(
        (op, key, v[1:] if op == "read" and v and len(v) > 2 else v) for op, key, v in values[at]
    )
    spoilt = dataclasses.replace(history, values=values)
    assert check(spoilt, SERIALIZABLE, Evidence(model=TXN)).verdict == INVALID


def test_equal_seeds_give_equal_digests_and_values_count() -> None:
    (_, first), (_, second) = ran(), ran()
    assert digest(first) == digest(second)
    values = list(first.history.values or ())
    values[1] = ()
    changed = dataclasses.replace(first, history=dataclasses.replace(first.history, values=values))
    assert digest(changed) != digest(first)


def test_operations_are_stored_with_their_parts() -> None:
    _, record = ran()
    history = record.history
    rows = operation_rows("r1", history.select(numpy.arange(3))).to_pylist()
    assert history.values is not None
    for row, value_id in zip(rows, history.value_id.tolist(), strict=False):
        assert row["op"] == "txn" and row["value"] is None
        assert row["ops"].startswith('[["') and row["ops"].count('"') == 4 * len(
            history.values[value_id]
        )


def test_histories_of_several_clients_keep_their_values() -> None:
    parts = []
    for client in range(2):
        columns = {name: numpy.zeros(2, numpy.int64) for name in History.__dataclass_fields__}
        for beside in ("key_names", "expected_id", "values"):
            del columns[beside]
        columns["value_id"] = numpy.array([1, 2])
        columns["invoked_ns"] = numpy.array([client, 10 + client])
        values = [None, f"{client}-first", f"{client}-second"]
        parts.append(History(**columns, key_names=[b"k"], values=values))  # type: ignore[arg-type]
    merged = History.concatenate(parts)
    assert merged.values is not None
    told = [merged.values[identity] for identity in merged.value_id]
    assert told == ["0-first", "1-first", "0-second", "1-second"]


@pytest.mark.parametrize("protocol", ["chain", "multi_paxos", "primary_backup", "craq"])
def test_every_ordered_protocol_carries_transactions(protocol: str) -> None:
    parts, record = ran(protocol={"name": protocol})
    assert judge(parts, record).verdict == VALID
    assert (record.history.outcome == OK).sum() > 100
    assert len({node.contents_digest for node in record.nodes}) == 1


def test_one_shard_and_one_node_carry_transactions_too() -> None:
    parts, record = ran(protocol={"name": "unreplicated"}, replicas=1, shards=1)
    assert judge(parts, record).verdict == VALID
    # There is one shard, and nothing is ever locked.
    assert (record.history.outcome == OK).all()


def test_registers_are_read_and_written() -> None:
    config = load(
        ROOT / "configs" / "transactions.yaml",
        "runtime=sim",
        "workload.update=write",
        "workload.keys=50",
        "duration=500ms",
        "warmup=0s",
    )
    parts = plan(config)
    record = execute(parts)
    assert judge(parts, record).verdict == VALID
    assert record.history.values is not None
    assert "write" in {op for value in record.history.values[1:] for op, _, _ in value}


def test_single_operations_are_linearizable_over_the_layer() -> None:
    parts, record = ran(
        workload={"name": "ycsb", "mix": "a", "keys": 20, "distribution": "uniform"}
    )
    assert checked_levels(parts) == (LINEARIZABLE,)
    assert judge(parts, record).strongest == (LINEARIZABLE,)
    assert record.history.values is None
    # Preloaded keys are there, too.
    assert 0 in record.history.value_id.tolist()


def test_a_level_that_is_not_defined_for_the_workload_is_refused() -> None:
    path = ROOT / "configs" / "transactions.yaml"
    with pytest.raises(ConfigError, match="not defined") as caught:
        plan(load(path, "runtime=sim", "check.level=linearizable"))
    assert caught.value.path == "check.level"


# --- in scenarios -----------------------------------------------------------------------


def scenario(*operations: Step) -> Scenario:
    return Scenario("two_phase_commit", 1, {"replicas": 3}, {}, 1, 4, 10, 20, operations, ())


def test_a_scenario_file_keeps_transactions(tmp_path: Path) -> None:
    written = scenario(Step(1000, "txn", 0, "", "a0 r3 w1"), Step(2000, "read", 1, "causal"))
    path = tmp_path / "scenario.yaml"
    path.write_text(dump(written), encoding="utf-8")
    read = load_scenario(path)
    assert read == written
    assert read.operations[0].micro_operations == ((APPEND, 0), (READ, 3), (WRITE, 1))


@pytest.mark.parametrize("parts", ["x1", "r", "a9", "rr"])
def test_a_scenario_with_no_such_transaction_is_refused(parts: str, tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(dump(scenario(Step(1000, "txn", 0, "", parts))), encoding="utf-8")
    with pytest.raises(DataError, match="operation 0"):
        load_scenario(path)
