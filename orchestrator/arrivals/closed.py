"""Closed load: a fixed number of sessions, each with one operation at a time.

Throughput X, response time R, think time Z and sessions N are tied by the interactive response
time law N = X (R + Z) (Denning and Buzen, "The operational analysis of queueing network
models", ACM Computing Surveys 1978), so such a load never overruns the system: a slow system
is asked less. Use it for the highest throughput, and open arrivals for latency at a rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from orchestrator.core.distributions import Sampler, build
from orchestrator.core.load import OperationBlock
from orchestrator.core.parameters import ParameterError, number, slot
from orchestrator.core.randomness import block_stream
from orchestrator.core.registry import Family, Slot, register


@dataclass(frozen=True)
class ClosedParams:
    sessions: int = number(16, low=1, help="of all clients together")
    think_time: Slot = slot(
        Family.DISTRIBUTION,
        {"name": "constant", "value": "0s"},
        help="from an answer to the session's next operation",
    )


@register(Family.ARRIVAL, "closed", params=ClosedParams)
class Closed:
    """Closed loop: each session waits for its answer, thinks, and goes on."""

    closed = True

    def __init__(self, params: ClosedParams) -> None:
        self._params = params

    @property
    def rate_per_s(self) -> float | None:
        """None: the system's speed sets it."""
        return None

    def timetable(self, seed: int, client: int, clients: int) -> ClosedTimetable:
        """The client's share of the sessions; ParameterError where one would have none."""
        law = build(self._params.think_time)
        think = Sampler(law, block_stream(seed, f"client/{client}/arrival"))
        return ClosedTimetable(share(self._params.sessions, client, clients), think)


def share(sessions: int, client: int, clients: int) -> int:
    """How many of the sessions are this client's: as even as it gets, at least one."""
    if sessions < clients:
        raise ParameterError(
            f"{sessions} for {clients} clients: each client needs at least one", key="sessions"
        )
    return sessions // clients + (client < sessions % clients)


class ClosedTimetable:
    """One client's sessions; without ``think`` they do not pause."""

    def __init__(self, sessions: int, think: Sampler | None = None) -> None:
        self.sessions = sessions
        self._think = think

    def starts_ns(self, operations: OperationBlock) -> NDArray[numpy.int64]:
        """All 0, shape (n,): an operation starts as soon as a session is free."""
        return numpy.zeros(len(operations), dtype=numpy.int64)

    def think_ns(self) -> int:
        """The next pause."""
        return 0 if self._think is None else self._think.draw_ns()
