"""What a fault cost and how long until all was well again.

Everything is told by when operations were *intended*, so a backlog that is being drained is no
recovery: who waited through an outage is late, however quickly the answers come in the end.

**Good** is an operation that succeeded within the SLO's latency bound, or, where there is none,
within twice the p99 of the time before the first fault. **Before** is the share of good operations
(under closed load: their rate) from the end of the warm-up, or from the last strike's recovery, to
the strike. **Recovered** is the moment from which on no window falls below 95 % of that any more,
up to the next strike or the end of the load. Windows hold 100 ms and at least 20 operations; under
closed load, where the number itself tells, three standard deviations of a count are allowed.

**Detected** is the first change of a role on a node that was not struck itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy
from numpy.typing import NDArray

from orchestrator.analysis.intervals import mean
from orchestrator.analysis.latency import latencies_ns
from orchestrator.analysis.slo import good, longest_bound_ns
from orchestrator.config.schema import Config
from orchestrator.core.fault_plan import Strike
from orchestrator.core.faults import leads
from orchestrator.core.history import PHASE_FINAL
from orchestrator.core.machine import OK
from orchestrator.core.record import RunRecord
from orchestrator.core.units import NS_PER_MS, NS_PER_S

RECOVERED_SHARE: Final = 0.95
WINDOW_NS: Final = NS_PER_S // 10
WINDOW_OPERATIONS: Final = 20
BURNT_SHARE: Final = 0.99
"""An interval in which fewer operations were good counts against the SLO's budget."""
_DEVIATIONS: Final = 3.0
_ADD_UP: Final = ("operations_lost", "slo_minutes_burnt")
_SHARES: Final = ("availability", "goodput_availability", "good_within_ms")


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
        low, high = numpy.searchsorted(self.intended_ns, [start_ns, end_ns])
        return slice(int(low), int(high))


def course_of(record: RunRecord, config: Config) -> Course:
    """The run's operations, told good from bad."""
    history = record.history
    chosen = (history.intended_ns >= 0) & (history.intended_ns < record.end_ns)
    chosen &= history.phase != PHASE_FINAL
    rows = numpy.flatnonzero(chosen)
    rows = rows[numpy.argsort(history.intended_ns[rows], kind="stable")]
    intended_ns = history.intended_ns[rows]
    latency_ns = latencies_ns(history, config.client.timeout)[rows]
    ok = history.outcome[rows] == OK
    if bound_ns := longest_bound_ns(config.slo):
        within = good(config.slo, history.kind[rows], latency_ns)
    else:
        before_ns = min((strike.at_ns for strike in record.faults), default=record.end_ns)
        calm = latency_ns[(intended_ns >= record.warmup_ns) & (intended_ns < before_ns) & ok]
        calm = calm if len(calm) else latency_ns[ok]
        bound_ns = 2.0 * float(numpy.quantile(calm, 0.99)) if len(calm) else math.inf
        within = latency_ns <= bound_ns
    return Course(intended_ns, ok, ok & within, record.offered_ops is None, bound_ns)


# --- recovery ---------------------------------------------------------------------------


def recovery_ns(course: Course, since_ns: int, strike_ns: int, horizon_ns: int) -> int | None:
    """From the strike until goodput is back and stays; None where it is not, or not known."""
    before = course.between(since_ns, strike_ns)
    after = course.between(strike_ns, horizon_ns)
    if before.stop - before.start < WINDOW_OPERATIONS or strike_ns <= since_ns:
        return None
    if course.closed:
        rate = float(course.good[before].sum()) / (strike_ns - since_ns)
        starts_ns = course.intended_ns[after][course.good[after]]
        return _recovery_of_rate(starts_ns, rate, strike_ns, horizon_ns)
    share = float(course.good[before].mean()) * RECOVERED_SHARE
    per_window = (before.stop - before.start) * WINDOW_NS // (strike_ns - since_ns)
    window = max(WINDOW_OPERATIONS, int(per_window))
    return _recovery_of_share(
        course.intended_ns[after], course.good[after], share, window, strike_ns
    )


def _recovery_of_share(
    intended_ns: NDArray[numpy.int64],
    is_good: NDArray[numpy.bool_],
    share: float,
    window: int,
    strike_ns: int,
) -> int | None:
    if len(intended_ns) < window:
        return None
    sums = numpy.concatenate([[0], numpy.cumsum(is_good)])
    low = numpy.flatnonzero(sums[window:] - sums[:-window] < share * window)
    if not len(low):
        return 0
    first = int(low[-1]) + 1
    # The last window of all is low: it never came back in time.
    return None if first > len(intended_ns) - window else int(intended_ns[first]) - strike_ns


def _recovery_of_rate(
    starts_ns: NDArray[numpy.int64], rate_per_ns: float, strike_ns: int, horizon_ns: int
) -> int | None:
    if rate_per_ns <= 0:
        return None
    length_ns = max(WINDOW_NS, math.ceil(WINDOW_OPERATIONS / rate_per_ns))
    if horizon_ns - strike_ns < length_ns:
        return None
    expected = rate_per_ns * length_ns
    least = RECOVERED_SHARE * expected - _DEVIATIONS * math.sqrt(expected)
    # Between two starts a window's count changes only where one enters or leaves it.
    edges_ns = numpy.concatenate([[strike_ns], starts_ns + 1])
    edges_ns = edges_ns[edges_ns <= horizon_ns - length_ns]
    counts = numpy.searchsorted(starts_ns, edges_ns + length_ns) - numpy.searchsorted(
        starts_ns, edges_ns
    )
    low = numpy.flatnonzero(counts < least)
    if not len(low):
        return 0
    at = int(low[-1])
    if at + 1 >= len(edges_ns):
        return None
    return int(starts_ns[numpy.searchsorted(starts_ns, edges_ns[at])]) - strike_ns


# --- figures ----------------------------------------------------------------------------


def fault_figures(
    record: RunRecord, config: Config, lost_rows: Sequence[int] | None
) -> list[dict[str, Any]]:
    """One object a strike, in order. ``lost_rows``: acknowledged writes that are gone, as rows of
    the history; None where that is not known.
    """
    course = course_of(record, config)
    figures = []
    since_ns = record.warmup_ns
    lost_by_strike = _lost_by_strike(record, lost_rows)
    for index, strike in enumerate(record.faults):
        later = [each.at_ns for each in record.faults[index + 1 :] if each.at_ns > strike.at_ns]
        horizon_ns = min([record.end_ns, *later])
        # What is under way when the next one strikes is not this one's fault.
        until_ns = horizon_ns - min(course.bound_ns, horizon_ns) if later else horizon_ns
        recovered_ns = recovery_ns(course, since_ns, strike.at_ns, round(until_ns))
        if recovered_ns is not None:
            since_ns = strike.at_ns + recovered_ns
        figures.append(
            _names(strike)
            | _costs(course, strike.at_ns, horizon_ns)
            | {
                "detected_s": _detected_s(record, strike, horizon_ns),
                "recovered_s": None if recovered_ns is None else recovered_ns / NS_PER_S,
                "lost_acknowledged_writes": lost_by_strike and lost_by_strike[index],
                "leader_changes": _leader_changes(record, strike.at_ns, horizon_ns),
            }
        )
    return figures


def _names(strike: Strike) -> dict[str, Any]:
    return {
        "name": strike.name,
        "target": strike.target,
        "victims": list(strike.victims),
        "at_s": strike.at_ns / NS_PER_S,
        "until_s": None if strike.until_ns is None else strike.until_ns / NS_PER_S,
    }


def _costs(course: Course, start_ns: int, end_ns: int) -> dict[str, Any]:
    """What it cost from then to then."""
    rows = course.between(start_ns, end_ns)
    count = rows.stop - rows.start
    ok, is_good = int(course.ok[rows].sum()), int(course.good[rows].sum())
    return {
        "operations_lost": count - ok,
        "availability": ok / count if count else None,
        "goodput_availability": is_good / count if count else None,
        "slo_minutes_burnt": _burnt_ns(course, start_ns, end_ns) / (60 * NS_PER_S),
    }


def _burnt_ns(course: Course, start_ns: int, end_ns: int) -> int:
    """Length of all intervals in which too few operations were good."""
    if end_ns <= start_ns:
        return 0
    rows = course.between(start_ns, end_ns)
    interval = (course.intended_ns[rows] - start_ns) // WINDOW_NS
    count = -(-(end_ns - start_ns) // WINDOW_NS)
    intended = numpy.bincount(interval, minlength=count)
    bad = numpy.bincount(interval[~course.good[rows]], minlength=count)
    # Under closed load nobody asks while everybody waits: that is burnt, too.
    burnt = bad > (1 - BURNT_SHARE) * intended
    if course.closed:
        burnt |= intended == 0
    return int(burnt.sum()) * WINDOW_NS


def _detected_s(record: RunRecord, strike: Strike, horizon_ns: int) -> float | None:
    noticed_ns = [
        event.at_ns - strike.at_ns
        for event in record.events
        if event.kind == "role"
        and strike.at_ns < event.at_ns < horizon_ns
        and event.node not in strike.victims
    ]
    return min(noticed_ns) / NS_PER_S if noticed_ns else None


def _leader_changes(record: RunRecord, start_ns: int, end_ns: int) -> int:
    return sum(
        event.kind == "role" and start_ns < event.at_ns < end_ns and leads(event.detail)
        for event in record.events
    )


def _lost_by_strike(record: RunRecord, lost_rows: Sequence[int] | None) -> list[int] | None:
    """Lost writes belong to the first strike after their acknowledgement."""
    if lost_rows is None:
        return None
    counts = [0] * len(record.faults)
    for row in lost_rows:
        returned_ns = int(record.history.returned_ns[row])
        after = [n for n, strike in enumerate(record.faults) if strike.at_ns >= returned_ns]
        counts[after[0] if after else -1] += 1
    return counts


def resilience(
    record: RunRecord, config: Config, figures: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """All strikes together; None in a run without faults."""
    if not config.faults:
        return None
    course = course_of(record, config)
    good_within_ms = course.bound_ns / NS_PER_MS if math.isfinite(course.bound_ns) else None
    costs = _costs(course, record.warmup_ns, record.end_ns)
    return costs | _of_strikes(figures) | {"good_within_ms": good_within_ms}


def pooled_resilience(
    parts: Sequence[Mapping[str, Any] | None], figures: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Of several runs: sums of what adds up, means of shares, all strikes together."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    sums = {key: sum(part[key] for part in known) for key in _ADD_UP}
    means = {key: mean([part[key] for part in known]) for key in _SHARES}
    return sums | means | _of_strikes(figures)


def _of_strikes(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    known = [each["recovered_s"] for each in figures if each["recovered_s"] is not None]
    lost = [each["lost_acknowledged_writes"] for each in figures]
    return {
        "strikes": len(figures),
        "recovered": len(known),
        "recovered_s": {
            "p50": float(numpy.median(known)) if known else None,
            "max": max(known, default=None),
        },
        "lost_acknowledged_writes": None if None in lost else sum(lost),
    }
