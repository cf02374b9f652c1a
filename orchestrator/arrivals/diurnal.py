"""Poisson arrivals whose rate swings like a sine, as between day and night.

rate(t) = rate (1 + amplitude sin(2 pi (t / period + phase))), so at phase 0 the load starts at the
mean and rises. With x the angle, the arrivals expected by then are those of x - amplitude cos x,
which rises for every amplitude up to 1; its inverse is found by Newton's method within brackets
that bisection keeps, to the last bits (this is Kepler's equation). ``rate_per_s`` is the mean over
a period.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy

from orchestrator.arrivals._varying import Course, Floats, Varying
from orchestrator.core.parameters import duration, number, rate
from orchestrator.core.registry import Family, register
from orchestrator.core.units import NS_PER_S

_STEPS_MAX = 64
_TOLERANCE = 2e-15


@dataclass(frozen=True)
class DiurnalParams:
    rate: float = rate(help="mean, of all clients together")
    amplitude: float = number(0.5, low=0.0, high=1.0, help="largest deviation over the mean")
    period: int = duration("60s", low="1us")
    phase: float = number(0.0, low=0.0, high=1.0, help="share of the period that is over at first")


@register(Family.ARRIVAL, "diurnal", params=DiurnalParams)
class Diurnal(Varying):
    """Open loop whose rate swings like a sine."""

    def __init__(self, params: DiurnalParams) -> None:
        super().__init__(_Sine(params), params.period)


class _Sine(Course):
    def __init__(self, params: DiurnalParams) -> None:
        self._amplitude = params.amplitude
        self._ns_per_radian = params.period / math.tau
        self._expected_per_radian = params.rate / NS_PER_S * self._ns_per_radian
        self._first = math.tau * params.phase
        self._below = self._first - self._amplitude * math.cos(self._first)

    def expected(self, until_ns: float) -> float:
        """Arrivals expected from 0 until then."""
        angle = self._first + until_ns / self._ns_per_radian
        risen = angle - self._amplitude * math.cos(angle) - self._below
        return self._expected_per_radian * risen

    def reached_ns(self, expected: Floats) -> Floats:
        """When so many are expected to have come."""
        amplitude = self._amplitude
        wanted = self._below + expected / self._expected_per_radian
        found = numpy.empty_like(wanted)
        # Only the few near a standstill of the rate take more than some steps.
        left = numpy.arange(len(wanted))
        low, high, angle = wanted - amplitude, wanted + amplitude, wanted
        for _ in range(_STEPS_MAX):
            above = angle - amplitude * numpy.cos(angle) - wanted[left]
            found[left] = angle
            unsettled = numpy.abs(above) > _TOLERANCE * numpy.maximum(1.0, numpy.abs(angle))
            if not unsettled.any():
                break
            left, above, angle = left[unsettled], above[unsettled], angle[unsettled]
            high = numpy.where(above > 0, angle, high[unsettled])
            low = numpy.where(above > 0, low[unsettled], angle)
            slope = numpy.maximum(1 + amplitude * numpy.sin(angle), _TOLERANCE)
            step = angle - above / slope
            angle = numpy.where((step > low) & (step < high), step, (low + high) / 2)
        return numpy.maximum(found - self._first, 0.0) * self._ns_per_radian
