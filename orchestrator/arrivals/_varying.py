"""Poisson arrivals whose rate changes: shared by several plug-ins.

With L(t) the number of arrivals expected until t, and E_1 < E_2 < ... a Poisson process of rate 1,
the times at which L reaches E_1, E_2, ... are a Poisson process of the rate that L has (Cinlar,
Introduction to Stochastic Processes, section 4.7: inversion). It is exact, and draws one
exponential variate an arrival whatever the rate does. Each of C clients has a C-th of the rate,
drawn independently; merged they have the whole (Kingman, Poisson Processes, section 2.2).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Final, Protocol

import numpy
from numpy.typing import NDArray

from orchestrator.core.distributions import LONGEST_NS
from orchestrator.core.load import OperationBlock, VaryingArrival
from orchestrator.core.randomness import block_stream
from orchestrator.core.units import NS_PER_S

NEVER_NS: Final = LONGEST_NS
"""The start of what never starts."""

Floats = NDArray[numpy.float64]


class Course(Protocol):
    """How a rate goes on, as the number of arrivals that it lets expect."""

    @abstractmethod
    def expected(self, until_ns: float) -> float:
        """Arrivals expected from 0 until then."""

    @abstractmethod
    def reached_ns(self, expected: Floats) -> Floats:
        """When so many are expected to have come; ``expected`` rises."""


class Pieces(Course):
    """A rate that is linear piece by piece; after the last one it stays as it is.

    ``rates`` are those at the beginning of each piece and, one more, at the end of the last;
    ``ends``, where given, those at the end of each piece, so that the rate may jump.
    """

    def __init__(
        self,
        lengths_ns: Sequence[float] | Floats,
        rates: Sequence[float],
        ends: Sequence[float] = (),
    ) -> None:
        first = numpy.array(rates[:-1], dtype=numpy.float64) / NS_PER_S
        last = numpy.array(ends or rates[1:], dtype=numpy.float64) / NS_PER_S
        length = numpy.array(lengths_ns, dtype=numpy.float64)
        self._start_ns = numpy.concatenate([[0.0], numpy.cumsum(length)])
        self._rate = numpy.append(first, rates[-1] / NS_PER_S)
        self._slope = numpy.append((last - first) / length, 0.0)
        self._before = numpy.concatenate([[0.0], numpy.cumsum((first + last) / 2 * length)])

    @property
    def end_ns(self) -> float:
        """Where the last piece ends."""
        return float(self._start_ns[-1])

    def expected(self, until_ns: float) -> float:
        """Arrivals expected from 0 until then."""
        piece = int(numpy.searchsorted(self._start_ns, until_ns, side="right")) - 1
        within = until_ns - self._start_ns[piece]
        return float(
            self._before[piece] + (self._rate[piece] + self._slope[piece] / 2 * within) * within
        )

    def reached_ns(self, expected: Floats) -> Floats:
        """When so many are expected to have come."""
        piece = numpy.searchsorted(self._before, expected, side="right") - 1
        rate = self._rate[piece]
        rest = expected - self._before[piece]
        # The root of rate t + slope t^2 / 2 = rest in the form that does not cancel.
        root = numpy.sqrt(numpy.maximum(rate**2 + 2 * self._slope[piece] * rest, 0.0))
        found: Floats = self._start_ns[piece] + 2 * rest / (rate + root)
        return found


class VaryingTimetable:
    """One client's starts."""

    sessions = 0

    def __init__(self, course: Course, seed: int, client: int, clients: int) -> None:
        self._course = course
        self._clients = clients
        self._chance = block_stream(seed, f"client/{client}/arrival")
        self._expected = 0.0
        self._last_ns = 0

    def starts_ns(self, operations: OperationBlock) -> NDArray[numpy.int64]:
        """Intended starts of the next operations, shape (n,)."""
        gaps = self._chance.exponential(self._clients, len(operations))
        if not len(gaps):
            return numpy.empty(0, dtype=numpy.int64)
        # Summed on from the last one, so that blocks of any length add up alike.
        gaps[0] += self._expected
        expected = numpy.cumsum(gaps, out=gaps)
        self._expected = float(expected[-1])
        times = numpy.minimum(numpy.rint(self._course.reached_ns(expected)), NEVER_NS)
        starts_ns = times.astype(numpy.int64)
        # Where pieces meet, rounding could bring one before the other.
        starts_ns[0] = max(int(starts_ns[0]), self._last_ns)
        numpy.maximum.accumulate(starts_ns, out=starts_ns)
        self._last_ns = int(starts_ns[-1])
        return starts_ns

    def think_ns(self) -> int:
        """Nothing: the starts are set beforehand."""
        return 0


class Varying(VaryingArrival):
    """An open arrival of a course that the parameters give. ``pattern_ns``: how much of it the
    mean rate is over.
    """

    closed = False

    def __init__(self, course: Course, pattern_ns: int) -> None:
        self._course = course
        self._rate_per_s = course.expected(pattern_ns) * NS_PER_S / pattern_ns

    @property
    def rate_per_s(self) -> float | None:
        """Mean of the pattern."""
        return self._rate_per_s

    def expected(self, seed: int, clients: int, start_ns: int, end_ns: int) -> float:
        """Operations of all clients within [start, end)."""
        return self._course.expected(end_ns) - self._course.expected(start_ns)

    def timetable(self, seed: int, client: int, clients: int) -> VaryingTimetable:
        """A Poisson process of a ``clients``-th of the rate at any time."""
        return VaryingTimetable(self._course, seed, client, clients)
