"""A node behind real sockets and on a real disk: what reaches it, and what it owes whom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from server_rig import command

from orchestrator.config.load import load_mapping
from orchestrator.core.machine import OK, RESPONSE, WRITE, Op
from orchestrator.errors import EnvironmentFailure
from orchestrator.plan import plan
from orchestrator.protocols._quorum_copies import copy_of
from orchestrator.protocols._quorum_messages import Kept, Store
from orchestrator.runtimes import _peers, _watch
from orchestrator.runtimes._disk import GroupedLog
from orchestrator.runtimes._handshake import Credentials
from orchestrator.runtimes._node_process import NodeProcess, NodeSpec
from orchestrator.runtimes._plain_slot import plain_sessions
from orchestrator.runtimes._proxy import ProxyAnswer
from orchestrator.runtimes._session import SESSION_BITS, Session

NODE, PEER = 0, 1
NOBODY_LISTENS = [("127.0.0.1", 1)] * 3
DEADLINE_S = 10.0
SYSTEM = {
    "protocol": {"name": "abd"},
    "replicas": 3,
    "node": {"costs": "measured", "storage": {"durability": "fsync"}},
}


@asynccontextmanager
async def _node(
    folder: Path, *, restarted: bool, system: dict[str, Any] = SYSTEM
) -> AsyncIterator[tuple[NodeProcess, int]]:
    """A node that has opened its ports; closed in the end."""
    made = plan(load_mapping({"system": system}))
    spec = NodeSpec(
        made,
        NODE,
        "127.0.0.1",
        str(folder),
        0,
        Credentials.fresh(plain_clients=True),
        restarted=restarted,
    )
    node = NodeProcess(spec, asyncio.get_running_loop())
    ports = await node.listen()
    node.connect(NOBODY_LISTENS[: system["replicas"]])
    try:
        yield node, ports["client_port"]
    finally:
        node.close()


def _hear(node: NodeProcess, key: bytes, number: int) -> None:
    """A peer stores a copy there."""
    copy = copy_of(Op(number, 1, WRITE, key, b"v"), number)
    message = msgspec.msgpack.encode(Store(0, [number], [copy], []))
    node.received(PEER, _peers.MACHINE, node.decode(_peers.MACHINE, memoryview(message)))


async def _durable(node: NodeProcess) -> None:
    """Wait until what it heard is on the disk."""
    async with asyncio.timeout(DEADLINE_S):
        while node.shell.durable_records < 1:
            await asyncio.sleep(0.001)


async def _hear_before_the_start(folder: Path) -> None:
    async with _node(folder, restarted=False) as (node, _):
        node.start(0)
        _hear(node, b"before", 1)
        await _durable(node)
    async with _node(folder, restarted=True) as (node, _):
        _hear(node, b"early", 2)
        assert not node.machine.contents()
        node.start(0)
        assert sorted(node.machine.contents()) == [b"before", b"early"]
        await _durable(node)


def test_what_comes_before_the_start_waits_until_the_log_is_recovered(tmp_path: Path) -> None:
    uvloop.run(_hear_before_the_start(tmp_path))
    log = GroupedLog(tmp_path / f"node{NODE}.log", Kept)
    keys = [copy.key for record in log.recover() for copy in record.received]
    log.close()
    assert keys == [b"before", b"early"]


async def _send_as_much_as_a_frame_holds(folder: Path) -> None:
    async with _node(folder, restarted=False) as (node, _):
        node.start(0)
        empty = len(msgspec.msgpack.encode(_copies(0)))
        node.send(PEER, _copies(_peers.FRAME_MAX_BYTES - empty))
        with pytest.raises(EnvironmentFailure, match=f"Store of {_peers.FRAME_MAX_BYTES + 1} byte"):
            node.send(PEER, _copies(_peers.FRAME_MAX_BYTES - empty + 1))
        with pytest.raises(EnvironmentFailure, match="ProxyAnswer of"):
            answer = ProxyAnswer(1, OK, bytes(_peers.FRAME_MAX_BYTES), 1)
            node.send_frame(PEER, _peers.PROXIED, answer, RESPONSE)


def _copies(value_bytes: int) -> Store:
    """A message with a value of that length, whose own length takes 4 bytes."""
    copy = copy_of(Op(1, 1, WRITE, b"k", bytes((1 << 16) + value_bytes)), 1)
    return Store(0, [1], [copy], [])


def test_a_message_that_no_receiver_would_take_is_an_error_and_not_sent(tmp_path: Path) -> None:
    uvloop.run(_send_as_much_as_a_frame_holds(tmp_path))


async def _asked(port: int, command: bytes) -> bytes:
    """A plain client's command, and the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(command + b"\r\n")
    async with asyncio.timeout(DEADLINE_S):
        answer = await reader.readline()
        if answer.startswith(b"$"):
            answer = await reader.readline()
    writer.close()
    return answer.strip()


async def _set_before_and_after_rebirth(folder: Path, system: dict[str, Any]) -> None:
    for value, restarted in ((b"3", False), (b"2", True), (b"1", True)):
        async with _node(folder, restarted=restarted, system=system) as (node, port):
            node.start(0)
            assert await _asked(port, b"SET k " + value) == b"+OK"
            assert await _asked(port, b"GET k") == value


@pytest.mark.parametrize(
    "protocol", ["unreplicated", "abd", "quorum", "causal", "gossip", "epaxos", "chain"]
)
def test_a_reborn_node_applies_the_first_write_of_a_plain_client(
    protocol: str, tmp_path: Path
) -> None:
    system = SYSTEM | {"protocol": {"name": protocol}, "replicas": 1}
    uvloop.run(_set_before_and_after_rebirth(tmp_path, system))


def test_sessions_of_plain_clients_are_nobody_elses() -> None:
    own = Session(499, (1 << SESSION_BITS) - 1, 1).identity
    ids = [
        (node, birth, session)
        for node in (0, 1, 254, 255, 999)
        for birth in (10**18, 10**18 + 10**7, 2 * 10**18)
        for session in islice(plain_sessions(node, birth), 1000)
    ]
    sessions = [session for _, _, session in ids]
    assert sessions == sorted(set(sessions)), "of each node and birth their own"
    assert own < 1 << 31 < sessions[0]
    assert sessions[-1] < 1 << 63


# --- strangers and plain clients --------------------------------------------------------


@asynccontextmanager
async def _serving(
    folder: Path, **network: Any
) -> AsyncIterator[tuple[NodeProcess, dict[str, int]]]:
    """A node without replicas that serves plain clients, and its ports."""
    system = {"protocol": {"name": "unreplicated"}, "replicas": 1, "network": network}
    made = plan(load_mapping({"system": system, "client": {"timeout": "100ms"}}))
    known = Credentials.fresh(plain_clients=True)
    loop = asyncio.get_running_loop()
    node = NodeProcess(NodeSpec(made, NODE, "127.0.0.1", str(folder), 0, known), loop)
    ports = await node.listen()
    node.connect([("127.0.0.1", ports["peer_port"])])
    node.start(time.monotonic_ns())
    try:
        yield node, ports
    finally:
        node.close()


def test_strangers_at_one_port_take_no_room_at_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_watch, "UNPROVEN_MAX", 2)
    monkeypatch.setattr(_watch, "CONNECTIONS_MAX", 4)

    async def crowd() -> bytes:
        async with _serving(tmp_path) as (node, ports), asyncio.timeout(DEADLINE_S):
            others = []
            reader, writer = await asyncio.open_connection("127.0.0.1", ports["peer_port"])
            challenge = await reader.readexactly(5 + 16)
            for _ in range(5):
                others.append(await asyncio.open_connection("127.0.0.1", ports["client_port"]))
            said = [await asyncio.wait_for(others[4][0].read(100), 1.0)]
            assert (len(node.watch), len(node.peer_watch)) == (4, 1)
            assert said[0].startswith(b"-ERR max number of clients")
            assert not reader.at_eof()
            for each in (writer, *(other[1] for other in others)):
                each.close()
            return challenge

    challenge = uvloop.run(crowd())
    assert challenge[4] == _peers.CHALLENGE


@pytest.mark.parametrize(
    ("network", "sessions"), [({"loss": 0.99}, 0), ({"delays": {"response": "400ms"}}, 1)]
)
def test_a_plain_client_waits_no_longer_than_the_configuration_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: dict[str, Any], sessions: int
) -> None:
    """Whether its answer is lost by the emulated network, or only late."""
    monkeypatch.setattr(_watch, "SWEEP_S", 0.05)

    async def asked() -> tuple[bytes, int, int]:
        async with _serving(tmp_path, **network) as (node, ports), asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", ports["client_port"])
            writer.write(command(b"GET", b"k") + command(b"PING"))
            said = await reader.readline() + await reader.readline()
            writer.write(command(b"PING"))
            said += await reader.readline()
            while node.overdue.operations:
                await asyncio.sleep(0.01)
            writer.close()
            return said, node.overdue.size_bytes, len(node.idle_slots)

    said = b"-UNKNOWN the operation may have been carried out\r\n+PONG\r\n+PONG\r\n"
    assert uvloop.run(asked()) == (said, 0, sessions)
