"""The checkers of the levels below linearizability agree with the definitions, over thousands of
random histories, and with each other as the lattice says.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from checker_histories import Act, from_witness, history
from checker_levels import (
    convergent_by_definition,
    guarantee_by_definition,
    memory_by_definition,
    random_registers,
    regular_by_definition,
    sequential_by_search,
    weakly_causal_by_definition,
)

from orchestrator.core import levels
from orchestrator.core.history import History
from orchestrator.core.machine import READ
from orchestrator.core.randomness import scalar_stream
from orchestrator.core.verdict import INVALID, UNDECIDED, VALID, Evidence, check

Definition = Callable[[Sequence[Act]], bool]


def found(acts: Sequence[Act], level: str, evidence: Evidence | None = None) -> str:
    return check(columns(acts), level, evidence or Evidence()).verdict


def columns(acts: Sequence[Act]) -> History:
    """The history, served by the node that each act has for its client."""
    made = history(acts)
    return replace(made, node=made.client)


def small_registers(chance: random.Random) -> list[Act]:
    return random_registers(chance, longest=3)


@pytest.mark.parametrize(
    ("level", "definition", "rounds"),
    [
        (levels.REGULAR, regular_by_definition, 1_000),
        (levels.SEQUENTIAL, sequential_by_search, 800),
        (levels.CAUSAL, convergent_by_definition, 700),
        (levels.CAUSAL_MEMORY, memory_by_definition, 600),
    ],
)
def test_the_checker_agrees_with_the_definition_and_its_witness_is_minimal(
    level: str, definition: Definition, rounds: int
) -> None:
    chance = scalar_stream(11, level)
    seen = {VALID: 0, INVALID: 0}
    for _ in range(rounds):
        acts = small_registers(chance)
        verdict = check(columns(acts), level)
        assert verdict.verdict == (VALID if definition(acts) else INVALID), acts
        seen[verdict.verdict] += 1
        if verdict.verdict == INVALID:
            witness = from_witness(verdict.witness)
            assert not definition(witness), acts
            if seen[INVALID] % 5 == 0:
                assert all(definition(less) for less in without_one(witness)), witness
        else:
            assert verdict.witness == ()
    assert min(seen.values()) > rounds // 10


def without_one(acts: Sequence[Act]) -> list[list[Act]]:
    """The acts without one of them; a write stays while a read of it does."""
    return [
        [other for other in acts if other is not act]
        for act in acts
        if act.kind == READ
        or not any(
            other.kind == READ and (other.key, other.value) == (act.key, act.wrote)
            for other in acts
        )
    ]


@pytest.mark.parametrize(
    "level", [levels.READ_YOUR_WRITES, levels.MONOTONIC_READS, levels.MONOTONIC_WRITES]
)
def test_a_session_guarantee_agrees_with_its_definition(level: str) -> None:
    chance = scalar_stream(12, level)
    seen = {VALID: 0, INVALID: 0}
    for _ in range(1_200):
        acts = on_nodes(chance, random_registers(chance, longest=5))
        verdict = check(columns(acts), level)
        expected = VALID if guarantee_by_definition(acts, level) else INVALID
        assert verdict.verdict == expected, acts
        seen[expected] += 1
        if expected == INVALID:
            again = [
                replace(act, client=node_of(acts, act)) for act in from_witness(verdict.witness)
            ]
            assert found(again, level) == INVALID
    assert min(seen.values()) > 20


def test_writes_follow_reads_is_invalid_only_by_its_definition_and_seldom_misses_it() -> None:
    chance = scalar_stream(13, "writes_follow_reads")
    level = levels.WRITES_FOLLOW_READS
    seen, missed = {VALID: 0, INVALID: 0}, 0
    for _ in range(2_000):
        acts = on_nodes(chance, random_registers(chance, longest=5))
        verdict = check(columns(acts), level)
        holds = guarantee_by_definition(acts, level)
        assert not (holds and verdict.verdict == INVALID), acts
        missed += not holds and verdict.verdict == VALID
        seen[verdict.verdict] += 1
        if verdict.verdict == INVALID:
            again = [
                replace(act, client=node_of(acts, act)) for act in from_witness(verdict.witness)
            ]
            assert not guarantee_by_definition(again, level)
    assert seen[INVALID] > 20
    # Only the newest known write of a session is compared, so a few are passed.
    assert missed <= seen[INVALID] // 10


def on_nodes(chance: random.Random, acts: list[Act]) -> list[Act]:
    nodes = chance.choice((1, 1, 2))
    return [replace(act, client=chance.randrange(nodes)) for act in acts]


def node_of(acts: Sequence[Act], one: Act) -> int:
    return next(
        act.client for act in acts if (act.session, act.sequence) == (one.session, one.sequence)
    )


def test_sessions_are_the_four_guarantees_and_weak_causality() -> None:
    chance = scalar_stream(14, "sessions")
    single = (
        levels.READ_YOUR_WRITES,
        levels.MONOTONIC_READS,
        levels.MONOTONIC_WRITES,
        levels.WRITES_FOLLOW_READS,
    )
    seen = {VALID: 0, INVALID: 0}
    for _ in range(700):
        acts = random_registers(chance)
        holds = weakly_causal_by_definition(acts)
        holds = holds and guarantee_by_definition(acts, levels.MONOTONIC_READS)
        verdict = check(columns(acts), levels.SESSIONS)
        assert verdict.verdict == (VALID if holds else INVALID), acts
        seen[verdict.verdict] += 1
        if verdict.verdict == INVALID:
            assert any(name in verdict.explanation for name in single), verdict.explanation
            assert found(from_witness(verdict.witness), levels.SESSIONS) == INVALID
    assert min(seen.values()) > 100


def test_a_history_valid_at_a_level_is_valid_at_all_that_it_implies() -> None:
    chance = scalar_stream(15, "lattice")
    checked = tuple(
        level
        for level in levels.LEVELS
        if level not in (*levels.TRANSACTIONAL, levels.EVENTUAL, levels.NONE)
    )
    valid = dict.fromkeys(checked, 0)
    for _ in range(500):
        acts = random_registers(chance, sessions=4, longest=5)
        verdicts = {level: found(acts, level) for level in checked}
        assert UNDECIDED not in verdicts.values()
        for level in checked:
            if verdicts[level] == VALID:
                valid[level] += 1
                for below in levels.implied(level) & set(checked):
                    assert verdicts[below] == VALID, (level, below, acts)
    assert min(valid.values()) > 20
    # It is a lattice and no chain, and the levels do differ.
    assert len(set(valid.values())) > 5


def test_versions_of_a_legal_order_change_no_verdict_of_a_sequential_history() -> None:
    chance = scalar_stream(16, "versions")
    seen = 0
    for _ in range(500):
        acts = random_registers(chance)
        honest = [replace(act, version=act.invoked * 10 + act.session) for act in acts]
        wild = [replace(act, version=chance.randrange(9)) for act in acts]
        expected = VALID if sequential_by_search(acts) else INVALID
        seen += expected == VALID
        assert found(honest, levels.SEQUENTIAL) == found(wild, levels.SEQUENTIAL) == expected
    assert 50 < seen < 450
