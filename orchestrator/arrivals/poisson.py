"""Open arrivals without memory: independent exponential gaps.

Splitting a Poisson process over C clients gives C independent ones of a C-th of the rate, and
merging those gives it back (Kingman, Poisson Processes, sections 2.2 and 5.1), so the clients
need not agree on anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from orchestrator.core.load import EXPONENTIAL, OperationBlock
from orchestrator.core.parameters import rate
from orchestrator.core.randomness import block_stream
from orchestrator.core.registry import Family, register
from orchestrator.core.units import NS_PER_S


@dataclass(frozen=True)
class PoissonParams:
    rate: float = rate(help="of all clients together")


@register(Family.ARRIVAL, "poisson", params=PoissonParams)
class Poisson:
    """Open loop with exponential gaps, as many independent users make."""

    closed = False
    gaps = EXPONENTIAL

    def __init__(self, params: PoissonParams) -> None:
        self._rate_per_s = params.rate

    @property
    def rate_per_s(self) -> float | None:
        """Offered operations per second of all clients."""
        return self._rate_per_s

    def timetable(self, seed: int, client: int, clients: int) -> PoissonTimetable:
        """A Poisson process of a ``clients``-th of the rate."""
        return PoissonTimetable(self._rate_per_s / clients, seed, client)


class PoissonTimetable:
    """One client's starts."""

    sessions = 0

    def __init__(self, rate_per_s: float, seed: int, client: int) -> None:
        self._mean_ns = NS_PER_S / rate_per_s
        self._chance = block_stream(seed, f"client/{client}/arrival")
        self._last_ns = 0.0

    def starts_ns(self, operations: OperationBlock) -> NDArray[numpy.int64]:
        """Intended starts of the next operations, shape (n,)."""
        times_ns = self._chance.exponential(self._mean_ns, len(operations))
        if len(times_ns):
            # Summed on from the last start, so that blocks of any length add up alike.
            times_ns[0] += self._last_ns
            numpy.cumsum(times_ns, out=times_ns)
            self._last_ns = float(times_ns[-1])
        return numpy.rint(times_ns).astype(numpy.int64)

    def think_ns(self) -> int:
        """Nothing: the starts are set beforehand."""
        return 0
