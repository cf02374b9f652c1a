"""A node behind real sockets and on a real disk: what reaches it, and what it owes whom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from server_rig import command

from orchestrator.config.load import load_mapping
from orchestrator.core.machine import WRITE, Op
from orchestrator.plan import plan
from orchestrator.protocols._quorum_copies import copy_of
from orchestrator.protocols._quorum_messages import Kept, Store
from orchestrator.runtimes import _peers, _watch
from orchestrator.runtimes._disk import GroupedLog
from orchestrator.runtimes._handshake import Credentials
from orchestrator.runtimes._node_process import NodeProcess, NodeSpec

NODE, PEER = 0, 1
NOBODY_LISTENS = [("127.0.0.1", 1)] * 3
DEADLINE_S = 10.0
SYSTEM = {
    "protocol": {"name": "abd"},
    "replicas": 3,
    "node": {"costs": "measured", "storage": {"durability": "fsync"}},
}


@asynccontextmanager
async def _node(folder: Path, *, restarted: bool) -> AsyncIterator[NodeProcess]:
    """A node that has opened its ports; closed in the end."""
    made = plan(load_mapping({"system": SYSTEM}))
    spec = NodeSpec(
        made, NODE, "127.0.0.1", str(folder), 0, Credentials.fresh(), restarted=restarted
    )
    node = NodeProcess(spec, asyncio.get_running_loop())
    await node.listen()
    node.connect(NOBODY_LISTENS)
    try:
        yield node
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
    async with _node(folder, restarted=False) as node:
        node.start(0)
        _hear(node, b"before", 1)
        await _durable(node)
    async with _node(folder, restarted=True) as node:
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
