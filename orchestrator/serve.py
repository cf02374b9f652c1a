"""Serve an emulated cluster to real Redis clients: redis-cli, redis-benchmark, redis-py.

Every node listens; a node that does not serve an operation itself passes it on, so a client
may talk to any of them. What is served is in ``runtimes/_server.py``.
"""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from orchestrator.config.schema import RAY, Config
from orchestrator.core.system import Address
from orchestrator.errors import ConfigError, InputError
from orchestrator.plan import plan
from orchestrator.runtimes._gate import PASSWORD_VARIABLE

_PORT_MAX: Final = 65_535


@contextmanager
def serving(
    config: Config,
    *,
    port: int | None = None,
    address: str | None = None,
    password: str | None = None,
) -> Iterator[tuple[Address, ...]]:
    """The cluster's nodes without any client; yields where each listens, and ends them after.

    Node i listens on ``port`` + i, or without a port where there is room. ``address`` names a
    Ray cluster. ``password``: what clients must give; without one a node serves clients on a
    loopback address only. Raises what :func:`orchestrator.plan.plan` raises, ConfigError for a
    system that is not emulated, InputError for a port or a password that cannot be, and
    EnvironmentFailure where Ray fails or a port is taken.
    """
    parts = plan(dataclasses.replace(config, runtime=RAY))
    if not parts.system.emulated:
        raise ConfigError(
            f"system {config.system.name!r} is real servers already",
            path="system.name",
            hint="serve is for emulated systems such as replicated_store",
        )
    if parts.tier is not None:
        raise ConfigError(
            "plain clients cannot be told which node of a cache tier has their key",
            path="system.tier",
            hint="leave it out; caches in the nodes (system.cache) are served",
        )
    last = _PORT_MAX + 1 - parts.system.nodes
    if port is not None and not 1 <= port <= last:
        raise InputError(
            f"{port} cannot be the first of {parts.system.nodes} ports",
            path="--port",
            hint=f"1 to {last}",
        )
    if password == "":
        raise InputError(
            "an empty password lets everybody in", path=PASSWORD_VARIABLE, hint="unset it"
        )
    from orchestrator.runtimes import ray_cluster

    runtime = ray_cluster.RayRuntime(address)
    try:
        with runtime.deployed(
            parts, clients=False, first_port=port or 0, plain_clients=True, password=password
        ) as deployment:
            deployment.start()
            yield tuple(Address(*place) for place in deployment.client_addresses)
    finally:
        runtime.close()


def serve(
    config: Config,
    announce: Callable[[Sequence[str]], None],
    *,
    port: int | None = None,
    address: str | None = None,
    password: str | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM.

    ``announce`` is called with ``host:port`` of each node once all of them listen.

    To be called in the main thread. Raises what :func:`serving` raises.
    """
    nodes = serving(config, port=port, address=address, password=password)
    with nodes as addresses, _asked_to_end() as asked:
        announce([f"{node.host}:{node.port}" for node in addresses])
        asked.wait()


@contextmanager
def _asked_to_end() -> Iterator[threading.Event]:
    """An event that the signals to end set, instead of what they do by default."""
    asked = threading.Event()

    def note(number: int, frame: Any) -> None:
        asked.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
