"""Virtual time: every node, link and client of a run in one process, deterministic.

Time is an integer of nanoseconds. Events of the same time happen in the order in which they
were scheduled, so one seed gives one history, in every process and under every hash seed.
Message objects are handed over, not encoded; with a finite bandwidth their encoded size is
what occupies the link.
"""

from __future__ import annotations

import gc
from typing import Any, Final

import numpy

from orchestrator.core.fault_plan import Strike
from orchestrator.core.history import History
from orchestrator.core.load import Word
from orchestrator.core.machine import Redirect, Reply
from orchestrator.core.record import (
    INTERVAL_NS,
    NO_COPY,
    ClientRecord,
    EventRecord,
    HostRecord,
    NodeRecord,
    ProcessUsage,
    RunRecord,
)
from orchestrator.core.units import NS_PER_S
from orchestrator.core.waiting import Refusal
from orchestrator.errors import EnvironmentFailure
from orchestrator.runtimes._counters import node_record
from orchestrator.runtimes._parts import Parts, contents_digest, offered_ops
from orchestrator.runtimes._probing import probe_times_ns
from orchestrator.runtimes._simulated_client import SimulatedClient
from orchestrator.runtimes._simulated_node import SimulatedNode
from orchestrator.runtimes._virtual_clock import VirtualClock

SETTLE_NS: Final = 2 * NS_PER_S
"""How long replicas may take to converge after the last answer."""
SETUP_NS: Final = -NS_PER_S
"""Nodes start one second before the load, time enough to elect a leader."""


class SimulatedCluster:
    """All parties of one run."""

    settle_ns = SETTLE_NS

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.clock = VirtualClock(SETUP_NS)
        self.events: list[EventRecord] = []
        self.probed_ns: list[int] = []
        self._probe_times_ns = probe_times_ns(parts, "cluster")
        self.severed: dict[tuple[int, int], bool] = {}
        # All machines; the nodes are those of them that hold data and that clients know.
        self.machines = [self._node(node) for node in range(parts.machines)]
        self.nodes = self.machines[: parts.system.nodes]
        self.tier = [self.machines[node] for node in parts.tier_nodes]
        self.counted = [*self.nodes, *self.tier]
        self.clients = [self._client(client) for client in range(parts.config.clients)]

    def _node(self, node: int) -> SimulatedNode:
        return SimulatedNode(self, node)

    def usage(self, member: int) -> ProcessUsage | None:
        """What the process of a member (machines first, then clients) used in the measured window;
        None where there are no processes.
        """
        return None

    def host_loads(self, window_ns: int) -> tuple[HostRecord, ...]:
        """What the hosts did in a measured window of that length; empty where there are none."""
        return ()

    def _client(self, client: int) -> SimulatedClient:
        return SimulatedClient(self, client)

    def event(self, node: int, kind: str, detail: str) -> None:
        self.events.append(EventRecord(self.clock.current_ns, node, kind, detail))

    def cut(self, source: int, target: int) -> bool:
        """Whether messages on this link are dropped."""
        return bool(self.severed) and self.severed.get((source, target), False)

    # --- answers --------------------------------------------------------------------------

    def answered(self, reply: Reply, word: Word | None = None) -> None:
        session, sequence, node = reply.handle
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
            word,
            node,
        )
        if not driver.outstanding:
            client.stop_if_finished()

    def redirected(self, redirect: Redirect, word: Word | None = None) -> None:
        session, sequence, node = redirect.handle
        driver = self.clients[session.client].driver
        now_ns = self.clock.current_ns
        driver.redirected(session, sequence, redirect.node, now_ns, word, node)

    def told(self, said: tuple[int, int, Word]) -> None:
        """A client hears the word of a node that it asked."""
        client, node, word = said
        self.clients[client].driver.router.balancer.hear(node, *word, self.clock.current_ns)

    def refused(self, refusal: Refusal, word: Word | None = None) -> None:
        session, sequence, node = refusal.handle
        client, now_ns = self.clients[session.client], self.clock.current_ns
        client.driver.refused(session, sequence, refusal.wait_ns, now_ns, word, node)
        if not client.driver.outstanding:
            client.stop_if_finished()

    def visited(self, effect: Reply | Redirect | Refusal, word: Word | None = None) -> None:
        """As the others, of a sampled operation, whose client hears where its time went first."""
        session, sequence, _ = effect.handle
        driver = self.clients[session.client].driver
        assert driver.spans is not None
        driver.spans.heard(session, sequence, effect.handle.stay, self.clock.current_ns)
        if type(effect) is Reply:
            self.answered(effect, word)
        elif type(effect) is Redirect:
            self.redirected(effect, word)
        elif type(effect) is Refusal:
            self.refused(effect, word)

    # --- the run --------------------------------------------------------------------------

    def start(self) -> None:
        """Start all nodes and schedule the load."""
        for machine in self.machines:
            machine.start()
        for client in self.clients:
            client.wake_at(0)
        self.clock.at(0, self._sample, None)
        self._probe_later()

    def _sample(self, _: Any) -> None:
        for node in self.counted:
            node.sample()
        self.clock.at(self.clock.current_ns + INTERVAL_NS, self._sample, None)

    def _probe_later(self) -> None:
        at_ns = next(self._probe_times_ns, None)
        if at_ns is not None:
            self.clock.at(at_ns, self._probe, None)

    def _probe(self, _: Any) -> None:
        """How many operations each client has under way."""
        self.probed_ns.append(self.clock.current_ns)
        for client in self.clients:
            client.outstanding.append(client.driver.outstanding)
        self._probe_later()

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
        limit_ns = self.clock.current_ns + self.settle_ns
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
        first: dict[int, Any] = {}
        return all(
            content == first.setdefault(group, content)
            for machine in live
            for group, content in machine.copies().items()
        )


def _node_record(node: SimulatedNode, intervals: int) -> NodeRecord:
    machine = node.shell.machine
    samples = numpy.array(node.samples[: intervals + 1], dtype=numpy.int64)
    parts = node.cluster.parts
    digest = NO_COPY if node.shell.stopped else contents_digest(machine)
    events = node.cluster.events
    usage = node.cluster.usage(node.node)
    return node_record(parts, node.node, "sim", machine.role, samples, usage, digest, events)


def _client_record(client: SimulatedClient, probed_ns: list[int], end_ns: int) -> ClientRecord:
    cluster, driver = client.cluster, client.driver
    usage = cluster.usage(cluster.parts.machines + client.client)
    return ClientRecord(
        client=client.client,
        host="sim",
        process_cpu_ns=0 if usage is None else usage.cpu_ns,
        usage=usage,
        wall_ns=end_ns,
        lag_ns=numpy.array(driver.lag_ns[:100_000], dtype=numpy.int64),
        extra_attempts=driver.extra_attempts,
        cache_hits=driver.cache_hits,
        cache_lookups=driver.cache_lookups,
        follow_ups=driver.follow_ups,
        carried=driver.carried,
        answers_in_vain=driver.answers_in_vain,
        spans=driver.sampled(),
        probed_ns=numpy.array(probed_ns, dtype=numpy.int64),
        outstanding=numpy.array(client.outstanding, dtype=numpy.int64),
    )


def _cluster_of(parts: Parts) -> SimulatedCluster:
    if parts.profile is not None:
        from orchestrator.runtimes import _hosted

        return (_hosted.HostedFrailCluster if parts.config.faults else _hosted.HostedCluster)(parts)
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
    ejections = [event for driver in drivers for event in driver.router.events]
    end_ns = parts.end_ns
    if end_ns is None:
        end_ns = max(driver.latest_return_ns for driver in drivers)
    intervals = max(1, -(-end_ns // INTERVAL_NS))
    # The counters of the last interval are those at the end of the run.
    while len(cluster.nodes[0].samples) <= intervals:
        for node in cluster.counted:
            node.sample()
    return RunRecord(
        runtime="sim",
        clock="virtual",
        history=history,
        nodes=tuple(_node_record(node, intervals) for node in cluster.nodes),
        tier=tuple(_node_record(node, intervals) for node in cluster.tier),
        clients=tuple(
            _client_record(client, cluster.probed_ns, end_ns) for client in cluster.clients
        ),
        host_loads=cluster.host_loads(end_ns - parts.recorded_from_ns),
        events=tuple(sorted([*cluster.events, *ejections], key=lambda event: event.at_ns)),
        warmup_ns=parts.recorded_from_ns,
        end_ns=end_ns,
        offered_ops=offered_ops(parts, end_ns),
        faults=cluster.strikes,
        hosts=("sim",),
    )
