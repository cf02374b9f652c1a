"""Plain functions in parallel over a Ray cluster, for work that needs no actors of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from orchestrator.errors import EnvironmentFailure
from orchestrator.runtimes._member import get
from orchestrator.runtimes.ray_cluster import connect, disconnect

PART_S: Final = 600.0
"""Longest that any one part may take."""

Result = TypeVar("Result")


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
