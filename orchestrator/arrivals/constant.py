"""Open arrivals at equal distances, the least variable load of a given rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from orchestrator.core.load import EVEN, OperationBlock
from orchestrator.core.parameters import rate
from orchestrator.core.registry import Family, register
from orchestrator.core.units import NS_PER_S


@dataclass(frozen=True)
class ConstantParams:
    rate: float = rate(help="of all clients together")


@register(Family.ARRIVAL, "constant", params=ConstantParams)
class Constant:
    """Open loop at equal distances."""

    closed = False
    gaps = EVEN

    def __init__(self, params: ConstantParams) -> None:
        self._rate_per_s = params.rate

    @property
    def rate_per_s(self) -> float | None:
        """Offered operations per second of all clients."""
        return self._rate_per_s

    def timetable(self, seed: int, client: int, clients: int) -> ConstantTimetable:
        """Every ``clients``-th start, so that all clients together are evenly spaced."""
        return ConstantTimetable(self._rate_per_s, client, clients)


class ConstantTimetable:
    """One client's starts: numbers c, c + C, c + 2C, ... of the merged stream."""

    sessions = 0

    def __init__(self, rate_per_s: float, client: int, clients: int) -> None:
        self._gap_ns = NS_PER_S / rate_per_s
        self._next = client
        self._clients = clients

    def starts_ns(self, operations: OperationBlock) -> NDArray[numpy.int64]:
        """Intended starts of the next operations, shape (n,)."""
        end = self._next + self._clients * len(operations)
        numbers = numpy.arange(self._next, end, self._clients, dtype=numpy.float64)
        self._next = end
        return numpy.rint(numbers * self._gap_ns).astype(numpy.int64)

    def think_ns(self) -> int:
        """Nothing: the starts are set beforehand."""
        return 0
