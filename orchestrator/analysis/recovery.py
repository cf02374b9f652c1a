"""When goodput was back after a strike, to stay, and whether that can be told at all.

Goodput is cut into *cells*: under open load each operation is one, good or not; under closed
load, where the number itself tells, a cell is the time that one good operation took before. **Low**
is a stretch of cells whose good ones fall short of 95 % of what there would have been before, by
more than chance explains. Chance is measured, not assumed: the variance of the time before, in
batches, which knows of operations that are late together. What it may explain is Bernstein's
bound (Boucheron, Lugosi and Massart, Concentration Inequalities, 2013, theorem 2.10) at one in a
hundred over all stretches of a length.

Stretches of 100 ms (at least 20 cells) are looked at first, then of twice the length, and so on,
each from the end of the last low one on: a short outage is found by short ones and timed by
them, and what is only a little worse is found by long ones. A low stretch ends where the good
operations, counted from its start, are furthest behind 95 %.

Goodput is **back** at the end of the last low stretch, where it then stays for a second (or half
of the time that is left, where that is shorter) and its mean from there to the end is no less than
95 % of before. Where a stay at 95 % and one at 100 % are less than four standard errors apart, or
the time before holds less than ten of the shortest stretches, nobody can tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.fault_plan import Strike
from orchestrator.core.units import NS_PER_S

RECOVERED_SHARE: Final = 0.95
WINDOW_NS: Final = NS_PER_S // 10
WINDOW_CELLS: Final = 20
STAY_NS: Final = NS_PER_S
BATCHES: Final = 10
"""The time before holds at least so many of the shortest stretches."""
_LONG_BATCHES: Final = 20
_FALSE_SHARE: Final = 0.01
_ERRORS: Final = 2.0
"""So many standard errors are to fit between 95 % and what tells it from 90 % or 100 %."""


@dataclass(frozen=True)
class Course:
    """All operations of the load in order of their intended start; arrays of equal length.

    ``bound_ns``: none is good that took longer.
    """

    intended_ns: NDArray[numpy.int64]
    ok: NDArray[numpy.bool_]
    good: NDArray[numpy.bool_]
    closed: bool
    bound_ns: float

    def between(self, start_ns: int, end_ns: int) -> slice:
        """The operations that were intended then."""
        low, high = numpy.searchsorted(self.intended_ns, [start_ns, max(start_ns, end_ns)])
        return slice(int(low), int(high))

    def good_ns(self, start_ns: int, end_ns: int) -> NDArray[numpy.int64]:
        """When the good ones of them were intended."""
        rows = self.between(start_ns, end_ns)
        return self.intended_ns[rows][self.good[rows]]


@dataclass(frozen=True)
class Recovery:
    """``known``: whether it can be told. ``at_ns``: when goodput was back; None: it was not."""

    known: bool
    at_ns: int | None = None


UNKNOWN: Final = Recovery(known=False)
NOT_BACK: Final = Recovery(known=True)


@dataclass(frozen=True)
class Before:
    """What is usual. ``share`` good operations and their ``variance`` a cell, from ``cells`` of
    them; ``window``: cells of the shortest stretch; ``cell_ns``: mean length of a cell.
    """

    cells: int
    share: float
    variance: float
    window: int
    cell_ns: float

    def allowance(self, cells: int, tries: float) -> float:
        """By how many good operations such a stretch may differ by chance."""
        odds = math.log(max(tries, 1.0) / _FALSE_SHARE)
        # The usual share is known no better than its own sample allows.
        variance = cells * self.variance * (1 + cells / self.cells)
        burst = max(1.0, self.variance / max(self._independent, 1 / self.cells))
        return math.sqrt(2 * variance * odds) + burst * odds / 3

    def error(self, cells: int) -> float:
        """Standard error of a stretch's mean, as a share of what is usual."""
        return math.sqrt(self.variance * (1 / cells + 1 / self.cells)) / self.share

    @property
    def _independent(self) -> float:
        """The variance if no operation knew of any other."""
        return self.share * (1 - self.share) if self.share < 1 else 1.0


def before(course: Course, start_ns: int, end_ns: int) -> Before | None:
    """What was usual then; None where there is too little of it to tell."""
    rows = course.between(start_ns, end_ns)
    good = course.good_ns(start_ns, end_ns)
    cells = len(good) if course.closed else rows.stop - rows.start
    if not len(good):
        return None
    cell_ns = (end_ns - start_ns) / cells
    window = max(WINDOW_CELLS, math.ceil(WINDOW_NS / cell_ns))
    if cells < BATCHES * window:
        return None
    if course.closed:
        edges_ns = start_ns + numpy.arange(cells + 1) * cell_ns
        counts = numpy.diff(numpy.searchsorted(good, edges_ns))
    else:
        counts = course.good[rows].astype(numpy.int64)
    share = len(good) / cells
    lapses = cells - len(good)
    # Nothing bad was seen in n operations: one in n + 2 may be.
    least = 0.0 if course.closed else (lapses + 1) / (cells + 2) * (1 - lapses / (cells + 2))
    return Before(cells, share, max(least, _variance(counts, window)), window, cell_ns)


def _variance(counts: NDArray[numpy.int64], window: int) -> float:
    """A cell's share of the variance of sums, the largest over batches of several lengths.

    Of short batches there are many, which makes them sure; only long ones show what is late
    together.
    """
    found: list[float] = []
    length = window // 4
    while length <= window or len(counts) >= _LONG_BATCHES * length:
        batches = len(counts) // length
        sums = counts[: batches * length].reshape(batches, length).sum(axis=1)
        found.append(float(sums.var(ddof=1)) / length)
        length *= 2
    return max(found)


def recoveries(
    course: Course, strikes: Sequence[Strike], start_ns: int, end_ns: int
) -> list[Recovery]:
    """One of each strike, in their order; the load runs from ``start_ns`` to ``end_ns``.

    Strikes less than a second apart are one blow: nobody can tell their recoveries apart.
    """
    found: list[Recovery] = []
    usual: Before | None = None
    calm_since_ns: int | None = start_ns
    blows = _blows(strikes)
    for blow, following in zip(blows, [*blows[1:], None], strict=True):
        if calm_since_ns is not None:
            # Too short a calm says nothing new: what was usual earlier still holds.
            usual = before(course, calm_since_ns, blow[0].at_ns) or usual
        # What is under way when the next one strikes is not this one's fault.
        until_ns = end_ns if following is None else following[0].at_ns - course.bound_ns
        told = recovery(course, usual, blow[0].at_ns, int(max(until_ns, 0)))
        calm_since_ns = told.at_ns
        found += [told] * len(blow)
    return found


def _blows(strikes: Sequence[Strike]) -> list[list[Strike]]:
    blows: list[list[Strike]] = []
    for strike in strikes:
        if blows and strike.at_ns - blows[-1][-1].at_ns < STAY_NS:
            blows[-1].append(strike)
        else:
            blows.append([strike])
    return blows


def recovery(course: Course, usual: Before | None, start_ns: int, end_ns: int) -> Recovery:
    """When goodput was as usual again, after ``start_ns`` and until ``end_ns``."""
    if usual is None or end_ns <= start_ns:
        return UNKNOWN
    edges_ns, sums = _cells(course, usual, start_ns, end_ns)
    if len(sums) == 1:
        return UNKNOWN
    at = _end_of_low(sums, usual)
    back_ns = _first_good_ns(course, float(edges_ns[at]), end_ns) if at else start_ns
    if end_ns - back_ns < min(STAY_NS, (end_ns - start_ns) / 2):
        return NOT_BACK
    left = len(sums) - 1 - at
    mean = float(sums[-1] - sums[at]) / left / usual.share
    errors = _ERRORS * usual.error(left)
    if mean < RECOVERED_SHARE - errors:
        return NOT_BACK
    if mean < RECOVERED_SHARE or errors > 1 - RECOVERED_SHARE:
        return UNKNOWN
    return Recovery(known=True, at_ns=back_ns)


def _cells(
    course: Course, usual: Before, start_ns: int, end_ns: int
) -> tuple[NDArray[Any], NDArray[numpy.int64]]:
    """Where the cells begin, and how many operations were good before each; both with the end."""
    if course.closed:
        edges_ns = start_ns + numpy.arange((end_ns - start_ns) // usual.cell_ns + 1) * usual.cell_ns
        return edges_ns, numpy.searchsorted(course.good_ns(start_ns, end_ns), edges_ns)
    rows = course.between(start_ns, end_ns)
    sums = numpy.concatenate([[0], numpy.cumsum(course.good[rows])])
    return numpy.append(course.intended_ns[rows], end_ns), sums


def _end_of_low(sums: NDArray[numpy.int64], usual: Before) -> int:
    """The cell at which the last low stretch has ended; 0 where none is low."""
    cells, least = len(sums) - 1, RECOVERED_SHARE * usual.share
    at, window = 0, usual.window
    while window <= cells - at:
        tries = (cells - at) / window
        bound = least * window - usual.allowance(window, tries)
        low = numpy.flatnonzero(sums[at + window :] - sums[at:-window] < bound)
        if len(low):
            first = at + int(low[-1])
            ahead = sums[first : first + window + 1] - least * numpy.arange(window + 1)
            at = first + window - int(numpy.argmin(ahead[::-1]))
        window *= 2
    return at


def _first_good_ns(course: Course, after_ns: float, end_ns: int) -> int:
    """When the first good operation from then on was intended."""
    good = course.good_ns(math.ceil(after_ns), end_ns)
    return int(good[0]) if len(good) else end_ns
