"""A client's links to the nodes that it asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from orchestrator.runtimes._network import Link, Sender, Wait
from orchestrator.runtimes._parts import Parts


class Stamping(Protocol):
    """A connection that can let what it sends wait at the other end: a ``Wait``."""

    link: Link | None

    @property
    def stamp(self) -> Wait: ...


class LinksToNodes:
    """Those of one client; ``beside``: nodes that read its clock."""

    def __init__(self, parts: Parts, client: int, beside: frozenset[int]) -> None:
        self._parts, self._client, self._beside = parts, client, beside
        self._sender: Sender | None = None
        if parts.system.emulated:
            seed = parts.config.seed
            self._sender = Sender(parts.store.network, seed, f"client/{client}/network")
        self._leads_ns: Mapping[int, int] = {}

    def to(self, node: int) -> Link | None:
        """A new one; None to a real server, which nothing is emulated of."""
        if self._sender is None:
            return None
        link = Link(self._sender, self._parts.client_distance_ns(self._client, node))
        link.lead_ns = self._leads_ns.get(node, 0)
        return link

    def join(self, node: int, connection: Stamping) -> None:
        """What this connection sends is for that node."""
        link = connection.link
        if link is not None and node in self._beside:
            link.wait = connection.stamp

    def lead(self, leads_ns: Mapping[int, int]) -> None:
        """What these nodes are sent takes so long of itself, which new links take off."""
        self._leads_ns = leads_ns
