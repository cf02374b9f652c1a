"""A client's links to the nodes that it asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestrator.runtimes import _wire
from orchestrator.runtimes._clock import RealClock
from orchestrator.runtimes._network import Link, Sender
from orchestrator.runtimes._parts import Parts


class LinksToNodes:
    """Those of one client; ``beside``: nodes that read its clock."""

    def __init__(self, parts: Parts, client: int, clock: RealClock, beside: frozenset[int]) -> None:
        self._parts, self._client, self._clock, self._beside = parts, client, clock, beside
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
        if node in self._beside:
            link.wait = self._stamp
        return link

    def _stamp(self, due_ns: int, write: Callable[[bytes], None], commands: bytes) -> None:
        """Let commands wait at their node, which reads the same clock."""
        write(_wire.encode_stamp(due_ns + self._clock.origin_ns) + commands)

    def lead(self, leads_ns: Mapping[int, int]) -> None:
        """What these nodes are sent takes so long of itself, which new links take off."""
        self._leads_ns = leads_ns
