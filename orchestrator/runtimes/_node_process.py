"""A node as a process: the shell of ``_node`` between real sockets, a real disk, real time."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from orchestrator.core.faults import WELL, NodeState
from orchestrator.core.machine import RESPONSE, Op, Redirect, Reply
from orchestrator.core.randomness import scalar_stream
from orchestrator.core.record import INTERVAL_NS, STORAGE, EventRecord, NodeRecord
from orchestrator.core.units import NS_PER_S
from orchestrator.core.waiting import Refusal
from orchestrator.runtimes import _administration, _parts, _peers, _wire
from orchestrator.runtimes._blocking_calls import BlockingCalls
from orchestrator.runtimes._clock import RealClock
from orchestrator.runtimes._core_speed import loop_ns
from orchestrator.runtimes._counters import counted, journal_record
from orchestrator.runtimes._disk import GroupedLog, recovered
from orchestrator.runtimes._entries import entries_of
from orchestrator.runtimes._handshake import Credentials
from orchestrator.runtimes._journal import JOURNAL, Journal
from orchestrator.runtimes._link_probe import decode_probe
from orchestrator.runtimes._node_links import NodeLinks
from orchestrator.runtimes._overdue import Overdue
from orchestrator.runtimes._own_load import OwnLoad
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._placement import Pin
from orchestrator.runtimes._plain_line import PlainLine
from orchestrator.runtimes._plain_slot import PlainSlot, plain_sessions
from orchestrator.runtimes._process_usage import process_usage
from orchestrator.runtimes._proxy import Proxy
from orchestrator.runtimes._server import Connection
from orchestrator.runtimes._tier import messages_of, receiver
from orchestrator.runtimes._ties import Ties
from orchestrator.runtimes._visits import Visit
from orchestrator.runtimes._warming import warm_up
from orchestrator.runtimes._watch import Watch, sweeps_in
from orchestrator.systems.replicated_store import FSYNC, MEMORY

STORAGE_FAILED: Final = 74
"""Exit status of a node that could not write."""


@dataclass(frozen=True)
class NodeSpec:
    """What a node's process is told at birth."""

    parts: Parts
    node: int
    host: str
    folder: str
    origin_ns: int
    credentials: Credentials
    client_port: int = 0
    peer_port: int = 0
    restarted: bool = False
    leads_ns: Mapping[int, int] = field(default_factory=dict)
    pin: Pin | None = None
    beside: frozenset[int] = frozenset()
    """Parties that read the same clock."""


class NodeProcess:
    """One node; the outlet of its shell and the service of its connections."""

    def __init__(self, spec: NodeSpec, loop: asyncio.AbstractEventLoop) -> None:
        self._spec, self._loop = spec, loop
        parts, node, store = spec.parts, spec.node, spec.parts.store
        self.node, self.machines, self.credentials = node, parts.machines, spec.credentials
        self.clock = RealClock(loop, spec.origin_ns, parts.made_up_ns)
        self.machine = _parts.make_machine(parts, node)
        warm_up(parts, node, self.machine, restarted=spec.restarted)
        cache = _parts.make_cache(parts, node, restarted=spec.restarted)
        self.shell = _parts.make_shell(parts, node, self.machine, cache, self.clock, self)
        self._received = receiver(parts, node, self.shell)
        seed = parts.config.seed
        links = self._links = NodeLinks(parts, node, self.clock, spec.leads_ns, spec.beside)
        self.lead, self.disturb, self.probed = links.lead, links.disturb, links.answer_probe
        self.probe = links.probes.send
        self._answers_at_once, self._client_links = links.answers_at_once, links.to_clients
        self._load = OwnLoad.of(parts)
        ties = self._ties = Ties(self, self.shell, self._load, self.clock, parts.system.nodes)
        self.tied, self.sampled = ties.tied, ties.sampled
        self.cancel, self.dropped = ties.cancel, ties.dropped
        self._answers_plainly = self._answers_at_once and self._load is None
        self._state = WELL
        self._chance = scalar_stream(seed, f"node/{node}/fault")
        self._peers = links.outgoing
        self._decode = _peers.machine_decoder(messages_of(parts, node, self.machine))
        self._encoded: tuple[Any, bytes] = (None, b"")
        self._log: GroupedLog | None = None
        self._disk = BlockingCalls(loop)
        self._syncs = store.node.storage.durability == FSYNC
        if store.node.storage.durability != MEMORY:
            self._log = GroupedLog(Path(spec.folder) / f"node{node}.log", self.machine.Record)
        self._journal = Journal(Path(spec.folder) / JOURNAL if parts.may_crash else None)
        self._loops_ns = self._ticks = self._entries = 0
        # Work of this tick.
        self.pending_handles: list[Any] = []
        self.pending_ops: list[Op] = []
        self._awake = self.flushing = False
        # Peers and clients that are up already talk to a node that has not recovered yet: what
        # they say waits, else it would be answered, and logged, over what the log still holds.
        self._started = False
        self._early: list[tuple[int, int, Any]] = []
        self._dirty_links: list[_peers.Outgoing] = []
        self._dirty_connections: list[PlainLine] = []
        # Plain clients' operations: sessions, and those that other nodes serve for us.
        self.idle_slots: list[PlainSlot] = []
        self.overdue, self.patience = Overdue(), sweeps_in(parts.config.client.timeout / NS_PER_S)
        self._session_numbers = plain_sessions(node, time.time_ns())
        self._proxy = Proxy(self, self.clock, node, parts.system.nodes, parts.config.client.timeout)
        self.proxy = self._proxy.pass_on
        self.watch, self.peer_watch = Watch(self._proxy.sweep), Watch()

    # --- life -----------------------------------------------------------------------------

    async def listen(self) -> dict[str, int]:
        """Open the ports; returns them."""
        spec = self._spec
        clients = await self._loop.create_server(
            lambda: Connection(self), spec.host, spec.client_port
        )
        peers = await self._loop.create_server(
            lambda: _peers.Incoming(self), spec.host, spec.peer_port
        )
        self._servers = (clients, peers)
        self.watch.start(self._loop)
        self.peer_watch.start(self._loop)
        return {
            "client_port": clients.sockets[0].getsockname()[1],
            "peer_port": peers.sockets[0].getsockname()[1],
        }

    def connect(self, addresses: list[tuple[str, int]]) -> None:
        """Open the links to all other nodes; the machine starts when they stand."""
        self._links.connect(self, self._loop, addresses)

    def load_asked(self, connection: Connection, session: int) -> None:
        if self._load is None:
            raise ValueError("nobody asks this node for its load")
        clock, link = self.clock, connection.link or self._client_links.to((connection, session))
        in_flight, latency_ns = self._load.word(clock.now_ns())
        data = _wire.encode_load_response((in_flight + len(self.pending_ops), latency_ns))
        link.carry(clock.at, clock.moment_ns(), RESPONSE, len(data), connection.write, data)

    def start(self, origin_ns: int) -> None:
        """Start the machine; time 0 is ``origin_ns`` of this host's monotonic clock."""
        self.clock.origin_ns = origin_ns
        records = recovered(self._log, self._journal, self.node, self.clock.now_ns())
        self.shell.start(records, self._spec.parts.store.administration)
        self._started = True
        self._ties.start()
        early, self._early = self._early, []
        for frame in early:
            self.received(*frame)
        self.wake()
        first = max(0, -(-self.clock.now_ns() // INTERVAL_NS))
        self.clock.at(first * INTERVAL_NS, self._sample, first)

    @property
    def connected(self) -> bool:
        """Whether the links to all peers stand."""
        return self._links.connected

    @property
    def restarted(self) -> bool:
        """Whether it has been here before."""
        return self._spec.restarted

    @property
    def role(self) -> str:
        return self.machine.role

    def close(self) -> None:
        """Close ports, links and the log."""
        closing: list[Any] = [*self._servers, *self._peers.values(), self.watch]
        for each in closing:
            each.close()
        self.peer_watch.close()
        self._disk.close()
        if self._log is not None:
            self._log.close()
        self._journal.close()

    # --- requests in ----------------------------------------------------------------------

    def wake(self) -> None:
        if not self._awake:
            self._awake = True
            self._loop.call_soon(self._serve)

    def arrived(self, request: tuple[Any, Op]) -> None:
        self.pending_handles.append(request[0])
        self.pending_ops.append(request[1])
        self.serve_arrived()

    def serve_arrived(self) -> None:
        # With modelled costs each comes for itself, at its own time.
        (self._serve if self.shell.modelled else self.wake)()

    def _serve(self) -> None:
        self._awake = False
        self.flushing = True
        try:
            if self.pending_ops and self._started:
                handles, ops = self.pending_handles[:], self.pending_ops[:]
                self.pending_handles.clear()
                self.pending_ops.clear()
                if self._load is not None:
                    now_ns = self.clock.now_ns()
                    for handle in handles:
                        self._load.arrived(handle, now_ns)
                self.shell.requested(handles, ops)
        finally:
            self.flush()

    def flush_later(self, connection: PlainLine) -> None:
        self._dirty_connections.append(connection)
        if not self.flushing:
            self.wake()

    def flush_link_later(self, link: _peers.Outgoing) -> None:
        self._dirty_links.append(link)
        if not self.flushing:
            self.wake()

    def flush(self) -> None:
        self._ticks += 1
        self.flushing = False
        links, connections = self._dirty_links, self._dirty_connections
        self._dirty_links, self._dirty_connections = [], []
        # Peers first: they work while the answers are written.
        for link in links:
            link.flush()
        for connection in connections:
            connection.flush()

    # --- the machine's outlet -------------------------------------------------------------

    def send(self, target: int, message: Any) -> None:
        # A leader sends one message object to several peers: encode it once.
        encoded_for, data = self._encoded
        if encoded_for is not message:
            data = _peers.framed(_peers.MACHINE, message)
            self._encoded = (message, data)
        self._peers[target].send(data, message.link)

    def reply(self, reply: Reply) -> None:
        handle = reply.handle
        if self._answers_plainly and type(handle) is not Visit:
            handle[0].answer(handle, reply)
        else:
            self._answer(handle, handle[0].answer, reply)

    def redirect(self, redirect: Redirect) -> None:
        self._answer(redirect.handle, redirect.handle[0].redirect, redirect)

    def refuse(self, refusal: Refusal) -> None:
        self._answer(refusal.handle, refusal.handle[0].refuse, refusal)

    def _answer(self, handle: Any, answer: Callable[..., None], effect: Any) -> None:
        if type(handle) is Visit:
            self.shell.tracer.left(handle)
            answer = handle[0].answer_visit
        if self._load is not None:
            told = self._load.answering(effect, answer, self.clock.now_ns())
            # Only own clients want the node's word on it.
            answer = told if type(handle[0]) is Connection else answer
        if self._answers_at_once:
            answer(handle, effect)
        else:
            self._respond(handle, answer, effect)

    def _respond(self, handle: Any, answer: Callable[[Any, Any], None], effect: Any) -> None:
        """Answer after the emulated delay of the way back."""
        link = handle[0].connection.link or self._client_links.to(handle)
        if link.instant:
            answer(handle, effect)
            return
        value = getattr(effect, "value", None)
        size_bytes = len(value) if type(value) is bytes else 0
        clock, deliver = self.clock, functools.partial(answer, handle)
        if not link.carry(clock.at, clock.moment_ns(), RESPONSE, size_bytes, deliver, effect):
            handle[0].unheard(handle)

    def append(self, record: Any, replaces: bool, group: int) -> None:
        assert self._log is not None
        if self._state.full:
            self._end_itself("no room is left to write")
        self._log.append(record, replaces, group)
        if not self._syncs:
            self._log.write()
            self._log.settle()

    def sync(self, done: Callable[[], None]) -> None:
        log = self._log
        assert log is not None
        log.write()
        began_ns = self.clock.now_ns()
        self._disk.call(log.sync, functools.partial(self._synced, began_ns, done))

    def _synced(self, began_ns: int, done: Callable[[], None], error: Exception | None) -> None:
        if error is not None:
            raise error
        state = self._state
        if state.full or (state.failing and self._chance.random() < state.failing):
            self._end_itself("a sync failed")
        now_ns = self.clock.now_ns()
        longer_ns = round((now_ns - began_ns) * (state.storage_slowness - 1))
        longer_ns += state.storage_adds_ns
        if longer_ns:
            self.clock.at(now_ns + longer_ns, lambda _: done(), None)
        else:
            done()

    def note(self, kind: str, detail: str) -> None:
        self._journal.note(EventRecord(self.clock.now_ns(), self._spec.node, kind, detail))

    # --- faults ---------------------------------------------------------------------------

    def burden(self, state: NodeState) -> None:
        """From now on it is in this state."""
        self._state = state
        self.shell.burden(state)

    def _end_itself(self, why: str) -> NoReturn:
        """The storage failed: nobody may rely on this process any more."""
        self.note(STORAGE, why)
        os._exit(STORAGE_FAILED)

    # --- peers ----------------------------------------------------------------------------

    def send_frame(self, peer: int, kind: int, payload: Any, link_kind: str) -> None:
        """A frame that is not of the machine."""
        self._peers[peer].send(_peers.framed(kind, payload), link_kind)

    def decode(self, kind: int, payload: memoryview) -> Any:
        if kind == _peers.MACHINE:
            return self._decode(payload)
        if kind == _peers.CANCEL:
            return self._ties.decode(payload)
        return (decode_probe if kind in _peers.PROBES else self._proxy.decoder(kind))(payload)

    def received(self, peer: int, kind: int, message: Any) -> None:
        if kind in _peers.PROBES:
            self._links.probes.received(peer, kind, message)
        elif not self._started:
            self._early.append((peer, kind, message))
        elif kind in _peers.FOR_SHELL:
            self._entries += entries_of(message)
            self._received(peer, message)
        else:
            self._proxy.received(peer, message)

    # --- plain clients --------------------------------------------------------------------

    def new_session(self) -> int:
        return next(self._session_numbers)

    def info(self) -> bytes:
        store = self._spec.parts.store
        name = store.protocol.name
        return _administration.node_info(self.machine.role, name, store.replicas, self.node)

    # --- what it counted ------------------------------------------------------------------

    def _sample(self, number: int) -> None:
        busy_ns = self._client_links.busy_ns(self._peers.values(), self.clock.now_ns())
        # The loops add up like everything else that is counted.
        self._loops_ns += loop_ns()
        clock, disk = self.clock, self._disk
        rounds = (self._ticks, self._entries, clock.rung, clock.late_ns)
        usage = process_usage(*rounds, disk.calls, disk.cpu_ns)
        used = (self._loops_ns, *usage)
        self._journal.sample(number, (*counted(self.shell), busy_ns, *used))
        clock.at((number + 1) * INTERVAL_NS, self._sample, number + 1)

    def digest(self) -> str:
        """Fingerprint of the written state."""
        return _parts.contents_digest(self.machine)

    def record(
        self, warmup_ns: int, end_ns: int, fingerprint: bool
    ) -> tuple[NodeRecord, list[EventRecord]]:
        """Counters over the run, which ended at ``end_ns``; its contents' digest where asked."""
        digest = self.digest() if fingerprint else ""
        spec, role = self._spec, self.machine.role
        return journal_record(
            spec.parts, spec.node, spec.host, self._journal, role, warmup_ns, end_ns, digest
        )
