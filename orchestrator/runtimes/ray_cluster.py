"""Real time on Ray: nodes and clients are actors, spread over the cluster's machines.

Ray places, starts, watches and ends; operations never travel by actor calls. Each actor
supervises one child process, forked warm, that holds the sockets, so a node can be killed
without losing its actor and a trial starts in milliseconds. The pool of actors stays warm
between runs.

Every remote wait has a deadline. With no cluster named, an embedded Ray is started on the
loopback interface, and a reaper process ends it should this process be killed.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from orchestrator.core.history import History
from orchestrator.core.record import LOST, ClientRecord, EventRecord, NodeRecord, RunRecord
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.errors import ArchbenchError, EnvironmentFailure
from orchestrator.runtimes import _reaper
from orchestrator.runtimes._client_process import ClientReport, ClientSpec
from orchestrator.runtimes._deploy import Parts
from orchestrator.runtimes._node_process import NodeSpec
from orchestrator.runtimes._supervisor import Supervisor
from orchestrator.systems.replicated_store import MEMORY

CONNECT_S: Final = 20.0
ACTOR_START_S: Final = 60.0
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
CLOCK_PROBES: Final = 8
ACTOR_CPUS: Final = 0.01
"""Actors only supervise; what runs where is decided by the placement group's spreading."""


def connect(address: str | None) -> None:
    """Join the cluster at ``address`` (or RAY_ADDRESS), else start an embedded Ray."""
    import ray

    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        _reachable(address)
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise EnvironmentFailure(
                f"no Ray cluster answers at {address!r}: {str(error).splitlines()[0]}",
                hint="start one with 'ray start --head', or leave the address out",
            ) from error
        return
    with _reaper.guard() as started:
        ray.init(
            num_cpus=os.cpu_count(),
            num_gpus=0,
            include_dashboard=False,
            object_store_memory=128 << 20,
            **quiet,
        )
        started()


def _reachable(address: str) -> None:
    """Ray itself waits for half a minute before it says that nobody is there."""
    import socket

    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host or "127.0.0.1", int(port)), timeout=5.0).close()
    except OSError as error:
        raise EnvironmentFailure(
            f"no Ray cluster answers at {address!r}: {error.strerror or error}",
            hint="start one with 'ray start --head', or leave the address out",
        ) from error


def disconnect() -> None:
    """Leave the cluster; an embedded one ends."""
    import ray

    if ray.is_initialized():
        ray.shutdown()
    _reaper.dismiss()


def _alive_nodes() -> list[dict[str, Any]]:
    """Ray's description of every machine of the cluster that is up."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def cluster_shape() -> dict[str, float]:
    """Nodes and CPUs of the cluster that this process has joined."""
    alive = _alive_nodes()
    cpus = sum(node["Resources"].get("CPU", 0.0) for node in alive)
    return {"nodes": float(len(alive)), "cpus": float(cpus)}


def _get(references: Any, timeout_s: float, what: str) -> Any:
    """ray.get with a deadline, and errors in our own words."""
    import ray

    try:
        return ray.get(references, timeout=timeout_s)
    except ray.exceptions.GetTimeoutError as error:
        raise EnvironmentFailure(f"{what}: no answer in {timeout_s:.0f} s") from error
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
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


class RayRuntime:
    """A warm pool of actors that runs one plan at a time."""

    def __init__(self, address: str | None = None) -> None:
        connect(address)
        self._members: list[Member] = []
        self._groups: list[Any] = []
        self._last_return_s: float | None = None
        self.lost_between_runs_s: float | None = None

    # --- the pool -------------------------------------------------------------------------

    def reserve(self, count: int) -> None:
        """Have at least that many actors, spread over the cluster's machines."""
        missing = count - len(self._members)
        if missing <= 0:
            return
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        group = placement_group([{"CPU": ACTOR_CPUS}] * missing, strategy="SPREAD")
        self._groups.append(group)
        _get(group.ready(), ACTOR_START_S, f"placing {missing} actors on the cluster")
        actor_class: Any = ray.remote(num_cpus=ACTOR_CPUS, max_restarts=0)(_Actor)
        actors = [
            actor_class.options(
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=group, placement_group_bundle_index=index
                )
            ).remote()
            for index in range(missing)
        ]
        facts = _get([actor.ready.remote() for actor in actors], ACTOR_START_S, "starting actors")
        hosts = _host_addresses()
        self._members += [
            Member(actor, hosts[fact["ray_node"]], *_clock_offset(actor, fact["boot_id"]))
            for actor, fact in zip(actors, facts, strict=True)
        ]
        self._members = _alternating(self._members)

    def close(self) -> None:
        """End all actors and what they hold."""
        import ray
        from ray.util.placement_group import remove_placement_group

        closing = [member.actor.close.remote() for member in self._members]
        with suppress(EnvironmentFailure):
            _get(closing, STOP_S, "closing actors")
        for member in self._members:
            with suppress(ray.exceptions.RayError, ValueError):
                ray.kill(member.actor)
        for group in self._groups:
            with suppress(ray.exceptions.RayError, ValueError):
                remove_placement_group(group)
        self._members.clear()
        self._groups.clear()

    # --- a run ----------------------------------------------------------------------------

    def run(self, parts: Parts, settle: bool = False) -> RunRecord:
        """One run; ``settle``: wait at the end until the replicas hold the same."""
        asked_ns = time.monotonic_ns()
        with self.deployed(parts) as deployment:
            origin_ns = deployment.start()
            if self._last_return_s is not None:
                self.lost_between_runs_s = origin_ns / NS_PER_S - self._last_return_s
            deployment.wait()
            record = deployment.collect(settle, origin_ns - asked_ns)
            last_return_ns = max(int(record.history.returned_ns.max()), 0)
            self._last_return_s = (origin_ns + last_return_ns) / NS_PER_S
        return record

    @contextmanager
    def deployed(
        self, parts: Parts, *, clients: bool = True, first_port: int = 0
    ) -> Iterator[Deployment]:
        """The processes of one run, ended afterwards; ``clients`` False: the nodes alone.

        ``first_port``: node i listens on that port + i (0: wherever there is room).
        """
        nodes, wanted = parts.system.nodes, parts.config.clients if clients else 0
        self.reserve(nodes + wanted)
        deployment = Deployment(parts, self._members[:nodes], self._members[nodes : nodes + wanted])
        try:
            deployment.deploy(first_port)
            yield deployment
        finally:
            deployment.end()


def _host_addresses() -> dict[str, str]:
    """Ray node id -> the address that processes on that host bind to and are reached at.

    That is the address by which the cluster knows the host; where the cluster is this machine
    alone, nothing need be reachable from outside.
    """
    import ray

    nodes = _alive_nodes()
    here = ray.get_runtime_context().get_node_id()
    if len(nodes) == 1 and nodes[0]["NodeID"] == here:
        return {here: "127.0.0.1"}
    return {node["NodeID"]: node["NodeManagerAddress"] for node in nodes}


def _clock_offset(actor: Any, boot_id: str) -> tuple[int, int]:
    """(offset, uncertainty) of the actor's monotonic clock against ours; 0 on the same host."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        if file.read().strip() == boot_id:
            return 0, 0
    best = (0, 2**62)
    for _ in range(CLOCK_PROBES):
        before_ns = time.monotonic_ns()
        theirs_ns = _get(actor.clock_ns.remote(), CALL_S, "reading a clock")
        after_ns = time.monotonic_ns()
        uncertainty_ns = (after_ns - before_ns) // 2
        if uncertainty_ns < best[1]:
            best = (theirs_ns - (before_ns + after_ns) // 2, uncertainty_ns)
    return best


def _alternating(members: Sequence[Member]) -> list[Member]:
    """Members ordered so that neighbours are on different hosts as far as possible."""
    by_host: dict[str, list[Member]] = {}
    for member in members:
        by_host.setdefault(member.host, []).append(member)
    queues = [by_host[host] for host in sorted(by_host)]
    longest = max(len(queue) for queue in queues)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]


class _Actor(Supervisor):
    """The supervisor as an actor."""

    def ready(self) -> dict[str, str]:
        """Facts of its host, once its fork server is up."""
        import ray

        return super().ready() | {"ray_node": ray.get_runtime_context().get_node_id()}


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
        self._lost: list[str] = []

    # --- deploying ------------------------------------------------------------------------

    def deploy(self, first_port: int = 0) -> None:
        """Fork everything, open all ports and connections."""
        parts = self._parts
        now_ns = time.monotonic_ns()
        members = self._nodes + self._clients
        forked = _get([m.actor.fresh.remote() for m in members], CALL_S, "forking processes")
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
        client_addresses = [(spec.host, spec.client_port) for spec in self._specs]
        connecting = [
            member.call("client", ClientSpec(parts, c, member.host, now_ns), client_addresses)
            for c, member in enumerate(self._clients)
        ]
        self._all_nodes("connect", lambda node: (self._peer_addresses,), "connecting nodes")
        _get(connecting, CONNECT_S, "connecting clients")
        if not parts.system.emulated:
            loading = self._clients[0].call(
                "preload", parts, client_addresses[0], timeout_s=PRELOAD_S
            )
            _get(loading, PRELOAD_S + CALL_S, "loading the data")

    @property
    def _peer_addresses(self) -> list[tuple[str, int]]:
        return [(spec.host, spec.peer_port) for spec in self._specs]

    @property
    def client_addresses(self) -> list[tuple[str, int]]:
        """Where the nodes listen for clients."""
        return [(spec.host, spec.client_port) for spec in self._specs]

    def _all_nodes(
        self, name: str, arguments: Callable[[int], tuple[Any, ...]], what: str
    ) -> list[Any]:
        references = [
            member.call(name, *arguments(node)) for node, member in enumerate(self._nodes)
        ]
        results: list[Any] = _get(references, CONNECT_S, what)
        return results

    # --- running --------------------------------------------------------------------------

    def start(self) -> int:
        """Start machines and load; returns time 0 on this host's monotonic clock."""
        members = self._nodes + self._clients
        margin_ns = START_MARGIN_NS + START_MARGIN_PER_ACTOR_NS * len(members)
        self._origin_ns = time.monotonic_ns() + margin_ns
        _get(
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
                _get(reference, limit_s + CALL_S, f"client {client}")
            except EnvironmentFailure as error:
                self._lost.append(f"client {client}: {error}")

    def _wait_for_progress(self) -> None:
        """A load that ends by itself may take any time, as long as it goes on."""
        done: list[Any] = []
        moved_s = time.monotonic()
        while True:
            progress = _get([m.call("progress") for m in self._clients], CALL_S, "watching clients")
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
                results.append(_get(reference, CALL_S, f"{name} {index}"))
            except EnvironmentFailure as error:
                results.append(None)
                self._lost.append(f"{name} {index}: {error}")
        return results

    def collect(self, settle: bool, setup_ns: int) -> RunRecord:
        """What all parts observed."""
        parts = self._parts
        warmup_ns = parts.config.warmup
        collecting = [m.call("client_record", timeout_s=CALL_S) for m in self._clients]
        end_ns, counting = parts.end_ns, []
        if end_ns is not None and not settle:
            # Nothing to wait for: the nodes count while the clients pack.
            counting = [m.call("node_record", warmup_ns, end_ns) for m in self._nodes]
        reports: list[ClientReport | None] = self._collect_each(self._clients, collecting, "client")
        present = [report for report in reports if report is not None]
        if not present:
            raise EnvironmentFailure(f"all clients were lost: {'; '.join(self._lost)}")
        if end_ns is None:
            end_ns = max(report.latest_return_ns for report in present)
        if settle:
            self._settle()
        if not counting:
            counting = [m.call("node_record", warmup_ns, end_ns) for m in self._nodes]
        pairs: list[tuple[NodeRecord, list[EventRecord]] | None] = self._collect_each(
            self._nodes, counting, "node"
        )
        nodes = tuple(pair[0] for pair in pairs if pair is not None)
        events = [event for pair in pairs if pair is not None for event in pair[1]]
        self._lost += [f"node {e.node}: {e.detail}" for e in events if e.kind == LOST]
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
            warmup_ns=warmup_ns,
            end_ns=end_ns,
            offered_ops=parts.arrival.rate_per_s,
            setup_ns=setup_ns,
            clock_uncertainty_ns=max(member.uncertainty_ns for member in members),
            lost_parts=tuple(self._lost),
            host_busy=max(report.host_busy for report in present),
            hosts=tuple(sorted({member.host for member in members})),
        )

    def _settle(self) -> None:
        """Give the replicas time to converge after the last answer."""
        deadline_s = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline_s:
            digests = _get([m.call("digest") for m in self._nodes], CALL_S, "reading digests")
            if all(digest == digests[0] for digest in digests):
                return
            time.sleep(0.05)

    def end(self) -> None:
        """End all processes of the run."""
        dropping = [m.actor.drop.remote() for m in self._nodes + self._clients]
        with suppress(EnvironmentFailure):
            _get(dropping, STOP_S, "ending processes")
