"""Two-phase commit over replicated shards: its coordinator, and who takes over from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from machine_bench import Bench
from made_layouts import every_node

from orchestrator.config.load import load_mapping
from orchestrator.core.machine import (
    APPEND,
    FAIL,
    OK,
    READ,
    TRANSACTION,
    WRITE,
    Op,
)
from orchestrator.core.sharding import Shards, sharded
from orchestrator.core.steps import DECIDE, FINISH, FORGET, PREPARE
from orchestrator.core.transactions import (
    ABORTED,
    MicroOperation,
    Transactions,
    decode_reads,
    encode_ops,
)
from orchestrator.errors import ConfigError
from orchestrator.fuzz import Wanted, simulate_seed
from orchestrator.plan import plan
from orchestrator.protocols.raft import Params as RaftParams
from orchestrator.protocols.raft import Raft
from orchestrator.transactions._tasks import Answers, Submit
from orchestrator.transactions.two_phase_commit import Params, TwoPhaseCommit

MS = 1_000_000
COUNT = 2
LOW, HIGH = (
    [b"k%d" % n for n in range(40) if every_node(COUNT).cell_of(b"k%d" % n) == shard]
    for shard in range(2)
)
"""Keys of the first shard, which is home, and of the second."""


def appends(key: bytes, element: bytes) -> MicroOperation:
    return (APPEND, key, element)


def reads(key: bytes) -> MicroOperation:
    return (READ, key, None)


# --- on a bench -------------------------------------------------------------------------


def bench(params: Params | None = None) -> Bench:
    """Three nodes; node 0 leads the first shard and node 2 the second."""
    shards = Shards(every_node(COUNT), RaftParams(), params or Params())
    made = Bench(sharded(Raft, TwoPhaseCommit), shards, 3)
    made.deliver()
    return made


def ask(made: Bench, node: int, session: int, *ops: MicroOperation, sequence: int = 1) -> Any:
    value = encode_ops(list(ops))
    key, count = ops[0][1], len(ops)
    return made.request(node, Op(session, sequence, TRANSACTION, key, value, 16, 0, count))


def known(made: Bench, node: int, shard: int) -> Transactions:
    found: Transactions = made.machines[node].machines[shard]._state.transactions
    return found


def beat(made: Bench) -> None:
    """Leaders tell the others what is committed, and lost answers are asked for again."""
    for node, timer in sorted(made.timers):
        if timer.endswith("/heartbeat") and not made.down[node]:
            made.fire(node, timer)
    made.deliver()


def later(made: Bench, delay_ns: int) -> None:
    """Time passes; leaders beat, nodes look for what was left behind."""
    until_ns = made.now_ns + delay_ns
    while made.now_ns < until_ns:
        beat(made)
        for node in made.nodes:
            for timer in ("retry", "recover"):
                due_ns = made.timers.get((node, timer), until_ns)
                if due_ns < made.now_ns and not made.down[node]:
                    made.fire(node, timer)
                    made.deliver()


@pytest.mark.parametrize("node", [0, 1, 2])
def test_a_transaction_over_two_shards_commits_on_all_nodes(node: int) -> None:
    made = bench()
    first = ask(made, node, 1, appends(LOW[0], b"1"), reads(HIGH[0]), appends(HIGH[0], b"2"))
    made.deliver()
    reply = made.replies[first]
    assert (reply.outcome, decode_reads(reply.value)) == (OK, [None])
    second = ask(made, node, 2, reads(HIGH[0]), reads(LOW[0]))
    made.deliver()
    assert decode_reads(made.replies[second].value) == [b"2", b"1"]
    beat(made)
    for machine in made.machines:
        assert machine.unfinished == 0
        contents = machine.contents()
        assert (contents[LOW[0]].value, contents[HIGH[0]].value) == (b"1", b"2")


def test_a_decision_is_forgotten_once_all_have_heard_it() -> None:
    made = bench()
    ask(made, 1, 1, appends(LOW[0], b"1"), appends(HIGH[0], b"2"))
    kinds = []
    while made.wire:
        for _, _, message in made.wire:
            if isinstance(message, Submit):
                kinds += [op.kind for op in message.ops if op.kind not in kinds]
        made.deliver_one(0)
    assert kinds == [PREPARE, DECIDE, FINISH, FORGET]
    assert not made.machines[1]._tasks


def test_one_shard_needs_one_step() -> None:
    made = bench()
    handle = ask(made, 0, 1, appends(LOW[0], b"1"), reads(LOW[1]), appends(LOW[1], b"2"))
    made.deliver()
    assert made.replies[handle].outcome == OK
    assert not [message for message in made.sent if isinstance(message, (Submit, Answers))]
    assert known(made, 0, 0).finished[1].sequence == 1


def test_who_meets_a_lock_fails_and_leaves_none_behind() -> None:
    made = bench()
    ask(made, 0, 1, appends(LOW[0], b"1"), appends(HIGH[0], b"1"))
    made.deliver(lambda source, target, message: not isinstance(message, (Submit, Answers)))
    assert known(made, 0, 0).locks.exclusive == {LOW[0]: (1, 1)}
    handle = ask(made, 1, 2, appends(LOW[0], b"2"), appends(HIGH[1], b"2"))
    made.deliver()
    assert made.replies[handle].outcome == FAIL
    assert list(known(made, 2, 1).locks.exclusive) in ([], [HIGH[0]])


def test_a_read_waits_for_the_lock_and_returns_what_was_decided() -> None:
    made = bench()
    ask(made, 0, 1, appends(LOW[0], b"1"), appends(HIGH[0], b"1"))

    def no_finish(source: int, target: int, message: Any) -> bool:
        return not (isinstance(message, Submit) and message.ops[0].kind == FINISH)

    made.deliver(no_finish)
    # It is decided, and its second shard has not heard so.
    assert list(known(made, 2, 1).locks.exclusive) == [HIGH[0]]
    read = made.request(2, Op(7, 1, READ, HIGH[0]))
    made.deliver()
    assert read not in made.replies
    later(made, 1000 * MS)
    assert made.replies[read].value == b"1"


def test_a_read_that_waits_too_long_fails_and_never_happens() -> None:
    made = bench(Params(retries=1))
    ask(made, 0, 1, appends(LOW[0], b"1"), appends(HIGH[0], b"1"))
    made.deliver(lambda source, target, message: not isinstance(message, (Submit, Answers)))
    write = made.request(0, Op(7, 1, WRITE, LOW[0], b"x"))
    made.deliver()
    for _ in range(2):
        made.fire(0, "retry")
        made.deliver(lambda source, target, message: not isinstance(message, (Submit, Answers)))
    assert made.replies[write].outcome == FAIL
    assert known(made, 0, 0).finished[7].said.status == ABORTED


@pytest.mark.parametrize("decided", [False, True])
def test_others_see_to_what_a_lost_coordinator_began(decided: bool) -> None:
    made = bench()
    handle = ask(made, 1, 1, appends(LOW[0], b"1"), appends(HIGH[0], b"1"))
    if decided:
        while handle not in made.replies:
            made.deliver_one(0)
    else:
        made.deliver(lambda source, target, message: not isinstance(message, Answers))
    made.crash(1)
    made.wire.clear()
    assert known(made, 0, 0).prepared or known(made, 0, 0).decisions
    assert known(made, 2, 1).prepared
    later(made, 6000 * MS)
    for node in (0, 2):
        assert made.machines[node].unfinished == 0
        values = [entry.value for entry in made.machines[node].contents().values()]
        assert values == ([b"1", b"1"] if decided else [])


def test_a_coordinator_whose_votes_do_not_come_aborts_where_it_is_decided() -> None:
    made = bench(Params(give_up=300 * MS))
    handle = ask(made, 0, 1, appends(LOW[0], b"1"), appends(HIGH[0], b"1"))
    made.deliver(lambda source, target, message: not isinstance(message, Submit))
    assert known(made, 0, 0).prepared
    while handle not in made.replies:
        made.fire(0, "retry")
        made.deliver(lambda source, target, message: not isinstance(message, Submit))
    assert made.replies[handle].outcome == FAIL
    assert known(made, 0, 0).finished[1].said.status == ABORTED


def test_reads_alone_need_no_decision_while_nobody_can_have_given_them_up() -> None:
    made = bench()
    handle = ask(made, 1, 1, reads(LOW[0]), reads(HIGH[0]))
    made.deliver()
    assert made.replies[handle].outcome == OK
    steps = [op.kind for each in made.sent if isinstance(each, Submit) for op in each.ops]
    assert DECIDE not in steps and FORGET not in steps
    assert known(made, 0, 0).prepared == {}
    slow = ask(made, 1, 2, reads(LOW[0]), reads(HIGH[0]))
    made.now_ns += Params().recover_after
    made.deliver()
    assert made.replies[slow].outcome == OK
    steps = [op.kind for each in made.sent if isinstance(each, Submit) for op in each.ops]
    assert steps.count(DECIDE) == 1 and FORGET not in steps


def test_a_request_that_comes_twice_happens_once() -> None:
    made = bench()
    for node in (0, 1, 2):
        ask(made, node, 1, appends(LOW[0], b"1"), appends(HIGH[0], b"1"))
        ask(made, node, 2, appends(LOW[1], b"1"))
    made.deliver()
    later(made, 6000 * MS)
    contents = made.machines[0].contents()
    assert contents[LOW[1]].value == b"1"
    assert contents.get(LOW[0]) is None or contents[LOW[0]].value == b"1"
    assert all(machine.unfinished == 0 for machine in made.machines)


# --- in a configuration -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "reason"),
    [
        ({"name": "quorum"}, "one order"),
        ({"name": "gossip"}, "one order"),
        ({"name": "primary_backup", "mode": "async"}, "not linearizable: mode: async"),
        ({"name": "primary_backup", "read_from": "any"}, "not linearizable"),
    ],
)
def test_protocols_that_cannot_carry_it_are_refused(protocol: dict[str, Any], reason: str) -> None:
    system = {"protocol": protocol, "replicas": 3, "transactions": {"name": "two_phase_commit"}}
    with pytest.raises(ConfigError, match=reason) as caught:
        plan(load_mapping({"system": system, "workload": {"name": "transactions"}}))
    assert caught.value.path == "system.transactions"


def test_transactions_need_a_layer() -> None:
    system = {"protocol": {"name": "raft"}, "replicas": 3}
    with pytest.raises(ConfigError, match="'txn'"):
        plan(load_mapping({"system": system, "workload": {"name": "transactions"}}))


# --- under faults -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_faults_leave_it_serializable_and_no_lock_behind(seed: int) -> None:
    _, outcome = simulate_seed(Wanted("two_phase_commit"), seed)
    assert outcome.violation is None, outcome.violation
    assert outcome.marks["commit"] > 50


def test_the_faults_reach_what_they_are_to_reach(tmp_path: Path) -> None:
    marks: dict[str, int] = {}
    for seed in (10, 11):
        _, outcome = simulate_seed(Wanted("two_phase_commit", "recovery"), seed)
        assert outcome.violation is None, outcome.violation
        for name, count in outcome.marks.items():
            marks[name] = marks.get(name, 0) + count
    assert all(marks.get(name) for name in ("commit", "abort", "resolve", "lock_conflict"))
