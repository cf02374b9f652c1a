"""Costs of a host from what its processes used: a linear model, fitted to many of them.

Each process of each run gives one equation: its CPU time is the sum of what it did (sleeps, system
calls, emulated waits, syncs, operations, messages), each times its cost. Costs are at least 0
(Lawson and Hanson's problem of non-negative least squares); the equations count by their relative
error, and one that is far off (somebody else was on the host) counts less, by the soft L1 loss of
Huber's kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.host_profile import ProtocolCosts

(
    SLEEP, COLD, TICK, CALL, CLIENT, READ, WRITE, MESSAGE, ENTRY, START,
) = ProtocolCosts.__dataclass_fields__  # fmt: skip
TIMER: Final = "timer"
SYNC: Final = "sync"
_SCALE: Final = 0.1
"""Relative error from which on an equation counts less than by its square."""


@dataclass(frozen=True)
class Observation:
    """One process: the CPU time that it used and how often it did what, by the name of a cost.

    ``loop_ns``: what the fixed loop took meanwhile.
    """

    cpu_ns: float
    loop_ns: float
    counts: Mapping[str, float] = field(default_factory=dict)

    def at(self, loop_ns: float) -> Observation:
        """The same on cores on which the loop takes so long."""
        return replace(self, cpu_ns=self.cpu_ns * loop_ns / self.loop_ns, loop_ns=loop_ns)


@dataclass(frozen=True)
class FittedCosts:
    """Under one protocol; waits and syncs cost the same under any, 0 where there were none.

    ``residual``: root mean square of the equations' relative errors.
    """

    costs: ProtocolCosts
    timer_ns: int
    sync_ns: int
    residual: float


def fit_costs(observations: Sequence[Observation]) -> FittedCosts:
    """The costs that explain what was observed best; ValueError without observations."""
    from scipy.optimize import least_squares, nnls

    if not observations:
        raise ValueError("nothing was observed")
    names = [*ProtocolCosts.__dataclass_fields__, TIMER, SYNC]
    matrix = numpy.array(
        [[seen.counts.get(name, 0.0) / seen.cpu_ns for name in names] for seen in observations]
    )
    ones = numpy.ones(len(observations))
    first, _ = nnls(matrix, ones)
    scale = numpy.maximum(first, 1.0)

    def errors(costs: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
        relative: NDArray[numpy.float64] = matrix @ (costs * scale) - ones
        return relative

    found = least_squares(
        errors,
        numpy.maximum(first / scale, 1e-6),
        bounds=(0.0, numpy.inf),
        loss="soft_l1",
        f_scale=_SCALE,
    )
    # What nobody did costs nothing.
    costs = numpy.where(matrix.any(axis=0), numpy.rint(found.x * scale), 0).astype(int)
    residual = float(numpy.sqrt(numpy.mean((matrix @ costs - 1.0) ** 2)))
    by_name = dict(zip(names, costs.tolist(), strict=True))
    timer_ns, sync_ns = by_name.pop(TIMER), by_name.pop(SYNC)
    return FittedCosts(ProtocolCosts(**by_name), timer_ns, sync_ns, residual)
