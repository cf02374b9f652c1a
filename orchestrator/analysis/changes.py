"""Change points of a series: where its law becomes another one.

E-divisive (Matteson and James, JASA 109(505), 2014; Daly et al., "The Use of Change Point Detection
to Identify Software Performance Regressions in a Continuous Integration System", ICPE 2020). The
energy statistic of a split compares all distances across it with those on either side; the split
with the largest one is a change point if so large a one is rare when the order of the points is
shuffled. Then each side is looked at in the same way.

It looks at no mean or variance and takes no law for granted, but points that follow each other
must not depend on each other beyond a change of level.

A distance of two numbers is the length of the line between them, so mean distances follow from
distribution functions (Szekely and Rizzo, J. Statistical Planning and Inference 143(8), 2013):
E|X - Y| is the integral of F (1 - G) + G (1 - F). That makes a shuffle O(n) for each of the levels
at which the functions are looked at: all values, or 256 quantiles of more.

Shuffles stop once it is plain that the answer is no (Besag and Clifford, Biometrika 78(2), 1991).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.randomness import block_stream

Floats = NDArray[numpy.float64]

SIGNIFICANCE: Final = 0.05
SHUFFLES: Final = 199
LEAST_POINTS: Final = 2
"""On either side of a split: one point alone is an outlier."""
_LEVELS_MAX: Final = 256


@dataclass(frozen=True)
class Change:
    """``index``: the first point of the new level; ``before`` and ``after``: means of the points
    between this change and its neighbours; ``p``: the part of shuffles with so large a split.
    """

    index: int
    before: float
    after: float
    p: float

    @property
    def relative(self) -> float | None:
        """By which part of ``before`` the mean grew; None where that was 0."""
        return (self.after - self.before) / abs(self.before) if self.before else None


def changes(
    series: Sequence[float], *, significance: float = SIGNIFICANCE, seed: int = 1
) -> list[Change]:
    """The change points of a series of finite numbers, in order; the same for the same seed."""
    points = numpy.array(series, dtype=numpy.float64)
    chance = block_stream(seed, "changes")
    open_segments = [(0, len(points))]
    found: dict[int, float] = {}
    while open_segments:
        start, end = open_segments.pop()
        split = _Splits.of(points[start:end])
        if split is None:
            continue
        at, p = split.best(significance, chance)
        if p <= significance:
            found[start + at] = p
            open_segments += [(start + at, end), (start, start + at)]
    edges = [0, *sorted(found), len(points)]
    means = [float(points[a:b].mean()) for a, b in itertools.pairwise(edges) if b > a]
    return [
        Change(index, means[at], means[at + 1], found[index])
        for at, index in enumerate(sorted(found))
    ]


class _Splits:
    """All splits of a segment. ``below[i, k]``: whether point i is at most level k; ``gaps``: from
    each level to the next.
    """

    def __init__(self, below: NDArray[numpy.bool_], gaps: Floats) -> None:
        self._below, self._gaps = below, gaps
        count = len(below)
        self._first = numpy.arange(LEAST_POINTS, count - LEAST_POINTS + 1, dtype=numpy.float64)

    @staticmethod
    def of(points: Floats) -> _Splits | None:
        """None where the points are all the same, or too few."""
        levels = numpy.unique(points)
        if len(points) < 2 * LEAST_POINTS or len(levels) == 1:
            return None
        if len(levels) > _LEVELS_MAX:
            levels = numpy.unique(numpy.quantile(levels, numpy.linspace(0, 1, _LEVELS_MAX)))
        return _Splits(points[:, None] <= levels[:-1], numpy.diff(levels))

    def statistics(self, order: NDArray[numpy.int64] | None = None) -> Floats:
        """The energy statistic of every split with LEAST_POINTS or more on either side (equation 6
        of Matteson and James, distances to the power of 1), the points in this order.
        """
        below = self._below if order is None else self._below[order]
        so_far = numpy.cumsum(below, axis=0, dtype=numpy.float64)
        first = self._first[:, None]
        second = len(below) - first
        chosen = so_far[LEAST_POINTS - 1 : len(below) - LEAST_POINTS]
        one, other = chosen / first, (so_far[-1] - chosen) / second
        across = (one * (1 - other) + other * (1 - one)) @ self._gaps
        # Of a point from itself the distance is 0, and does not count.
        within_one = (2 * one * (1 - one)) @ self._gaps * (first / (first - 1))[:, 0]
        within_other = (2 * other * (1 - other)) @ self._gaps * (second / (second - 1))[:, 0]
        found: Floats = (
            (first * second)[:, 0] / len(below) * (2 * across - within_one - within_other)
        )
        return found

    def best(self, significance: float, chance: numpy.random.Generator) -> tuple[int, float]:
        """(first point of the second part of the best split, the part of shuffles, and of the
        series itself, whose best split is as good).
        """
        found = self.statistics()
        at = int(found.argmax())
        least = found[at] * (1 - 1e-12)
        order = numpy.arange(len(self._below))
        as_good, enough = 1, int(significance * (SHUFFLES + 1)) + 1
        for done in range(1, SHUFFLES + 1):
            chance.shuffle(order)
            as_good += bool(self.statistics(order).max() >= least)
            if as_good > enough:
                return at + LEAST_POINTS, as_good / (done + 1)
        return at + LEAST_POINTS, as_good / (SHUFFLES + 1)
