"""What a node's port for peers takes, and what it does not: byte by byte, without a socket."""

from __future__ import annotations

import asyncio
import random
import struct
import time
from typing import Any, cast

import msgspec
import pytest
import uvloop
from shell_rig import Clock

from orchestrator.config.load import load_mapping
from orchestrator.plan import plan
from orchestrator.runtimes import _peers, _watch
from orchestrator.runtimes._clock import RealClock
from orchestrator.runtimes._handshake import Credentials, hello_proof, welcome_proof
from orchestrator.runtimes._network import Link, Sender
from orchestrator.runtimes._peers import (
    CHALLENGE,
    FRAME_MAX_BYTES,
    GREETING_MAX_BYTES,
    HELLO,
    MACHINE,
    PROXY,
    WELCOME,
    Hello,
    frame,
)
from orchestrator.runtimes._watch import Watch

SECRET = bytes(range(32))
ACCEPTOR, NODE, MACHINES = 1, 0, 3
NONCE = b"n" * 16
DEADLINE_S = 10.0


class Transport:
    """Takes what is written until it is aborted."""

    def __init__(self) -> None:
        self.data = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.data += data

    def abort(self) -> None:
        self.closed = True


class Node:
    """Notes what it hears; frames hold a list of numbers."""

    machines = MACHINES

    def __init__(self, node: int = ACCEPTOR, secret: bytes = SECRET) -> None:
        self.node = node
        self.credentials = Credentials(secret)
        self.peer_watch = Watch()
        self.clock: Any = Clock()
        self.flushing = False
        self.heard: list[tuple[int, int, Any]] = []

    def decode(self, kind: int, payload: memoryview) -> Any:
        if kind != MACHINE:
            raise ValueError("no such kind")
        return msgspec.msgpack.decode(payload, type=list[int])

    def received(self, peer: int, kind: int, message: Any) -> None:
        self.heard.append((peer, kind, message))

    def flush_link_later(self, link: _peers.Outgoing) -> None:
        raise AssertionError("it sends nothing")

    def flush(self) -> None:
        self.flushing = False


def accept(node: Node) -> tuple[_peers.Incoming, Transport, bytes]:
    """A connection that a node has accepted: its ends, and the challenge."""
    incoming, transport = _peers.Incoming(node), Transport()
    incoming.connection_made(cast("asyncio.BaseTransport", transport))
    assert transport.data[:5] == struct.pack("<IB", 16, CHALLENGE)
    challenge, transport.data = transport.data[5:], b""
    return incoming, transport, challenge


def hello(challenge: bytes, node: int = NODE, **changes: Any) -> bytes:
    """A right answer to a challenge, but for ``changes``."""
    given: dict[str, Any] = {"secret": SECRET, "acceptor": ACCEPTOR, "nonce": NONCE} | changes
    proof = given.get("proof") or hello_proof(
        given["secret"], challenge, given["nonce"], node, given["acceptor"]
    )
    return msgspec.msgpack.encode(Hello(given.get("named", node), given["nonce"], proof))


def greet(node: Node) -> tuple[_peers.Incoming, Transport]:
    """A connection on which both sides have proven themselves."""
    incoming, transport, challenge = accept(node)
    incoming.data_received(frame(HELLO, hello(challenge)))
    transport.data = b""
    assert not transport.closed
    return incoming, transport


def message(*numbers: int) -> bytes:
    return frame(MACHINE, msgspec.msgpack.encode(list(numbers)))


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
def test_a_node_of_the_run_is_welcome_and_heard(step: int) -> None:
    node = Node()
    incoming, transport, challenge = accept(node)
    sent = frame(HELLO, hello(challenge)) + message(1, 2) + message()
    for at in range(0, len(sent), step):
        incoming.data_received(sent[at : at + step])
    proof = welcome_proof(SECRET, challenge, NONCE, NODE, ACCEPTOR)
    assert transport.data == frame(WELCOME, proof)
    assert node.heard == [(NODE, MACHINE, [1, 2]), (NODE, MACHINE, [])]
    assert incoming.proven
    assert not incoming.begun


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": bytes(32)},
        {"acceptor": 2},
        {"named": 2},
        {"node": ACCEPTOR},
        {"node": MACHINES},
        {"node": -1},
        {"nonce": b""},
        {"nonce": NONCE + b"n"},
        {"proof": b"p" * 32},
        {"proof": b"p"},
        {"proof": welcome_proof(SECRET, b"c" * 16, NONCE, NODE, ACCEPTOR)},
    ],
    ids=repr,
)
def test_a_wrong_hello_ends_the_connection(changes: dict[str, Any]) -> None:
    node = Node()
    incoming, transport, challenge = accept(node)
    incoming.data_received(frame(HELLO, hello(challenge, **changes)) + message(1))
    assert transport.closed
    assert (transport.data, node.heard, incoming.proven) == (b"", [], False)
    incoming.data_received(frame(HELLO, hello(challenge)) + message(1))
    assert node.heard == []


def test_a_proof_of_another_direction_or_another_connection_does_not_pass() -> None:
    node = Node()
    _, _, earlier = accept(node)
    incoming, transport, challenge = accept(node)
    assert earlier != challenge
    incoming.data_received(frame(HELLO, hello(earlier)))
    assert transport.closed, "replayed"
    incoming, transport, challenge = accept(node)
    own_words = welcome_proof(SECRET, challenge, NONCE, NODE, ACCEPTOR)
    incoming.data_received(frame(HELLO, hello(challenge, proof=own_words)))
    assert transport.closed, "reflected"


@pytest.mark.parametrize(
    "said",
    [
        message(1),
        frame(PROXY, b""),
        frame(CHALLENGE, bytes(16)),
        frame(WELCOME, bytes(32)),
        frame(9, b""),
        frame(HELLO, b""),
        frame(HELLO, b"\x93"),
        frame(HELLO, msgspec.msgpack.encode([0, NONCE])),
        frame(HELLO, msgspec.msgpack.encode([0, NONCE, b"", 1])),
        frame(HELLO, msgspec.msgpack.encode([2**63, NONCE, b""])),
        frame(HELLO, b"\x91" * 200),
        struct.pack("<IB", GREETING_MAX_BYTES + 1, HELLO),
        struct.pack("<IB", 2**32 - 1, HELLO),
    ],
    ids=lambda said: repr(said[:16]),
)
def test_nothing_but_hello_may_come_first(said: bytes) -> None:
    node = Node()
    incoming, transport, _ = accept(node)
    incoming.data_received(said)
    assert (transport.closed, transport.data, node.heard) == (True, b"", [])


@pytest.mark.parametrize(
    "said",
    [
        frame(MACHINE, b""),
        frame(MACHINE, b"\xc1"),
        frame(MACHINE, msgspec.msgpack.encode(["x"])),
        frame(MACHINE, b"\x91" * 100_000),
        frame(MACHINE, b"\xdd\xff\xff\xff\xff"),
        frame(HELLO, hello(bytes(16))),
        frame(CHALLENGE, bytes(16)),
        frame(200, b""),
        struct.pack("<IB", FRAME_MAX_BYTES + 1, MACHINE),
    ],
    ids=lambda said: repr(said[:16]),
)
def test_what_is_no_message_ends_its_connection_only(said: bytes) -> None:
    node = Node()
    one, ends = greet(node)
    other, others = greet(node)
    one.data_received(message(1) + said + message(2))
    other.data_received(message(3))
    assert [heard[2] for heard in node.heard] == [[1], [3]]
    assert (ends.closed, others.closed) == (True, False)


def test_an_error_of_the_machine_is_not_taken_for_a_malformed_frame() -> None:
    class Broken(Node):
        def received(self, peer: int, kind: int, message: Any) -> None:
            raise ValueError("a mistake of ours")

    node = Broken()
    incoming, _ = greet(node)
    with pytest.raises(ValueError, match="a mistake of ours"):
        incoming.data_received(message(1))


def test_large_frames_are_put_together_in_time_that_grows_with_their_size() -> None:
    node = Node()
    incoming, _ = greet(node)
    frames = message(*range(200_000)) + message(7) + message(*range(100_000)) + message(8)
    chance = random.Random(1)
    at = 0
    while at < len(frames):
        step = chance.choice((1, 4, 5, 1000, 65_536))
        incoming.data_received(frames[at : at + step])
        at += step
    assert [len(heard[2]) for heard in node.heard] == [200_000, 1, 100_000, 1]
    assert not incoming.begun


def test_a_large_frame_is_copied_once_and_not_with_every_piece() -> None:
    node = Node()
    incoming, _ = greet(node)
    # 24 MiB in pieces of 4 KiB: copying the whole with each would move 75 GB.
    large = frame(MACHINE, msgspec.msgpack.encode([2**40] * (24 << 17)))
    began_s = time.perf_counter()
    for at in range(0, len(large), 4096):
        incoming.data_received(large[at : at + 4096])
    assert len(node.heard[0][2]) == 24 << 17
    assert time.perf_counter() - began_s < 5.0


def test_strangers_who_say_nothing_lock_no_peer_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch, "UNPROVEN_MAX", 2)
    node = Node()
    strangers = [accept(node)[1] for _ in range(2)]
    incoming, transport = greet(node)
    incoming.data_received(message(1))
    assert node.heard == [(NODE, MACHINE, [1])]
    assert [each.closed for each in (*strangers, transport)] == [True, False, False]


# --- the side that connects -------------------------------------------------------------


async def answer(node: Node, replies: list[Any]) -> tuple[bool, list[bytes], int]:
    """(whether a link came to stand, what it said, how often it connected) with one who answers
    to its connection with a challenge and then with ``replies(challenge, hello)``.
    """
    loop = asyncio.get_running_loop()
    said: list[bytes] = []
    count = 0

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        challenge = b"c" * 16
        writer.write(replies[0](challenge))
        if len(replies) > 1:
            header = await reader.readexactly(5)
            payload = await reader.readexactly(struct.unpack("<IB", header)[0])
            said.append(header + payload)
            writer.write(replies[1](challenge, msgspec.msgpack.decode(payload, type=Hello)))
        said.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    clock = RealClock(loop, 0)
    link = Link(Sender(plan(load_mapping({})).store.network, 1, "node/0/network"))
    address = server.sockets[0].getsockname()[:2]
    outgoing = _peers.Outgoing(node, loop, clock, link, ACCEPTOR, address)
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not outgoing.connected and count < 2:
                await asyncio.sleep(0.005)
        return outgoing.connected, said, count
    finally:
        outgoing.close()
        server.close()
        clock.close()
        await asyncio.sleep(0.02)


def challenged(challenge: bytes) -> bytes:
    return frame(CHALLENGE, challenge)


def welcome(secret: bytes = SECRET, acceptor: int = ACCEPTOR) -> Any:
    return lambda challenge, said: frame(
        WELCOME, welcome_proof(secret, challenge, said.nonce, NODE, acceptor)
    )


def test_a_link_stands_when_both_have_proven_themselves() -> None:
    connected, said, count = uvloop.run(answer(Node(NODE), [challenged, welcome()]))
    assert (connected, count) == (True, 1)
    header = struct.unpack_from("<IB", said[0])
    assert header == (len(said[0]) - 5, HELLO)
    given = msgspec.msgpack.decode(said[0][5:], type=Hello)
    assert given.proof == hello_proof(SECRET, b"c" * 16, given.nonce, NODE, ACCEPTOR)


@pytest.mark.parametrize(
    "replies",
    [
        [challenged, welcome(secret=bytes(32))],
        [challenged, welcome(acceptor=2)],
        [challenged, lambda _, said: frame(WELCOME, said.proof)],
        [challenged, lambda _, said: frame(WELCOME, b"")],
        [challenged, lambda challenge, _: frame(CHALLENGE, challenge)],
        [lambda challenge: frame(CHALLENGE, challenge + b"c")],
        [lambda challenge: frame(WELCOME, challenge * 2)],
        [lambda challenge: frame(CHALLENGE, challenge) * 2],
        [lambda challenge: b"HTTP/1.1 200 OK\r\n\r\n"],
    ],
)
def test_nothing_is_sent_to_who_has_not_proven_itself(replies: list[Any]) -> None:
    connected, said, count = uvloop.run(answer(Node(NODE), replies))
    assert (connected, count) == (False, 2), "it tries again"
    assert {data[4:5] for data in said if data} <= {bytes([HELLO])}
