"""Quorums: what they claim and why, the tricky cases of Dynamo on a bench, and faults."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from machine_bench import Bench, among
from sim_faults import FINAL_SESSION, configured, problem_of, simulate

from orchestrator.core.levels import CODES, EVENTUAL, LINEARIZABLE, MONOTONIC_READS, REGULAR
from orchestrator.core.machine import OK, READ, WRITE, ClaimContext, ClusterView, Op
from orchestrator.core.system import Circumstances
from orchestrator.core.units import NS_PER_MS
from orchestrator.core.verdict import VALID, check_claims
from orchestrator.protocols._quorum_messages import Store
from orchestrator.protocols._quorum_ring import ring_of
from orchestrator.protocols.quorum import Params, Quorum

HARD = {"gap_ns": 40 * NS_PER_MS}
QUICK = {"resend": "40ms", "give_up": "400ms"}
PLAIN = {"repair": False, "handoff": False}


def bench_of(nodes: int = 3, replicas: int = 0, **choices: Any) -> Bench:
    return Bench(Quorum, Params(**choices), nodes, replicas=replicas)


def asked(bench: Bench, node: int, op: Op, *reached: int) -> Any:
    """The answer of a coordinator that reaches only these nodes; None without one."""
    handle = bench.request(node, op)
    bench.deliver(among(*(reached or bench.nodes)))
    return bench.replies.get(handle)


def values(bench: Bench, key: bytes = b"k") -> list[bytes | None]:
    """What each node holds."""
    found = [machine.contents().get(key) for machine in bench.machines]
    return [None if entry is None else entry.value for entry in found]


def tick(bench: Bench, rounds: int = 3) -> None:
    """Let every timer that is set fire, and deliver what follows."""
    for _ in range(rounds):
        for node, timer in sorted(bench.timers):
            bench.fire(node, timer)
        bench.deliver()


# --- claims -----------------------------------------------------------------------------


def claimed(replicas: int = 3, nodes: int = 0, **choices: Any) -> frozenset[str]:
    return Quorum.claims(Params(**choices), ClaimContext(replicas, False, "fsync", nodes, True))


def reason(level: str, replicas: int = 3, nodes: int = 0, **choices: Any) -> str:
    context = ClaimContext(replicas, False, "fsync", nodes, True)
    return Quorum.why_not(Params(**choices), context, level)


@pytest.mark.parametrize("replicas", range(1, 6))
def test_regular_is_claimed_exactly_where_quorums_meet(replicas: int) -> None:
    sizes = range(1, replicas + 1)
    for read, write in itertools.product(sizes, sizes):
        held = claimed(replicas, read_quorum=read, write_quorum=write)
        assert (REGULAR in held) == (read + write > replicas)
        assert not held & {LINEARIZABLE, MONOTONIC_READS}
    assert REGULAR in claimed(replicas), "majorities meet"


def test_what_else_claims_depend_on() -> None:
    assert claimed() == claimed(conflicts="siblings") == {REGULAR, EVENTUAL}
    assert claimed(versions="clock") == claimed(versions="clock", conflicts="siblings")
    assert claimed(versions="clock") == {EVENTUAL}
    assert claimed(handoff=False) == {REGULAR}
    assert claimed(sloppy=True) == {REGULAR, EVENTUAL}, "there is nobody to stand in"
    assert claimed(nodes=5) == {REGULAR}
    assert claimed(nodes=5, sloppy=True) == frozenset()
    forgetful = ClaimContext(3, False, "async", 3, True)
    assert Quorum.claims(Params(), forgetful) == frozenset()


def test_reasons_give_the_arithmetic() -> None:
    assert reason(REGULAR, read_quorum=1, write_quorum=1) == (
        "R 1 + W 1 is not above N 3: a read may miss the newest write"
    )
    assert "R 1 + W 2 is not above N 3" in reason(LINEARIZABLE, read_quorum=1, write_quorum=2)
    assert "writes nothing back" in reason(LINEARIZABLE)
    assert "clock is behind" in reason(REGULAR, versions="clock")
    assert "up to 2 of W 2 copies" in reason(REGULAR, nodes=5, sloppy=True)
    assert "without handoff" in reason(EVENTUAL, handoff=False)
    assert "nodes 5 above replicas 3" in reason(EVENTUAL, nodes=5)
    assert reason(REGULAR) == reason(EVENTUAL) == ""


@pytest.mark.parametrize(
    ("replicas", "nodes", "choices", "word"),
    [
        (3, 2, {}, "as many nodes"),
        (3, 3, {"read_quorum": 4}, "read_quorum 4"),
        (3, 3, {"write_quorum": 4}, "write_quorum 4"),
        (3, 3, {"coordinator": "outside"}, "more nodes"),
        (3, 4, {"conflicts": "siblings"}, "coordinator must be replica"),
        (3, 4, {"conflicts": "siblings", "coordinator": "outside"}, "not with"),
    ],
)
def test_misfits_are_refused(replicas: int, nodes: int, choices: dict[str, Any], word: str) -> None:
    assert word in (Quorum.validate(Params(**choices), replicas, nodes) or "")


# --- the ring ---------------------------------------------------------------------------


def test_the_ring_is_even_and_moves_few_keys() -> None:
    keys = [b"user%012d" % number for number in range(4000)]
    four, five = ring_of((0, 1, 2, 3)), ring_of((0, 1, 2, 3, 4))
    shares = Counter(four.order(key)[0] for key in keys)
    assert all(500 < shares[node] < 1700 for node in range(4))
    moved = [key for key in keys if four.order(key)[0] != five.order(key)[0]]
    assert all(five.order(key)[0] == 4 for key in moved), "only to the node that came"
    assert all(sorted(five.order(key)) == [0, 1, 2, 3, 4] for key in keys[:50])


def test_the_ring_is_the_same_in_every_process() -> None:
    script = (
        "from orchestrator.protocols._quorum_ring import ring_of\n"
        "print([ring_of((0, 1, 2, 3)).order(b'k%d' % n) for n in range(20)])"
    )
    here = str([ring_of((0, 1, 2, 3)).order(b"k%d" % n) for n in range(20)])
    for seed in ("0", "1"):
        found = subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == here


@pytest.mark.parametrize("coordinator", ["replica", "outside"])
def test_clients_ask_the_right_nodes_and_others_redirect(coordinator: str) -> None:
    bench = bench_of(5, 3, coordinator=coordinator, read_quorum=2, write_quorum=2)
    for number in range(20):
        op = Op(number + 1, 1, WRITE, b"k%d" % number, b"v")
        holders = ring_of(bench.nodes).order(op.key)[:3]
        candidates = Quorum.candidates(bench.machines[0]._params, op, ClusterView(bench.nodes))
        assert candidates
        assert all((node in holders) == (coordinator == "replica") for node in candidates)
        for node in bench.nodes:
            handle = bench.request(node, op)
            bench.deliver()
            right = (node in holders) == (coordinator == "replica")
            assert (handle in bench.replies) == right
            if not right:
                told = bench.redirects[handle].node
                assert (told in holders) == (coordinator == "replica")
        assert [n for n in bench.nodes if bench.machines[n].contents().get(op.key)] == sorted(
            holders
        )


# --- reads and writes -------------------------------------------------------------------


def test_of_two_reads_the_later_one_may_be_older() -> None:
    """Why R + W above N is not linearizable."""
    bench = bench_of(**PLAIN)
    asked(bench, 0, Op(1, 1, WRITE, b"k", b"old"))
    bench.request(2, Op(2, 1, WRITE, b"k", b"new"))
    # The copy stays with its coordinator, node 2, for now.
    bench.deliver(lambda source, target, message: not isinstance(message, Store))
    assert asked(bench, 2, Op(3, 1, READ, b"k"), 1, 2).value == b"new"
    assert asked(bench, 0, Op(4, 1, READ, b"k"), 0, 1).value == b"old"


def test_a_clock_that_is_behind_loses_an_acknowledged_write() -> None:
    """Why versions from clocks are not regular."""
    for versions, found in (("clock", b"first"), ("read", b"second")):
        bench = bench_of(versions=versions, coordinator="outside", nodes=5, replicas=3)
        op = Op(1, 1, WRITE, b"k", b"first")
        ahead, behind = [n for n in bench.nodes if n not in bench.machines[0]._holders(b"k")]
        bench.now_ns = 1_000_000
        assert asked(bench, ahead, op).outcome == OK
        bench.now_ns = 1_000
        assert asked(bench, behind, Op(2, 1, WRITE, b"k", b"second")).outcome == OK
        assert asked(bench, ahead, Op(3, 1, READ, b"k")).value == found


def test_a_clock_never_goes_behind_what_its_session_has_seen() -> None:
    bench = bench_of(versions="clock", coordinator="outside", nodes=5, replicas=3)
    ahead, behind = [n for n in bench.nodes if n not in bench.machines[0]._holders(b"k")]
    bench.now_ns = 1_000_000
    first = asked(bench, ahead, Op(1, 1, WRITE, b"k", b"first"))
    bench.now_ns = 1_000
    second = Op(1, 2, WRITE, b"k", b"second", seen=first.version)
    assert asked(bench, behind, second).version > first.version
    assert asked(bench, ahead, Op(3, 1, READ, b"k")).value == b"second"


def test_an_eventual_read_takes_the_first_answer() -> None:
    bench = bench_of(**PLAIN)
    asked(bench, 0, Op(1, 1, WRITE, b"k", b"v"))
    bench.sent.clear()
    eventual = Op(2, 1, READ, b"k", level=CODES[EVENTUAL])
    assert asked(bench, 0, eventual).value == b"v"
    assert not bench.sent


def test_a_quorum_that_is_cut_off_does_not_answer() -> None:
    bench = bench_of()
    assert asked(bench, 0, Op(1, 1, WRITE, b"k", b"v"), 0) is None
    assert asked(bench, 0, Op(2, 1, READ, b"k"), 0) is None
    assert asked(bench, 1, Op(3, 1, WRITE, b"k", b"w"), 1, 2).outcome == OK


# --- what was missed --------------------------------------------------------------------


def test_a_read_repairs_the_replicas_that_are_behind() -> None:
    for repair in (True, False):
        bench = bench_of(repair=repair, handoff=False)
        asked(bench, 0, Op(1, 1, WRITE, b"k", b"v"), 0, 1)
        assert values(bench) == [b"v", b"v", None]
        asked(bench, 0, Op(2, 1, READ, b"k"))
        assert values(bench) == [b"v", b"v", b"v" if repair else None]


@pytest.mark.parametrize("crash", [False, True])
def test_hints_are_sent_until_they_are_acknowledged(crash: bool) -> None:
    bench = bench_of(repair=False)
    bench.crash(2)
    for number in range(1, 6):
        asked(bench, 0, Op(number, 1, WRITE, b"k%d" % (number % 2), b"%d" % number))
    tick(bench)
    hints = bench.machines[0]._hints
    assert hints.count == 2, "the newest of each key"
    if crash:
        bench.crash(0)
        bench.now_ns += 1
        bench.restart(0)
    bench.restart(2)
    tick(bench)
    assert values(bench, b"k0") == [b"4"] * 3
    assert values(bench, b"k1") == [b"5"] * 3
    assert bench.machines[0]._hints.count == 0
    assert not any(timer for node, timer in bench.timers if node == 0), "it sleeps again"


def test_another_node_stands_in_and_hands_the_copy_on() -> None:
    for sloppy in (True, False):
        bench = bench_of(5, 3, sloppy=sloppy, versions="clock", write_quorum=3)
        order = ring_of(bench.nodes).order(b"k")
        bench.crash(order[1])
        handle = bench.request(order[0], Op(1, 1, WRITE, b"k", b"v"))
        bench.deliver()
        assert handle not in bench.replies
        bench.fire(order[0], "tick")
        bench.deliver()
        assert (handle in bench.replies) == sloppy
        assert bench.machines[order[3]].contents() == {}
        if sloppy:
            bench.crash(order[0])
            bench.restart(order[1])
            bench.fire(order[3], "tick")
            bench.deliver()
            assert values(bench)[order[1]] == b"v"


def test_copies_merge_in_any_order_and_any_number() -> None:
    bench = bench_of(versions="clock", **PLAIN)
    for number in range(1, 4):
        bench.request(number - 1, Op(number, 1, WRITE, b"k", b"%d" % number))
    sent = [each for each in bench.wire if isinstance(each[2], Store)]
    bench.wire[:] = [*reversed(sent), *sent]
    bench.deliver()
    assert len(set(values(bench))) == 1


# --- under faults -----------------------------------------------------------------------

CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {},
    {"conflicts": "siblings"},
    {"versions": "clock"},
    {"read_quorum": 1, "write_quorum": 3},
    {"conflicts": "siblings", "versions": "clock"},
)
SPREAD: tuple[dict[str, Any], ...] = (
    {"sloppy": True},
    {"coordinator": "outside"},
    {"coordinator": "replica"},
    {"coordinator": "replica", "conflicts": "siblings"},
)


def fault_config(seed: int, choices: dict[str, Any], nodes: int = 3) -> Any:
    conditions = ((), ("system.network.ordering=none",), ("system.network.loss=0.05",))
    system = {"protocol": {"name": "quorum"} | QUICK | choices, "replicas": 3, "nodes": nodes}
    return configured(seed, system, "client.sticky=false", *conditions[seed % 3])


def spread_problem(seed: int, choices: dict[str, Any]) -> str:
    """With more nodes than replicas: what clients saw, and each key's own replicas at the end."""
    outcome = simulate(fault_config(seed, choices, nodes=5), faults=HARD)
    history = outcome.history.select(outcome.history.session < FINAL_SESSION)
    held = outcome.cluster.parts.system.claims(Circumstances(sticky=False))
    verdicts = check_claims(history, held).verdicts
    problems = [found.explanation for found in verdicts if found.verdict != VALID]
    found = [node.shell.machine.contents() for node in outcome.cluster.nodes]
    for key in sorted({key for contents in found for key in contents}):
        holders = ring_of((0, 1, 2, 3, 4)).order(key)[:3]
        if len({repr(found[node].get(key)) for node in holders}) > 1:
            problems.append(f"the replicas of {key!r} differ")
    return "; ".join(problems)


@pytest.mark.parametrize("choices", CONFIGURATIONS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_claims_hold_under_faults(choices: dict[str, Any], seed: int) -> None:
    assert problem_of(fault_config(seed, choices), faults=HARD) == ""


@pytest.mark.parametrize("choices", SPREAD, ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_claims_hold_on_more_nodes_than_replicas(choices: dict[str, Any], seed: int) -> None:
    assert spread_problem(seed, choices) == ""


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("choices", CONFIGURATIONS, ids=str)
def test_claims_hold_under_many_faults(choices: dict[str, Any]) -> None:
    for seed in range(1000, 1100):
        assert problem_of(fault_config(seed, choices), faults=HARD) == "", f"seed {seed}"


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("choices", SPREAD, ids=str)
def test_claims_hold_on_more_nodes_under_many_faults(choices: dict[str, Any]) -> None:
    for seed in range(1000, 1100):
        assert spread_problem(seed, choices) == "", f"seed {seed}"
