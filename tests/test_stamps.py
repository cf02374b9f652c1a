"""Where both ends of a link read one clock, what is on its way waits where it arrives."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from server_rig import Node, command, connect
from shell_rig import Clock
from test_peer_greeting import Node as Peer
from test_peer_greeting import accept, greet, message

from orchestrator.config.load import load_mapping
from orchestrator.core.faults import LinkState
from orchestrator.core.machine import OK, READ, REPLICATE, REQUEST, Op, Reply
from orchestrator.core.record import MADE_UP_NS
from orchestrator.plan import plan
from orchestrator.runtimes import _wire
from orchestrator.runtimes._client_connection import TaggedConnection
from orchestrator.runtimes._clock import RealClock
from orchestrator.runtimes._link_survey import beside
from orchestrator.runtimes._links_to_nodes import LinksToNodes
from orchestrator.runtimes._network import Link, Sender
from orchestrator.runtimes._node_links import NodeLinks
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._peers import HELLO, MACHINE, STAMP, frame, stamp
from orchestrator.runtimes._session import SESSION_BITS

DELAY_NS = 300_000
ORIGIN_NS = 5_000_000
DELAYED: dict[str, Any] = {"system": {"network": {"delay": "300us"}}}


def link() -> Link:
    return Link(Sender(plan(load_mapping(DELAYED)).store.network, 1, "a"))


# --- the clock ----------------------------------------------------------------------------


def on_a_clock(act: Any, made_up_ns: int = MADE_UP_NS) -> None:
    async def run() -> None:
        clock = RealClock(asyncio.get_running_loop(), time.monotonic_ns(), made_up_ns)
        try:
            async with asyncio.timeout(10):
                await act(clock)
        finally:
            clock.close()

    asyncio.run(run())


def test_what_has_arrived_is_taken_up_at_its_own_time() -> None:
    async def act(clock: RealClock) -> None:
        seen: list[tuple[str, int]] = []

        def note(what: str) -> None:
            seen.append((what, clock.moment_ns()))

        due_ns = clock.now_ns() - 1000
        clock.arrive(due_ns, note, "passed")
        assert seen == [("passed", due_ns)] and clock.late_ns == 0
        # Behind what should have come before it.
        clock.at(due_ns - 1, note, "earlier")
        clock.arrive(due_ns, note, "behind")
        later_ns = clock.now_ns() + 2_000_000
        clock.arrive(later_ns, note, "later")
        assert len(seen) == 1
        while len(seen) < 4:
            await asyncio.sleep(0.001)
        assert [what for what, _ in seen[1:]] == ["earlier", "behind", "later"]
        assert clock.now_ns() >= later_ns

    on_a_clock(act)


def test_what_was_held_up_for_long_counts_as_late() -> None:
    async def act(clock: RealClock) -> None:
        moments_ns: list[int] = []
        due_ns = clock.now_ns() - 2 * MADE_UP_NS
        clock.arrive(due_ns, lambda _: moments_ns.append(clock.moment_ns()), None)
        once_ns = clock.late_ns
        assert once_ns >= 2 * MADE_UP_NS
        assert moments_ns[0] - due_ns >= once_ns
        clock.at(due_ns, moments_ns.append, 0)
        while len(moments_ns) < 2:
            await asyncio.sleep(0.001)
        assert clock.late_ns >= 2 * once_ns

    on_a_clock(act)


def test_nothing_makes_up_for_a_host_whose_costs_are_measured() -> None:
    async def act(clock: RealClock) -> None:
        late_ns: list[int] = []

        def note(due_ns: int) -> None:
            clock.not_made_up(0)
            late_ns.append(clock.moment_ns() - due_ns)

        due_ns = clock.now_ns() - 1000
        clock.arrive(due_ns, note, due_ns)
        clock.at(due_ns, note, due_ns)
        while len(late_ns) < 2:
            await asyncio.sleep(0.001)
        assert min(late_ns) >= 1000
        assert clock.late_ns == 0

    on_a_clock(act, made_up_ns=0)


# --- between nodes ------------------------------------------------------------------------


def test_a_stamped_frame_waits_at_its_receiver() -> None:
    node = Peer()
    node.clock.origin_ns = ORIGIN_NS
    incoming, transport = greet(node)
    incoming.data_received(stamp(ORIGIN_NS + 70) + message(1) + message(2))
    assert node.heard == [(0, MACHINE, [2])]
    node.clock.run(69)
    assert len(node.heard) == 1
    node.clock.run(70)
    assert node.heard[1:] == [(0, MACHINE, [1])]
    assert not transport.closed


@pytest.mark.parametrize(
    "data",
    [
        frame(STAMP, b"1234567"),
        stamp(1) + stamp(2),
        # What is no message is none on its way either.
        stamp(10**9) + frame(MACHINE, b"\xc1"),
    ],
)
def test_what_is_no_stamp_ends_the_connection(data: bytes) -> None:
    node = Peer()
    incoming, transport = greet(node)
    incoming.data_received(data)
    assert transport.closed and node.heard == []


def test_a_stranger_has_no_stamps() -> None:
    node = Peer()
    stranger, refused, _ = accept(node)
    stranger.data_received(stamp(1) + frame(HELLO, b""))
    assert refused.closed


def test_a_node_stamps_what_is_for_peers_of_its_clock() -> None:
    clock: Any = Clock()
    clock.origin_ns = ORIGIN_NS
    parts = Parts.of(load_mapping(DELAYED | {"system": {"replicas": 3, **DELAYED["system"]}}))
    links = NodeLinks(parts, 0, clock, {}, frozenset({0, 1}))
    written: list[bytes] = []
    beside, apart = links._to_peer(1), links._to_peer(2)
    for way in (beside, apart):
        way.carry(clock.at, 0, REPLICATE, 1, written.append, b"frame")
    assert written == [stamp(ORIGIN_NS + DELAY_NS) + b"frame"]
    clock.run(DELAY_NS)
    assert written[1:] == [b"frame"]


# --- between clients and nodes ------------------------------------------------------------


def test_stamped_operations_wait_at_their_node() -> None:
    node = Node()
    node.clock.origin_ns = ORIGIN_NS
    own, transport = connect(node, own=True)
    ops = [Op(1 << SESSION_BITS | 1, number, READ, b"k") for number in range(3)]
    first, *others = (_wire.encode_request(op) for op in ops)
    sent = _wire.encode_stamp(ORIGIN_NS + 70) + first + _wire.encode_stamp(ORIGIN_NS + 90)
    for byte in sent + b"".join(others):
        own.data_received(bytes([byte]))
    assert node.pending_ops == []
    node.clock.run(70)
    assert [op.sequence for op in node.pending_ops] == [0]
    # A stamp is that of all that follow.
    node.clock.run(90)
    assert [op.sequence for op in node.pending_ops] == [0, 1, 2]
    assert all(handle[0] is own for handle in node.pending_handles)
    assert not transport.closed


def test_rare_commands_wait_as_well_and_may_be_malformed() -> None:
    node = Node()
    own, transport = connect(node, own=True)
    own.data_received(_wire.encode_stamp(70) + _wire.encode_load_request(9))
    node.flush()
    assert transport.data == b""
    node.clock.run(70)
    node.flush()
    assert transport.data == _wire.encode_load_response((0, 9))
    transport.data = b""
    own.data_received(command(_wire.LOAD, b"short"))
    node.clock.run(71)
    node.flush()
    assert transport.data.startswith(b"-ERR Protocol error: malformed ABLOAD") and transport.closed


def test_what_is_on_its_way_when_its_connection_ends_is_lost() -> None:
    node = Node()
    own, _ = connect(node, own=True)
    own.data_received(_wire.encode_stamp(70) + _wire.encode_load_request(9))
    own.connection_lost(None)
    node.clock.run(70)
    assert not own._out


@pytest.mark.parametrize("words", [(), (b"1234567",), (b"12345678", b"x")])
def test_a_malformed_stamp_ends_the_connection(words: tuple[bytes, ...]) -> None:
    node = Node()
    own, transport = connect(node, own=True)
    own.data_received(command(_wire.STAMP, *words))
    node.flush()
    assert transport.data.startswith(b"-ERR Protocol error: malformed ABSTAMP")
    assert transport.closed


def test_a_plain_client_has_no_stamps() -> None:
    node = Node()
    plain, transport = connect(node)
    plain.data_received(_wire.encode_stamp(70))
    node.flush()
    assert transport.data.startswith(b"-") and transport.closed


class Client:
    """What a connection needs of its client."""

    def __init__(self) -> None:
        self.clock: Any = Clock()
        self.clock.origin_ns = ORIGIN_NS
        self.driver: Any = self
        self.sessions: list[Any] = [SimpleNamespace()]
        self.returned_ns: list[tuple[int, int]] = []
        self.ticks = 0

    def returned(self, session: Any, sequence: int, *answer: Any) -> None:
        self.returned_ns.append((sequence, answer[3]))

    def connected(self, connection: Any) -> None:
        assert connection.node == 5

    def disconnected(self, connection: Any) -> None:
        assert connection.ended

    def tick(self) -> None:
        self.ticks += 1


def test_stamped_answers_wait_at_their_client() -> None:
    node = Node()
    node.clock.origin_ns = ORIGIN_NS
    own, transport = connect(node, own=True)
    handle = (own, 1 << SESSION_BITS | 1, 4)
    own.stamp(70, lambda reply: own.answer(handle, reply), Reply(handle, OK, b"v", 8))
    own.stamp(90, lambda reply: own.answer(handle, reply), Reply(handle, OK, None, 8))
    node.flush()
    assert transport.data.startswith(b":%d\r\n*2" % (ORIGIN_NS + 70))
    client = Client()
    way = link()
    way.lead_ns = 30
    connection = TaggedConnection(cast("Any", client), 5, 0, way)
    connection.connection_made(cast("Any", Transport()))
    connection.data_received(transport.data)
    assert client.returned_ns == []
    client.clock.run(89)
    assert client.returned_ns == [(4, 70)]
    # Both ways came early by the lead, since a client is usually late by twice that.
    assert client.clock.late_ns == -60
    connection.connection_lost(None)
    client.clock.run(90)
    assert len(client.returned_ns) == 1


class Transport:
    def abort(self) -> None:
        raise AssertionError("nothing is wrong")


def test_a_client_stamps_what_its_node_is_to_wait_with(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    ways = LinksToNodes(Parts.of(load_mapping(DELAYED)), 0, client.clock, frozenset({5}))
    beside, apart = ways.to(5), ways.to(6)
    assert beside is not None and apart is not None and apart.wait is None
    connection = TaggedConnection(cast("Any", client), 5, 0, beside)
    written: list[bytes] = []
    monkeypatch.setattr(connection, "write", written.append)
    connection.send(b"asked", 0)
    # Nothing leaves before it was wanted, though an earlier wait has woken its client.
    connection.send(b"wanted later", 20)
    stamps = [_wire.encode_stamp(ORIGIN_NS + at_ns + DELAY_NS) for at_ns in (0, 20)]
    assert written == [stamps[0] + b"asked", stamps[1] + b"wanted later"]
    assert _wire.decode_stamp([b"ABSTAMP", stamps[0][-10:-2]]) == ORIGIN_NS + DELAY_NS


# --- who reads whose clock ----------------------------------------------------------------


def test_parties_of_one_clock_are_beside_each_other() -> None:
    def member(clock: str) -> Any:
        return SimpleNamespace(clock=clock)

    found = beside([member("a"), member("b")], [member("a"), member("b"), member("c")])
    a, b, c = frozenset({0, -1}), frozenset({1, -2}), frozenset({-3})
    assert found == [a, b, a, b, c]


def test_duplicates_are_stamped_each() -> None:
    """A fault that duplicates or delays works on stamped links as on all others."""
    way, at_ns = link(), []
    way.wait = lambda due_ns, deliver, argument: at_ns.append(due_ns)
    way.disturb(LinkState(duplicates=1.0))
    assert way.carry(lambda *_: pytest.fail("it waits where it arrives"), 5, REQUEST, 1, print, 0)
    assert at_ns == [5 + DELAY_NS] * 2
