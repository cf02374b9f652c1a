"""A client in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.machine import REQUEST, Op
from orchestrator.core.waiting import Tie
from orchestrator.runtimes._batching import Attempt
from orchestrator.runtimes._client import LoadDriver
from orchestrator.runtimes._client_parts import make_driver
from orchestrator.runtimes._network import Link, Sender
from orchestrator.runtimes._port import Leg
from orchestrator.runtimes._session import Session

if TYPE_CHECKING:
    from orchestrator.runtimes.simulated import SimulatedCluster

HEADER_BYTES: Final = 60
"""Of a request or response, beside key and value."""

Request = tuple[Any, Op, Tie | None, int | None]
"""Handle, operation, tie of one of two copies, and number of the attempt at a sampled one."""


class SimulatedClient:
    """A client's port into the simulated network."""

    def __init__(self, cluster: SimulatedCluster, client: int) -> None:
        parts = cluster.parts
        self.client = client
        self.cluster = cluster
        self.clock = self._clock = cluster.clock
        self._machines = cluster.machines
        sender = Sender(parts.store.network, parts.config.seed, f"client/{client}/network")
        at_once = sender.plain and not parts.store.zones.apart and not parts.config.faults
        self._request_ns = sender.constant_ns[REQUEST] if at_once else None
        self.links = [
            [
                Link(sender, parts.client_distance_ns(client, node))
                for _ in range(parts.config.client.connections)
            ]
            for node in range(parts.reachable)
        ]
        self.outstanding: list[int] = []
        self.driver: LoadDriver = make_driver(parts, client, self)

    def submit(self, session: Session, node: int) -> bool:
        target, clock, op = self._machines[node], self._clock, session.op
        if target.shell.stopped:
            return target.silent
        request = ((session, op.sequence, node), op)
        if self._request_ns is not None:
            clock.at(clock.current_ns + self._request_ns, target.request, request)
        else:
            size_bytes = HEADER_BYTES + len(op.key) + len(op.value or b"")
            link = self.links[node][session.connection]
            link.carry(clock.at, clock.current_ns, REQUEST, size_bytes, target.request, request)
        return True

    def submit_tied(self, session: Session, node: int, tie: Tie) -> bool:
        return self.carry(node, ((session, session.op, tie, None),))

    def submit_sampled(self, session: Session, node: int, tie: Tie | None, leg: Leg) -> bool:
        return self.carry(node, ((session, session.op, tie, leg),))

    def reaches(self, node: int) -> bool:
        target = self._machines[node]
        return not target.shell.stopped or target.silent

    def carry(self, node: int, attempts: Sequence[Attempt]) -> bool:
        target, clock = self._machines[node], self._clock
        if target.shell.stopped:
            return target.silent
        requests: list[Request] = []
        size_bytes = 0
        for session, op, tie, leg in attempts:
            requests.append(
                ((session, op.sequence, node), op, tie, None if leg is None else leg.number)
            )
            size_bytes += HEADER_BYTES + len(op.key) + len(op.value or b"")
            if leg is not None:
                leg.sent_ns = clock.now_ns()
        # Those that travel together have one connection.
        link = self.links[node][attempts[0][0].connection]
        link.carry(clock.at, clock.current_ns, REQUEST, size_bytes, target.requests, requests)
        return True

    def ask(self, node: int) -> None:
        target, clock = self.cluster.nodes[node], self._clock
        if self._request_ns is not None:
            clock.at(clock.current_ns + self._request_ns, target.asked, self.client)
        else:
            link = self.links[node][0]
            link.carry(clock.at, clock.current_ns, REQUEST, HEADER_BYTES, target.asked, self.client)

    def disconnected(self, node: int) -> None:
        """Connections to a node broke: what was under way there is lost."""
        now_ns = self._clock.current_ns
        for session in self.driver.sessions:
            if session.is_at(node):
                self._clock.at(now_ns, self._lost, (session, session.sequence, node))

    def _lost(self, operation: tuple[Session, int, int]) -> None:
        session, sequence, node = operation
        self.driver.lost(session, sequence, self._clock.current_ns, node)
        self.stop_if_finished()

    def wake_at(self, when_ns: int) -> None:
        self._clock.at(when_ns, self._poll, when_ns)

    def _poll(self, _: int) -> None:
        self.driver.poll(self._clock.now_ns())
        self.stop_if_finished()

    def stop_if_finished(self) -> None:
        """Stop the clock after the last answer."""
        if self.driver.outstanding == 0 and self.cluster.finished():
            self.cluster.clock.stopping = True
