"""A node behind real sockets and on a real disk: what reaches it before it has started, what it
will not send.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import uvloop

from orchestrator.config.load import load_mapping
from orchestrator.core.machine import OK, RESPONSE, WRITE, Op
from orchestrator.errors import EnvironmentFailure
from orchestrator.plan import plan
from orchestrator.protocols._quorum_copies import copy_of
from orchestrator.protocols._quorum_messages import Kept, Store
from orchestrator.runtimes import _peers
from orchestrator.runtimes._disk import GroupedLog
from orchestrator.runtimes._handshake import Credentials
from orchestrator.runtimes._node_process import NodeProcess, NodeSpec
from orchestrator.runtimes._proxy import ProxyAnswer

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


async def _send_as_much_as_a_frame_holds(folder: Path) -> None:
    async with _node(folder, restarted=False) as node:
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
