"""Where a noisy margin crosses zero: the search behind a capacity.

A *probe* measures at one rate by how much an objective is missed: 1 - bound / value, below 0 where
it is met. The search asks for a rate, is told what came of it, and ends when it knows
the crossing well enough, or may not ask any more.

1. **Bracket**: the rate doubles while the objective is met, or halves while it is missed.
2. **Bisection** between the highest rate that met it below the lowest that missed it.
3. **Regression**, as soon as there are probes whose margin is small. In heavy traffic latency grows
   as 1 / (1 - utilisation) (Kingman, Proc. Cambridge Phil. Soc. 57(4), 1961), so the margin is
   about linear in the rate, and a line through many probes says more than the last verdict does;
   its scatter says how much. New probes go to both sides of the root, whose interval is that of a
   calibration (Draper and Smith, "Applied Regression Analysis", section 3.2; Fieller). Where the
   margin jumps there is no line: then the bracket is made narrow, and each of its ends is asked
   again until its verdicts agree two to one.

Nothing here takes it for granted that more load is worse: who measures below the crossing tells
that, too, and :attr:`Crossing.contradictions` names rates that missed below others that met.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy
from scipy.special import stdtrit

_COARSE: Final = 1.25
"""Ratio of the ends of a bracket below which probes go to both sides of the crossing."""
_NEAR: Final = 0.6
"""Margins up to this are near the crossing."""
_ROUNDS: Final = 5
_LINE_MIN: Final = 5
_SURE_MIN: Final = 8
"""Probes that a line needs before it ends the search: few may lie on one by luck."""
_SPREAD: Final = 0.2
"""Margin at which new probes are placed on either side."""
_STEP_MAX: Final = 0.1
_CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Probe:
    """``margin``: 1 - bound / value of the worst bound; None where only the verdict is known."""

    rate: float
    met: bool
    margin: float | None = None


@dataclass(frozen=True)
class Estimate:
    """The crossing and its interval of 95 %; ``sure``: as narrow as was asked for."""

    rate: float
    low: float
    high: float
    sure: bool


class Crossing:
    """The search. ``start``: the first rate; ``precision``: half of the interval's width over the
    rate; at most ``probes_max`` are asked for, at rates from ``least`` to ``most``.
    """

    def __init__(
        self,
        start: float,
        *,
        precision: float = 0.02,
        probes_max: int = 40,
        least: float = 1e-3,
        most: float = 1e9,
    ) -> None:
        self._start = min(max(start, least), most)
        self._precision = precision
        self._probes_max = probes_max
        self._least, self._most = least, most
        self.probes: list[Probe] = []

    # --- told -----------------------------------------------------------------------------

    def tell(self, probe: Probe) -> None:
        """What came of a rate, asked for or not."""
        self.probes.append(probe)

    @property
    def contradictions(self) -> list[float]:
        """Rates that missed well below one that met."""
        met = [probe.rate for probe in self.probes if probe.met]
        top = max(met, default=0.0)
        missed = {probe.rate for probe in self.probes if not probe.met}
        return sorted(rate for rate in missed if rate * _COARSE < top and not self._holds(rate))

    def _holds(self, rate: float) -> bool:
        """Whether most probes at this very rate met the objective."""
        verdicts = [probe.met for probe in self.probes if probe.rate == rate]
        return 2 * sum(verdicts) > len(verdicts)

    # --- asked ----------------------------------------------------------------------------

    def next(self) -> float | None:
        """The rate to probe; None where enough is known, or nothing more may be asked."""
        if len(self.probes) >= self._probes_max:
            return None
        if not self.probes:
            return self._start
        bracket = self._bracket()
        if bracket is None:
            return self._wider()
        line = self._line()
        if line is not None:
            return None if line.estimate(self._precision).sure else self._beside(line)
        low, high = bracket
        if high / low > 1 + self._precision:
            return math.sqrt(low * high)
        return self._asked_again(low, high)

    def estimate(self) -> Estimate | None:
        """What is known; None where every rate met the objective, or none did."""
        bracket = self._bracket()
        if bracket is None:
            return None
        line = self._line()
        if line is not None:
            return line.estimate(self._precision)
        low, high = bracket
        sure = high / low <= 1 + self._precision and self._asked_again(low, high) is None
        return Estimate(low, low, high, sure)

    def _bracket(self) -> tuple[float, float] | None:
        """The highest rate that met the objective with none below it that missed it, and the lowest
        that missed it above that.
        """
        rates = sorted({probe.rate for probe in self.probes})
        low = None
        for rate in rates:
            if not self._holds(rate):
                return None if low is None else (low, rate)
            low = rate
        return None

    def _wider(self) -> float | None:
        """Twice the highest rate that met it, or half of the lowest that did not."""
        rates = [probe.rate for probe in self.probes]
        rate = 2 * max(rates) if self._holds(max(rates)) else min(rates) / 2
        rate = min(max(rate, self._least), self._most)
        return None if rate in rates else rate

    def _asked_again(self, low: float, high: float) -> float | None:
        """The end of a narrow bracket whose verdict rests on too few probes."""
        for rate in (low, high):
            verdicts = [probe.met for probe in self.probes if probe.rate == rate]
            if len(verdicts) < 2 or (len(verdicts) < 3 and len(set(verdicts)) > 1):
                return rate
        return None

    # --- the line -------------------------------------------------------------------------

    def _line(self) -> _Line | None:
        """Through the probes near the crossing; None where they are too few, or do not grow."""
        bracket = self._bracket()
        known = [probe for probe in self.probes if probe.margin is not None]
        if bracket is None or bracket[1] / bracket[0] > _COARSE:
            return None
        line = _through([probe for probe in known if abs(probe.margin or 0.0) <= _NEAR])
        # By where they are, not by what they found: who leaves out what strays bends the line.
        for _ in range(_ROUNDS):
            if line is None:
                return None
            reach = _NEAR / line.slope
            near = [probe for probe in known if abs(probe.rate - line.root) <= reach]
            if near == line.probes:
                break
            line = _through(near) or line
        return line

    def _beside(self, line: _Line) -> float:
        """A probe beside the root, on the side that has fewer."""
        root = line.root
        step = min(_SPREAD / line.slope, _STEP_MAX * root)
        below = sum(1 for probe in line.probes if probe.rate < root)
        side = 1 if 2 * below > len(line.probes) else -1
        # Not always the same rate: what is odd about one would pass for the law.
        step *= 0.6 + 0.4 * (len(self.probes) * 0.618 % 1)
        return min(max(root + side * step, self._least), self._most)


def _through(probes: Sequence[Probe]) -> _Line | None:
    """The line through these; None where it does not rise."""
    if len({probe.rate for probe in probes}) < 2:
        return None
    line = _Line(probes)
    return line if line.rises else None


class _Line:
    """Least squares of margins over the rate."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        self.probes = list(probes)
        x = numpy.array([probe.rate for probe in probes])
        y = numpy.array([probe.margin for probe in probes], dtype=numpy.float64)
        self._mean = float(x.mean())
        self._spread = float(((x - self._mean) ** 2).sum())
        middle = float(y.mean())
        self.slope = float(((x - self._mean) * (y - middle)).sum()) / (self._spread or 1.0)
        fitted = middle + self.slope * (x - self._mean)
        self._squares = float(((y - fitted) ** 2).sum())
        self._middle = middle

    @property
    def rises(self) -> bool:
        """Whether the margin grows with the rate."""
        return self._spread > 0 and self.slope > 0 and self.root > 0

    @property
    def root(self) -> float:
        """The rate at which the line is 0."""
        return self._mean - self._middle / self.slope

    def estimate(self, precision: float) -> Estimate:
        """The root with Fieller's interval, which may be endless."""
        rate, freedom = self.root, len(self.probes) - 2
        if freedom < _LINE_MIN - 2:
            return Estimate(rate, 0.0, math.inf, False)
        t = float(stdtrit(freedom, (1 + _CONFIDENCE) / 2))
        variance = self._squares / freedom
        g = t * t * variance / (self.slope**2 * self._spread)
        if g >= 1:
            return Estimate(rate, 0.0, math.inf, False)
        offset = rate - self._mean
        centre = self._mean + offset / (1 - g)
        inner = (1 - g) / len(self.probes) + offset**2 / self._spread
        half = t * math.sqrt(variance * inner) / (self.slope * (1 - g))
        low, high = max(0.0, centre - half), centre + half
        sure = len(self.probes) >= _SURE_MIN and half <= precision * rate
        return Estimate(rate, low, high, sure)
