"""Nodes whose cores come and go with the load: the contract of the family ``autoscaler``.

An autoscaler looks at one node every ``period`` and says how many cores it should have. More come a
``delay`` after they were asked for, as machines, containers and caches take their time to start;
cores that are too many leave at once, what is being served on them is served to its end. A node's
cores are its workers: one queue, so many servers.

Deterministic: it knows what it is told, and no clock or chance of its own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy
from numpy.typing import NDArray

from orchestrator.core.parameters import ParameterError, duration, number
from orchestrator.core.record import INTERVAL_NS, SCALED, EventRecord


@dataclass(frozen=True)
class AutoscalerParams:
    """Every autoscaler has these; one with parameters of its own extends them."""

    period: int = duration("1s", low="1ms", help="from one look to the next")
    delay: int = duration("10s", help="until a core that was asked for is in service")
    least: int = number(1, low=1, help="cores")
    most: int = number(16, low=1, help="cores")

    def __post_init__(self) -> None:
        if self.most < self.least:
            raise ParameterError("must not be below least", key="most")


class Seen(NamedTuple):
    """A node since the last look: ``cores`` in service now, and ``coming`` that were asked for; the
    ``utilisation`` of those that were in service, 0 to 1; what is ``waiting`` for them now.
    """

    cores: int
    coming: int
    utilisation: float
    waiting: int


class Autoscaler(Protocol):
    """One node's."""

    def __init__(self, params: Any) -> None: ...

    @abstractmethod
    def wanted(self, seen: Seen, now_ns: int) -> int:
        """How many cores there should be; whoever asks keeps to ``least`` and ``most``."""


def changes_of(events: Iterable[EventRecord], node: int) -> list[tuple[int, int]]:
    """(when, cores from then on) of a node, in order."""
    mine = (event for event in events if event.kind == SCALED and event.node == node)
    return sorted((event.at_ns, int(event.detail)) for event in mine)


def provided_ns(
    cores: int, changes: Sequence[tuple[int, int]], intervals: int
) -> NDArray[numpy.int64]:
    """Time of all cores in service in each interval of INTERVAL_NS from 0; shape (intervals,)."""
    end_ns = intervals * INTERVAL_NS
    steps = [(0, cores), *((min(max(at_ns, 0), end_ns), each) for at_ns, each in changes)]
    knots = numpy.array([at_ns for at_ns, _ in steps] + [end_ns], dtype=numpy.int64)
    rates = numpy.array([each for _, each in steps], dtype=numpy.int64)
    so_far = numpy.concatenate([[0], numpy.cumsum(numpy.diff(knots) * rates)])
    # Of knots at the same time the last counts, and all have the same sum.
    knots, last = numpy.unique(knots[::-1], return_index=True)
    edges = numpy.arange(intervals + 1) * INTERVAL_NS
    at_edges = numpy.interp(edges, knots, so_far[::-1][last])
    found: NDArray[numpy.int64] = numpy.diff(numpy.rint(at_edges).astype(numpy.int64))
    return found
