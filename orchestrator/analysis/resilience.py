"""What a fault cost and how long until all was well again.

Everything is told by when operations were *intended*, so a backlog that is being drained is no
recovery: who waited through an outage is late, however quickly the answers come in the end.

**Good** is an operation that succeeded within the SLO's latency bound, or, where there is none,
within twice the p99 of the time before the first fault or move of data. **Recovered** is what
:mod:`orchestrator.analysis.recovery` says of the share of good operations (under closed load: of
their rate) since the end of the warm-up, or since the recovery before.

**Detected** is the first change of a role on a node that nothing had struck.

**Lost** is what :mod:`orchestrator.analysis.durability` can count, and charged to the first strike
after its acknowledgement that takes nodes down; where there is none, to the first that strikes
nodes at all, since a failover may leave behind what was not copied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy

from orchestrator.analysis.durability import Survival
from orchestrator.analysis.goodput import good, longest_bound_ns
from orchestrator.analysis.intervals import mean
from orchestrator.analysis.latency import latencies_ns
from orchestrator.analysis.recovery import WINDOW_NS, Course, recoveries
from orchestrator.config.schema import Config
from orchestrator.core.fault_plan import Strike
from orchestrator.core.faults import Fault, leads
from orchestrator.core.giving import FENCED
from orchestrator.core.history import PHASE_FINAL
from orchestrator.core.machine import OK
from orchestrator.core.record import RunRecord
from orchestrator.core.registry import Family, plugin
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.core.verdict import INVALID, UNDECIDED, VALID

BURNT_SHARE: Final = 0.99
"""An interval in which fewer operations were good counts against the SLO's budget."""
_ADD_UP: Final = ("operations_lost", "slo_minutes_burnt")
_SHARES: Final = ("availability", "goodput_availability", "good_within_ms")


def course_of(record: RunRecord, config: Config) -> Course:
    """The run's operations, told good from bad."""
    history = record.history
    chosen = (history.intended_ns >= 0) & (history.intended_ns < record.end_ns)
    chosen &= history.phase != PHASE_FINAL
    rows = numpy.flatnonzero(chosen)
    rows = rows[numpy.argsort(history.intended_ns[rows], kind="stable")]
    intended_ns = history.intended_ns[rows]
    latency_ns = latencies_ns(history, config.client.timeout)[rows]
    ok = history.service_outcome[rows] == OK
    if bound_ns := longest_bound_ns(config.slo):
        within = good(config.slo, history.kind[rows], latency_ns)
    else:
        troubled_ns = [strike.at_ns for strike in record.faults]
        troubled_ns += [event.at_ns for event in record.events if event.kind == FENCED]
        before_ns = min(troubled_ns, default=record.end_ns)
        calm = latency_ns[(intended_ns >= record.warmup_ns) & (intended_ns < before_ns) & ok]
        calm = calm if len(calm) else latency_ns[ok]
        bound_ns = 2.0 * float(numpy.quantile(calm, 0.99)) if len(calm) else math.inf
        within = latency_ns <= bound_ns
    closed = config.arrival.implementation(config.arrival.params).closed
    return Course(intended_ns, ok, ok & within, closed, bound_ns)


# --- figures ----------------------------------------------------------------------------


def fault_figures(
    record: RunRecord, config: Config, course: Course, survived: Survival
) -> list[dict[str, Any]]:
    """One object a strike, in order. ``survived``: what the final reads say."""
    told = recoveries(course, record.faults, record.warmup_ns, record.end_ns)
    lost = _lost_by_strike(record, config, survived.lost)
    figures = []
    for index, strike in enumerate(record.faults):
        later = [each.at_ns for each in record.faults[index + 1 :] if each.at_ns > strike.at_ns]
        horizon_ns = min([record.end_ns, *later])
        back_ns = told[index].at_ns
        took_ns = None if back_ns is None else max(0, back_ns - strike.at_ns)
        figures.append(
            _names(strike)
            | costs_between(course, strike.at_ns, horizon_ns)
            | {
                "detected_s": _detected_s(record, strike, horizon_ns),
                "recovered": took_ns is not None if told[index].known else None,
                "recovered_s": None if took_ns is None else took_ns / NS_PER_S,
                "lost_acknowledged_writes": None if lost is None else lost[index],
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


def costs_between(course: Course, start_ns: int, end_ns: int) -> dict[str, Any]:
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
    # Who comes back from another fault has noticed nothing either.
    struck = {
        node
        for each in record.faults
        if each.at_ns < horizon_ns and (each.until_ns is None or each.until_ns > strike.at_ns)
        if not _strikes_clients(each)
        for node in each.victims
    }
    noticed_ns = [
        event.at_ns - strike.at_ns
        for event in record.events
        if event.kind == "role"
        and strike.at_ns < event.at_ns < horizon_ns
        and event.node not in struck
    ]
    return min(noticed_ns) / NS_PER_S if noticed_ns else None


def _strikes_clients(strike: Strike) -> bool:
    """Whether its victims are clients."""
    return bool(_struck_with(strike).strikes_clients)


def _struck_with(strike: Strike) -> type[Fault]:
    """The fault that struck: of a mix, what was drawn."""
    found: type[Fault] = plugin(Family.FAULT, strike.name.rpartition(": ")[2]).implementation
    return found


def _leader_changes(record: RunRecord, start_ns: int, end_ns: int) -> int:
    return sum(
        event.kind == "role" and start_ns < event.at_ns < end_ns and leads(event.detail)
        for event in record.events
    )


def _lost_by_strike(
    record: RunRecord, config: Config, lost_rows: Sequence[int] | None
) -> list[int] | None:
    """Lost writes belong to the first strike after their acknowledgement that can lose some."""
    if lost_rows is None:
        return None
    made = [slot.implementation(slot.params) for _, slot in config.faults]
    variants = [variant for fault in made for variant in fault.variants]
    crashing = {type(variant) for variant in variants if variant.hazards.crashes}
    strikes = list(enumerate(record.faults))
    able = [n for n, strike in strikes if _struck_with(strike) in crashing]
    other = [n for n, strike in strikes if n not in able and not _strikes_clients(strike)]
    counts = [0] * len(record.faults)
    for row in lost_rows:
        returned_ns = int(record.history.returned_ns[row])
        after = [n for n in (*able, *other) if record.faults[n].at_ns >= returned_ns]
        # A node whose storage fails may end again and again while the strike holds.
        during = [n for n in able if (record.faults[n].until_ns or returned_ns) > returned_ns]
        for guilty in [*after, *during][:1]:
            counts[guilty] += 1
    return counts


def resilience(
    record: RunRecord, course: Course, figures: Sequence[Mapping[str, Any]], survived: Survival
) -> dict[str, Any]:
    """All strikes together."""
    lost = None if survived.lost is None else len(survived.lost)
    return {
        **costs_between(course, record.warmup_ns, record.end_ns),
        **_of_strikes(figures),
        "durability": survived.verdict,
        "lost_acknowledged_writes": lost,
        "lost_is_least": survived.least,
        "unread_keys": survived.unread,
        "good_within_ms": course.bound_ns / NS_PER_MS if math.isfinite(course.bound_ns) else None,
    }


def pooled_resilience(
    parts: Sequence[Mapping[str, Any] | None], figures: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Of several runs: sums of what adds up, means of shares, all strikes together."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    sums = {key: sum(part[key] for part in known) for key in _ADD_UP}
    means = {key: mean([part[key] for part in known]) for key in _SHARES}
    return sums | means | _of_strikes(figures) | _pooled_survival(known)


def _pooled_survival(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The worst verdict; what is lost, at least, where not every run knows."""
    verdicts = [part["durability"] for part in parts]
    unread = [part["unread_keys"] for part in parts]
    counts = [part["lost_acknowledged_writes"] for part in parts]
    lost = sum(count or 0 for count in counts)
    unknown = None in counts
    return {
        "durability": next(each for each in (INVALID, UNDECIDED, VALID) if each in verdicts),
        "lost_acknowledged_writes": None if unknown and not lost else lost,
        "lost_is_least": lost > 0 and (unknown or any(part["lost_is_least"] for part in parts)),
        "unread_keys": None if None in unread else sum(unread),
    }


def _of_strikes(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    known = [each["recovered_s"] for each in figures if each["recovered_s"] is not None]
    return {
        "strikes": len(figures),
        "recovered": len(known),
        "recovery_unknown": sum(each["recovered"] is None for each in figures),
        "recovered_s": {
            "p50": float(numpy.median(known)) if known else None,
            "max": max(known, default=None),
        },
    }
