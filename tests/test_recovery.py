"""When goodput is said to be back: on made runs of which the truth is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import pytest
from numpy.typing import NDArray

from orchestrator.analysis.recovery import (
    NOT_BACK,
    UNKNOWN,
    Course,
    Recovery,
    before,
    recoveries,
    recovery,
)
from orchestrator.core.fault_plan import Strike
from orchestrator.core.units import NS_PER_MS, NS_PER_S

Floats = NDArray[numpy.float64]
Share = Callable[[Floats], Floats]

START_S, STRIKE_S, END_S = 1.0, 4.0, 9.0


def well(at_s: Floats) -> Floats:
    return numpy.ones(len(at_s))


def drop(share: float, lasts_s: float = 1e9, at_s: float = STRIKE_S) -> Share:
    """Goodput is such a share of before, for so long."""
    return lambda times: numpy.where((times >= at_s) & (times < at_s + lasts_s), share, 1.0)


def course(
    rate: int,
    share: Share = well,
    *,
    usual: float = 1.0,
    closed: bool = False,
    shape: float = 1.0,
    end_s: float = END_S,
    seed: int = 0,
) -> Course:
    """Operations whose gaps are gamma of such a shape (1: Poisson). What is not good is late under
    open load; under closed load it is not asked for, as its session waits.
    """
    chance = numpy.random.default_rng([rate, seed])
    count = round(1.3 * rate * (end_s - START_S)) + 100
    at_s = START_S + numpy.cumsum(chance.gamma(shape, 1 / (shape * rate), count))
    at_s = at_s[at_s < end_s]
    is_good = chance.random(len(at_s)) < usual * share(at_s)
    if closed:
        at_s, is_good = at_s[is_good], is_good[is_good]
    return Course(numpy.rint(at_s * NS_PER_S).astype(numpy.int64), is_good, is_good, closed, 0.0)


def told(made: Course, end_s: float = END_S) -> Recovery:
    usual = before(made, round(START_S * NS_PER_S), round(STRIKE_S * NS_PER_S))
    return recovery(made, usual, round(STRIKE_S * NS_PER_S), round(end_s * NS_PER_S))


def took_s(made: Course) -> float | None:
    at_ns = told(made).at_ns
    return None if at_ns is None else at_ns / NS_PER_S - STRIKE_S


LOADS = [
    pytest.param({"rate": 200, "usual": 0.99}, id="open-200-99%"),
    pytest.param({"rate": 1000, "usual": 0.95}, id="open-1000-95%"),
    pytest.param({"rate": 10_000, "usual": 0.9}, id="open-10000-90%"),
    pytest.param({"rate": 1000, "closed": True, "shape": 10.0}, id="closed-1000"),
    pytest.param({"rate": 10_000, "closed": True}, id="closed-10000-Poisson"),
]
RUNS = 50


@pytest.mark.parametrize("load", LOADS)
def test_where_nothing_happens_nothing_is_to_be_recovered_from(load: dict[str, float]) -> None:
    found = [took_s(course(**load, seed=seed)) for seed in range(RUNS)]  # type: ignore[arg-type]
    assert found.count(0.0) >= RUNS - 1


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("lasts_s", [0.5, 1.5])
@pytest.mark.parametrize("load", LOADS)
def test_an_outage_is_timed(load: dict[str, float], share: float, lasts_s: float) -> None:
    found = [
        took_s(course(**load, share=drop(share, lasts_s), seed=seed))  # type: ignore[arg-type]
        for seed in range(RUNS // 2)
    ]
    errors = numpy.array([each - lasts_s for each in found if each is not None])
    assert len(errors) >= len(found) - 1
    assert abs(errors.mean()) < 0.025
    assert numpy.sqrt((errors**2).mean()) < 0.05


@pytest.mark.parametrize("share", [0.5, 0.7, 0.8, 0.9])
@pytest.mark.parametrize("load", LOADS)
def test_a_loss_that_stays_is_no_recovery(load: dict[str, float], share: float) -> None:
    found = [told(course(**load, share=drop(share), seed=seed)) for seed in range(RUNS // 2)]  # type: ignore[arg-type]
    assert not any(each.at_ns for each in found)
    assert found.count(NOT_BACK) >= (len(found) - 2 if share < 0.9 else len(found) // 2)


def test_draining_a_backlog_is_no_recovery() -> None:
    # For half a second nobody is served, then three in the time of two that arrive.
    made = course(1000)
    due_s = made.intended_ns / NS_PER_S
    done_s = numpy.zeros(len(due_s))
    free_s = 0.0
    for row, at_s in enumerate(due_s):
        begins_s = max(at_s, free_s)
        if STRIKE_S <= begins_s < STRIKE_S + 0.5:
            begins_s = STRIKE_S + 0.5
        free_s = done_s[row] = begins_s + 1 / 1500
    late = done_s - due_s > 0.05
    made = Course(made.intended_ns, made.ok, made.ok & ~late, False, 50.0 * NS_PER_MS)
    found_s = took_s(made)
    last_late_s = due_s[late].max() - STRIKE_S
    assert last_late_s > 1.0
    assert found_s is not None and abs(found_s - last_late_s) < 0.02


def test_one_good_moment_at_the_very_end_is_no_stay() -> None:
    assert told(course(1000, drop(0.0, END_S - STRIKE_S - 0.5))) == NOT_BACK
    assert took_s(course(1000, drop(0.0, END_S - STRIKE_S - 1.5))) == pytest.approx(3.5, abs=0.01)
    # Where less than two seconds are left in all, half of them is long enough.
    short = course(1000, drop(0.0, 0.2))
    assert told(short, STRIKE_S + 0.6).at_ns == pytest.approx(4.2 * NS_PER_S, abs=10 * NS_PER_MS)
    assert told(short, STRIKE_S + 0.3) == NOT_BACK


def test_what_too_few_operations_say_is_not_known() -> None:
    # Ten windows of 20 operations, and of 100 ms, are the least.
    assert told(course(50)) == UNKNOWN
    made = course(1000)
    strike_ns, end_ns = round(STRIKE_S * NS_PER_S), round(END_S * NS_PER_S)
    assert before(made, strike_ns - 900 * NS_PER_MS, strike_ns) is None
    assert before(made, strike_ns - 1100 * NS_PER_MS, strike_ns) is not None
    assert recovery(made, None, strike_ns, end_ns) == UNKNOWN
    # Poisson counts of 1,000 differ by 3 % from second to second: 95 % cannot be told from 100 %,
    # but from 50 % it can.
    assert told(course(200, closed=True)) == UNKNOWN
    assert told(course(200, drop(0.5), closed=True)) == NOT_BACK


def test_operations_that_are_late_together_are_not_taken_for_an_outage() -> None:
    # A tenth of a second in which half are late, now and then, all the time.
    def hiccups(seed: int) -> Share:
        chance = numpy.random.default_rng(seed)
        begins_s = numpy.cumsum(chance.exponential(0.4, 40))

        def share(at_s: Floats) -> Floats:
            since_s = at_s - begins_s[numpy.maximum(numpy.searchsorted(begins_s, at_s) - 1, 0)]
            return numpy.where((since_s >= 0) & (since_s < 0.02), 0.5, 1.0)

        return share

    found = [took_s(course(1000, hiccups(seed), seed=seed)) for seed in range(RUNS)]
    assert found.count(0.0) > 0.8 * RUNS
    assert sum(each is not None and each > 0 for each in found) <= 1


# --- several strikes --------------------------------------------------------------------


def strike(at_s: float, number: int = 0) -> Strike:
    return Strike(number, "crash", "any", round(at_s * NS_PER_S), (0,))


NOT = "not back"


def recovered_s(made: Course, *at_s: float, start_s: float = START_S, end_s: float) -> list[object]:
    """When goodput was back after each strike; NOT, or None where that is not known."""
    strikes = [strike(each) for each in at_s]
    found = recoveries(made, strikes, round(start_s * NS_PER_S), round(end_s * NS_PER_S))
    words = {NOT_BACK: NOT, UNKNOWN: None}
    return [words.get(each, round((each.at_ns or 0) / NS_PER_S, 2)) for each in found]


def many(*drops: Share) -> Share:
    return lambda at_s: numpy.prod([each(at_s) for each in drops], axis=0)


def test_strikes_at_the_same_moment_share_their_recovery() -> None:
    made = course(1000, drop(0.0, 0.5))
    assert recovered_s(made, 4.0, 4.0, end_s=9.0) == [4.5, 4.5]
    assert recovered_s(made, 4.0, 4.3, end_s=9.0) == [4.5, 4.5]


def test_a_strike_is_compared_with_the_calm_since_the_last_recovery() -> None:
    made = course(2000, many(drop(0.0, 0.5), drop(0.0, 0.5, at_s=8.0)), end_s=12.0)
    assert recovered_s(made, 4.0, 8.0, end_s=12.0) == [4.5, 8.5]


@pytest.mark.parametrize("closed", [False, True])
def test_what_was_never_recovered_from_is_nothing_to_compare_with(closed: bool) -> None:
    # Half is lost for good at 4 s. Nothing more happens at 7 s, but nothing is well either.
    made = course(2000, drop(0.5), closed=closed, shape=10.0, end_s=12.0)
    assert recovered_s(made, 4.0, 7.0, end_s=12.0) == [NOT, NOT]
    # All is well again at 7.5 s: as it was before 4 s, and not as it was before 7 s.
    made = course(2000, drop(0.0, 3.5), closed=closed, shape=10.0, end_s=12.0)
    assert recovered_s(made, 4.0, 7.0, end_s=12.0) == [NOT, 7.5]


def test_a_strike_in_the_warm_up_leaves_nothing_to_compare_with() -> None:
    made = course(1000, drop(0.2, 100, at_s=2.0))
    assert recovered_s(made, 2.0, 6.0, start_s=3.0, end_s=9.0) == [None, None]


def test_a_calm_too_short_to_tell_leaves_what_was_usual_before() -> None:
    made = course(1000, many(drop(0.0, 0.5), drop(0.0, 0.5, at_s=5.2)))
    assert recovered_s(made, 4.0, 5.2, end_s=9.0) == [4.5, 5.7]
