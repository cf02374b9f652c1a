"""Operations must have been sent as the arrival process that was asked for.

A rate may be as asked where the process is not: a generator that is held up for a while and then
catches up sends bursts, and queues answer to bursts. By the **time-rescaling theorem** (Brown et
al., Neural Computation 14(2), 2002) the times of a Poisson process of any rate lie, in the time in
which its rate is 1, at independent exponential distances, whatever the rate does. That time is the
number of operations expected until then, which the arrival gives. Times are those at which
operations were really sent.

What a generator's tick cannot resolve is no fault: where the spread of gaps is not well above its
lag, sums of k gaps are looked at, which are Erlang (Poisson) or constant (even), with k chosen so
that the lag is a small part of their spread. They are brought to their own mean, since the rate has
a rule of its own. The figure is Kolmogorov's distance of their distribution from the one asked for;
of even arrivals, where any distance from a constant is 1, the share of them that are off by more
than a quarter. Gaps say nothing of slow changes, so where in the window the operations lie is
looked at in the same way. The figure must pass DISTANCE_MAX, and what chance gives at LEVEL
(Massart's bound, Annals of Probability 18(3), 1990): a test by p alone rejects any real run that is
long enough.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy
from numpy.typing import NDArray
from scipy.special import gammainc

from orchestrator.analysis.latency import Window, quantile_ns
from orchestrator.config.schema import Config
from orchestrator.core.history import PHASE_FINAL
from orchestrator.core.load import EVEN, EXPONENTIAL, VaryingArrival
from orchestrator.core.record import RunRecord
from orchestrator.core.units import NS_PER_MS, NS_PER_S

DISTANCE_MAX: Final = 0.1
LEVEL: Final = 1e-6
GAPS_MIN: Final = 50
RESOLUTION_MAX_NS: Final = NS_PER_MS
"""A lag above this has a rule of its own."""
SPREAD_OVER_LAG: Final = 5
EVEN_OVER_LAG: Final = 10
EVEN_OFF: Final = 0.25
_GRID_NS: Final = 5 * NS_PER_MS
_GRID: Final = (1024, 8192)
"""Points at which a changing rate is summed up, at least and at most."""

_Floats = NDArray[numpy.float64]


class Fit(NamedTuple):
    """``distance`` from the process asked for, of sums of ``gaps`` gaps or (0) of the times at
    which operations lie in the window, and what it may be at most.
    """

    distance: float
    limit: float
    gaps: int
    law: str


def arrival_fit(window: Window, config: Config) -> Fit | None:
    """None where the arrival is closed or cannot say, where something else decides when operations
    are sent (faults, a limit of the client's), or where there are too few.
    """
    arrival = config.arrival.implementation(config.arrival.params)
    law = getattr(arrival, "gaps", None)
    if law is None or config.faults or config.client.limit is not None or window.length_s <= 0:
        return None
    sent_ns = _sent_ns(window)
    expected, most_per_s = _expected(arrival, config, window, sent_ns)
    at_once = most_per_s * _resolution_ns(window.record) / NS_PER_S
    if law == EXPONENTIAL:
        gaps = max(1, math.ceil((SPREAD_OVER_LAG * at_once) ** 2))
    else:
        gaps = max(1, math.ceil(EVEN_OVER_LAG * at_once))
    sums = numpy.diff(expected[::gaps])
    if len(sums) < GAPS_MIN or sums.mean() <= 0:
        return None
    places = (expected - expected[0]) / (expected[-1] - expected[0])
    fits = [
        Fit(_distance(sums / sums.mean(), gaps, law), _limit(len(sums)), gaps, law),
        Fit(_from_uniform(places), _limit(len(places)), 0, law),
    ]
    return max(fits, key=lambda fit: fit.distance / fit.limit)


def _limit(count: int) -> float:
    return max(DISTANCE_MAX, math.sqrt(math.log(2 / LEVEL) / (2 * count)))


def _distance(relative: _Floats, gaps: int, law: str) -> float:
    if law == EVEN:
        return float((abs(relative - 1) > EVEN_OFF).mean())
    return _from_uniform(numpy.sort(gammainc(gaps, relative * gaps)))


def _from_uniform(ordered: _Floats) -> float:
    count = len(ordered)
    above = numpy.arange(1, count + 1) / count - ordered
    return float(max(above.max(), (1 / count - above).max()))


def _sent_ns(window: Window) -> NDArray[numpy.int64]:
    """When operations were sent that the arrival knew of, in order."""
    history = window.record.history
    rows = (history.invoked_ns >= window.start_ns) & (history.invoked_ns < window.end_ns)
    rows &= history.phase != PHASE_FINAL
    if any(client.follow_ups for client in window.record.clients):
        # What follows upon a read starts when that returns, in its session.
        order = numpy.lexsort((history.sequence, history.session))
        before_ns = numpy.full(len(order), -1, dtype=numpy.int64)
        same = history.session[order][1:] == history.session[order][:-1]
        before_ns[order[1:][same]] = history.returned_ns[order][:-1][same]
        rows &= history.intended_ns != before_ns
    return numpy.sort(history.invoked_ns[rows])


def _expected(
    arrival: Any, config: Config, window: Window, at_ns: NDArray[numpy.int64]
) -> tuple[_Floats, float]:
    """Operations expected from the window's start until each time, and the highest rate."""
    start_ns, end_ns = window.start_ns, window.end_ns
    if not isinstance(arrival, VaryingArrival):
        rate_per_s = arrival.rate_per_s or 0.0
        return (at_ns - start_ns) * (rate_per_s / NS_PER_S), rate_per_s
    points = min(max((end_ns - start_ns) // _GRID_NS, _GRID[0]), _GRID[1])
    grid_ns = numpy.linspace(start_ns, end_ns, points + 1).astype(numpy.int64)
    reached = numpy.array(
        [arrival.expected(config.seed, config.clients, start_ns, end) for end in grid_ns.tolist()]
    )
    steepest = float((numpy.diff(reached) / numpy.maximum(numpy.diff(grid_ns), 1)).max())
    return numpy.interp(at_ns, grid_ns, reached), steepest * NS_PER_S


def _resolution_ns(record: RunRecord) -> float:
    """How finely sending times can be told to be as asked."""
    lags = [client.lag_ns for client in record.clients if len(client.lag_ns)]
    lag_ns = quantile_ns(numpy.concatenate(lags), 990) if lags else None
    own_ns = RESOLUTION_MAX_NS if lag_ns is None else min(lag_ns, RESOLUTION_MAX_NS)
    return own_ns + record.clock_uncertainty_ns


def arrival_reasons(window: Window, config: Config) -> list[str]:
    """One sentence where operations were not sent as asked."""
    fit = arrival_fit(window, config)
    if fit is None or fit.distance <= fit.limit:
        return []
    what = f"sums of {fit.gaps} gaps between them" if fit.gaps > 1 else "gaps between them"
    if fit.gaps == 0:
        figure = f"their places in the measured window are {fit.distance:.2f} away from it"
        allowed = f"at most {fit.limit:.2f} is allowed (Kolmogorov's distance)"
    elif fit.law == EVEN:
        figure = f"{fit.distance:.0%} of the {what} are off by more than {EVEN_OFF:.0%}"
        allowed = f"{fit.limit:.0%} may be"
    else:
        figure = f"the {what} are {fit.distance:.2f} away from {fit.law} ones"
        allowed = f"at most {fit.limit:.2f} is allowed (Kolmogorov's distance)"
    return [
        f"operations were not sent as arrival {config.arrival.name!r} asks: {figure}; {allowed}"
    ]
