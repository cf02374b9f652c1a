"""How a client's connection begins, against nodes and servers that are not what they should be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import uvloop
from server_rig import command

from orchestrator.config.load import load_mapping
from orchestrator.core.machine import OK, WRITE, Op
from orchestrator.plan import plan
from orchestrator.runtimes import _watch, _wire
from orchestrator.runtimes._greeting import (
    ANSWERS_MAX_BYTES,
    Greeting,
    NodeGreeting,
    ServerGreeting,
    connect_greeted,
)
from orchestrator.runtimes._handshake import Credentials, client_proof, node_proof
from orchestrator.runtimes._node_process import NodeProcess, NodeSpec

KNOWN = Credentials(bytes(range(32)))
NODE = 0
Answer = Callable[[list[bytes]], bytes]


class Load(asyncio.Protocol):
    """What the connection is for."""

    transport: asyncio.WriteTransport

    def __init__(self) -> None:
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's.
        self.transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self.data += data


@asynccontextmanager
async def listening(answer: Answer, heard: list[bytes]) -> AsyncIterator[tuple[str, int]]:
    """Somebody who answers each command, all words of which it has heard."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            heard.extend(words)
            writer.write(answer(words))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()


def greeted(
    answer: Answer, make: Callable[[asyncio.AbstractEventLoop], Greeting]
) -> tuple[Load, list[bytes]]:
    """Connect to who answers so; what it has heard."""
    heard: list[bytes] = []

    async def connected() -> Load:
        loop, load = asyncio.get_running_loop(), Load()
        async with listening(answer, heard) as address:
            await connect_greeted(loop, address, lambda: make(loop), load)
            load.transport.close()
            await asyncio.sleep(0.01)
        return load

    return uvloop.run(connected()), heard


def to_node(loop: asyncio.AbstractEventLoop) -> Greeting:
    return NodeGreeting(loop, KNOWN, NODE)


def honest(
    words: list[bytes], *, secret: bytes = KNOWN.secret, node: int = NODE, last: bytes = b"+OK\r\n"
) -> bytes:
    """What a node answers."""
    if words[0] == _wire.HELLO:
        proof = node_proof(secret, words[1], b"m" * 16, node)
        return b"*2\r\n" + _wire.encode_bulk(b"m" * 16) + _wire.encode_bulk(proof)
    return last


def test_the_connection_is_the_loads_once_both_have_proven_themselves() -> None:
    load, heard = greeted(honest, to_node)
    assert load.transport.is_closing()
    assert [heard[0], heard[2]] == [_wire.HELLO, _wire.PROOF]
    assert heard[3] == client_proof(KNOWN.secret, heard[1], b"m" * 16, NODE)


@pytest.mark.parametrize(
    "answer",
    [
        lambda words: honest(words, secret=bytes(32)),
        lambda words: honest(words, node=1),
        lambda words: b"*2\r\n$16\r\n" + b"m" * 16 + b"\r\n" + _wire.encode_bulk(words[1] * 2),
        lambda words: b"+OK\r\n",
        lambda words: b"-ERR unknown command\r\n",
        lambda words: b"*2\r\n:1\r\n:2\r\n",
        lambda words: b"HTTP/1.1 400\r\n",
        lambda words: b"*4000000000\r\n",
        lambda words: b"*2\r\n*99999999\r\n",
        lambda words: b"*2\r\n$16\r\n" + b"m" * 16 + b"\r\n*99999999\r\n",
        lambda words: b"*2\r\n$16\r\n" + b"m" * 16 + b"\r\n$32\r\n" + b"p" * 32 + b"xx",
        lambda words: b"*2\r\n$99999999\r\n",
        lambda words: b"(" + b"9" * 5000 + b"\r\n",
        lambda words: b"+" + b"x" * 5000,
        lambda words: b"-" + b"\r" * 5000,
        lambda words: b"+OK\n",
    ],
)
def test_nothing_is_proven_to_who_is_no_node_of_the_run(answer: Answer) -> None:
    heard: list[bytes] = []

    def noted(words: list[bytes]) -> bytes:
        heard.extend(words)
        return answer(words)

    with pytest.raises(ConnectionError):
        greeted(noted, to_node)
    assert _wire.PROOF not in heard
    assert heard[0] == _wire.HELLO


@pytest.mark.parametrize("make", [to_node, lambda loop: ServerGreeting(loop, KNOWN)])
def test_little_is_kept_of_what_is_no_answer(
    make: Callable[[asyncio.AbstractEventLoop], Greeting],
) -> None:
    async def held() -> tuple[bool, int]:
        greeting = make(asyncio.get_running_loop())
        kept_bytes = 0
        for _ in range(1000):
            greeting.data_received(b"-" + b"x" * 1000)
            kept_bytes = max(kept_bytes, sum(map(size, vars(greeting).values())))
        return isinstance(greeting.done.exception(), ConnectionError), kept_bytes

    def size(value: object) -> int:
        return len(value) if isinstance(value, bytes) else 0

    failed, kept_bytes = asyncio.run(held())
    assert failed
    assert kept_bytes <= 3 * ANSWERS_MAX_BYTES


@pytest.mark.parametrize("step", [1, 2, 7, 64])
def test_answers_may_come_in_pieces(step: int) -> None:
    async def said() -> list[bytes]:
        greeting = to_node(asyncio.get_running_loop())
        heard: list[bytes] = []
        greeting.say = lambda *words: heard.extend(words)  # type: ignore[method-assign]
        greeting.connection_made(asyncio.WriteTransport())
        for answer in (honest([_wire.HELLO, heard[1]]), b"+OK\r\n"):
            for at in range(0, len(answer), step):
                greeting.data_received(answer[at : at + step])
        await greeting.done
        return heard

    assert asyncio.run(said())[2] == _wire.PROOF


def test_a_refusal_is_told() -> None:
    with pytest.raises(ConnectionError, match="refuses: NOPROOF"):
        greeted(lambda words: honest(words, last=b"-NOPROOF x\r\n"), to_node)


def test_a_real_server_is_given_the_password_of_the_run() -> None:
    load, heard = greeted(lambda words: b"+OK\r\n", lambda loop: ServerGreeting(loop, KNOWN))
    assert load.transport.is_closing()
    assert heard == [b"AUTH", KNOWN.server_password.encode()]
    with pytest.raises(ConnectionError, match="WRONGPASS"):
        greeted(lambda words: b"-WRONGPASS x\r\n", lambda loop: ServerGreeting(loop, KNOWN))


# --- with a node's own sockets ----------------------------------------------------------


@asynccontextmanager
async def node_process(
    folder: Path, known: Credentials = KNOWN
) -> AsyncIterator[tuple[NodeProcess, tuple[str, int]]]:
    """One unreplicated node that listens and serves."""
    made = plan(load_mapping({"system": {"protocol": {"name": "unreplicated"}, "replicas": 1}}))
    loop = asyncio.get_running_loop()
    node = NodeProcess(NodeSpec(made, NODE, "127.0.0.1", str(folder), 0, known), loop)
    ports = await node.listen()
    node.connect([("127.0.0.1", ports["peer_port"])])
    node.start(time.monotonic_ns())
    try:
        yield node, ("127.0.0.1", ports["client_port"])
    finally:
        node.close()


def test_a_client_waits_until_a_node_has_room_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_watch, "CONNECTIONS_MAX", 2)

    async def crowd() -> bytes:
        loop = asyncio.get_running_loop()
        async with node_process(tmp_path) as (node, address):
            others = [await loop.create_connection(Load, *address) for _ in range(2)]
            while len(node.watch) < 2:
                await asyncio.sleep(0.005)
            with pytest.raises(OSError):
                await connect_greeted(loop, address, lambda: to_node(loop), Load())
            load = Load()
            waiting = asyncio.ensure_future(
                connect_greeted(loop, address, lambda: to_node(loop), load, 5.0)
            )
            await asyncio.sleep(0.1)
            assert not waiting.done()
            others[0][0].close()
            await waiting
            load.transport.write(_wire.encode_request(Op(9, 1, WRITE, b"k", b"v", 2)))
            while not load.data:
                await asyncio.sleep(0.005)
            return load.data

    data = uvloop.run(crowd())
    assert _wire.unpack_response(data[9:34])[3] == OK


def test_who_says_nothing_is_cut_and_a_pause_of_the_node_is_not_held_against_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that did nothing for long, as one that was stopped."""
    monkeypatch.setattr(_watch, "SWEEP_S", 0.05)

    async def scenario() -> tuple[bool, bool, bytes]:
        loop = asyncio.get_running_loop()
        serving = Credentials(KNOWN.secret, plain_clients=True)
        async with node_process(tmp_path, serving) as (_, address):
            half, whole = Load(), Load()
            for each in (half, whole):
                await loop.create_connection(lambda each=each: each, *address)  # type: ignore[misc]
            half.transport.write(command(b"PING")[:9])
            whole.transport.write(command(b"PING")[:9])
            await asyncio.sleep(0.1)
            time.sleep(1.5)  # three times what either is waited for
            await asyncio.sleep(0.06)
            early = half.transport.is_closing()
            whole.transport.write(command(b"PING")[9:])
            await asyncio.sleep(1.0)
            return early, half.transport.is_closing(), whole.data

    assert uvloop.run(scenario()) == (False, True, b"+PONG\r\n")
