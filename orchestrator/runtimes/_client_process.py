"""A client as a process: the load driver of ``_client`` on real connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy

from orchestrator.core.faults import CLEAR, LinkState
from orchestrator.core.history import History
from orchestrator.core.record import INTERVAL_NS, ClientRecord, EventRecord, HostRecord
from orchestrator.core.units import NS_PER_S
from orchestrator.core.waiting import Tie
from orchestrator.runtimes import _wire
from orchestrator.runtimes._batching import Attempt
from orchestrator.runtimes._client import LoadDriver
from orchestrator.runtimes._client_connection import (
    Connection,
    PlainConnection,
    TaggedConnection,
    ToldConnection,
)
from orchestrator.runtimes._client_parts import make_driver
from orchestrator.runtimes._clock import RealClock
from orchestrator.runtimes._core_speed import loop_ns
from orchestrator.runtimes._greeting import connect_greeted, greeting_for
from orchestrator.runtimes._handshake import Credentials
from orchestrator.runtimes._host_load import HostSample, host_record, host_sample
from orchestrator.runtimes._link_probe import WAIT_NS, ClientProbes, Samples
from orchestrator.runtimes._links_to_nodes import LinksToNodes
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._placement import Pin
from orchestrator.runtimes._port import Leg
from orchestrator.runtimes._probing import probe_times_ns
from orchestrator.runtimes._process_usage import FIELDS, between, process_usage
from orchestrator.runtimes._session import SESSION_BITS, Session
from orchestrator.systems.replicated_store import MODELLED

RECONNECT_S: Final = 0.05
FIRST_S: Final = 10.0
"""How long a node may have too many newcomers to greet this one."""
LAG_SAMPLES: Final = 100_000
AHEAD_SHARE: Final = 0.01
"""Of the length of the load, what may go into drawing operations before it."""


@dataclass(frozen=True)
class ClientSpec:
    """What a client's process is told at birth."""

    parts: Parts
    client: int
    host: str
    origin_ns: int
    credentials: Credentials
    pin: Pin | None = None
    beside: frozenset[int] = frozenset()
    """Nodes that read the same clock."""


@dataclass(frozen=True)
class ClientReport:
    """What a client hands back; the history travels without key names.

    ``host_load``: of its host over the measured window.
    """

    history: History
    client: ClientRecord
    events: tuple[EventRecord, ...]
    latest_return_ns: int
    host_load: HostRecord


class ClientProcess:
    """One client; the port of its driver."""

    def __init__(self, spec: ClientSpec, loop: asyncio.AbstractEventLoop) -> None:
        self._spec = spec
        self._loop = loop
        parts = spec.parts
        tagged = ToldConnection if parts.told else TaggedConnection
        self._connection_type = tagged if parts.system.emulated else PlainConnection
        self._greeting = greeting_for(parts.system.emulated, loop, spec.credentials)
        self.clock = RealClock(loop, spec.origin_ns, parts.made_up_ns)
        self._links = LinksToNodes(parts, spec.client, self.clock, spec.beside)
        self._connections: list[list[Connection | None]] = []
        self._addresses: list[tuple[str, int]] = []
        self._flushing: list[Connection] = []
        self._finished: Callable[[], None] | None = None
        self._started = False
        self._closing = False
        self._crashed = False
        self._disturbed: Mapping[int, LinkState] = {}
        # Nodes whose machines are silent: the kernel would tell of their end what no network does.
        self._vanished: set[int] = set()
        # At the start and at the end of the measured window.
        self._used: list[tuple[int, ...]] = [(0,) * FIELDS] * 2
        self._wall_ns = [0, 0]
        self._host_samples: dict[int, HostSample] = {}
        self._probe_times_ns = probe_times_ns(parts, f"client/{spec.client}")
        self._probed: list[tuple[int, int]] = []
        self._loops_ns: list[int] = []
        self._ticks = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self, addresses: list[tuple[str, int]]) -> None:
        """Open all connections to all nodes and make the driver."""
        parts = self._spec.parts
        self._addresses = addresses
        count = parts.config.client.connections
        self._connections = [[None] * count for _ in addresses]
        await asyncio.gather(
            *(self._open(n, c, FIRST_S) for n in range(len(addresses)) for c in range(count))
        )
        self.driver: LoadDriver = make_driver(parts, self._spec.client, self)
        if parts.end_ns is not None:
            self.driver.draw_ahead(AHEAD_SHARE * parts.end_ns / NS_PER_S)
        self.sessions = self.driver.sessions

    async def probe(self) -> dict[int, Samples]:
        """What the links to all nodes really take; those that cannot be probed are left out."""
        session = (self._spec.client + 1) << SESSION_BITS
        emulated = self._spec.parts.system.emulated
        wait_ns = WAIT_NS if self._spec.parts.costs == MODELLED else 0
        found: dict[int, Samples] = {}

        async def one(node: int) -> None:
            probes = ClientProbes(self.clock, self._links.to(node), session, emulated, wait_ns)
            with suppress(OSError):
                at = self._addresses[node]
                await connect_greeted(self._loop, at, lambda: self._greeting(node), probes)
                found[node] = await probes.send()

        await asyncio.gather(*(one(node) for node in range(len(self._addresses))))
        return found

    def lead(self, leads_ns: Mapping[int, int]) -> None:
        """What these nodes are sent takes so long of itself, which is taken off its delays."""
        self._links.lead(leads_ns)
        for node, connections in enumerate(self._connections):
            for connection in connections:
                if connection is not None and connection.link is not None:
                    connection.link.lead_ns = leads_ns.get(node, 0)

    async def _open(self, node: int, number: int, patience_s: float = 0.0) -> None:
        link = self._links.to(node)
        if link is not None and node in self._disturbed:
            link.disturb(self._disturbed[node])
        connection = self._connection_type(self, node, number, link)
        await connect_greeted(
            self._loop, self._addresses[node], lambda: self._greeting(node), connection, patience_s
        )

    def connected(self, connection: Connection) -> None:
        self._connections[connection.node][connection.number] = connection

    def disconnected(self, connection: Connection) -> None:
        """What was under way on it may have happened; try to come back."""
        node, number = connection.node, connection.number
        if node in self._vanished:
            return
        self._connections[node][number] = None
        if self._closing or self._crashed:
            return
        now_ns = self.clock.now_ns()
        for session in list(self.sessions):
            if session.connection == number and session.is_at(node):
                self.driver.lost(session, session.sequence, now_ns, node)
        self._tasks.append(self._loop.create_task(self._reopen(node, number)))
        self.tick()

    async def _reopen(self, node: int, number: int) -> None:
        while not self._closing:
            await asyncio.sleep(RECONNECT_S)
            try:
                await self._open(node, number)
            except OSError:
                continue
            return

    # --- faults ---------------------------------------------------------------------------

    def disturb(self, links: Mapping[int, LinkState]) -> None:
        """From now on its links to these nodes are in these states, all others clear."""
        self._disturbed = links
        for node, connections in enumerate(self._connections):
            for connection in connections:
                if connection is not None and connection.link is not None:
                    connection.link.disturb(links.get(node, CLEAR))

    def vanish(self, node: int) -> None:
        """The machine of a node is about to be silent: nobody is told that connections end."""
        self._vanished.add(node)

    def reappear(self, node: int) -> None:
        """It is there again, or known to be lost: what was under way on it may have happened."""
        self._vanished.discard(node)
        now_ns = self.clock.now_ns()
        for session in list(self.sessions):
            if session.is_at(node):
                self.driver.lost(session, session.sequence, now_ns, node)
        for connection in self._connections[node]:
            if connection is not None and connection.ended:
                self.disconnected(connection)
        self.tick()

    def crash(self) -> None:
        """The application dies: its connections break, what is under way is lost to it."""
        self._crashed = True
        self.driver.crash(self.clock.now_ns())
        for connections in self._connections:
            for connection in connections:
                if connection is not None:
                    connection.close()

    def revive(self) -> None:
        """Another takes its place, on new connections."""
        self._crashed = False
        for node, connections in enumerate(self._connections):
            for number, connection in enumerate(connections):
                if connection is None:
                    self._tasks.append(self._loop.create_task(self._reopen(node, number)))
        self.driver.revive(self.clock.now_ns())
        self.tick()

    # --- Port -----------------------------------------------------------------------------

    def submit(self, session: Session, node: int) -> bool:
        if node in self._vanished:
            return True  # goes nowhere
        connection = self._connections[node][session.connection]
        if connection is None:
            return False
        connection.submit(session)
        return True

    def submit_tied(self, session: Session, node: int, tie: Tie) -> bool:
        return self.carry(node, ((session, session.op, tie, None),))

    def submit_sampled(self, session: Session, node: int, tie: Tie | None, leg: Leg) -> bool:
        return self.carry(node, ((session, session.op, tie, leg),))

    def reaches(self, node: int) -> bool:
        return node in self._vanished or self._connections[node][0] is not None

    def carry(self, node: int, attempts: Sequence[Attempt]) -> bool:
        if node in self._vanished:
            return True  # goes nowhere
        # Those that travel together have one connection.
        connection = self._connections[node][attempts[0][0].connection]
        if connection is None:
            return False
        commands = [connection.encode_attempt(each, tie, leg) for each, _, tie, leg in attempts]
        connection.send(b"".join(commands), max(each.due_ns for each, *_ in attempts))
        return True

    def ask(self, node: int) -> None:
        connection = self._connections[node][0]
        if connection is not None and node not in self._vanished:
            session = (self._spec.client + 1) << SESSION_BITS
            connection.send(_wire.encode_load_request(session), self.clock.now_ns())

    def wake_at(self, when_ns: int) -> None:
        self.clock.at(when_ns, self._poll, None)

    def _poll(self, _: None) -> None:
        self.driver.poll(self.clock.now_ns())
        self.tick()

    def flush_later(self, connection: Connection) -> None:
        if not self._flushing:
            self._loop.call_soon(self._flush)
        self._flushing.append(connection)

    def _flush(self) -> None:
        self._ticks += 1
        flushing, self._flushing = self._flushing, []
        for connection in flushing:
            connection.flush()

    # --- the run --------------------------------------------------------------------------

    def start(self, origin_ns: int) -> None:
        """Time 0 is ``origin_ns`` of this host's monotonic clock."""
        self.clock.origin_ns = origin_ns
        parts = self._spec.parts
        self.wake_at(0)
        self.clock.at(parts.recorded_from_ns, self._note_cpu, 0)
        end_ns = parts.end_ns
        if end_ns is not None:
            self.clock.at(end_ns, self._note_cpu, 1)
            # An end without traffic must be noticed too.
            self.clock.at(end_ns, lambda _: self.tick(), None)
        self._probe_later()
        self.clock.at(parts.recorded_from_ns, self._look, parts.recorded_from_ns)
        self._started = True

    def _note_cpu(self, which: int) -> None:
        self._used[which] = process_usage(self._ticks, 0, self.clock.rung, self.clock.late_ns)
        self._wall_ns[which] = self.clock.now_ns()
        self._host_samples[which] = host_sample()

    def _look(self, at_ns: int) -> None:
        """How fast the core is now, for as long as the load lasts."""
        self._loops_ns.append(loop_ns())
        end_ns, next_ns = self._spec.parts.end_ns, at_ns + INTERVAL_NS
        if end_ns is None or next_ns < end_ns:
            self.clock.at(next_ns, self._look, next_ns)

    def _probe(self, _: None) -> None:
        """How many operations are under way now; and when to look again."""
        self._probed.append((self.clock.now_ns(), self.driver.outstanding))
        self._probe_later()

    def _probe_later(self) -> None:
        at_ns = next(self._probe_times_ns, None)
        if at_ns is not None:
            self.clock.at(at_ns, self._probe, None)

    def read_back(self) -> bool:
        """Read what was written and not read back yet; False where there is nothing."""
        return self.driver.read_back(self.clock.now_ns())

    def when_finished(self, callback: Callable[[], None]) -> None:
        """Call back once everything has come back or timed out."""
        self._finished = callback
        self.tick()

    def tick(self) -> None:
        """Look whether all is done."""
        if self._finished is None or self.driver.outstanding or not self._started:
            return
        if self.driver.finished:
            finished, self._finished = self._finished, None
            finished()

    def progress(self) -> tuple[int, bool]:
        """(operations done, whether that was all)."""
        return self.driver.done, self._started and self.driver.finished

    def record(self) -> ClientReport:
        """What it saw and what it knows of itself."""
        if not self._wall_ns[1]:  # a load that ends by itself, or all of it came back early
            self._note_cpu(1)
        spec, samples = self._spec, self._host_samples
        probed = numpy.array(self._probed, dtype=numpy.int64).reshape(-1, 2)
        lag_ns = numpy.array(self.driver.lag_ns, dtype=numpy.int64)
        step = max(1, -(-len(lag_ns) // LAG_SAMPLES))
        usage = between(self._used[0], self._used[1], self._loops_ns)
        client = ClientRecord(
            client=spec.client,
            host=spec.host,
            process_cpu_ns=usage.cpu_ns,
            wall_ns=self._wall_ns[1] - self._wall_ns[0],
            lag_ns=lag_ns[::step],
            extra_attempts=self.driver.extra_attempts,
            cache_hits=self.driver.cache_hits,
            cache_lookups=self.driver.cache_lookups,
            follow_ups=self.driver.follow_ups,
            carried=self.driver.carried,
            answers_in_vain=self.driver.answers_in_vain,
            usage=usage,
            spans=self.driver.sampled(),
            probed_ns=probed[:, 0],
            outstanding=probed[:, 1],
        )
        return ClientReport(
            history=self.driver.history().without_names(),
            client=client,
            events=tuple(self.driver.router.events),
            latest_return_ns=self.driver.latest_return_ns,
            host_load=host_record(spec.host, samples.get(0, samples[1]), samples[1]),
        )

    def close(self) -> None:
        """Close all connections."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        for connections in self._connections:
            for connection in connections:
                if connection is not None:
                    connection.close()
