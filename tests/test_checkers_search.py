"""The consistency checkers agree with exhaustive searches on thousands of random histories."""

from __future__ import annotations

from dataclasses import replace

import pytest
from checker_histories import (
    from_witness,
    history,
    linearizable_by_search,
    random_history,
    random_sessions,
    replicated,
    session_holds_by_definition,
    simulated,
    widened,
    with_versions,
)

from orchestrator.core import levels
from orchestrator.core.randomness import scalar_stream
from orchestrator.core.verdict import INVALID, VALID, Evidence, check


def test_linearizability_agrees_with_exhaustive_search_and_its_witness_is_enough() -> None:
    chance = scalar_stream(1, "linearizable")
    seen = {VALID: 0, INVALID: 0}
    for _ in range(3_000):
        acts = random_history(chance)
        verdict = check(history(acts), levels.LINEARIZABLE)
        assert verdict.verdict == (VALID if linearizable_by_search(acts) else INVALID), acts
        seen[verdict.verdict] += 1
        if verdict.verdict == INVALID:
            assert 0 < len(verdict.witness) <= 6
            assert not linearizable_by_search(from_witness(verdict.witness)), acts
        else:
            assert verdict.witness == ()
    assert min(seen.values()) > 600


def test_simulated_registers_are_linearizable() -> None:
    chance = scalar_stream(2, "linearizable")
    for _ in range(500):
        acts = simulated(chance, keys=3)
        assert check(history(acts), levels.LINEARIZABLE).verdict == VALID, acts


@pytest.mark.parametrize("uncertainty", [0, 2, 9])
def test_linearizability_keeps_the_order_of_sessions_whatever_the_clocks(uncertainty: int) -> None:
    chance = scalar_stream(3, f"linearizable/{uncertainty}")
    seen = {VALID: 0, INVALID: 0}
    for turn in range(2_000):
        acts = random_history(chance) if turn % 4 == 0 else random_sessions(chance)
        verdict = check(history(acts), levels.LINEARIZABLE, Evidence(uncertainty_ns=uncertainty))
        expected = VALID if linearizable_by_search(widened(acts, uncertainty)) else INVALID
        assert verdict.verdict == expected, acts
        seen[expected] += 1
        if expected == INVALID:
            enough = from_witness(verdict.witness)
            assert not linearizable_by_search(widened(enough, uncertainty)), acts
    assert min(seen.values()) > 300


@pytest.mark.parametrize("level", [levels.READ_YOUR_WRITES, levels.MONOTONIC_READS])
def test_session_guarantees_agree_with_their_definition(level: str) -> None:
    chance = scalar_stream(4, level)
    seen = {VALID: 0, INVALID: 0}
    for _ in range(2_000):
        acts = with_versions(chance, random_sessions(chance))
        verdict = check(history(acts), level)
        expected = VALID if session_holds_by_definition(acts, level) else INVALID
        assert verdict.verdict == expected, acts
        seen[expected] += 1
        if expected == INVALID:
            assert 2 <= len(verdict.witness) <= 5
            again = check(history(from_witness(verdict.witness)), level)
            assert again.verdict == INVALID, acts
    assert min(seen.values()) > 400


@pytest.mark.parametrize("versions", [True, False])
def test_stale_replicas_break_monotonic_reads_only_where_reads_went_back(
    versions: bool,
) -> None:
    chance = scalar_stream(5, "replicas")
    seen = {True: 0, False: 0}
    for turn in range(300):
        acts, went_back = replicated(chance, sticky=turn % 2 == 0, versions=versions)
        verdict = check(history(acts), levels.MONOTONIC_READS)
        if versions:
            assert verdict.verdict == (INVALID if went_back else VALID), acts
        elif verdict.verdict == INVALID:
            assert went_back, acts
        seen[went_back] += 1
    assert min(seen.values()) > 50


def test_what_is_linearizable_keeps_the_session_guarantees() -> None:
    chance = scalar_stream(6, "implied")
    seen = 0
    for _ in range(2_000):
        found = history([replace(act, version=0) for act in random_sessions(chance)])
        if check(found, levels.LINEARIZABLE).verdict == VALID:
            seen += 1
            assert check(found, levels.READ_YOUR_WRITES).verdict == VALID
            assert check(found, levels.MONOTONIC_READS).verdict == VALID
    assert seen > 50
