"""What clients do about slow, lost and refused operations: backoff, budgets, breakers, limits."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.parameters import ParameterError
from orchestrator.core.policy import (
    Backoff,
    BackoffTimer,
    Breaker,
    BreakerParams,
    Budget,
    Limit,
    RetryBudget,
)
from orchestrator.core.registry import Family, plugin, plugins
from orchestrator.core.units import NS_PER_MS, NS_PER_S

LIMITS = list(plugins(Family.LIMIT))


def pauses_ns(count: int = 8, **params: Any) -> list[int]:
    timer, last_ns, pauses = BackoffTimer(Backoff(**params), random.Random(5)), 0, []
    for retry in range(1, count + 1):
        last_ns = timer.pause_ns(retry, last_ns)
        pauses.append(last_ns)
    return pauses


# --- backoff ----------------------------------------------------------------------------


def test_without_jitter_pauses_grow_to_the_longest() -> None:
    assert pauses_ns(6, base=10, factor=2.0, max=100, jitter="none") == [10, 20, 40, 80, 100, 100]


@given(st.sampled_from(["full", "equal", "decorrelated"]), st.integers(1, 500), st.integers(0, 99))
def test_jitter_stays_within_its_bounds(jitter: str, retry: int, seed: int) -> None:
    backoff = Backoff(base=1000, factor=3.0, max=50_000, jitter=jitter)
    timer = BackoffTimer(backoff, random.Random(seed))
    whole_ns = min(50_000, 1000 * 3 ** min(retry - 1, 60))
    pause_ns = timer.pause_ns(retry, 4000)
    low_ns, high_ns = {
        "full": (0, whole_ns),
        "equal": (whole_ns // 2, whole_ns),
        "decorrelated": (1000, 12_000),
    }[jitter]
    assert low_ns <= pause_ns <= high_ns


def test_full_jitter_is_uniform() -> None:
    timer = BackoffTimer(Backoff(base=1000, max=1000), random.Random(2))
    drawn = [timer.pause_ns(1, 0) for _ in range(20_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(500, rel=0.02)
    assert sum(each < 100 for each in drawn) == pytest.approx(2000, rel=0.1)


def test_a_longest_pause_below_the_first_is_refused() -> None:
    with pytest.raises(ParameterError, match="below base"):
        Backoff(base=10, max=9)


# --- budget -----------------------------------------------------------------------------


@given(
    st.floats(0.0, 1.0),
    st.floats(0.0, 20.0),
    st.lists(st.tuples(st.booleans(), st.integers(0, NS_PER_S // 5)), max_size=200),
)
def test_retries_never_exceed_what_was_paid_in(
    share: float, reserve: float, steps: list[tuple[bool, int]]
) -> None:
    budget = RetryBudget(Budget(share=share, reserve=reserve))
    now_ns = operations = retries = 0
    for retrying, pause_ns in steps:
        now_ns += pause_ns
        if retrying:
            retries += budget.spend(now_ns)
        else:
            operations += 1
            budget.operation(now_ns)
        assert retries <= share * operations + reserve * (1 + now_ns / NS_PER_S) + 1e-6


def test_a_tenth_of_the_operations_may_be_retried() -> None:
    budget = RetryBudget(Budget(share=0.1, reserve=0.0))
    spent = 0
    for step in range(10_000):
        budget.operation(step * NS_PER_MS)
        spent += budget.spend(step * NS_PER_MS)
    assert spent == pytest.approx(1000, rel=0.01)


def test_a_calm_hour_pays_for_no_storm() -> None:
    budget = RetryBudget(Budget(share=0.1, reserve=0.0))
    for step in range(36_000):
        budget.operation(step * NS_PER_S // 10)
    storm = sum(budget.spend(3600 * NS_PER_S) for _ in range(1000))
    # At 10 operations a second, a second pays for one retry.
    assert storm <= RetryBudget.MEMORY_S


# --- circuit breaker --------------------------------------------------------------------


def test_a_breaker_opens_tries_and_closes() -> None:
    breaker = Breaker(BreakerParams(failures=3, open=100), 2)
    for now_ns in (0, 1):
        breaker.failed(0, now_ns)
    breaker.succeeded(0)
    for now_ns in (2, 3, 4):
        assert breaker.allows(0, now_ns)
        breaker.failed(0, now_ns)
    assert not breaker.allows(0, 103)
    assert breaker.allows(1, 103), "each node has its own"
    assert breaker.allows(0, 104)
    breaker.asked(0, 104)
    assert not breaker.allows(0, 105), "one operation tries it"
    breaker.failed(0, 110)
    assert not breaker.allows(0, 209)
    breaker.asked(0, 210)
    breaker.succeeded(0)
    assert breaker.allows(0, 211)
    assert breaker.opened == 1


# --- concurrency limits -----------------------------------------------------------------


def make(name: str, **params: Any) -> Limit:
    chosen = plugin(Family.LIMIT, name)
    limit: Limit = chosen.implementation(chosen.params(**params))
    return limit


@pytest.mark.parametrize("name", LIMITS)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 10**10), st.integers(1, 2000)), max_size=300)
)
def test_a_limit_stays_within_its_bounds(name: str, steps: list[tuple[bool, int, int]]) -> None:
    bounds = {} if name == "fixed" else {"least": 2, "most": 50, "start": 10}
    limit = make(name, **bounds)
    now_ns = 0
    for dropped, latency_ns, under_way in steps:
        now_ns += latency_ns
        if dropped:
            limit.dropped(under_way, now_ns)
        else:
            limit.answered(latency_ns, under_way, now_ns)
        assert type(limit.most) is int
        assert name == "fixed" or 2 <= limit.most <= 50


def served(limit: Limit, capacity: int, rounds: int = 400) -> list[int]:
    """The limits over rounds against a server that serves ``capacity`` at once in 1 ms each, and
    more of them in as much more time.
    """
    limits = []
    for step in range(rounds):
        under_way = limit.most
        latency_ns = NS_PER_MS * max(1, under_way / capacity)
        for _ in range(under_way):
            limit.answered(int(latency_ns), under_way, step * NS_PER_S)
        limits.append(limit.most)
    return limits


def test_aimd_is_a_saw_around_what_is_served_in_time() -> None:
    limits = served(make("aimd", start=5, slow=2 * NS_PER_MS, decrease=0.8), capacity=50)
    late = limits[200:]
    assert max(late) in range(100, 104)
    assert min(late) in range(78, 84)


def test_aimd_grows_by_one_a_round_and_only_when_it_is_used() -> None:
    limit = make("aimd", start=10)
    for _ in range(11):
        limit.answered(NS_PER_MS, 10, 0)
    assert limit.most == 11
    for _ in range(1000):
        limit.answered(NS_PER_MS, 1, 0)
    assert limit.most == 11


def test_the_gradient_finds_a_queue_that_grows() -> None:
    limit = make("gradient", start=10, most=1000, memory=100)
    calm = served(limit, capacity=10**6, rounds=60)
    assert calm[-1] > 20, "nothing holds it back"
    before = limit.most
    for _ in range(40):
        limit.answered(20 * NS_PER_MS, limit.most, 0)
    assert limit.most < before


@pytest.mark.parametrize("name", ["aimd", "gradient"])
def test_a_start_outside_the_bounds_is_refused(name: str) -> None:
    with pytest.raises(ParameterError, match="between least and most"):
        make(name, start=3, least=4)
