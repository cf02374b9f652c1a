"""Virtual time: every node, link and client of a run in one process, deterministic.

Time is an integer of nanoseconds. Events of the same time happen in the order in which they
were scheduled, so one seed gives one history, in every process and under every hash seed.
Message objects are handed over, not encoded; with a finite bandwidth their encoded size is
what occupies the link.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy

from orchestrator.core.distributions import Sampler, build
from orchestrator.core.fault_plan import Strike
from orchestrator.core.history import History
from orchestrator.core.machine import RESPONSE, Op, Redirect, Reply
from orchestrator.core.randomness import block_stream
from orchestrator.core.record import (
    INTERVAL_NS,
    NO_COPY,
    ClientRecord,
    EventRecord,
    NodeRecord,
    RunRecord,
)
from orchestrator.core.units import NS_PER_S
from orchestrator.errors import EnvironmentFailure
from orchestrator.runtimes._counters import COUNTERS, counted, node_record
from orchestrator.runtimes._network import Link, Sender
from orchestrator.runtimes._node import NodeShell
from orchestrator.runtimes._parts import (
    Parts,
    contents_digest,
    make_cache,
    make_machine,
    make_shell,
    warm,
)
from orchestrator.runtimes._simulated_client import HEADER_BYTES, SimulatedClient
from orchestrator.runtimes._timers import Scheduler
from orchestrator.runtimes._virtual_clock import VirtualClock

SETTLE_NS: Final = 2 * NS_PER_S
"""How long replicas may take to converge after the last answer."""
SETUP_NS: Final = -NS_PER_S
"""Nodes start one second before the load, time enough to elect a leader."""

_encode = msgspec.msgpack.Encoder().encode


class SimulatedNode:
    """A node's outlet into the simulated network, and its counters over time."""

    silent = False
    """Whether its machine is gone, so that clients hear nothing of what becomes of it."""

    def __init__(self, cluster: SimulatedCluster, node: int) -> None:
        self.cluster = cluster
        self.node = node
        parts = cluster.parts
        store = parts.store
        self._clock = cluster.clock
        self._scheduler = self._shell_clock()
        self.cache = make_cache(parts, node)
        if self.cache is not None and self.cache_warm:
            warm(self.cache, parts)
        sender = Sender(store.network, parts.config.seed, f"node/{node}/network")
        self.links = {
            peer: Link(sender, parts.node_distance_ns(node, peer)) for peer in range(parts.machines)
        }
        responses = Sender(store.network, parts.config.seed, f"node/{node}/responses")
        at_once = responses.plain and not store.zones.apart and not parts.config.faults
        self._response_ns = responses.constant_ns[RESPONSE] if at_once else None
        self.client_links = [
            [
                Link(responses, parts.client_distance_ns(client, node))
                for _ in range(parts.config.client.connections)
            ]
            for client in range(parts.config.clients)
        ]
        self._sized = store.network.bandwidth is not None
        self._sync_law = Sampler(
            build(store.node.storage.sync), block_stream(parts.config.seed, f"node/{node}/sync")
        )
        # (record, whether it stands for those before it in its group, group).
        self.records: list[tuple[Any, bool, int]] = []
        self._recovered = 0
        self.samples: list[tuple[int, ...]] = []
        # What the shells before the last crash counted.
        self._counted = (0,) * len(COUNTERS)
        self.shell: NodeShell = self._new_shell()

    @property
    def cache_warm(self) -> bool:
        slot = self.cluster.parts.store.cache
        return slot is not None and slot.params.warm

    def _shell_clock(self) -> Scheduler:
        """The clock that the node's shell goes by."""
        return self._clock

    def _new_shell(self) -> NodeShell:
        parts = self.cluster.parts
        machine = make_machine(parts, self.node)
        return make_shell(parts, self.node, machine, self.cache, self._scheduler, self)

    # --- Outlet ---------------------------------------------------------------------------

    def send(self, target: int, message: Any) -> None:
        cluster, clock = self.cluster, self._clock
        if cluster.cut(self.node, target):
            return
        link = self.links[target]
        sized = self._sized or link.state.bandwidth is not None
        size_bytes = len(_encode(message)) if sized else 0
        deliver, argument = cluster.machines[target].arrive, (self.node, message)
        link.carry(clock.at, clock.current_ns, message.link, size_bytes, deliver, argument)

    def reply(self, reply: Reply) -> None:
        size_bytes = HEADER_BYTES
        value = reply.value
        if self._response_ns is None and value is not None:
            size_bytes += (
                sum(len(k) + len(v) for k, v in value) if type(value) is list else len(value)
            )
        self._respond(reply.handle, size_bytes, self.cluster.answered, reply)

    def redirect(self, redirect: Redirect) -> None:
        self._respond(redirect.handle, HEADER_BYTES, self.cluster.redirected, redirect)

    def _respond(
        self, handle: Any, size_bytes: int, callback: Callable[[Any], None], effect: Any
    ) -> None:
        clock = self._clock
        if self._response_ns is not None:
            clock.at(clock.current_ns + self._response_ns, callback, effect)
            return
        session = handle[0]
        link = self.client_links[session.client][session.connection]
        link.carry(clock.at, clock.current_ns, RESPONSE, size_bytes, callback, effect)

    def append(self, record: Any, replaces: bool, group: int) -> None:
        self.records.append((record, replaces, group))

    def sync(self, done: Callable[[], None]) -> None:
        due_ns = self._clock.current_ns + self._sync_law.draw_ns()
        self._scheduler.at(due_ns, lambda _: done(), None)

    def became(self, role: str) -> None:
        self.cluster.event(self.node, "role", role)

    # --- arrivals -------------------------------------------------------------------------

    def arrive(self, message: tuple[int, Any]) -> None:
        if not self.shell.stopped:
            self.shell.received(*message)

    def request(self, request: tuple[Any, Op]) -> None:
        if not self.shell.stopped:
            self.shell.request(*request)

    # --- life -----------------------------------------------------------------------------

    def crash(self, survivors: int = 0) -> None:
        """Lose everything but what is durable.

        ``survivors``: how many records behind the last durable one are kept all the same, as a
        disk may have written what nobody had waited for yet.
        """
        self._counted = self._counters()
        self.shell.stopped = True
        del self.records[self._recovered + self.shell.durable_records + survivors :]
        self.cluster.event(self.node, "crash", "")
        if not self.silent:
            self.disconnect()

    def disconnect(self) -> None:
        """Clients hear that their connections to it have broken."""
        for client in self.cluster.clients:
            client.disconnected(self.node)

    def _drop_replaced(self) -> None:
        first = {group: at for at, (_, all_, group) in enumerate(self.records) if all_}
        self.records = [each for at, each in enumerate(self.records) if at >= first.get(each[2], 0)]

    def restart(self) -> None:
        """Come back with the persisted records and an empty cache."""
        self.cluster.event(self.node, "restart", "")
        self.cache = make_cache(self.cluster.parts, self.node)
        self._drop_replaced()
        self._recovered = len(self.records)
        self.shell = self._new_shell()
        self.start()

    def start(self) -> None:
        """The machine starts with its records."""
        records = [record for record, _, _ in self.records]
        self.shell.start(records, self.cluster.parts.store.administration)

    def _counters(self) -> tuple[int, ...]:
        if self.shell.stopped:
            return self._counted
        pairs = zip(self._counted, counted(self.shell), strict=True)
        return tuple(before + since for before, since in pairs)

    def sample(self) -> None:
        """Note the counters at the end of an interval."""
        self.samples.append(self._counters())


class SimulatedCluster:
    """All parties of one run."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.clock = VirtualClock(SETUP_NS)
        self.events: list[EventRecord] = []
        self.severed: dict[tuple[int, int], bool] = {}
        # All machines; the nodes are those of them that hold data and that clients know.
        self.machines = [self._node(node) for node in range(parts.machines)]
        self.nodes = self.machines[: parts.system.nodes]
        self.clients = [SimulatedClient(self, client) for client in range(parts.config.clients)]

    def _node(self, node: int) -> SimulatedNode:
        return SimulatedNode(self, node)

    def event(self, node: int, kind: str, detail: str) -> None:
        self.events.append(EventRecord(self.clock.current_ns, node, kind, detail))

    def cut(self, source: int, target: int) -> bool:
        """Whether messages on this link are dropped."""
        return bool(self.severed) and self.severed.get((source, target), False)

    # --- answers --------------------------------------------------------------------------

    def answered(self, reply: Reply) -> None:
        session, sequence = reply.handle
        client = self.clients[session.client]
        driver = client.driver
        value = reply.value
        if type(value) is list:
            value = None
        driver.returned(
            session,
            sequence,
            reply.outcome,
            value,
            reply.version,
            self.clock.current_ns,
            reply.context,
        )
        if not driver.outstanding:
            client.stop_if_finished()

    def redirected(self, redirect: Redirect) -> None:
        session, sequence = redirect.handle
        driver = self.clients[session.client].driver
        driver.redirected(session, sequence, redirect.node, self.clock.current_ns)

    # --- the run --------------------------------------------------------------------------

    def start(self) -> None:
        """Start all nodes and schedule the load."""
        for machine in self.machines:
            machine.start()
        for client in self.clients:
            client.wake_at(0)
        self.clock.at(0, self._sample, None)

    def _sample(self, _: Any) -> None:
        for node in self.nodes:
            node.sample()
        self.clock.at(self.clock.current_ns + INTERVAL_NS, self._sample, None)

    def finished(self) -> bool:
        """Every client has had all its answers."""
        if self.clock.current_ns < 0:
            return False
        return all(client.driver.finished for client in self.clients)

    def run(self) -> None:
        """The whole load, then time for the replicas to converge."""
        self.start()
        self.clock.run()
        if not self.finished():
            raise EnvironmentFailure("the simulation ran out of events before the load ended")
        self.heal()
        limit_ns = self.clock.current_ns + SETTLE_NS
        while self.clock.current_ns < limit_ns and not self.converged():
            self.clock.run(self.clock.current_ns + INTERVAL_NS)

    def heal(self) -> None:
        """End all faults."""

    @property
    def strikes(self) -> tuple[Strike, ...]:
        """What faults did."""
        return ()

    def converged(self) -> bool:
        """All live replicas hold the same."""
        live = [node.shell.machine for node in self.nodes if not node.shell.stopped]
        contents = [machine.contents() for machine in live if machine.holds_copy]
        return all(content == contents[0] for content in contents[1:])


def _node_record(node: SimulatedNode, intervals: int) -> NodeRecord:
    machine = node.shell.machine
    samples = numpy.array(node.samples[: intervals + 1], dtype=numpy.int64)
    parts = node.cluster.parts
    digest = NO_COPY if node.shell.stopped else contents_digest(machine)
    return node_record(parts, node.node, "sim", machine.role, samples, 0, digest)


def _cluster_of(parts: Parts) -> SimulatedCluster:
    if not parts.config.faults:
        return SimulatedCluster(parts)
    from orchestrator.runtimes._simulated_faults import FrailCluster

    return FrailCluster(parts)


def run(parts: Parts) -> RunRecord:
    """Simulate the whole run; deterministic in the config and its seed."""
    # The collector would walk millions of live tuples again and again for nothing: no cycles.
    collecting = gc.isenabled()
    gc.disable()
    try:
        cluster = _cluster_of(parts)
        cluster.run()
    finally:
        if collecting:
            gc.enable()
    drivers = [client.driver for client in cluster.clients]
    history = History.concatenate([driver.history() for driver in drivers])
    end_ns = parts.end_ns
    if end_ns is None:
        end_ns = max(driver.latest_return_ns for driver in drivers)
    intervals = max(1, -(-end_ns // INTERVAL_NS))
    # The counters of the last interval are those at the end of the run.
    while len(cluster.nodes[0].samples) <= intervals:
        for node in cluster.nodes:
            node.sample()
    return RunRecord(
        runtime="sim",
        clock="virtual",
        history=history,
        nodes=tuple(_node_record(node, intervals) for node in cluster.nodes),
        clients=tuple(
            ClientRecord(
                client=client.client,
                host="sim",
                process_cpu_ns=0,
                wall_ns=end_ns,
                lag_ns=numpy.array(client.driver.lag_ns[:100_000], dtype=numpy.int64),
            )
            for client in cluster.clients
        ),
        events=tuple(cluster.events),
        warmup_ns=parts.config.warmup,
        end_ns=end_ns,
        offered_ops=parts.arrival.rate_per_s,
        faults=cluster.strikes,
        hosts=("sim",),
    )
