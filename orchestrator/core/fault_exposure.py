"""What all faults of a run expose it to: as many strikes at once as may be in force together.

Burdens add up, so the bound on a clock's rate is a sum: over the faults that may strike one party
at one time, each as often as its strikes may overlap. The k-th strike after another is asked for k
gaps later at least, and comes when it is asked for or later. Only the first of them may be late,
by up to ``slack``, without moving those behind it (:class:`~orchestrator.core.fault_plan.FaultPlan`
plans anew after a longer delay), so strikes that hold for t overlap at most
floor((t + slack) / gap) + 1 times.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.core.distributions import build
from orchestrator.core.fault_plan import GAP_NS, PATIENCE_NS
from orchestrator.core.faults import (
    AUTHORITY,
    CACHE,
    NODE,
    Aim,
    Fault,
    Hazards,
    Target,
    parse_target,
)
from orchestrator.core.registry import Slot


@dataclass(frozen=True)
class _Schedule:
    """One fault's strikes: their time from first to last, and the shortest gap between them."""

    first_ns: float
    last_ns: float
    gap_ns: float

    @staticmethod
    def of(aim: Aim, end_ns: int) -> _Schedule:
        if aim.every is None:
            assert aim.at is not None
            return _Schedule(aim.at, aim.at, math.inf)
        gap_ns = max(build(aim.every).bounds_ns[0], GAP_NS)
        first_ns = gap_ns if aim.at is None else aim.at
        last_ns = end_ns - 1 if aim.until is None else min(aim.until, end_ns - 1)
        return _Schedule(first_ns, max(first_ns, last_ns), gap_ns)

    def at_once(self, lasts_ns: float) -> int:
        """How many strikes may be in force together, each of which lasts so long."""
        if math.isinf(self.gap_ns):
            return 1
        strikes = (self.last_ns - self.first_ns) // self.gap_ns
        overlapping = (lasts_ns + min(self.gap_ns, PATIENCE_NS)) / self.gap_ns
        return 1 + int(min(strikes, overlapping))


@dataclass(frozen=True)
class _Drift:
    """Of one fault: whom it may strike, from when to when it may hold, and how far it goes."""

    target: Target
    from_ns: float
    until_ns: float
    fastest: float
    slowest: float

    @staticmethod
    def of(aim: Aim, hazards: Hazards, end_ns: int) -> _Drift:
        schedule = _Schedule.of(aim, end_ns)
        count = schedule.at_once(hazards.drifts_ns)
        return _Drift(
            parse_target(aim.target),
            schedule.first_ns,
            schedule.last_ns + PATIENCE_NS + hazards.drifts_ns,
            count * hazards.fastest,
            count * hazards.slowest,
        )

    def meets(self, other: _Drift) -> bool:
        """Whether it may hold where and when the other begins to."""
        fixed = (NODE, AUTHORITY)
        both_fixed = self.target.word in fixed and other.target.word in fixed
        there = self.target == other.target or not both_fixed
        return there and self.from_ns <= other.from_ns <= self.until_ns


def exposure(faults: Sequence[tuple[Aim, Slot]], end_ns: int) -> Hazards:
    """What faults that strike until ``end_ns`` expose a system to, all together."""
    hazards = []
    drifts = []
    for aim, chosen in faults:
        fault: Fault = chosen.implementation(chosen.params)
        aimed_at_cache = parse_target(aim.target).word == CACHE
        hazards.append(fault.hazards.of_cache() if aimed_at_cache else fault.hazards)
        if fault.hazards.drifts_ns:
            drifts.append(_Drift.of(aim, fault.hazards, end_ns))
    # The most that holds together begins with one of them.
    together = [[each for each in drifts if each.meets(latest)] for latest in drifts]
    return replace(
        functools.reduce(operator.or_, hazards, Hazards()),
        fastest=max((sum(each.fastest for each in group) for group in together), default=0.0),
        slowest=min((sum(each.slowest for each in group) for group in together), default=0.0),
    )
