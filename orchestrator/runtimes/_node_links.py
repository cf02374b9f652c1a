"""A node's links to its peers and to clients: their emulated delays, and what changes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from orchestrator.core.faults import CLEAR, LinkState
from orchestrator.runtimes import _peers
from orchestrator.runtimes._client_links import ClientLinks
from orchestrator.runtimes._clock import RealClock
from orchestrator.runtimes._link_probe import WAIT_NS, NodeProbes, answer, session_of
from orchestrator.runtimes._network import Link, Sender
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._server import Connection
from orchestrator.systems.replicated_store import MODELLED


class NodeLinks:
    """Those of one node. ``outgoing``: by peer; ``leads_ns``: what messages to parties take of
    themselves, which comes off their delays; ``beside``: parties that read this node's clock.
    """

    def __init__(
        self,
        parts: Parts,
        node: int,
        clock: RealClock,
        leads_ns: Mapping[int, int],
        beside: frozenset[int],
    ) -> None:
        self._parts, self._node, self._clock = parts, node, clock
        network, seed = parts.store.network, parts.config.seed
        self._sender = Sender(network, seed, f"node/{node}/network")
        responses = Sender(network, seed, f"node/{node}/responses")
        at_once = responses.instant and not parts.store.zones.apart
        self.answers_at_once: Final = at_once and not parts.config.faults
        self.to_clients = ClientLinks(responses, parts, node, beside)
        self.to_clients.lead(leads_ns)
        self.outgoing: dict[int, _peers.Outgoing] = {}
        self.probes = NodeProbes(clock, self.outgoing, self._to_peer)
        self._leads_ns, self._beside = leads_ns, beside
        self._disturbed: Mapping[int, LinkState] = {}

    def connect(
        self,
        service: _peers.Service,
        loop: asyncio.AbstractEventLoop,
        addresses: Sequence[tuple[str, int]],
    ) -> None:
        """Open the links to all other nodes."""
        for peer, address in enumerate(addresses):
            if peer != self._node:
                link = self._to_peer(peer)
                link.disturb(self._disturbed.get(peer, CLEAR))
                self.outgoing[peer] = _peers.Outgoing(
                    service, loop, self._clock, link, peer, address
                )

    def _to_peer(self, peer: int) -> Link:
        link = Link(self._sender, self._parts.node_distance_ns(self._node, peer))
        link.lead_ns = self._leads_ns.get(peer, 0)
        if peer in self._beside:
            link.wait = self._stamp
        return link

    def _stamp(self, due_ns: int, write: Callable[[bytes], None], frame: bytes) -> None:
        """Let a frame wait at its peer, which reads the same clock."""
        write(_peers.stamp(due_ns + self._clock.origin_ns) + frame)

    @property
    def connected(self) -> bool:
        """Whether the links to all peers stand."""
        return all(peer.connected for peer in self.outgoing.values())

    def lead(self, leads_ns: Mapping[int, int]) -> None:
        """What these parties are sent takes so long of itself."""
        self._leads_ns = leads_ns
        for peer, outgoing in self.outgoing.items():
            outgoing.link.lead_ns = leads_ns.get(peer, 0)
        self.to_clients.lead(leads_ns)
        self.probes.begin_again()

    def disturb(self, links: Mapping[int, LinkState]) -> None:
        """From now on those to these parties are in these states, all others clear."""
        self._disturbed = links
        for peer, outgoing in self.outgoing.items():
            outgoing.link.disturb(links.get(peer, CLEAR))
        self.to_clients.disturb(links)

    def answer_probe(self, connection: Connection, request: bytes) -> None:
        """Of a client. Raises ValueError where it is none."""
        link = self.to_clients.to((connection, session_of(request)))
        wait_ns = WAIT_NS if self._parts.model_of(self._node).costs == MODELLED else 0
        answer(self._clock, link, request, connection.write, wait_ns)
