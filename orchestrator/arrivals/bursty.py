"""Arrivals in bursts: a Poisson process whose rate jumps between two values by chance.

The Markov-modulated Poisson process of two states (Fischer and Meier-Hellstern, "The
Markov-modulated Poisson process (MMPP) cookbook", Performance Evaluation 18, 1993, section 2):
calm and burst last for exponential times, and the first state is drawn by the shares of time that
they have in the long run. Counts of long windows scatter more than Poisson's: their index of
dispersion goes to

    1 + 2 (r_burst - r_calm)^2 s_burst s_calm / (mean rate (s_burst + s_calm)^3)

with s a state's mean length inverted. All clients see the same states, drawn from a stream
of their own; ``rate_per_s`` is the long run's mean, and what is offered in a window is what the
states of the seed let expect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy

from orchestrator.arrivals._varying import Course, Floats, Pieces, VaryingTimetable
from orchestrator.core.load import VaryingArrival
from orchestrator.core.parameters import ParameterError, duration, rate
from orchestrator.core.randomness import block_stream
from orchestrator.core.registry import Family, register
from orchestrator.core.units import NS_PER_S

_CYCLES: Final = 256
_OPERATIONS_PER_CYCLE_MIN: Final = 1.0
"""With clients that draw thousands of starts ahead, fewer would draw millions of states."""


@dataclass(frozen=True)
class BurstyParams:
    burst: float = rate(help="in a burst, of all clients together")
    calm: float | None = rate(None, help="between bursts; null: nothing starts")
    burst_lasts: int = duration("100ms", low="1us", help="mean length of a burst")
    calm_lasts: int = duration("900ms", low="1us", help="mean length of a calm")

    def __post_init__(self) -> None:
        if self.burst <= (self.calm or 0.0):
            raise ParameterError("must be above the rate of the calm", key="burst")
        if self.per_cycle < _OPERATIONS_PER_CYCLE_MIN:
            raise ParameterError(
                f"only {self.per_cycle:.3g} operations come in a calm and a burst together, which "
                f"hardly differs from poisson; at least {_OPERATIONS_PER_CYCLE_MIN:g} are needed"
            )

    @property
    def per_cycle(self) -> float:
        """Mean number of operations of a calm and a burst."""
        calm = (self.calm or 0.0) * self.calm_lasts
        return (self.burst * self.burst_lasts + calm) / NS_PER_S


@register(Family.ARRIVAL, "bursty", params=BurstyParams)
class Bursty(VaryingArrival):
    """Open loop in bursts: a Poisson process that two states modulate by chance."""

    closed = False

    def __init__(self, params: BurstyParams) -> None:
        self._params = params
        self._states: tuple[int, _States] | None = None

    @property
    def rate_per_s(self) -> float | None:
        """Mean of the long run."""
        return self._params.per_cycle * NS_PER_S / _cycle_ns(self._params)

    def expected(self, seed: int, clients: int, start_ns: int, end_ns: int) -> float:
        """Operations of all clients within [start, end), given the states of this seed."""
        states = self._states_of(seed)
        return states.expected(end_ns) - states.expected(start_ns)

    def timetable(self, seed: int, client: int, clients: int) -> VaryingTimetable:
        """A Poisson process of a ``clients``-th of the rate that all clients see."""
        return VaryingTimetable(self._states_of(seed), seed, client, clients)

    def _states_of(self, seed: int) -> _States:
        # Kept, as the clients of one process can share them.
        if self._states is None or self._states[0] != seed:
            self._states = (seed, _States(self._params, seed))
        return self._states[1]


def _cycle_ns(params: BurstyParams) -> int:
    return params.burst_lasts + params.calm_lasts


class _States(Course):
    """The states that one seed gives, drawn on as far as they are asked for."""

    def __init__(self, params: BurstyParams, seed: int) -> None:
        self._chance = block_stream(seed, "arrival/states")
        rates = (params.calm or 0.0, params.burst)
        lasts_ns = (params.calm_lasts, params.burst_lasts)
        begins_bursting = self._chance.random() < params.burst_lasts / _cycle_ns(params)
        order = (1, 0) if begins_bursting else (0, 1)
        self._rates = [rates[state] for state in order]
        self._lasts_ns = [lasts_ns[state] for state in order]
        self._lengths_ns = numpy.empty(0)
        self._draw(_CYCLES)

    def _draw(self, cycles: int) -> None:
        drawn = self._chance.exponential(self._lasts_ns, (cycles, 2))
        # A piece of no length would have no slope.
        lengths_ns = numpy.maximum(drawn.ravel(), 1.0)
        self._lengths_ns = numpy.concatenate([self._lengths_ns, lengths_ns])
        ends = self._rates * (len(self._lengths_ns) // 2)
        self._pieces = Pieces(self._lengths_ns, [*ends, self._rates[0]], ends)

    def _draw_on(self) -> None:
        # Doubled, so that all drawing together takes time in proportion to what is drawn.
        self._draw(len(self._lengths_ns) // 2)

    def expected(self, until_ns: float) -> float:
        """Arrivals expected from 0 until then."""
        while self._pieces.end_ns < until_ns:
            self._draw_on()
        return self._pieces.expected(until_ns)

    def reached_ns(self, expected: Floats) -> Floats:
        """When so many are expected to have come."""
        while self._pieces.expected(self._pieces.end_ns) <= expected[-1]:
            self._draw_on()
        return self._pieces.reached_ns(expected)
