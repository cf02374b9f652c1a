"""What overload did: collapses that outlive their cause are named, and others are not."""

from __future__ import annotations

import itertools
from typing import Any

import numpy
import pytest

from orchestrator.analysis.overload import SPIKE, metastable
from orchestrator.analysis.recovery import Course
from orchestrator.core.fault_plan import Strike
from orchestrator.core.units import NS_PER_S

RATE = 1000


def course(
    good: list[tuple[float, float, float]],
    *,
    rates: list[tuple[float, float, float]] | None = None,
    seconds: int = 30,
    closed: bool = False,
) -> Course:
    """Evenly spaced operations; ``good``: share of good ones by stretch (from s, to s, share), 1
    elsewhere; ``rates``: how many times the usual are asked.
    """
    parts = []
    edges = sorted({0.0, float(seconds), *(at for low, top, _ in rates or [] for at in (low, top))})
    for low, top in itertools.pairwise(edges):
        times = next((each[2] for each in rates or [] if each[0] <= low < each[1]), 1.0)
        parts.append(numpy.arange(low, top, 1 / (RATE * times)))
    intended_s = numpy.concatenate(parts)
    chance = numpy.random.default_rng(1).random(len(intended_s))
    share = numpy.ones(len(intended_s))
    for low, top, part in good:
        share[(intended_s >= low) & (intended_s < top)] = part
    well = chance < share
    return Course((intended_s * NS_PER_S).astype(numpy.int64), well, well, closed, 1e9)


def strike(at_s: float, until_s: float | None) -> Strike:
    until_ns = None if until_s is None else round(until_s * NS_PER_S)
    return Strike(0, "slow", "n0", round(at_s * NS_PER_S), (0,), until_ns)


def told(whole: Course, strikes: list[Strike], seconds: int = 30) -> dict[str, Any] | None:
    return metastable(whole, strikes, 0, seconds * NS_PER_S, patience_ns=NS_PER_S)


def test_a_collapse_that_outlives_a_fault_is_named() -> None:
    found = told(course([(10, 30, 0.05)]), [strike(10, 12)])
    assert found is not None
    assert found["cause"] == "slow"
    assert found["cause_at_s"] == 10
    assert found["cause_over_s"] == 12
    assert found["good_share_before"] == 1
    assert found["good_share_after"] == pytest.approx(0.05, abs=0.02)


def test_a_collapse_that_outlives_a_flash_crowd_is_named() -> None:
    found = told(course([(10, 30, 0.2)], rates=[(10, 13, 3.0)]), [])
    assert found is not None
    assert found["cause"] == SPIKE
    assert found["cause_at_s"] == pytest.approx(10, abs=0.5)
    assert found["cause_over_s"] == pytest.approx(13, abs=0.5)


@pytest.mark.parametrize(
    ("whole", "strikes"),
    [
        # It recovers, at once or in the end.
        (course([(10, 13, 0.0)]), [strike(10, 12)]),
        (course([(10, 24, 0.0)]), [strike(10, 12)]),
        # It is worse off, and far from down.
        (course([(10, 30, 0.7)]), [strike(10, 12)]),
        # Nothing happened, or it never was well.
        (course([(10, 30, 0.1)]), []),
        (course([(0, 30, 0.3)]), [strike(10, 12)]),
        # What brought it down is not over.
        (course([(10, 30, 0.1)]), [strike(10, None)]),
        (course([(10, 30, 0.1)], rates=[(10, 30, 3.0)]), []),
        # Too little is left to tell.
        (course([(10, 30, 0.1)]), [strike(10, 27)]),
        # A slow system is asked less.
        (course([(10, 30, 0.1)], closed=True), [strike(10, 12)]),
    ],
)
def test_other_courses_are_none(whole: Course, strikes: list[Strike]) -> None:
    assert told(whole, strikes) is None
