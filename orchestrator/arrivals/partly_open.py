"""Partly open load: sessions come by themselves, and stay for more the better they may.

Source: Schroeder, Wierman and Harchol-Balter, "Open Versus Closed: A Cautionary Tale", NSDI 2006,
section 2. Sessions come as a Poisson process. Each starts an operation, waits for its answer, and
then stays for another one with probability ``stay`` after a think time, or leaves. The number of
operations of a session is geometric with mean 1 / (1 - stay). At stay 0 the load is open; the
nearer to 1, the more it behaves like a closed one.

``rate`` counts operations: sessions come at rate (1 - stay), so that configurations of different
``stay`` offer the same load. What is offered within a window depends on when answers come, so
no run is judged by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from orchestrator.core.distributions import Sampler, build
from orchestrator.core.load import LEAVES, Arrival, JoiningTimetable, OperationBlock
from orchestrator.core.parameters import ParameterError, number, rate, slot
from orchestrator.core.randomness import block_stream
from orchestrator.core.registry import Family, Slot, register
from orchestrator.core.units import NS_PER_S

_DRAWS = 1024


@dataclass(frozen=True)
class PartlyOpenParams:
    rate: float = rate(help="mean of operations once sessions come and leave alike")
    stay: float = number(0.5, low=0.0, high=1.0, help="probability of another one, below 1")
    think_time: Slot = slot(
        Family.DISTRIBUTION,
        {"name": "constant", "value": "0s"},
        help="from an answer to the session's next operation",
    )

    def __post_init__(self) -> None:
        if self.stay >= 1:
            raise ParameterError(
                "no session would ever leave: must be below 1 (or use closed)", key="stay"
            )


@register(Family.ARRIVAL, "partly_open", params=PartlyOpenParams)
class PartlyOpen(Arrival):
    """Sessions come openly, and go on one operation after the other until they leave."""

    closed = False

    def __init__(self, params: PartlyOpenParams) -> None:
        self._params = params

    @property
    def rate_per_s(self) -> float | None:
        """Mean of operations in the long run."""
        return self._params.rate

    def timetable(self, seed: int, client: int, clients: int) -> PartlyOpenTimetable:
        """Sessions at a ``clients``-th of their rate."""
        return PartlyOpenTimetable(self._params, seed, client, clients)


class PartlyOpenTimetable(JoiningTimetable):
    """One client's sessions."""

    sessions = 0

    def __init__(self, params: PartlyOpenParams, seed: int, client: int, clients: int) -> None:
        self._gap_ns = NS_PER_S * clients / (params.rate * (1 - params.stay))
        self._stay = params.stay
        self._joining = block_stream(seed, f"client/{client}/arrival")
        self._staying = block_stream(seed, f"client/{client}/staying")
        thinking = block_stream(seed, f"client/{client}/thinking")
        self._think = Sampler(build(params.think_time), thinking)
        self._joins_ns: list[int] = []
        self._stays: list[bool] = []
        self._last_ns = 0.0

    def joins_ns(self) -> int:
        """When the next session comes."""
        if not self._joins_ns:
            times_ns = self._joining.exponential(self._gap_ns, _DRAWS)
            times_ns[0] += self._last_ns
            numpy.cumsum(times_ns, out=times_ns)
            self._last_ns = float(times_ns[-1])
            self._joins_ns = numpy.rint(times_ns).astype(numpy.int64)[::-1].tolist()
        return self._joins_ns.pop()

    def think_ns(self) -> int:
        """The pause before the session's next operation, or LEAVES."""
        if not self._stays:
            self._stays = (self._staying.random(_DRAWS) < self._stay).tolist()
        return self._think.draw_ns() if self._stays.pop() else LEAVES

    def starts_ns(self, operations: OperationBlock) -> NDArray[numpy.int64]:
        """All 0, shape (n,): which session starts which operation is not known beforehand."""
        return numpy.zeros(len(operations), dtype=numpy.int64)
