"""The processes of one run on Ray: deployed, started, watched, collected, ended.

Every remote wait has a deadline, and a part that is lost is noted instead of waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from orchestrator.core.history import History
from orchestrator.core.record import (
    LOST,
    EventRecord,
    LinkRecord,
    NodeRecord,
    RunRecord,
    digests_to_compare,
    host_loads,
)
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.errors import EnvironmentFailure, PartLost
from orchestrator.runtimes._client_process import ClientReport, ClientSpec
from orchestrator.runtimes._conductor import Conductor
from orchestrator.runtimes._handshake import Credentials
from orchestrator.runtimes._host_clock import (
    SAME_CLOCK,
    ClockTrack,
    Reading,
    apart_ns,
    clock_tracks,
    read_clocks,
)
from orchestrator.runtimes._link_survey import beside, probed_links
from orchestrator.runtimes._member import CALL_S, Member, gather, gather_all
from orchestrator.runtimes._node_process import NodeSpec
from orchestrator.runtimes._parts import Parts, offered_ops
from orchestrator.runtimes._placement import pins
from orchestrator.runtimes._read_back import PASS_NS, PASSES
from orchestrator.runtimes._supervisor import Rebirth

CONNECT_S: Final = 20.0
PRELOAD_S: Final = 300.0
"""For a system that is not emulated, whose data is really written."""
STOP_S: Final = 10.0
DRAIN_S: Final = 10.0
"""Beyond the end of the load and the clients' timeout."""
STALL_S: Final = 30.0
"""A load that ends by itself (a trace) is given up after this long without progress."""
START_MARGIN_NS: Final = 60 * NS_PER_MS
START_MARGIN_PER_ACTOR_NS: Final = 6 * NS_PER_MS
SETTLE_S: Final = 2.0
HEAL_S: Final = 10.0
"""For the replicas to converge after faults, at most."""


class Deployment:
    """The processes of one run."""

    def __init__(
        self,
        parts: Parts,
        nodes: Sequence[Member],
        clients: Sequence[Member],
        credentials: Credentials,
    ) -> None:
        self._parts = parts
        self.credentials = credentials
        self._nodes = list(nodes)
        self._clients = list(clients)
        self._specs: list[NodeSpec] = []
        self.node_pids: list[int] = []
        self.client_pids: list[int] = []
        where = [member.host_id for member in (*nodes, *clients)]
        self._pins = pins(parts.config.hosts.pin, where, len(nodes))
        self._beside = beside(nodes, clients)
        self._origin_ns = 0
        self._began_s = time.monotonic()
        self._conductor: Conductor | None = None
        self.links: tuple[LinkRecord, ...] = ()
        # Other clocks than the driver's, by name: as they were before the run.
        self._readings: dict[str, Reading] = {}
        # The first that went wrong with each lost part, by its name.
        self._lost: dict[str, str] = {}

    # --- deploying ------------------------------------------------------------------------

    def deploy(self, first_port: int = 0) -> None:
        """Fork everything, open all ports and connections."""
        parts = self._parts
        now_ns = time.monotonic_ns()
        members = self._nodes + self._clients
        forking = [m.actor.fresh.remote() for m in members]
        forked = gather_all(members, forking, CALL_S, "forking processes")
        pids = [pid for _, pid in forked]
        self.node_pids, self.client_pids = pids[: len(self._nodes)], pids[len(self._nodes) :]
        self._specs = [
            NodeSpec(
                parts,
                node,
                member.host,
                forked[node][0],
                now_ns,
                self.credentials,
                client_port=first_port + node if first_port else 0,
                pin=self._pins[node],
                beside=self._beside[node],
            )
            for node, member in enumerate(self._nodes)
        ]
        ports = self._all_nodes("node", lambda node: (self._specs[node],), "starting nodes")
        self._specs = [
            replace(spec, client_port=port["client_port"], peer_port=port["peer_port"])
            for spec, port in zip(self._specs, ports, strict=True)
        ]
        self._connect(now_ns)
        self._readings = self._read_clocks()
        self.links, leads_ns = probed_links(self._nodes, self._clients)
        self._specs = [replace(spec, leads_ns=leads_ns[spec.node]) for spec in self._specs]
        if not parts.system.emulated:
            loading = self._clients[0].call(
                "preload", parts, self.client_addresses[0], self.credentials, timeout_s=PRELOAD_S
            )
            gather_all(
                self._clients[:1], [loading], PRELOAD_S + CALL_S, "loading the data", self._nodes
            )

    def _connect(self, now_ns: int) -> None:
        """All connections of clients, and of nodes to each other."""
        known, nodes = (now_ns, self.credentials), len(self._nodes)
        where = zip(self._pins[nodes:], self._beside[nodes:], strict=True)
        specs = [
            ClientSpec(self._parts, client, member.host, *known, *place)
            for client, (member, place) in enumerate(zip(self._clients, where, strict=True))
        ]
        connecting = [
            member.call("client", spec, self.client_addresses)
            for member, spec in zip(self._clients, specs, strict=True)
        ]
        self._all_nodes("connect", lambda node: (self.peer_addresses,), "connecting nodes")
        gather_all(self._clients, connecting, CONNECT_S, "connecting clients")

    def _read_clocks(self) -> dict[str, Reading]:
        return read_clocks(m for m in self._nodes + self._clients if not m.is_silent())

    def _origin_on(self, member: Member) -> int:
        """Time 0 by the clock of a host."""
        return self._origin_ns + self._readings.get(member.clock, SAME_CLOCK).offset_ns

    @property
    def peer_addresses(self) -> list[tuple[str, int]]:
        """Where the nodes listen for each other."""
        return [(spec.host, spec.peer_port) for spec in self._specs]

    @property
    def client_addresses(self) -> list[tuple[str, int]]:
        """Where the nodes listen for clients."""
        return [(spec.host, spec.client_port) for spec in self._specs[: self._parts.reachable]]

    def _all_nodes(
        self, name: str, arguments: Callable[[int], tuple[Any, ...]], what: str
    ) -> list[Any]:
        references = [
            member.call(name, *arguments(node)) for node, member in enumerate(self._nodes)
        ]
        return gather_all(self._nodes, references, CONNECT_S, what)

    # --- running --------------------------------------------------------------------------

    def start(self) -> int:
        """Start machines and load; returns time 0 on this host's monotonic clock."""
        members = self._nodes + self._clients
        margin_ns = START_MARGIN_NS + START_MARGIN_PER_ACTOR_NS * len(members)
        self._origin_ns = time.monotonic_ns() + margin_ns
        starting = [m.call("start", self._origin_on(m)) for m in members]
        gather_all(members, starting, CALL_S, "starting the load")
        if self._parts.returning:
            for spec, member in zip(self._specs, self._nodes, strict=True):
                again = replace(spec, restarted=True)
                rebirth = Rebirth(again, self._origin_on(member), self.peer_addresses)
                member.actor.watch.remote(rebirth)
        if self._parts.config.faults:
            self._conductor = Conductor(self._parts, self._nodes, self._clients, self._origin_ns)
        return self._origin_ns

    def wait(self) -> None:
        """Until every client is done, and all is healed and read back where there were faults.

        A client that is lost or late is noted as lost.
        """
        if self._parts.end_ns is None:
            self._wait_for_progress()
        else:
            left_ns = self._origin_ns + self._parts.end_ns - time.monotonic_ns()
            self._finish(left_ns / NS_PER_S)
        if self._conductor is None:
            return
        self._conductor.heal()
        for number, problem in enumerate(self._conductor.problems):
            self._lost[f"fault {number}"] = problem
        if self._lost:
            return  # what is read back now would say nothing
        self._settle(HEAL_S)
        for _ in range(PASSES):
            reading = [m.call("read_back") for m in self._clients]
            if not any(self._collect_each(self._clients, reading, "client")):
                return
            self._finish(PASS_NS / NS_PER_S)

    def _finish(self, load_s: float) -> None:
        """Until all that clients have begun, and will begin for so long, has come back."""
        limit_s = load_s + self._parts.config.client.timeout / NS_PER_S + DRAIN_S
        finishing = [m.call("finish", timeout_s=limit_s) for m in self._clients]
        self._collect_each(self._clients, finishing, "client", limit_s + CALL_S)

    def _wait_for_progress(self) -> None:
        """A load that ends by itself may take any time, as long as it goes on."""
        done: list[Any] = []
        moved_s = time.monotonic()
        while True:
            asked = [m.call("progress") for m in self._clients]
            progress = gather_all(self._clients, asked, CALL_S, "watching clients")
            if all(finished for _, finished in progress):
                return
            if progress != done:
                done, moved_s = progress, time.monotonic()
            elif time.monotonic() - moved_s > STALL_S:
                raise PartLost(f"the load made no progress in {STALL_S:.0f} s")
            time.sleep(0.1)

    # --- collecting -----------------------------------------------------------------------

    def _collect_each(
        self,
        members: Sequence[Member],
        references: Sequence[Any],
        name: str,
        timeout_s: float = CALL_S,
    ) -> list[Any]:
        """Results by index; None and a note where a part is lost."""
        results: list[Any] = []
        answers = gather(members, references, timeout_s, name)
        for index, answer in enumerate(answers):
            lost = isinstance(answer, EnvironmentFailure)
            results.append(None if lost else answer)
            if lost:
                reason = str(answer).removeprefix(f"{name}: ")
                self._lost.setdefault(f"{name} {index}", f"{name} {index}: {reason}")
        return results

    def collect(self, settle: bool, setup_ns: int) -> RunRecord:
        """What all parts observed."""
        parts = self._parts
        collecting = [m.call("client_record", timeout_s=CALL_S) for m in self._clients]
        end_ns, counting = parts.end_ns, []
        if end_ns is not None and not settle:
            # Nothing to wait for: the nodes count while the clients pack.
            counting = self._count(end_ns, settle)
        reports: list[ClientReport | None] = self._collect_each(self._clients, collecting, "client")
        present = [report for report in reports if report is not None]
        if not present:
            raise PartLost(f"all clients were lost: {'; '.join(self._lost.values())}")
        if end_ns is None:
            end_ns = max(report.latest_return_ns for report in present)
        if settle:
            self._settle(SETTLE_S)
        counting = counting or self._count(end_ns, settle)
        pairs: list[tuple[NodeRecord, list[EventRecord]] | None] = self._collect_each(
            self._nodes, counting, "node"
        )
        deaths = self._deaths()
        self._note_silence()
        counted = {node: pair[0] for node, pair in enumerate(pairs) if pair is not None}
        clients = tuple(report.client for report in present)
        seen = [report.host_load for report in present]
        tracks = self._tracks()
        members = self._nodes + self._clients
        noted = [
            [*(pair[1] if pair else ()), *died] for pair, died in zip(pairs, deaths, strict=True)
        ]
        noted += [list(report.events) if report else [] for report in reports]
        return RunRecord(
            runtime="ray",
            clock="real",
            history=self._history(reports, tracks),
            nodes=tuple(counted[n] for n in range(parts.system.nodes) if n in counted),
            tier=tuple(counted[n] for n in parts.tier_nodes if n in counted),
            clients=clients,
            events=self._events(zip(members, noted, strict=True), tracks),
            warmup_ns=parts.recorded_from_ns,
            end_ns=end_ns,
            offered_ops=offered_ops(parts, end_ns),
            setup_ns=setup_ns,
            clock_uncertainty_ns=apart_ns([tracks[member.clock] for member in self._clients]),
            client_clocks=tuple(member.clock for member in self._clients),
            lost_parts=tuple(self._lost.values()),
            host_loads=host_loads(seen, [*counted.values(), *clients]),
            faults=() if self._conductor is None else tuple(self._conductor.plan.strikes),
            links=self.links,
            hosts=tuple(sorted({member.host for member in members})),
        )

    def _deaths(self) -> list[list[EventRecord]]:
        """What no fault ended and what was started again all the same, by node."""
        if not self._parts.returning:
            return [[] for _ in self._nodes]
        asked = [member.actor.deaths.remote() for member in self._nodes]
        return [died or [] for died in self._collect_each(self._nodes, asked, "node")]

    def _note_silence(self) -> None:
        """Hosts that did not answer for a while, though they do now."""
        for member in self._nodes + self._clients:
            if member.was_silent(self._began_s):
                reason = f"host {member.host} did not answer for a while"
                self._lost.setdefault(f"host {member.host}", reason)

    def _history(
        self, reports: Sequence[ClientReport | None], tracks: Mapping[str, ClockTrack]
    ) -> History:
        """What all clients saw, by the driver's clock."""
        names = self._parts.workload.key_names
        seen = [
            tracks[member.clock].aligned(report.history, self._origin_ns)
            for member, report in zip(self._clients, reports, strict=True)
            if report is not None
        ]
        return History.concatenate([replace(each, key_names=names) for each in seen])

    def _tracks(self) -> dict[str, ClockTrack]:
        """How the clock of each host ran against the driver's, by name."""
        last: dict[str, Reading] = {}
        try:
            last = self._read_clocks() if self._readings else {}
        except EnvironmentFailure as error:
            self._lost.setdefault("clocks", str(error))
        names = [member.clock for member in self._nodes + self._clients]
        return clock_tracks(names, self._readings, last)

    def _events(
        self, heard: Iterable[tuple[Member, list[EventRecord]]], tracks: Mapping[str, ClockTrack]
    ) -> tuple[EventRecord, ...]:
        """What all parts and the conductor noted, in order; a server that ended itself is lost."""
        noted = [
            tracks[member.clock].event(event, self._origin_ns)
            for member, events in heard
            for event in events
        ]
        for event in noted:
            if event.kind == LOST:
                name = f"node {event.node}"
                self._lost.setdefault(name, f"{name}: {event.detail}")
        faults = [] if self._conductor is None else self._conductor.events
        return tuple(sorted([*noted, *faults], key=lambda event: event.at_ns))

    def _count(self, end_ns: int, fingerprint: bool) -> list[Any]:
        """Let the nodes make their records; returns Ray's references."""
        warmup_ns = self._parts.recorded_from_ns
        counting = []
        for node, member in enumerate(self._nodes):
            if self._stays_away(node):
                # It left a journal behind.
                asked = member.actor.last_words.remote(self._specs[node], warmup_ns, end_ns)
            else:
                asked = member.call("node_record", warmup_ns, end_ns, fingerprint)
            counting.append(asked)
        return counting

    def _stays_away(self, node: int) -> bool:
        return self._conductor is not None and self._conductor.down(node)

    def _settle(self, limit_s: float) -> None:
        """Give the replicas time to converge after the last answer."""
        deadline_s = time.monotonic() + limit_s
        while time.monotonic() < deadline_s:
            nodes = range(self._parts.system.nodes)
            present = [self._nodes[n] for n in nodes if not self._stays_away(n)]
            asked = [member.call("digest") for member in present]
            try:
                digests = gather_all(present, asked, CALL_S, "reading digests")
            except EnvironmentFailure:
                # Whoever is lost will be missed when it is asked for what it counted.
                return
            if len({*digests_to_compare(digests)}) <= 1:
                return
            time.sleep(0.05)

    def end(self) -> None:
        """End all processes of the run."""
        members = self._nodes + self._clients
        try:
            if self._conductor is not None:
                self._conductor.stop()
        finally:
            gather(members, [m.actor.drop.remote() for m in members], STOP_S, "ending processes")
