"""Causal replication: sessions that move, dependencies, arbitration, what is made up for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from machine_bench import Bench, Wanted, among, everything
from sim_faults import configured, problem_of

from orchestrator.core import levels
from orchestrator.core.levels import CODES
from orchestrator.core.machine import FAIL, OK, READ, SCAN, WRITE, ClaimContext, Op, Reply
from orchestrator.core.units import NS_PER_MS
from orchestrator.protocols._causal_log import Piece
from orchestrator.protocols._causal_past import parts_of, versions_of
from orchestrator.protocols.causal import DEPENDENCIES, VECTORS, Causal, Params

HARD = {"gap_ns": 40 * NS_PER_MS, "loss": 0.05}
TRACKING = (VECTORS, DEPENDENCIES)
either = pytest.mark.parametrize("tracking", TRACKING)
LOOK = "look"


class Session:
    """A client process that carries its past from node to node."""

    def __init__(self, bench: Bench, number: int) -> None:
        self._bench = bench
        self._number = number
        self._sequence = 0
        self.context = b""

    def ask(self, node: int, kind: int, key: bytes, value: bytes = b"", level: str = "") -> Any:
        """Begin an operation; returns its handle."""
        self._sequence += 1
        code = CODES[level] if level else 0
        op = Op(self._number, self._sequence, kind, key, value, level=code, context=self.context)
        return self._bench.request(node, op)

    def answer(self, handle: Any) -> Reply:
        """Take its answer in."""
        reply = self._bench.replies[handle]
        self.context = reply.context or self.context
        return reply

    def write(self, node: int, key: bytes, value: bytes) -> Reply:
        """A write that is answered at once."""
        return self.answer(self.ask(node, WRITE, key, value))

    def read(self, node: int, key: bytes, level: str = "") -> Any:
        """What a read that is answered at once finds."""
        return self.answer(self.ask(node, READ, key, level=level)).value


def bench_of(tracking: str, nodes: int = 3, **params: Any) -> Bench:
    """Nodes that have only started."""
    return Bench(Causal, replace(Params(tracking=tracking), **params), nodes)


def look(bench: Bench, rounds: int = 12, wanted: Wanted = everything) -> None:
    """Every node that is up tells others what it has, several times."""
    for _ in range(rounds):
        for node in bench.nodes:
            if not bench.down[node]:
                bench.fire(node, LOOK)
                bench.deliver(wanted)


def copies(bench: Bench) -> list[dict[bytes, bytes]]:
    return [{k: e.value for k, e in machine.contents().items()} for machine in bench.machines]


# --- sessions ---------------------------------------------------------------------------


@either
@pytest.mark.parametrize("kind", [READ, WRITE, SCAN])
def test_a_session_that_moved_waits_for_its_past(tracking: str, kind: int) -> None:
    bench = bench_of(tracking)
    session = Session(bench, 1)
    session.write(0, b"x", b"1")
    late, bench.wire = bench.wire, []
    handle = session.ask(1, kind, b"y", b"2")
    assert handle not in bench.replies
    bench.wire = late
    bench.deliver()
    assert session.answer(handle).outcome == OK
    assert session.read(1, b"x") == b"1"


@either
def test_a_past_that_was_lost_is_asked_for(tracking: str) -> None:
    bench = bench_of(tracking)
    session = Session(bench, 1)
    session.write(0, b"x", b"1")
    bench.wire.clear()
    handle = session.ask(1, READ, b"x")
    look(bench, rounds=3)
    assert session.answer(handle).value == b"1"


@either
def test_what_another_session_wrote_is_waited_for_once_it_was_read(tracking: str) -> None:
    bench = bench_of(tracking)
    writer, reader = Session(bench, 1), Session(bench, 2)
    writer.write(0, b"x", b"1")
    bench.deliver(among(0, 1))
    assert reader.read(1, b"x") == b"1"
    assert reader.ask(2, READ, b"x") not in bench.replies
    assert Session(bench, 3).read(2, b"x") is None


def test_dependencies_wait_for_less_than_vectors() -> None:
    answered = {}
    for tracking in TRACKING:
        bench = bench_of(tracking)
        Session(bench, 1).write(0, b"x", b"1")
        bench.deliver(among(0, 1))
        session = Session(bench, 2)
        # Node 1 has x, but the session only learns that there is no y.
        assert session.read(1, b"y") is None
        answered[tracking] = session.ask(2, READ, b"y") in bench.replies
    assert answered == {VECTORS: False, DEPENDENCIES: True}


@either
@pytest.mark.parametrize(
    ("level", "after_write", "after_read"),
    [
        (levels.CAUSAL, False, False),
        (levels.SESSIONS, False, False),
        (levels.READ_YOUR_WRITES, False, True),
        (levels.MONOTONIC_READS, None, False),
        (levels.MONOTONIC_WRITES, True, True),
        (levels.WRITES_FOLLOW_READS, True, True),
        (levels.EVENTUAL, True, True),
    ],
)
def test_what_a_read_of_a_level_waits_for(
    tracking: str, level: str, after_write: bool | None, after_read: bool
) -> None:
    """None: at once where what was written and what was read are told apart."""
    bench = bench_of(tracking)
    writer, reader = Session(bench, 1), Session(bench, 2)
    writer.write(0, b"x", b"1")
    assert reader.read(0, b"x") == b"1"
    at_once = tracking == VECTORS if after_write is None else after_write
    assert (writer.ask(1, READ, b"x", level=level) in bench.replies) == at_once
    assert (reader.ask(1, READ, b"x", level=level) in bench.replies) == after_read


@either
def test_a_read_that_does_not_wait_loses_nothing_of_the_past(tracking: str) -> None:
    bench = bench_of(tracking)
    session = Session(bench, 1)
    session.write(0, b"x", b"1")
    bench.wire.clear()
    Session(bench, 2).write(1, b"y", b"2")
    bench.wire.clear()
    assert session.read(1, b"y", level=levels.EVENTUAL) == b"2"
    assert session.ask(1, READ, b"x") not in bench.replies
    assert session.ask(0, READ, b"y") not in bench.replies


def test_only_the_nearest_dependencies_are_kept() -> None:
    bench = bench_of(DEPENDENCIES, nodes=5)
    for node in bench.nodes:
        for number in range(4):
            Session(bench, 10 * node + number).write(node, b"%d-%d" % (node, number), b"v")
    bench.deliver()
    session = Session(bench, 99)
    for key in sorted(copies(bench)[0]):
        assert session.read(2, key) == b"v"
    assert len(parts_of(session.context)[1]) == 5, "of each node the newest alone"
    written = session.write(2, b"mine", b"v")
    assert versions_of(session.context) == (written.version,), "it stands for all before it"


def test_a_vector_has_an_entry_a_node() -> None:
    bench = bench_of(VECTORS)
    session = Session(bench, 1)
    for number in range(20):
        session.write(number % 3, b"k%d" % number, b"v")
        bench.deliver()
        session.read((number + 1) % 3, b"k0")
    assert all(len(part) == 3 for part in parts_of(session.context))


@pytest.mark.parametrize("context", [b"x", b"\x02\x00" + bytes(8), bytes(11)])
def test_a_malformed_past_is_refused(context: bytes) -> None:
    bench = bench_of(VECTORS)
    handle = bench.request(0, Op(1, 1, WRITE, b"k", b"v", context=context))
    assert bench.replies[handle].outcome == FAIL
    assert not copies(bench)[0]


# --- writes -----------------------------------------------------------------------------


@either
def test_a_write_waits_for_what_it_depends_on(tracking: str) -> None:
    """Alice posts, Bob sees it at another node and answers: nobody sees the answer alone."""
    bench = bench_of(tracking)
    alice, bob, carol = (Session(bench, number) for number in (1, 2, 3))
    alice.write(0, b"post", b"lost my ring")
    late = [each for each in bench.wire if each[1] == 2]
    bench.deliver(among(0, 1))
    assert bob.read(1, b"post") == b"lost my ring"
    bob.write(1, b"answer", b"glad to hear that")
    bench.deliver()
    assert carol.read(2, b"answer") is None
    bench.wire = late
    bench.deliver()
    assert carol.read(2, b"answer") == b"glad to hear that"
    assert carol.read(2, b"post") == b"lost my ring"


@either
def test_concurrent_writes_settle_alike_everywhere(tracking: str) -> None:
    bench = bench_of(tracking)
    for node in bench.nodes:
        Session(bench, node + 1).write(node, b"x", b"%d" % node)
    while bench.wire:
        bench.deliver_one(len(bench.wire) - 1)
    assert copies(bench) == [{b"x": b"2"}] * 3


@either
def test_a_scan_shows_a_causally_closed_state(tracking: str) -> None:
    bench = bench_of(tracking)
    writer = Session(bench, 1)
    writer.write(0, b"a", b"1")
    late = [each for each in bench.wire if each[1] == 2]
    bench.deliver(among(0, 1))
    writer.write(1, b"b", b"2")
    bench.deliver()
    before = bench.request(2, Op(8, 1, SCAN, b"a", count=2))
    assert not {b"a", b"b"} & dict(bench.replies[before].value).keys()
    bench.wire = late
    bench.deliver()
    after = bench.request(2, Op(9, 1, SCAN, b"a", count=2))
    assert bench.replies[after].value == [(b"a", b"1"), (b"b", b"2")]
    assert max(versions_of(bench.replies[after].context)) == bench.replies[after].version


@either
def test_later_writes_win_as_far_as_clocks_agree(tracking: str) -> None:
    bench = bench_of(tracking)
    for number in range(5):
        Session(bench, number + 1).write(2, b"x", b"early")
    bench.now_ns = NS_PER_MS
    Session(bench, 9).write(0, b"x", b"late")
    bench.deliver()
    assert copies(bench) == [{b"x": b"late"}] * 3


# --- what is lost -----------------------------------------------------------------------


@either
def test_writes_of_a_node_that_is_gone_still_spread(tracking: str) -> None:
    bench = bench_of(tracking)
    Session(bench, 1).write(0, b"x", b"1")
    bench.deliver(among(0, 1))
    bench.crash(0)
    look(bench)
    assert copies(bench)[2] == {b"x": b"1"}


@either
def test_a_node_continues_its_numbers_after_a_restart(tracking: str) -> None:
    bench = bench_of(tracking)
    Session(bench, 1).write(0, b"x", b"1")
    bench.deliver()
    bench.crash(0)
    bench.restart(0)
    Session(bench, 2).write(0, b"x", b"2")
    bench.deliver()
    assert copies(bench) == [{b"x": b"2"}] * 3


@either
def test_what_was_not_durable_was_never_seen(tracking: str) -> None:
    bench = bench_of(tracking)
    bench.syncs = False
    session = Session(bench, 1)
    handle = session.ask(0, WRITE, b"x", b"1")
    assert handle not in bench.replies
    assert not bench.wire
    bench.crash(0)
    bench.syncs = True
    bench.restart(0)
    Session(bench, 2).write(0, b"x", b"2")
    bench.deliver()
    assert copies(bench) == [{b"x": b"2"}] * 3


@either
def test_a_node_that_fell_behind_the_logs_gets_a_state(tracking: str) -> None:
    bench = bench_of(tracking, keep=4)
    for number in range(40):
        Session(bench, number + 1).write(number % 2, b"k%d" % (number % 7), b"%d" % number)
        bench.deliver(among(0, 1))
        look(bench, rounds=1, wanted=among(0, 1))
    assert len(bench.machines[0]._logs[1].ops) <= 8
    bench.sent.clear()
    look(bench)
    assert any(isinstance(message, Piece) for message in bench.sent)
    assert copies(bench) == [copies(bench)[0]] * 3
    # It takes part as before, and comes back with what it was sent.
    Session(bench, 99).write(2, b"k0", b"new")
    bench.deliver()
    bench.crash(2)
    bench.restart(2)
    assert copies(bench) == [copies(bench)[0]] * 3
    assert copies(bench)[0][b"k0"] == b"new"


@either
def test_logs_are_dropped_once_everybody_has_them(tracking: str) -> None:
    bench = bench_of(tracking)
    for number in range(600):
        bench.request(0, Op(number + 1, 1, WRITE, b"k", b"%d" % number))
        bench.deliver()
    look(bench)
    assert all(not machine._logs[0].ops for machine in bench.machines)


# --- claims -----------------------------------------------------------------------------


def test_what_causal_claims() -> None:
    def claimed(replicas: int = 3, durability: str = "memory", restarts: bool = False) -> set[str]:
        made = ClaimContext(replicas, False, durability, restarts=restarts)
        return set(Causal.claims(Params(), made))

    assert claimed() == claimed(durability="fsync", restarts=True) == {levels.CAUSAL}
    assert claimed(1) == {levels.LINEARIZABLE}
    assert claimed(restarts=True) == set()
    context = ClaimContext(3, False, "memory")
    assert "other 2 nodes" in Causal.why_not(Params(), context, levels.LINEARIZABLE)
    assert "concurrent" in Causal.why_not(Params(), context, levels.CAUSAL_MEMORY)
    offered = Causal.read_levels(Params(), context)
    assert offered == levels.implied(levels.CAUSAL) - {levels.NONE}


@either
def test_causal_memory_does_not_hold(tracking: str) -> None:
    """A session's own newer x hides an older one that what it reads next follows."""
    bench = bench_of(tracking)
    one, other = Session(bench, 1), Session(bench, 2)
    one.write(0, b"z", b"1")
    one.write(0, b"x", b"1")
    one.write(0, b"y", b"1")
    bench.now_ns = NS_PER_MS
    other.write(1, b"x", b"2")
    assert other.read(1, b"z") is None
    bench.deliver()
    assert other.read(1, b"y") == b"1"
    assert other.read(1, b"x") == b"2", "after z's and x's write by the other: no order explains it"


# --- in the simulator -------------------------------------------------------------------


@either
@pytest.mark.parametrize("ordering", ["fifo", "none"])
def test_faults_break_nothing(tracking: str, ordering: str) -> None:
    for seed in range(5):
        protocol = {"name": "causal", "tracking": tracking, "interval": "20ms", "keep": 16}
        system = {"protocol": protocol, "replicas": 3 + 2 * (seed % 2)}
        overrides = ("client.sticky=false", f"system.network.ordering={ordering}", "duration=1s")
        assert problem_of(configured(seed, system, *overrides), faults=HARD) == "", f"seed {seed}"


@either
def test_each_read_gets_the_level_that_it_asks_for(tracking: str) -> None:
    words = sorted(levels.implied(levels.CAUSAL) - {levels.NONE})
    mixed = f"client.reads={{{', '.join(f'{word}: 1' for word in words)}}}"
    for seed in range(5):
        system = {"protocol": {"name": "causal", "tracking": tracking}, "replicas": 3}
        overrides = ("client.sticky=false", "system.network.ordering=none", mixed, "duration=1s")
        assert problem_of(configured(seed, system, *overrides), faults=HARD) == "", f"seed {seed}"
