"""Where a run becomes steady, whether it stays so, and what comes back in it.

**Warm-up** is cut by MSER-5 (White, "An effective truncation heuristic for bias reduction in
simulation output", Simulation 69(6), 1997; White, Cobb and Spratt, WSC 2000): of response times in
order of their intended starts, in batches of five, the first d batches are cut that minimise

    sum over the rest of (batch - mean of the rest)^2 / (number of the rest)^2,

the squared half-width of an interval for the mean of what is left. It needs no parameter and was
found the best of the simple rules (Mahajan and Ingalls, WSC 2004). Only what lies within a lead may
be cut. That the minimum of all lies beyond it proves nothing (of a stationary M/M/1 at load 0.9 it
does in a quarter of all runs of ten seconds): whether what is left is steady the drift says.
Of a queue that is steady from the start MSER likes to cut the first busy spell, since the variance
is then less, and so makes the mean too low (by 4 % there). So a cut is made only where the run's
beginning differs from the stretches of its length in the second half by more than they do from each
other: Student's t of the logarithms of their means, at BEGINNING_LEVEL.

**Drift**: the measured window in BLOCKS blocks of equal time, of each the mean latency of what was
intended in it and what completed in it. A line is laid through them by least squares; its rise over
the window, relative to the level, is the effect. Blocks are correlated, so one of two tests must be
sure of it, each at DRIFT_LEVEL and each too careful where it does not fit:

- around a trend: the slope's standard error with the n (1 - r) / (1 + r) independent blocks that a
  lag-one autocorrelation r of the residuals leaves (Santer et al., "Statistical significance of
  trends and trend differences", J. Geophysical Research 105(D6), 2000), r made free of the bias
  that a fitted line gives it (Marriott and Pope, Biometrika 41, 1954);
- a walk with a drift, as the backlog of an overloaded queue is: Student's t of the differences of
  neighbouring blocks. Were the blocks stationary, the differences would cancel each other, and t
  would be nearly 0.

**Periodicity**: latency in short bins, whitened by what the bin before lets expect, is folded
at every period of 4 bins up to a quarter of the window; the variance between phases against that
within them is F-distributed for noise (epoch folding; Davies, Monthly Notices of the RAS 244,
1990). It sees a short stall every two seconds, whose power a spectrum spreads over all harmonics.
The period with the least p counts, where that is sure for all periods together and where the folded
course swings by more than EFFECT of the level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy
from numpy.typing import NDArray
from scipy.special import fdtrc, stdtr

BATCH: Final = 5
BATCHES_MIN: Final = 20
BLOCKS: Final = 20
BEGINNING_LEVEL: Final = 0.01
STRETCHES: Final = 20
"""The beginning is at most so great a part of the run."""
OPERATIONS_PER_BLOCK_MIN: Final = 25
"""Fewer make the means of blocks too coarse to be taken for normal."""
EFFECT: Final = 0.1
"""Of the level: what is less nobody acts upon."""
DRIFT_LEVEL: Final = 1e-4
PERIOD_LEVEL: Final = 1e-4
BINS_MAX: Final = 640
BINS_MIN: Final = 40
OPERATIONS_PER_BIN_MIN: Final = 5
CYCLES_MIN: Final = 4
PHASES_MAX: Final = 64

Floats = NDArray[numpy.float64]


# --- warm-up ----------------------------------------------------------------------------


def mser5(values: NDArray[numpy.int64], most: int) -> int | None:
    """How many of the first values are to be cut, at most ``most``; None where there are too few to
    tell. ``values``: shape (n,), in order of time.
    """
    count = len(values) // BATCH
    if count < BATCHES_MIN:
        return None
    batches = values[: count * BATCH].reshape(count, BATCH).mean(axis=1)
    # Sums of what is left from each batch on; around the mean, so that nothing cancels.
    rest = (batches - batches.mean())[::-1]
    number = numpy.arange(1, count + 1, dtype=numpy.float64)
    scatter = numpy.cumsum(rest**2) - numpy.cumsum(rest) ** 2 / number
    # Rounding is no scatter, or it would decide where what is left is constant.
    scatter[scatter < 1e-12 * scatter[-1]] = 0.0
    statistic = (scatter / number**2)[::-1]
    # Few batches are alike by chance: the last ones are never left alone.
    last = min(most // BATCH + 1, count - BATCHES_MIN // 4)
    return int(statistic[:last].argmin()) * BATCH


def warmup(values: NDArray[numpy.int64], most: int) -> int | None:
    """As :func:`mser5`, but nothing is cut that is like the rest: see above."""
    cut = mser5(values, most)
    if not cut:
        return cut
    length = min(cut, len(values) // STRETCHES)
    means = values[: len(values) // length * length].reshape(-1, length).mean(axis=1)
    logs = numpy.log(numpy.maximum(means, 1))
    later = logs[len(logs) // 2 :]
    error = float(later.std(ddof=1)) * math.sqrt(1 + 1 / len(later))
    away = abs(float(logs[0] - later.mean()))
    sure = away > 0 and 2 * stdtr(len(later) - 1, -away / max(error, 1e-12)) < BEGINNING_LEVEL
    return cut if sure else 0


# --- drift ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drift:
    """``change``: the rise of the line over the window, relative to the level; ``p``: of none."""

    change: float
    p: float

    @property
    def sure(self) -> bool:
        """Whether it is large, and no chance."""
        return abs(self.change) > EFFECT and self.p < DRIFT_LEVEL


def drift(blocks: Floats) -> Drift | None:
    """Of block means in order of time; None where they say nothing."""
    count = len(blocks)
    level = float(blocks.mean())
    if count < 4 or level <= 0:
        return None
    x: Floats = numpy.arange(count, dtype=numpy.float64) - (count - 1) / 2
    slope = float((x * blocks).sum() / (x**2).sum())
    residuals = blocks - level - slope * x
    squares = float((residuals**2).sum())
    # Rounding is no scatter.
    if squares <= (1e-9 * level) ** 2 * count:
        return Drift(slope * count / level, 0.0 if abs(slope) * count > 1e-6 * level else 1.0)
    p = min(_around_a_trend(slope, x, residuals, squares), _walk(blocks))
    return Drift(slope * count / level, min(1.0, 2 * p))


def _around_a_trend(slope: float, x: Floats, residuals: Floats, squares: float) -> float:
    count = len(x)
    r = float((residuals[1:] * residuals[:-1]).sum()) / squares
    r = min(max((count * r + 2) / (count - 4), 0.0), 0.99)
    independent = count * (1 - r) / (1 + r)
    freedom = independent - 2
    if freedom <= 0:
        return 1.0
    error = math.sqrt(squares / freedom / float((x**2).sum()))
    return float(2 * stdtr(freedom, -abs(slope) / error))


def _walk(blocks: Floats) -> float:
    steps = numpy.diff(blocks)
    error = float(steps.std(ddof=1)) / math.sqrt(len(steps))
    if error == 0:
        return 1.0
    return float(2 * stdtr(len(steps) - 1, -abs(float(steps.mean())) / error))


# --- periodicity ------------------------------------------------------------------------


def period_bins(course: Floats) -> float | None:
    """The period with which a course comes back, in bins; None where none is sure.

    ``course``: shape (n,), means of bins of equal length, above 0.
    """
    if len(course) < BINS_MIN or float(course.min()) <= 0:
        return None
    if float(numpy.log(course).std()) < math.log1p(EFFECT) / 10:
        return None
    # Slow courses look like the noise of a queue in short bins, and short stalls vanish in long.
    scales = [each for each in (1, 4, 16) if len(course) // each >= BINS_MIN]
    chance, period, scale = min((*_strongest(_coarser(course, each)), each) for each in scales)
    swing = _swing(_coarser(course, scale), 1 / period)
    return period * scale if chance * len(scales) < PERIOD_LEVEL and swing > EFFECT else None


def _coarser(course: Floats, scale: int) -> Floats:
    whole = len(course) // scale * scale
    found: Floats = course[:whole].reshape(-1, scale).mean(axis=1)
    return found


def _strongest(course: Floats) -> tuple[float, float]:
    """(chance that noise has a period as strong, the period in bins)."""
    count = len(course)
    values = numpy.log(course)
    if float(values.std()) < 1e-9:
        return 1.0, 1.0
    noise = _whitened(values - values.mean())
    # From four cycles down to four bins, in steps that lose a quarter of a cycle over the window.
    frequencies = numpy.arange(CYCLES_MIN, count / 4 + 0.125, 0.25) / count
    chances = [_folded(noise, frequency) for frequency in frequencies.tolist()]
    best = int(numpy.argmin(chances))
    return min(1.0, chances[best] * len(chances)), float(1 / frequencies[best])


def _whitened(values: Floats) -> Floats:
    """What the value before does not let expect. (The two before would let expect any sine.)"""
    before, after = values[:-1], values[1:]
    found: Floats = after - float((before * after).sum() / (values**2).sum()) * before
    return found


def _phases(count: int, frequency: float) -> tuple[NDArray[numpy.int64], int]:
    number = min(PHASES_MAX, round(1 / frequency))
    phase = (numpy.arange(count) * frequency % 1.0 * number).astype(numpy.int64)
    return numpy.minimum(phase, number - 1), number


def _folded(noise: Floats, frequency: float) -> float:
    """The chance that noise differs as much between the phases of a period."""
    phase, number = _phases(len(noise), frequency)
    size = numpy.bincount(phase, minlength=number)
    total = numpy.bincount(phase, noise, minlength=number)
    middle = float(noise.mean())
    between = float((total**2 / numpy.maximum(size, 1)).sum()) - len(noise) * middle**2
    within = float(((noise - middle) ** 2).sum()) - between
    freedom = len(noise) - number
    if within <= 0:
        return 0.0
    return float(fdtrc(number - 1, freedom, between / (number - 1) / (within / freedom)))


def _swing(course: Floats, frequency: float) -> float:
    """How far the folded course goes up and down, relative to the level."""
    phase, number = _phases(len(course), frequency)
    size = numpy.bincount(phase, minlength=number)
    folded = numpy.bincount(phase, course, minlength=number)[size > 0] / size[size > 0]
    return float((folded.max() - folded.min()) / course.mean())
