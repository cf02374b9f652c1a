"""Compare-and-set, from the workload to the verdict."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import msgspec
import numpy
import pytest
from machine_bench import Bench
from model_histories import linearizable_by_trying, random_rows, write_lines
from small_runs import small

from orchestrator.analysis.latency import measured_window
from orchestrator.analysis.validity import invalid_reasons
from orchestrator.checkers._objects import counting
from orchestrator.checkers._version_order import explained
from orchestrator.config.load import load_mapping
from orchestrator.core.compare_and_set import decode_exchange, encode_exchange
from orchestrator.core.history import PHASE_RUN, History
from orchestrator.core.keys import KeyRange
from orchestrator.core.machine import (
    CAS,
    FAIL,
    OK,
    READ,
    UNKNOWN,
    UNMATCHED,
    WRITE,
    Access,
    Op,
    Reply,
)
from orchestrator.core.parameters import ParameterError
from orchestrator.core.registry import Family, plugins
from orchestrator.core.state import KeyValueState, Snapshot
from orchestrator.core.units import NS_PER_S
from orchestrator.core.verdict import INVALID, VALID, Evidence, check
from orchestrator.errors import ConfigError
from orchestrator.plan import plan
from orchestrator.run import Runner, execute, judge
from orchestrator.runtimes import _wire
from orchestrator.store.history_files import read_history
from orchestrator.workloads.ycsb import Mix, Ycsb, YcsbParams

PROTOCOLS = plugins(Family.PROTOCOL)
SERVING = [name for name, each in PROTOCOLS.items() if CAS in each.implementation.kinds]
EVIDENCE = Evidence(model="cas-register")


def cas(session: int, sequence: int, expected: bytes | None, new: bytes, key: bytes = b"k") -> Op:
    return Op(session, sequence, CAS, key, encode_exchange(expected, new), 10)


# --- the workload -----------------------------------------------------------------------


def test_a_share_of_them_follows_upon_reads() -> None:
    params = YcsbParams(shares=Mix(read=0.25, update=0.25, compare_and_set=0.5), keys=1000)
    block = Ycsb(params).stream(1, 0, 1).block(100_000)
    comparing = block.follow_up == CAS
    assert (block.kind[comparing] == READ).all()
    assert comparing.mean() == pytest.approx(0.5, abs=0.01)
    assert ((block.follow_up == READ) | comparing).all()
    assert Ycsb(params).model == "cas-register"
    with pytest.raises(ParameterError, match="only values allow"):
        dataclasses.replace(params, update="increment")


def test_tenants_may_differ_in_whether_they_compare() -> None:
    comparing = {"name": "ycsb", "keys": 10, "shares": {"read": 0.5, "compare_and_set": 0.5}}
    tenants = {
        "one": {"share": 0.5, "workload": comparing},
        "two": {"share": 0.5, "workload": {"name": "ycsb", "keys": 10}},
    }
    workload = {"name": "tenants", "tenants": tenants}
    parts = plan(load_mapping({"runtime": "sim", "workload": workload, "duration": "200ms"}))
    assert parts.workload.model == "cas-register"
    assert judge(parts, execute(parts)).verdict == VALID
    counting_too = {"name": "ycsb", "keys": 10, "update": "increment"}
    tenants["three"] = {"share": 0.0, "workload": counting_too}
    tenants["one"]["share"], tenants["three"]["share"] = 0.3, 0.2
    with pytest.raises(ConfigError, match="must be the same for all tenants"):
        load_mapping({"workload": workload})


# --- the replicated state ---------------------------------------------------------------


def made(*, accesses: bool = False) -> KeyValueState:
    return KeyValueState(KeyRange(4, 8), accesses=accesses)


def test_it_sets_what_is_as_expected_and_nothing_else() -> None:
    state = made()
    assert state.compare_and_set(cas(1, 1, b"x", b"a"), 1) == (UNMATCHED, 0)
    assert state.read(b"k") is None
    assert state.compare_and_set(cas(1, 2, None, b"a"), 2) == (OK, 2)
    assert state.compare_and_set(cas(2, 1, b"a", b"b"), 3) == (OK, 3)
    assert state.compare_and_set(cas(1, 3, b"a", b"c"), 4) == (UNMATCHED, 3)
    assert state.read(b"k") == b"b"
    name = KeyRange(4, 8).keys_from(b"", 1)[0]
    first = state.read(name)
    assert first is not None
    assert state.compare_and_set(cas(3, 1, first, b"new", name), 5) == (OK, 5)
    assert state.read(name) == b"new"


def test_asked_again_it_says_what_it_said_at_first() -> None:
    state = made()
    matched, unmatched = cas(1, 5, None, b"a"), cas(2, 5, b"none", b"b")
    state.compare_and_set(matched, 1)
    state.compare_and_set(unmatched, 2)
    # By now the first one would not match, and the second one would.
    state.write(Op(3, 1, WRITE, b"k", b"none"), 3)
    image = msgspec.msgpack.encode(state.snapshot())
    other = made()
    other.compare_and_set(cas(2, 9, b"none", b"z"), 1)
    other.restore(msgspec.msgpack.decode(image, type=Snapshot))
    for each in (state, other):
        assert each.compare_and_set(matched, 7) == (OK, 1)
        assert each.compare_and_set(unmatched, 8) == (UNMATCHED, 1)
        assert each.read(b"k") == b"none"
    # Of what a session has left behind nobody remembers how it ended.
    state.write(Op(2, 6, WRITE, b"k", b"later"), 9)
    assert state.compare_and_set(unmatched, 10)[0] == UNKNOWN
    assert state.snapshot().unmatched == {}


def test_what_is_compared_is_fetched_where_it_is_answered() -> None:
    state = made(accesses=True)
    effects: list[Any] = []
    state.change(None, cas(1, 1, None, b"a"), 1, effects)
    assert [type(each) for each in effects] == [Access]
    assert effects[0].kind == WRITE
    effects.clear()
    state.change("handle", cas(1, 2, b"a", b"b"), 2, effects)
    fetched, stored, reply = effects
    assert (fetched.kind, stored.kind, reply.outcome) == (READ, WRITE, OK)
    assert fetched.token == reply.after > 0 == stored.token
    effects.clear()
    state.change("handle", cas(2, 1, b"a", b"c"), 3, effects)
    assert [type(each) for each in effects] == [Access, Reply]
    assert effects[1].outcome == UNMATCHED


# --- the wire ---------------------------------------------------------------------------


def test_both_values_travel_and_nonsense_is_refused() -> None:
    for expected in (None, b"", b"\x00old"):
        op = cas(1 << 22 | 1, 7, expected, b"new")
        words = _wire.encode_request(op).split(b"\r\n")[2::2]
        assert _wire.decode_request(words) == op
        exchange = decode_exchange(op.value)
        assert (exchange.expected, exchange.new) == (expected, b"new")
    for value in (b"", b"text", msgspec.msgpack.encode([1, 2])):
        header = _wire.encode_request(Op(1, 1, CAS, b"k", value)).split(b"\r\n")
        with pytest.raises(ValueError, match="no compare-and-set"):
            _wire.decode_request([b"AB", header[4], b"k", value])


# --- protocols --------------------------------------------------------------------------


def quick(name: str, *overrides: str) -> Any:
    """A short run under much contention."""
    system = {
        "protocol": {"name": name},
        "replicas": 1 if name == "unreplicated" else 3,
        "node": {"cpu": {"read": "20us", "write": "20us"}, "storage": {"durability": "fsync"}},
    }
    shares = {"read": 0.2, "update": 0.2, "compare_and_set": 0.6}
    given = {
        "runtime": "sim",
        "system": {"name": "replicated_store"} | system,
        "workload": {"name": "ycsb", "shares": shares, "keys": 5},
        "arrival": {"name": "closed", "sessions": 12},
        "warmup": "50ms",
        "duration": "250ms",
    }
    return plan(load_mapping(given, *overrides))


def test_all_that_apply_changes_in_one_order_serve_it() -> None:
    ordered = [name for name, each in PROTOCOLS.items() if each.implementation.ordered]
    assert sorted(SERVING) == sorted([*ordered, "epaxos"])


@pytest.mark.parametrize("name", SERVING)
def test_runs_are_linearizable_and_unmatched_ones_are_answers(name: str) -> None:
    parts = quick(name)
    record = execute(parts)
    found = judge(parts, record)
    assert (found.verdict, found.strongest) == (VALID, ("linearizable",))
    history = record.history
    assert history.expected_id is not None
    tried = history.kind == CAS
    assert tried.sum() > 100
    assert 0.05 < history.unmatched.sum() / tried.sum() < 0.9
    assert set(history.outcome[tried].tolist()) == {OK, FAIL}
    assert (history.expected_id[~tried] == -1).all()
    # The versions say it all: nothing is left to be searched.
    counted = numpy.flatnonzero(counting(history, EVIDENCE))
    numpy.testing.assert_array_equal(explained(history, counted, 0), numpy.unique(history.key))


@pytest.mark.parametrize("name", sorted({*PROTOCOLS} - {*SERVING}))
def test_the_others_refuse_it(name: str) -> None:
    with pytest.raises(ConfigError, match=f"kind 'cas', which protocol '{name}' does not") as info:
        quick(name)
    assert info.value.path == "workload"


def test_transactions_and_real_servers_refuse_it() -> None:
    with pytest.raises(ConfigError, match="kind 'cas'"):
        quick("raft", "system.shards=2", "system.transactions.name=two_phase_commit")
    with pytest.raises(ConfigError, match="kind 'cas', which system 'redis' does not"):
        plan(load_mapping({"system": {"name": "redis"}, "workload": {"name": "ycsb", "shares": {
            "read": 0.5, "compare_and_set": 0.5}}}))  # fmt: skip


def test_levels_that_know_nothing_of_it_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"sequential.*'cas-register'") as info:
        quick("raft", "client.reads={sequential: 0.5, linearizable: 0.5}")
    assert info.value.path == "client.reads.sequential"
    anywhere = ("system.protocol.read_from=any", "system.protocol.session_wait=true")
    with pytest.raises(ConfigError, match="is sequential like this") as info:
        quick("primary_backup", *anywhere)
    assert info.value.path == "workload"
    assert quick("primary_backup", *anywhere, "check.level=none")


@pytest.mark.parametrize("name", SERVING)
def test_a_repeated_one_is_answered_as_before_after_a_restart_too(name: str) -> None:
    params = PROTOCOLS[name].params()
    nodes = 1 if name == "unreplicated" else 3
    bench = Bench(PROTOCOLS[name].implementation, params, nodes)
    bench.deliver()

    def ask(op: Op) -> Any:
        node = 0
        for _ in range(4):
            handle = bench.request(node, op)
            bench.deliver()
            if handle not in bench.redirects:
                return bench.replies[handle]
            node = bench.redirects[handle].node
        raise AssertionError("redirected in circles")

    matched, unmatched = cas(1, 1, None, b"a"), cas(2, 1, None, b"b")
    before = [ask(matched), ask(unmatched)]
    assert [each.outcome for each in before] == [OK, UNMATCHED]
    ask(Op(3, 1, WRITE, b"k", b"c"))
    assert [ask(op).outcome for op in (matched, unmatched)] == [OK, UNMATCHED]
    if name == "unreplicated":
        bench.crash(0)
        bench.restart(0)
        assert [ask(op).outcome for op in (matched, unmatched)] == [OK, UNMATCHED]
    held = {bytes(each.contents()[b"k"].value) for each in bench.machines[:nodes]}
    assert b"c" in held
    assert ask(Op(4, 1, READ, b"k")).value == b"c"


# --- runs -------------------------------------------------------------------------------


def test_the_figures_take_an_unmatched_one_for_served(tmp_path: Path) -> None:
    shares = "workload.shares={read: 0.3, compare_and_set: 0.7}"
    config = small(shares, "workload.keys=3", "record.operations=all", "slo.cas.p99=1s")
    with Runner(tmp_path) as runner:
        result = runner.run(config)
        assert runner.run(small("duration=100ms")).summary["compare_and_set"] is None
    summary = result.summary
    assert summary["outcomes"]["fail"] == summary["outcomes"]["unknown"] == 0
    assert summary["availability"] == 1.0
    told, latency = summary["compare_and_set"], summary["latency_ms"]["cas"]
    assert told["compared"] == latency["count"] > 100
    assert told["unmatched_share"] == told["unmatched"] / told["compared"] > 0.05
    assert latency["max"] < 100
    assert summary["slo"]["met"] is True
    # The stored operations say fail, and judge alike.
    (file,) = [
        path for path in (tmp_path / "operations").rglob("*.parquet") if path.stem == result.run_id
    ]
    again = read_history(str(file), "cas-register").history
    assert (again.outcome == FAIL).sum() == result.record.history.unmatched.sum() > 0
    assert check(again, "linearizable", EVIDENCE).verdict == VALID
    spoilt = _expecting_another(again)
    assert check(spoilt, "linearizable", EVIDENCE).verdict == INVALID


def _expecting_another(history: History) -> History:
    """One that matched expected what stood there long before."""
    assert history.expected_id is not None
    matched = numpy.flatnonzero((history.kind == CAS) & (history.outcome == OK))
    expected = history.expected_id.copy()
    same = matched[history.key[matched] == history.key[matched[-1]]]
    expected[same[-1]] = history.expected_id[same[0]]
    return dataclasses.replace(history, expected_id=expected)


def test_what_follows_upon_reads_is_not_held_against_the_arrival() -> None:
    for shares in ("{compare_and_set: 1.0}", "{read_modify_write: 1.0}"):
        overrides = (
            f"workload.shares={shares}",
            "workload.keys=2000",
            "arrival={name: poisson, rate: 2000/s}",
            "system.node.cores=4",
        )
        record = execute(plan(small(*overrides)))
        reads = ((record.history.kind == READ) & (record.history.phase == PHASE_RUN)).sum()
        assert sum(client.follow_ups for client in record.clients) == pytest.approx(reads, abs=5)
        assert invalid_reasons(measured_window(record, NS_PER_S), small(*overrides), None) == []


def test_refused_ones_have_compared_nothing() -> None:
    parts = quick(
        "unreplicated",
        "system.node.queue={name: fifo, limit: 4}",
        "system.network.delay=1ms",
        "arrival={name: poisson, rate: 2500/s}",
        "system.node.cpu={read: 200us, write: 400us}",
    )
    record = execute(parts)
    history = record.history
    refused = (history.kind == CAS) & (history.outcome == FAIL) & ~history.unmatched
    assert refused.sum() > 5
    assert (history.returned_ns[refused] == -1).all()
    assert judge(parts, record).verdict == VALID


def insisting(seed: int) -> Any:
    """What is lost is asked for again, here and there."""
    return quick(
        "raft",
        f"seed={seed}",
        "system.network.loss=0.05",
        "client={timeout: 500ms, attempt_timeout: 20ms, retry: {attempts: 10}}",
        "arrival.think_time=2ms",
        "duration=600ms",
    )


def test_lost_and_repeated_requests_leave_it_linearizable(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for seed in (1, 2):
        parts = insisting(seed)
        record = execute(parts)
        assert sum(client.extra_attempts for client in record.clients) > 10
        assert record.history.unmatched.sum() > 20
        found[seed] = judge(parts, record).verdict
    assert found == {1: VALID, 2: VALID}

    once = KeyValueState.compare_and_set

    def anew(state: KeyValueState, op: Op, version: int) -> tuple[int, int]:
        """Compares a repeated one with what is there by now."""
        state._sessions.pop(op.session, None)
        return once(state, op, version)

    monkeypatch.setattr(KeyValueState, "compare_and_set", anew)
    for seed in found:
        parts = insisting(seed)
        found[seed] = judge(parts, execute(parts)).verdict
    assert found == {1: INVALID, 2: INVALID}


# --- the order of versions --------------------------------------------------------------


def _versioned(chance: random.Random, path: Path) -> tuple[History, list[dict[str, Any]]]:
    """A random history whose versions follow the time, more or less."""
    rows = random_rows("cas-register", chance)
    version = 0
    for one in rows:
        if chance.random() < 0.8:
            version += one["op"] != "read"
            one["version"] = max(0, version - (chance.random() < 0.1))
    return read_history(write_lines(path, rows), "cas-register").history, rows


def test_an_order_of_versions_proves_what_it_shows(tmp_path: Path) -> None:
    shown = 0
    for seed in range(600):
        history, rows = _versioned(random.Random(seed), tmp_path / "h.jsonl")
        counted = numpy.flatnonzero(counting(history, EVIDENCE))
        if len(counted) and len(explained(history, counted, 0)):
            shown += 1
            assert linearizable_by_trying("cas-register", rows), rows
    assert shown > 60
