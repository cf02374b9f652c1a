"""The lattice of consistency levels."""

from __future__ import annotations

import itertools

import pytest

from orchestrator.core.levels import (
    CAUSAL,
    CAUSAL_MEMORY,
    EVENTUAL,
    LEVELS,
    LINEARIZABLE,
    MONOTONIC_READS,
    NONE,
    READ_YOUR_WRITES,
    REGULAR,
    REPEATABLE_READ,
    SEQUENTIAL,
    SERIALIZABLE,
    SNAPSHOT_ISOLATION,
    TRANSACTIONAL,
    canonical,
    closure,
    implied,
    strongest,
)
from orchestrator.errors import ConfigError


def test_implication_is_a_partial_order_with_none_at_the_bottom() -> None:
    for level in LEVELS:
        assert {level, NONE} <= implied(level)
    for upper, lower in itertools.permutations(LEVELS, 2):
        if lower in implied(upper):
            assert implied(lower) < implied(upper)


SINGLE = set(LEVELS) - set(TRANSACTIONAL)


def test_linearizable_is_the_top_and_what_is_below_it_is_not_a_chain() -> None:
    assert implied(LINEARIZABLE) == SINGLE
    assert implied(SERIALIZABLE) == {*TRANSACTIONAL, NONE}
    incomparable = [
        (REGULAR, SEQUENTIAL),
        (CAUSAL, CAUSAL_MEMORY),
        (SNAPSHOT_ISOLATION, REPEATABLE_READ),
        *itertools.combinations((READ_YOUR_WRITES, MONOTONIC_READS, EVENTUAL), 2),
    ]
    for one, other in incomparable:
        assert other not in implied(one)
        assert one not in implied(other)


def test_the_closure_joins_what_each_level_implies() -> None:
    assert closure([]) == {NONE}
    assert closure([READ_YOUR_WRITES, EVENTUAL]) == {READ_YOUR_WRITES, EVENTUAL, NONE}
    assert closure([LINEARIZABLE]) == SINGLE


def test_the_strongest_levels_are_a_list_because_the_order_is_partial() -> None:
    assert strongest([]) == []
    assert strongest([NONE]) == [NONE]
    assert strongest(LEVELS) == [LINEARIZABLE, SERIALIZABLE]
    assert strongest([NONE, READ_YOUR_WRITES, MONOTONIC_READS]) == [
        MONOTONIC_READS,
        READ_YOUR_WRITES,
    ]


def test_closure_and_strongest_are_inverse_on_every_set_of_levels() -> None:
    for count in range(4):
        for levels in itertools.combinations(LEVELS, count):
            assert closure(strongest(levels)) == closure(levels)
            assert set(strongest(closure(levels))) == set(strongest([*levels, NONE]))


def test_strict_is_an_alias_of_linearizable() -> None:
    assert canonical("strict") == LINEARIZABLE
    assert implied("strict") == implied(LINEARIZABLE)
    assert strongest(["strict", LINEARIZABLE]) == [LINEARIZABLE]


def test_an_unknown_level_is_an_input_error_with_a_suggestion() -> None:
    with pytest.raises(ConfigError) as caught:
        canonical("linearisable", path="check.level")
    assert caught.value.path == "check.level"
    assert caught.value.hint == "did you mean 'linearizable'?"
    for ask in (implied, lambda level: closure([level]), lambda level: strongest([level])):
        with pytest.raises(ConfigError):
            ask("quantum")
