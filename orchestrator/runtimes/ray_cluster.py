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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from orchestrator.core.record import RunRecord
from orchestrator.core.units import NS_PER_S
from orchestrator.errors import EnvironmentFailure
from orchestrator.runtimes import _reaper
from orchestrator.runtimes._deployment import STOP_S, Deployment
from orchestrator.runtimes._member import CALL_S, Member, get
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._supervisor import Supervisor

ACTOR_START_S: Final = 60.0
CLOCK_PROBES: Final = 8
CONCURRENCY: Final = 8
"""Calls that an actor serves at a time: a fault strikes while a client finishes its load."""
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
        get(group.ready(), ACTOR_START_S, f"placing {missing} actors on the cluster")
        actor_class: Any = ray.remote(num_cpus=ACTOR_CPUS, max_restarts=0)(_Actor)
        actors = [
            actor_class.options(
                max_concurrency=CONCURRENCY,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=group, placement_group_bundle_index=index
                ),
            ).remote()
            for index in range(missing)
        ]
        facts = get([actor.ready.remote() for actor in actors], ACTOR_START_S, "starting actors")
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
            get(closing, STOP_S, "closing actors")
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
        self,
        parts: Parts,
        *,
        clients: bool = True,
        first_port: int = 0,
        password: str | None = None,
    ) -> Iterator[Deployment]:
        """The processes of one run, ended afterwards; ``clients`` False: the nodes alone.

        ``first_port``: node i listens on that port + i (0: wherever there is room).
        ``password``: what plain clients must give (None: they are served on loopback only).
        """
        nodes, wanted = parts.machines, parts.config.clients if clients else 0
        self.reserve(nodes + wanted)
        deployment = Deployment(
            parts, self._members[:nodes], self._members[nodes : nodes + wanted], password
        )
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
        theirs_ns = get(actor.clock_ns.remote(), CALL_S, "reading a clock")
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
