"""Plain functions in parallel over a Ray cluster, for work that needs no actors of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from orchestrator.errors import EnvironmentFailure
from orchestrator.runtimes._member import get
from orchestrator.runtimes._pool import known_hosts
from orchestrator.runtimes.ray_cluster import connect, disconnect

PART_S: Final = 600.0
"""Longest that any one part may take."""

HOST_S: Final = 30.0
"""Longest that a host may take to say what it has."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class HostAnswer:
    """What a host of the cluster said, or why it said nothing."""

    address: str
    answer: Any = None
    error: str | None = None


def on_each_host(function: Callable[..., Any], *arguments: Any) -> list[HostAnswer]:
    """``function(*arguments)`` on every host of the joined cluster, by address.

    The function's module is sent along, so a host need not have it. A host that is down, or
    does not answer within HOST_S, has an error in place of its answer.
    """
    import ray

    cloudpickle: Any = ray.cloudpickle
    module = sys.modules[function.__module__]
    hosts = known_hosts()
    cloudpickle.register_pickle_by_value(module)
    try:
        task: Any = ray.remote(num_cpus=0, max_retries=0)(function)
        asked = {
            host["NodeManagerAddress"]: task.options(
                label_selector={"ray.io/node-id": host["NodeID"]}
            ).remote(*arguments)
            for host in hosts
            if host["Alive"]
        }
        found = [_host_answer(address, reference) for address, reference in asked.items()]
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    lost = {host["NodeManagerAddress"] for host in hosts} - {*asked}
    return found + [HostAnswer(address, error="it was lost") for address in sorted(lost)]


def _host_answer(address: str, reference: Any) -> HostAnswer:
    try:
        return HostAnswer(address, get(reference, HOST_S, "asking what it has"))
    except EnvironmentFailure as error:
        return HostAnswer(address, error=error.message)


def spread(
    function: Callable[..., Result], parts: Sequence[tuple[Any, ...]], address: str | None = None
) -> Iterator[Result]:
    """``function(*part)`` of every part, in the order in which they get done.

    Joins the cluster at once and leaves it when the last result is taken. Raises
    EnvironmentFailure where a part fails or takes longer than PART_S.
    """
    connect(address)
    return _results(function, parts)


def _results(function: Callable[..., Result], parts: Sequence[tuple[Any, ...]]) -> Iterator[Result]:
    import ray

    try:
        task: Any = ray.remote(num_cpus=1, max_retries=2)(function)
        waiting = [task.remote(*part) for part in parts]
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1, timeout=PART_S)
            if not done:
                raise EnvironmentFailure(f"no part was done in {PART_S:.0f} s")
            yield get(done[0], PART_S, "simulating")
    finally:
        with suppress(EnvironmentFailure):
            disconnect()
