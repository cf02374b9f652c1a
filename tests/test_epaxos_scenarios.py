"""Single scenarios of EPaxos on a bench: fast and slow path, execution, recovery, and the run that
Sutra's correction is about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from epaxos_watch import InstanceWatch
from machine_bench import Bench, Wanted, among
from twins_epaxos import ExecutesAtOnce, OneBallot

from orchestrator.core.levels import CODES, EVENTUAL
from orchestrator.core.machine import (
    OK,
    READ,
    WRITE,
    Op,
    Received,
)
from orchestrator.protocols._epaxos_instances import Instance
from orchestrator.protocols._epaxos_messages import (
    ACCEPTED,
    COMMITTED,
    EXECUTED,
    Accept,
    Commit,
    PreAccept,
    PreAccepted,
    Recover,
    Recovered,
    Validate,
)
from orchestrator.protocols.epaxos import EPaxos, Params

PARAMS = Params(recovery=1000, resend=100)
TICK = "tick"


def cluster(nodes: int = 3, machine: type[EPaxos] = EPaxos) -> Bench:
    """Nodes that have heard of nothing yet."""
    return Bench(machine, PARAMS, nodes, watch=InstanceWatch())


def write(number: int, key: bytes = b"k") -> Op:
    """The only operation of session ``number``."""
    return Op(number, 1, WRITE, key, b"value %d" % number)


def tick(bench: Bench, node: int) -> None:
    """The node looks after its instances; nothing is delivered."""
    bench.fire(node, TICK)


def lose_patience(bench: Bench, node: int) -> None:
    """The node begins to recover whatever is not committed; nothing is delivered."""
    before = len(bench.sent)
    tick(bench, node)
    if not any(isinstance(message, Recover) for message in bench.sent[before:]):
        bench.now_ns += 20 * PARAMS.recovery
        tick(bench, node)


def settle(bench: Bench, rounds: int = 60) -> None:
    """Time passes for all nodes."""
    for _ in range(rounds):
        for node in bench.nodes:
            if (node, TICK) in bench.timers:
                bench.fire(node, TICK)
                bench.deliver()


def only(kind: type[Any], target: int) -> Wanted:
    """Messages of one class to one node."""
    return lambda source, to, message: isinstance(message, kind) and to == target


def values(bench: Bench, key: bytes = b"k") -> list[bytes | None]:
    """What each node has under a key."""
    found = [machine.contents().get(key) for machine in bench.machines]
    return [entry and entry.value for entry in found]


def phase(bench: Bench, node: int, row: int = 0, number: int = 1) -> int:
    """Of an instance on a node."""
    found: Instance = bench.machines[node]._rows[row].instances[number]
    return found.phase


# --- commitment -------------------------------------------------------------------------


def test_without_interference_one_round_trip_commits() -> None:
    bench = cluster()
    handle = bench.request(1, write(1))
    bench.deliver_one(0)
    assert handle not in bench.replies
    bench.deliver_one(next(at for at, entry in enumerate(bench.wire) if entry[1] == 1))
    assert bench.replies[handle].outcome == OK
    bench.deliver()
    assert values(bench) == [b"value 1"] * 3
    kinds = [type(message) for message in bench.sent]
    assert [kinds.count(kind) for kind in (PreAccept, PreAccepted, Commit)] == [2, 2, 2]
    assert len(kinds) == 6


@pytest.mark.parametrize(("nodes", "fast"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 5)])
def test_a_fast_quorum_is_that_of_the_optimised_protocol(nodes: int, fast: int) -> None:
    bench = cluster(nodes)
    assert bench.machines[0]._fast_quorum == fast
    bench.request(0, write(1))
    bench.deliver(lambda source, target, message: max(source, target) < fast)
    assert phase(bench, 0) == EXECUTED


def test_interfering_proposals_take_the_slow_path_and_one_order() -> None:
    bench = cluster()
    handles = [bench.request(node, write(node + 1)) for node in bench.nodes]
    bench.deliver()
    assert [bench.replies[handle].outcome for handle in handles] == [OK] * 3
    assert any(isinstance(message, Accept) for message in bench.sent)
    assert len({tuple(sorted(m.contents()[b"k"].value for m in bench.machines))}) == 1
    assert sorted(bench.replies[handle].version for handle in handles) == [1, 2, 3]


def test_reads_do_not_interfere_with_reads() -> None:
    bench = cluster()
    for node in bench.nodes:
        bench.request(node, Op(node + 1, 1, READ, b"k"))
    bench.deliver()
    assert not any(isinstance(message, Accept) for message in bench.sent)


def test_a_commit_that_overtakes_its_operations_waits_for_them() -> None:
    bench = cluster()
    bench.request(0, write(1))
    late = bench.wire.pop(1)
    assert late[1] == 2
    bench.deliver()
    assert values(bench) == [b"value 1", b"value 1", None]
    bench.wire.append(late)
    bench.deliver()
    assert values(bench) == [b"value 1"] * 3


def test_nothing_is_proposed_before_it_is_durable() -> None:
    bench = cluster()
    bench.syncs = False
    bench.request(0, write(1))
    assert bench.wire == [], "a number that is used must not be used again"
    bench.sync(0)
    assert len(bench.wire) == 2


def test_a_proposer_sends_again_what_was_lost() -> None:
    bench = cluster()
    handle = bench.request(0, write(1))
    bench.wire.clear()
    tick(bench, 0)
    tick(bench, 0)
    bench.deliver()
    assert bench.replies[handle].outcome == OK


def test_an_eventual_read_is_local() -> None:
    bench = cluster()
    bench.request(0, write(1))
    bench.deliver(among(0, 1))
    bench.sent.clear()
    handle = bench.request(2, Op(2, 1, READ, b"k", level=CODES[EVENTUAL]))
    assert (bench.replies[handle].value, bench.sent) == (None, [])


# --- execution --------------------------------------------------------------------------


def test_a_session_is_executed_in_its_order_everywhere() -> None:
    bench = cluster()
    first = bench.request(0, write(1, b"a"))
    bench.deliver(among(0, 1))
    context = bench.replies[first].context
    bench.request(1, Op(1, 2, WRITE, b"b", b"second", context=context))
    bench.deliver(among(1, 2))
    # Node 2 knows the second, which has nothing to do with the first but for the session.
    assert phase(bench, 2, row=1) == COMMITTED
    assert values(bench, b"b") == [None, b"second", None]
    settle(bench)
    assert values(bench, b"a") == [b"value 1"] * 3
    assert values(bench, b"b") == [b"second"] * 3


def test_what_depends_on_something_unknown_waits_for_it() -> None:
    def second_on_2(machine: type[EPaxos]) -> tuple[Bench, list[bytes | None]]:
        bench = cluster(machine=machine)
        bench.request(0, write(1))
        bench.deliver(among(0, 1))
        bench.request(1, write(2))
        bench.deliver(among(1, 2))
        return bench, values(bench)

    bench, found = second_on_2(EPaxos)
    assert found == [b"value 1", b"value 2", None]
    settle(bench)
    assert values(bench) == [b"value 2"] * 3
    _, found = second_on_2(ExecutesAtOnce)
    assert found[2] == b"value 2"


def test_everything_executed_everywhere_is_forgotten() -> None:
    bench = cluster()
    for number in range(1, 40):
        bench.request(number % 3, write(number))
        bench.deliver()
    settle(bench, 6)
    assert [len(row.instances) for machine in bench.machines for row in machine._rows] == [0] * 9
    assert values(bench) == [b"value 39"] * 3


def test_a_restart_executes_the_same_again() -> None:
    bench = cluster()
    for number in range(1, 20):
        bench.request(number % 3, write(number, b"k%d" % (number % 4)))
        if number % 3 == 0:
            bench.deliver()
    bench.deliver()
    settle(bench, 6)
    before = [dict(machine.contents()) for machine in bench.machines]
    for node in bench.nodes:
        bench.crash(node)
        bench.restart(node)
    assert [dict(machine.contents()) for machine in bench.machines] == before
    settle(bench, 8)
    assert [len(row.instances) for machine in bench.machines for row in machine._rows] == [0] * 9


# --- recovery ---------------------------------------------------------------------------


def test_others_finish_what_a_crashed_proposer_began() -> None:
    bench = cluster()
    bench.request(0, write(1))
    bench.deliver(only(PreAccept, 1))
    bench.crash(0)
    lose_patience(bench, 1)
    bench.deliver()
    assert values(bench)[1:] == [b"value 1"] * 2
    bench.restart(0)
    settle(bench)
    assert values(bench) == [b"value 1"] * 3


def test_a_proposer_begins_again_what_was_made_void() -> None:
    bench = cluster()
    handle = bench.request(0, write(1))
    bench.wire.clear()
    bench.event(1, Received(2, Commit([])))
    # Nodes 1 and 2 hear only that there is such an instance.
    bench.machines[1]._rows[0].top = 1
    lose_patience(bench, 1)
    bench.deliver()
    assert phase(bench, 1) == EXECUTED
    assert bench.machines[1]._rows[0].instances[1].void
    assert bench.replies[handle].outcome == OK
    assert values(bench) == [b"value 1"] * 3
    assert phase(bench, 0, number=2) == EXECUTED


def test_a_rival_without_dependency_decides_against_a_candidate() -> None:
    bench = cluster(5)
    # Neither proposer hears of the other; each has one more vote and crashes.
    bench.request(0, write(1))
    bench.deliver(only(PreAccept, 1))
    bench.request(4, write(2))
    bench.deliver(only(PreAccept, 3))
    bench.crash(0)
    bench.crash(4)
    for _ in range(12):
        for node in (1, 2, 3):
            lose_patience(bench, node)
            bench.deliver()
    assert any(isinstance(message, Validate) for message in bench.sent)
    chosen = [bench.machines[2]._rows[row].instances[1] for row in (0, 4)]
    assert [each.phase for each in chosen] == [EXECUTED] * 2
    if not chosen[0].void and not chosen[1].void:
        assert chosen[0].deps[4] == 1 or chosen[1].deps[0] == 1
    bench.restart(0)
    bench.restart(4)
    settle(bench)
    assert len(set(values(bench))) == 1


def sutras_run(machine: type[EPaxos]) -> Callable[[], None]:
    """A vote in ballot 4 is followed by a bare promise in ballot 8: which one counts?

    Node 1 recovers the instance of node 0 and has its value accepted by node 0, so it is
    chosen. Node 2 had promised itself a newer ballot before, in vain. Then it recovers with
    node 0 alone. Returns the last step.
    """
    bench = cluster(machine=machine)
    bench.request(0, write(1))
    bench.deliver(only(PreAccept, 1))
    lose_patience(bench, 1)
    while not any(isinstance(message, Accept) for _, _, message in bench.wire):
        bench.deliver_one(0, among(1, 2))
    accepts, bench.wire = bench.wire, []
    lose_patience(bench, 2)
    bench.wire = accepts
    assert bench.machines[2]._rows[0].instances[1].ballot == 8
    bench.deliver(lambda source, target, message: not isinstance(message, Commit))
    assert phase(bench, 0) == ACCEPTED
    assert phase(bench, 1) == EXECUTED

    def recover_without_1() -> None:
        lose_patience(bench, 2)
        bench.deliver(among(0, 2))
        states = [m for m in bench.sent if isinstance(m, Recovered)]
        assert states[-1].states[0].phase == ACCEPTED
        bench.deliver()
        settle(bench)
        assert values(bench) == [b"value 1"] * 3

    return recover_without_1


def test_a_vote_counts_by_its_own_ballot() -> None:
    sutras_run(EPaxos)()


def test_one_ballot_for_both_chooses_twice() -> None:
    last_step = sutras_run(OneBallot)
    with pytest.raises(AssertionError, match="two values"):
        last_step()
