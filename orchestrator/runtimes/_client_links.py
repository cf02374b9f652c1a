"""A node's links back to the clients that ask it, and what faults make of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.core.faults import CLEAR, LinkState, client_party
from orchestrator.runtimes._network import Link, LinkMeter, Sender
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._peers import Outgoing
from orchestrator.runtimes._server import Connection
from orchestrator.runtimes._session import SESSION_BITS


class ClientLinks:
    """Those of one node; ``sender``: the draws of what it answers; ``beside``: parties that read
    its clock.
    """

    def __init__(self, sender: Sender, parts: Parts, node: int, beside: frozenset[int]) -> None:
        self._sender = sender
        self._meter = LinkMeter(sender)
        self._parts = parts
        self._node = node
        self._beside = beside
        # By the party that each client is.
        self._links: dict[int, list[Link]] = {}
        self._disturbed: Mapping[int, LinkState] = {}
        self._leads_ns: Mapping[int, int] = {}

    def to(self, handle: Any) -> Link:
        """A new one to who asked; plain clients stand beside the node that they ask."""
        distance_ns = 0
        own = type(handle[0]) is Connection
        if own:
            client = (handle[1] >> SESSION_BITS) - 1
            distance_ns = self._parts.client_distance_ns(client, self._node)
        link = handle[0].connection.link = Link(self._sender, distance_ns)
        if own:
            party = client_party(client)
            link.lead_ns = self._leads_ns.get(party, 0)
            if party in self._beside:
                link.wait = handle[0].stamp
            self._links.setdefault(party, []).append(link)
            if party in self._disturbed:
                link.disturb(self._disturbed[party])
        return link

    def lead(self, leads_ns: Mapping[int, int]) -> None:
        """What is on its way to these parties takes so long of itself, of what is emulated.

        Links that are there already were for probes, which showed it.
        """
        self._leads_ns = leads_ns

    def busy_ns(self, peers: Iterable[Outgoing], now_ns: int) -> int:
        """How long the busiest of them and of those to the node's peers was in use, so far."""
        others = (peer.link for peer in peers)
        return self._meter.busy_ns(itertools.chain(others, *self._links.values()), now_ns)

    def disturb(self, links: Mapping[int, LinkState]) -> None:
        """From now on those to these parties are in these states, all others clear."""
        self._disturbed = links
        for party, each in self._links.items():
            for link in each:
                link.disturb(links.get(party, CLEAR))
