"""Nodes and clients in virtual time that run in processes of simulated hosts.

The machines, shells, links and drivers are those of every simulation. Here what arrives comes into
a process, which carries it out when it has a core, and what is said leaves at the end of its tick.
Emulated delays are waits as in real ones: of the process that receives where both are on one host,
which has one clock, else of the one that sends. They are set right by what a message takes of
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

from orchestrator.core.host_profile import HostProfile, ProtocolCosts, depth
from orchestrator.core.load import Word
from orchestrator.core.machine import READING, REQUEST, Op, Redirect, Reply
from orchestrator.core.record import HostRecord, ProcessUsage
from orchestrator.core.units import NS_PER_S
from orchestrator.core.waiting import Refusal
from orchestrator.runtimes._batching import Attempt
from orchestrator.runtimes._entries import entries_of
from orchestrator.runtimes._link_probe import SPACING_S
from orchestrator.runtimes._network import Link
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._placement import core_of, placed
from orchestrator.runtimes._process_usage import between
from orchestrator.runtimes._session import Session
from orchestrator.runtimes._simulated_client import Request, SimulatedClient
from orchestrator.runtimes._simulated_disk import SimulatedDisk
from orchestrator.runtimes._simulated_faults import FrailCluster, FrailNode
from orchestrator.runtimes._simulated_host import (
    AtWork,
    Call,
    Cores,
    SimulatedHost,
    SimulatedProcess,
)
from orchestrator.runtimes._simulated_node import SimulatedNode
from orchestrator.runtimes.simulated import SimulatedCluster


def _lead(links: Iterable[Link], profile: HostProfile) -> None:
    """What comes off emulated delays is what the median probe takes, as in real runs. A probe is
    nobody's message, so it costs what it does under the protocol that makes it cheapest.
    """
    for link in links:
        costs = profile.protocols.values()
        link.lead_ns = round(min(_hop_ns(link, profile, each) for each in costs))


def _share_clock(
    links: Iterable[Link], profile: HostProfile, sender: SimulatedProcess, client: bool
) -> None:
    """Links to whoever reads the sender's clock. A client has its answers when it has woken up for
    them, and half of that comes off each way; what a node is late by is made up.
    """
    for link in links:
        link.wait, link.lead_ns = sender.stamp, 0
        if client:
            costs = profile.protocols.values()
            link.lead_ns = round(min(_woken_ns(link, profile, each) for each in costs) / 2)


def _woken_ns(link: Link, profile: HostProfile, costs: ProtocolCosts) -> float:
    """By how much whoever waits for the end of a delay is late."""
    spacing_ns = round(SPACING_S * NS_PER_S)
    delay_ns = link.arrival_ns(0, REQUEST, 0) if link.plain else spacing_ns
    return _awake_ns(profile, costs, min(delay_ns, spacing_ns)) + profile.timer + costs.call


def _hop_ns(link: Link, profile: HostProfile, costs: ProtocolCosts) -> float:
    """The sender is woken when the delay is over, and writes; the receiver is woken, and reads."""
    sent_ns = _woken_ns(link, profile, costs) + costs.tick + costs.call
    return sent_ns + costs.call + _awake_ns(profile, costs, round(SPACING_S * NS_PER_S))


def _awake_ns(profile: HostProfile, costs: ProtocolCosts, slept_ns: int) -> float:
    """How long a process that has slept for so long takes, in the median, to go on as ever."""
    wake_ns, deep_ns = median(profile.wake), median(profile.wake_deep)
    wake_ns += depth(slept_ns) * (deep_ns - wake_ns)
    return max(wake_ns, costs.wake_up_ns(slept_ns))


class HostedNode(SimulatedNode):
    """A node in a process."""

    def __init__(self, cluster: Any, node: int) -> None:
        parts: Parts = cluster.parts
        profile = parts.profile
        assert profile is not None
        self._costs: ProtocolCosts = cluster.costs
        self._profile = profile
        self.process = cluster.process(node, self._serve)
        self._pending: list[tuple[Any, Op]] = []
        self._disk: SimulatedDisk | None = None
        super().__init__(cluster, node)
        # Outlets send by the process; whatever need not wait leaves with this tick.
        self._clock: Any = _Outlets(self.process)
        self._response_ns = None
        machines, process = parts.machines, self.process
        for peer, link in self.links.items():
            cluster.set_right([link], process, node, peer)
        for client, links in enumerate(self.client_links):
            cluster.set_right(links, process, node, machines + client)

    def _base_clock(self) -> Any:
        return self.process

    def _serve(self) -> None:
        """All operations that have been read in this tick."""
        pending, self._pending = self._pending, []
        if pending and not self.shell.stopped:
            self.shell.requested([handle for handle, _ in pending], [op for _, op in pending])

    # --- arrivals, in the process of whoever sends ----------------------------------------

    def arrive(self, message: tuple[int, Any]) -> None:
        source, what = message
        entries = entries_of(what)
        self.process.entries += entries
        cost_ns = self._costs.message + self._costs.entry * entries
        self.process.take((source, self.node), cost_ns, super().arrive, message)

    def _operation_ns(self, op: Op) -> int:
        return self._costs.read if op.kind in READING else self._costs.write

    def request(self, request: tuple[Any, Op]) -> None:
        handle, op = request
        self._take((handle, op, None, None))

    def requests(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._take(request)

    def _take(self, request: Request) -> None:
        (session, _, _), op, _, _ = request
        cost_ns = self._operation_ns(op)
        socket = (session.client, session.connection, self.node)
        self.process.take(socket, cost_ns, self._requested, request)

    def _requested(self, request: Request) -> None:
        handle, op, tie, sampled = request
        if sampled is not None and not self.shell.stopped:
            handle = self.shell.tracer.follow(handle, sampled)
            handle.charged_ns = self._operation_ns(op)
        if tie is not None:
            super().tied((handle, op, tie))
        elif self.shell.modelled or self.load is not None:
            super().request((handle, op))
        else:
            self._pending.append((handle, op))

    def asked(self, client: int) -> None:
        self.process.take((client, 0, self.node), 0, super().asked, client)

    def _draw_sync_ns(self) -> int:
        lasts_ns: int = self.process.fsync.draw_ns()
        return lasts_ns

    def _sync_ends(self, lasts_ns: int, callback: Callable[[Any], None], argument: Any) -> None:
        if self._disk is None:
            self._disk = SimulatedDisk(self.process, self._profile, self.cluster.clock)
        self._disk.sync(lasts_ns, self._heard, (callback, argument))


class HostedFrailNode(HostedNode, FrailNode):
    """One that faults can strike."""


class _Outlets:
    """What a node or a client sends by: the clock of its process."""

    def __init__(self, process: SimulatedProcess) -> None:
        self._process = process
        self.at = process.at_once
        self.now_ns = process.now_ns
        self.moment_ns = process.moment_ns

    @property
    def current_ns(self) -> int:
        return self._process.moment_ns()


class HostedClient(SimulatedClient):
    """A client in a process."""

    def __init__(self, cluster: Any, client: int) -> None:
        self.process = cluster.process(cluster.parts.machines + client, None)
        super().__init__(cluster, client)
        self.clock = self._clock = _Outlets(self.process)  # type: ignore[assignment]
        self._request_ns = None
        # To begin an operation is half of what it costs its client.
        costs: ProtocolCosts = cluster.costs
        self._begin_ns = costs.client // 2
        self.end_ns = costs.client - self._begin_ns
        if not cluster.parts.arrival.closed:
            self._begin_ns += costs.start
        member = cluster.parts.machines + client
        for node, links in enumerate(self.links):
            cluster.set_right(links, self.process, member, node)

    def submit(self, session: Session, node: int) -> bool:
        self.process.charge(self._begin_ns)
        return super().submit(session, node)

    def carry(self, node: int, attempts: Sequence[Attempt]) -> bool:
        self.process.charge(self._begin_ns * len(attempts))
        return super().carry(node, attempts)

    def wake_at(self, when_ns: int) -> None:
        self.process.at(when_ns, self._poll, when_ns)


class _Hosting(SimulatedCluster):
    """What clusters on hosts have in common, with faults and without."""

    def __init__(self, parts: Parts) -> None:
        profile = parts.profile
        assert profile is not None
        self._profile = profile
        self.costs = profile.costs_of(parts.store.protocol.name)
        self._at_work = AtWork()
        self._processes: list[SimulatedProcess] = []
        # What each had used when the measured window began, and when it ended.
        self._used: list[list[tuple[int, ...]]] = []
        hosts = [str(number) for number in range(parts.config.hosts.count)]
        of_nodes, of_clients = placed(hosts, parts.machines, parts.config.clients)
        self._placed = [int(host) for host in of_nodes + of_clients]
        self.hosts = [
            SimulatedHost(profile, parts.config.hosts.pin, self._at_work) for host in hosts
        ]
        super().__init__(parts)

    def process(self, member: int, served: Callable[[], None] | None) -> SimulatedProcess:
        """A new process for a member: nodes first, then clients."""
        parts, placed_on = self.parts, self._placed[member]
        host = self.hosts[placed_on]
        core = core_of(self._placed, member, parts.machines, self._profile.cores)
        cores: Cores = host.pool(core)
        name, seed, loops = f"process/{member}", parts.config.seed, parts.config.hosts.loops
        loops_ns = loops[member if len(loops) > 1 else 0] if loops else ()
        made = SimulatedProcess(
            self.clock, host, cores, self.costs, seed, name, served, loops_ns, parts.made_up_ns
        )
        self._processes.append(made)
        return made

    def set_right(
        self, links: Iterable[Link], sender: SimulatedProcess, member: int, other: int
    ) -> None:
        """Links of a member to another one take what was asked, as far as that is known."""
        if self._placed[member] == self._placed[other]:
            with_client = max(member, other) >= self.parts.machines
            _share_clock(links, self._profile, sender, with_client)
        else:
            _lead(links, self._profile)

    # --- what they use --------------------------------------------------------------------

    def start(self) -> None:
        super().start()
        self.clock.at(self.parts.recorded_from_ns, self._note, None)
        if self.parts.end_ns is not None:
            self.clock.at(self.parts.end_ns, self._note, None)

    def _note(self, _: None) -> None:
        self._used.append([process.used() for process in self._processes])

    def usage(self, member: int) -> ProcessUsage:
        """What a member's process used in the measured window."""
        if len(self._used) < 2:
            self._note(None)
        return between(self._used[0][member], self._used[-1][member])

    def host_loads(self, window_ns: int) -> tuple[HostRecord, ...]:
        used_ns = [0] * len(self.hosts)
        for member, host in enumerate(self._placed):
            used_ns[host] += self.usage(member).cpu_ns
        all_ns = max(1, window_ns) * self._profile.cores
        others = self._profile.background
        return tuple(
            HostRecord(f"host {host}", busy=min(1.0, used / all_ns + others))
            for host, used in enumerate(used_ns)
        )

    def _client(self, client: int) -> SimulatedClient:
        return HostedClient(self, client)

    # --- answers, in the process of the node and then in that of the client ----------------

    def _arrived(self, effect: Any, callback: Call, word: Word | None) -> bool:
        """Whether it has come to its client; else it is on its way there from now on."""
        session, _, node = effect.handle
        client = self.clients[session.client]
        assert isinstance(client, HostedClient)
        if self._at_work.process is client.process:
            return True
        socket = (session.client, session.connection, node)
        client.process.take(socket, client.end_ns, callback, (effect, word))
        return False

    def answered(self, reply: Reply, word: Word | None = None) -> None:
        if self._arrived(reply, lambda said: self.answered(*said), word):
            super().answered(reply, word)

    def redirected(self, redirect: Redirect, word: Word | None = None) -> None:
        if self._arrived(redirect, lambda said: self.redirected(*said), word):
            super().redirected(redirect, word)

    def refused(self, refusal: Refusal, word: Word | None = None) -> None:
        if self._arrived(refusal, lambda said: self.refused(*said), word):
            super().refused(refusal, word)

    def visited(self, effect: Reply | Redirect | Refusal, word: Word | None = None) -> None:
        if self._arrived(effect, lambda said: self.visited(*said), word):
            super().visited(effect, word)

    def told(self, said: tuple[int, int, Word]) -> None:
        client, node, _ = said
        hosted = self.clients[client]
        assert isinstance(hosted, HostedClient)
        hosted.process.take((client, 0, node), 0, super().told, said)


class HostedCluster(_Hosting):
    """All parties of a run on simulated hosts."""

    def _node(self, node: int) -> SimulatedNode:
        return HostedNode(self, node)


class HostedFrailCluster(_Hosting, FrailCluster):
    """The same with faults."""

    def _node(self, node: int) -> SimulatedNode:
        made = HostedFrailNode(self, node)
        self.frail.append(made)
        return made
