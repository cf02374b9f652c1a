"""Real time on Ray: nodes and clients are actors, spread over the cluster's machines.

Ray places, starts, watches and ends; operations never travel by actor calls. Each actor
supervises one child process, forked warm, that holds the sockets, so a node can be killed
without losing its actor and a trial starts in milliseconds. The pool of actors stays warm
between runs.

Every remote wait has a deadline. With no cluster named, an embedded Ray is started, guarded by
Ray's own token, and a reaper process ends it should this process be killed.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.core.record import RunRecord
from orchestrator.core.units import NS_PER_S
from orchestrator.errors import EnvironmentFailure
from orchestrator.runtimes import _reaper
from orchestrator.runtimes._deployment import Deployment
from orchestrator.runtimes._handshake import Credentials
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._pool import Pool, alive_hosts
from orchestrator.runtimes._supervisor import Supervisor

_lock = threading.Lock()
_users = 0
"""How many connects there were without a disconnect."""
_joined_here = False
"""Whether this module joined Ray; a Ray that was there before stays when we leave."""


def connect(address: str | None) -> None:
    """Join the cluster at ``address`` (or RAY_ADDRESS), else start an embedded Ray.

    Where this process has joined one already, that is used. Each connect needs a disconnect.
    """
    global _users, _joined_here  # noqa: PLW0603 - one Ray a process
    # Ray reports what it lost on stdout, with pages of its log; we say so in our own words.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    # Whoever comes late must not start another Ray.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    # Workers of an embedded Ray would give way to everybody else on this host.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Four times a second Ray would look through all processes for those that use too much memory.
    os.environ.setdefault("RAY_memory_monitor_refresh_ms", "2000")
    # Every second it would ask all hosts what they have left, for an autoscaler that is not there.
    os.environ.setdefault("RAY_gcs_pull_resource_loads_period_milliseconds", "60000")
    import ray

    with _lock:
        if not ray.is_initialized():
            _join(address or os.environ.get("RAY_ADDRESS"))
            _users, _joined_here = 0, True
        _users += 1


def disconnect() -> None:
    """Leave the cluster with the last who joined it; an embedded one ends."""
    global _users, _joined_here  # noqa: PLW0603
    with _lock:
        _users = max(0, _users - 1)
        if not _users and _joined_here:
            _joined_here = False
            _leave()


def _join(address: str | None) -> None:
    import ray

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
    try:
        with _reaper.guard() as started:
            ray.init(
                num_cpus=os.cpu_count(),
                num_gpus=0,
                include_dashboard=False,
                object_store_memory=128 << 20,
                **quiet,
            )
            started()
    except BaseException:
        _leave()
        raise


def _leave() -> None:
    import ray

    if ray.is_initialized():
        ray.shutdown()
    _reaper.dismiss()


def _reachable(address: str) -> None:
    """Ray itself waits for half a minute before it says that nobody is there."""
    import socket

    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        place = (host.strip("[]") or "127.0.0.1", int(port))
        socket.create_connection(place, timeout=5.0).close()
    except OSError as error:
        raise EnvironmentFailure(
            f"no Ray cluster answers at {address!r}: {error.strerror or error}",
            hint="start one with 'ray start --head', or leave the address out",
        ) from error


def cluster_shape() -> dict[str, float]:
    """Nodes and CPUs of the cluster that this process has joined."""
    alive = alive_hosts()
    cpus = sum(node["Resources"].get("CPU", 0.0) for node in alive)
    return {"nodes": float(len(alive)), "cpus": float(cpus)}


class RayRuntime:
    """A warm pool of actors that runs one plan at a time; of several, each has its ``turn``.

    ``only``: the address of the one host of the cluster that is used. It joins Ray, and leaves it
    at :meth:`close`.
    """

    def __init__(self, address: str | None = None, turn: int = 0, only: str | None = None) -> None:
        connect(address)
        self._pool = Pool(_Actor, turn, only)
        self._closed = False
        self._last_return_s: float | None = None
        self.lost_between_runs_s: float | None = None

    def reserve(self, nodes: int, clients: int) -> None:
        """Have actors for so many nodes and clients before a run needs them."""
        self._pool.members(nodes, clients)

    def abandon(self) -> None:
        """End all actors and what they hold, also under a run."""
        self._pool.close()

    def close(self) -> None:
        """The same, and leave Ray."""
        if self._closed:
            return
        self._closed = True
        try:
            self._pool.close()
        finally:
            disconnect()

    def run(self, parts: Parts, settle: bool = False, repeat: int = 0) -> RunRecord:
        """One run; ``settle``: wait at the end until the replicas hold the same. ``repeat``: of
        several alike the hosts are used in turn.

        Raises PartLost where it could not go on without a part that was lost.
        """
        asked_ns = time.monotonic_ns()
        with self.deployed(parts, repeat=repeat) as deployment:
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
        plain_clients: bool = False,
        password: str | None = None,
        repeat: int = 0,
    ) -> Iterator[Deployment]:
        """The processes of one run, ended afterwards; ``clients`` False: the nodes alone.

        ``first_port``: node i listens on that port + i (0: wherever there is room).
        ``plain_clients``: whether nodes serve others than the run's clients, who must give the
        ``password`` (None: they are served on loopback only).
        """
        wanted = parts.config.clients if clients else 0
        credentials = Credentials.fresh(password, plain_clients=plain_clients)
        members = self._pool.members(parts.machines, wanted, repeat)
        deployment = Deployment(parts, *members, credentials)
        try:
            deployment.deploy(first_port)
            yield deployment
        finally:
            deployment.end()


class _Actor(Supervisor):
    """The supervisor as an actor; Ray is known to this module alone."""
