"""Links between nodes over real sockets: what the end of one connection does to the others."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import uvloop
from shell_rig import Clock

from orchestrator.config.load import load_mapping
from orchestrator.core.machine import REPLICATE
from orchestrator.core.randomness import scalar_stream
from orchestrator.plan import plan
from orchestrator.runtimes import _peers
from orchestrator.runtimes._clock import RealClock
from orchestrator.runtimes._handshake import Credentials
from orchestrator.runtimes._network import Link, Sender
from orchestrator.runtimes._watch import Watch

TICKS = 200
DEADLINE_S = 10.0
CREDENTIALS = Credentials.fresh()


class Node:
    """Counts what it hears; writes out where told."""

    machines = 3

    def __init__(self, node: int) -> None:
        self.node = node
        self.credentials = CREDENTIALS
        self.peer_watch = Watch()
        self.clock: Any = Clock()
        self.flushing = False
        self.heard: list[bytes] = []
        self.incoming: list[Cut] = []
        self.dirty: list[_peers.Outgoing] = []

    def decode(self, kind: int, payload: memoryview) -> Any:
        return bytes(payload)

    def received(self, peer: int, kind: int, message: Any) -> None:
        self.heard.append(message)

    def flush_link_later(self, link: _peers.Outgoing) -> None:
        self.dirty.append(link)

    def flush(self) -> None:
        links, self.dirty = self.dirty, []
        for link in links:
            link.flush()

    def accept(self) -> Cut:
        self.incoming.append(Cut(self))
        return self.incoming[-1]


class Cut(_peers.Incoming):
    """A receiving side that can end its connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport = cast("asyncio.WriteTransport", transport)


async def _connected(link: _peers.Outgoing) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not link.connected:
            await asyncio.sleep(0)


async def _talk(here: Node, dying: Node, healthy: Node, links: list[_peers.Outgoing]) -> None:
    """One message a tick to both, whose first ends every connection somewhere in between."""
    draw = scalar_stream(1, "test/peers")
    sent = 0
    for _ in range(20):
        for link in links:
            await _connected(link)
        cut_at = draw.randrange(TICKS)
        for tick in range(TICKS):
            if tick == cut_at:
                dying.incoming[-1].transport.abort()
            for link in links:
                link.send(_peers.frame(_peers.MACHINE, b"%d" % sent), REPLICATE)
            sent += 1
            here.flush()
            await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_S):
        while len(healthy.heard) < sent:
            await asyncio.sleep(0.001)
    assert healthy.heard == [b"%d" % number for number in range(sent)]
    assert len(dying.incoming) > 10


async def _cut_again_and_again() -> None:
    loop = asyncio.get_running_loop()
    clock = RealClock(loop, 0)
    sender = Sender(plan(load_mapping({})).store.network, 1, "node/0/network")
    here, dying, healthy = Node(0), Node(1), Node(2)
    links = []
    servers = []
    for node in (dying, healthy):
        server = await loop.create_server(node.accept, "127.0.0.1", 0)
        servers.append(server)
        address = server.sockets[0].getsockname()
        links.append(_peers.Outgoing(here, loop, clock, Link(sender), node.node, address))
    try:
        await _talk(here, dying, healthy, links)
    finally:
        for link in links:
            link.close()
        for server in servers:
            server.close()
        clock.close()


def test_the_end_of_one_connection_takes_nothing_from_the_others() -> None:
    uvloop.run(_cut_again_and_again())
