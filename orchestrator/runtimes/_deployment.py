"""The processes of one run on Ray: deployed, started, watched, collected, ended.

Every remote wait has a deadline, and a part that is lost is noted instead of waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from orchestrator.core.history import History
from orchestrator.core.record import LOST, NO_COPY, ClientRecord, EventRecord, NodeRecord, RunRecord
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.errors import ArchbenchError, EnvironmentFailure
from orchestrator.runtimes._client_process import ClientReport, ClientSpec
from orchestrator.runtimes._node_process import NodeSpec
from orchestrator.runtimes._parts import Parts
from orchestrator.systems.replicated_store import MEMORY

CONNECT_S: Final = 20.0
CALL_S: Final = 20.0
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


def get(references: Any, timeout_s: float, what: str) -> Any:
    """ray.get with a deadline, and errors in our own words."""
    import ray

    try:
        return ray.get(references, timeout=timeout_s)
    except ray.exceptions.GetTimeoutError as error:
        raise EnvironmentFailure(f"{what}: no answer in {timeout_s:.0f} s") from error
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, EnvironmentFailure):
            message = f"{what}: {cause.message}"
            raise EnvironmentFailure(message, path=cause.path, hint=cause.hint) from error
        if isinstance(cause, ArchbenchError):
            raise cause from error
        raise EnvironmentFailure(f"{what}: {type(cause).__name__}: {cause}") from error
    except ray.exceptions.RayError as error:
        raise EnvironmentFailure(f"{what}: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True)
class Member:
    """One actor of the pool, the address of its host, and its clock against the driver's."""

    actor: Any
    host: str
    offset_ns: int
    uncertainty_ns: int

    def call(self, name: str, *arguments: Any, timeout_s: float = CALL_S) -> Any:
        """Let its child carry out a command; returns Ray's reference."""
        return self.actor.call.remote(name, *arguments, timeout_s=timeout_s)


class Deployment:
    """The processes of one run."""

    def __init__(self, parts: Parts, nodes: Sequence[Member], clients: Sequence[Member]) -> None:
        self._parts = parts
        self._nodes = list(nodes)
        self._clients = list(clients)
        self._specs: list[NodeSpec] = []
        self.node_pids: list[int] = []
        self.client_pids: list[int] = []
        self._origin_ns = 0
        # The first that went wrong with each lost part, by its name.
        self._lost: dict[str, str] = {}

    # --- deploying ------------------------------------------------------------------------

    def deploy(self, first_port: int = 0) -> None:
        """Fork everything, open all ports and connections."""
        parts = self._parts
        now_ns = time.monotonic_ns()
        members = self._nodes + self._clients
        forked = get([m.actor.fresh.remote() for m in members], CALL_S, "forking processes")
        pids = [pid for _, pid in forked]
        self.node_pids, self.client_pids = pids[: len(self._nodes)], pids[len(self._nodes) :]
        self._specs = [
            NodeSpec(
                parts,
                node,
                member.host,
                forked[node][0],
                now_ns,
                client_port=first_port + node if first_port else 0,
            )
            for node, member in enumerate(self._nodes)
        ]
        ports = self._all_nodes("node", lambda node: (self._specs[node],), "starting nodes")
        self._specs = [
            replace(spec, client_port=port["client_port"], peer_port=port["peer_port"])
            for spec, port in zip(self._specs, ports, strict=True)
        ]
        client_addresses = self.client_addresses
        connecting = [
            member.call("client", ClientSpec(parts, c, member.host, now_ns), client_addresses)
            for c, member in enumerate(self._clients)
        ]
        self._all_nodes("connect", lambda node: (self._peer_addresses,), "connecting nodes")
        get(connecting, CONNECT_S, "connecting clients")
        if not parts.system.emulated:
            loading = self._clients[0].call(
                "preload", parts, client_addresses[0], timeout_s=PRELOAD_S
            )
            get(loading, PRELOAD_S + CALL_S, "loading the data")

    @property
    def _peer_addresses(self) -> list[tuple[str, int]]:
        return [(spec.host, spec.peer_port) for spec in self._specs]

    @property
    def client_addresses(self) -> list[tuple[str, int]]:
        """Where the nodes listen for clients."""
        return [(spec.host, spec.client_port) for spec in self._specs[: self._parts.system.nodes]]

    def _all_nodes(
        self, name: str, arguments: Callable[[int], tuple[Any, ...]], what: str
    ) -> list[Any]:
        references = [
            member.call(name, *arguments(node)) for node, member in enumerate(self._nodes)
        ]
        results: list[Any] = get(references, CONNECT_S, what)
        return results

    # --- running --------------------------------------------------------------------------

    def start(self) -> int:
        """Start machines and load; returns time 0 on this host's monotonic clock."""
        members = self._nodes + self._clients
        margin_ns = START_MARGIN_NS + START_MARGIN_PER_ACTOR_NS * len(members)
        self._origin_ns = time.monotonic_ns() + margin_ns
        get(
            [m.call("start", self._origin_ns + m.offset_ns) for m in members],
            CALL_S,
            "starting the load",
        )
        if self._durable:
            for spec, member in zip(self._specs, self._nodes, strict=True):
                again = (replace(spec, restarted=True),)
                origin_ns = self._origin_ns + member.offset_ns
                member.actor.watch.remote(again, origin_ns, self._peer_addresses)
        return self._origin_ns

    @property
    def _durable(self) -> bool:
        parts = self._parts
        return parts.system.emulated and parts.store.node.storage.durability != MEMORY

    def wait(self) -> None:
        """Until every client is done; a client that is lost or late is noted as lost."""
        config = self._parts.config
        if self._parts.end_ns is None:
            self._wait_for_progress()
            return
        left_ns = self._origin_ns + self._parts.end_ns - time.monotonic_ns()
        limit_s = (left_ns + config.client.timeout) / NS_PER_S + DRAIN_S
        finishing = [m.call("finish", timeout_s=limit_s) for m in self._clients]
        for client, reference in enumerate(finishing):
            try:
                get(reference, limit_s + CALL_S, f"client {client}")
            except EnvironmentFailure as error:
                self._lost.setdefault(f"client {client}", str(error))

    def _wait_for_progress(self) -> None:
        """A load that ends by itself may take any time, as long as it goes on."""
        done: list[Any] = []
        moved_s = time.monotonic()
        while True:
            progress = get([m.call("progress") for m in self._clients], CALL_S, "watching clients")
            if all(finished for _, finished in progress):
                return
            if progress != done:
                done, moved_s = progress, time.monotonic()
            elif time.monotonic() - moved_s > STALL_S:
                raise EnvironmentFailure(f"the load made no progress in {STALL_S:.0f} s")
            time.sleep(0.1)

    # --- collecting -----------------------------------------------------------------------

    def _collect_each(self, members: Sequence[Member], references: list[Any], name: str) -> Any:
        """Results by index; None and a note where a part is lost."""
        results = []
        for index, reference in enumerate(references):
            try:
                results.append(get(reference, CALL_S, f"{name} {index}"))
            except EnvironmentFailure as error:
                results.append(None)
                self._lost.setdefault(f"{name} {index}", str(error))
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
            raise EnvironmentFailure(f"all clients were lost: {'; '.join(self._lost.values())}")
        if end_ns is None:
            end_ns = max(report.latest_return_ns for report in present)
        if settle:
            self._settle()
        counting = counting or self._count(end_ns, settle)
        pairs: list[tuple[NodeRecord, list[EventRecord]] | None] = self._collect_each(
            self._nodes, counting, "node"
        )
        held = pairs[: parts.system.nodes]
        nodes = tuple(pair[0] for pair in held if pair is not None)
        events = [event for pair in pairs if pair is not None for event in pair[1]]
        for event in events:
            if event.kind == LOST:
                name = f"node {event.node}"
                self._lost.setdefault(name, f"{name}: {event.detail}")
        members = self._nodes + self._clients
        clients: tuple[ClientRecord, ...] = tuple(report.client for report in present)
        names = parts.workload.key_names
        history = History.concatenate(
            [replace(report.history, key_names=names) for report in present]
        )
        return RunRecord(
            runtime="ray",
            clock="real",
            history=history,
            nodes=nodes,
            clients=clients,
            events=tuple(sorted(events, key=lambda event: event.at_ns)),
            warmup_ns=parts.config.warmup,
            end_ns=end_ns,
            offered_ops=parts.arrival.rate_per_s,
            setup_ns=setup_ns,
            clock_uncertainty_ns=max(member.uncertainty_ns for member in members),
            lost_parts=tuple(self._lost.values()),
            host_busy=max(report.host_busy for report in present),
            hosts=tuple(sorted({member.host for member in members})),
        )

    def _count(self, end_ns: int, fingerprint: bool) -> list[Any]:
        """Let the nodes make their records; returns Ray's references."""
        warmup_ns = self._parts.config.warmup
        return [m.call("node_record", warmup_ns, end_ns, fingerprint) for m in self._nodes]

    def _settle(self) -> None:
        """Give the replicas time to converge after the last answer."""
        deadline_s = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline_s:
            nodes = self._nodes[: self._parts.system.nodes]
            digests = get([m.call("digest") for m in nodes], CALL_S, "reading digests")
            if len({*digests} - {NO_COPY}) <= 1:
                return
            time.sleep(0.05)

    def end(self) -> None:
        """End all processes of the run."""
        dropping = [m.actor.drop.remote() for m in self._nodes + self._clients]
        with suppress(EnvironmentFailure):
            get(dropping, STOP_S, "ending processes")
