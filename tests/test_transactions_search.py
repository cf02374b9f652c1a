"""The checkers of transactions agree with the definitions on thousands of random histories."""

from __future__ import annotations

from dataclasses import replace

import pytest
from transaction_histories import (
    Database,
    Txn,
    allowed_by_definition,
    arbitrary,
    corrupted,
    history,
    serializable_by_search,
)

from orchestrator.core import levels
from orchestrator.core.randomness import scalar_stream
from orchestrator.core.verdict import INVALID, UNDECIDED, VALID, Evidence, Verdict, check

RC, SI, RR, SER = (
    levels.READ_COMMITTED,
    levels.SNAPSHOT_ISOLATION,
    levels.REPEATABLE_READ,
    levels.SERIALIZABLE,
)
WEAKEST_FIRST = (RC, SI, RR, SER)
KEYS = [f"k{number}" for number in range(40)]


def verdict(transactions: list[Txn], level: str) -> Verdict:
    return check(history(transactions), level, Evidence(model="txn"))


@pytest.mark.parametrize("lists", [True, False], ids=["list", "register"])
@pytest.mark.parametrize("level", [SER, SI, RC])
def test_simulated_databases_keep_their_level(level: str, lists: bool) -> None:
    chance = scalar_stream(1, f"{level}/{lists}")
    broken = dict.fromkeys(WEAKEST_FIRST, 0)
    for _ in range(100):
        transactions = Database(chance, level, lists=lists).run(12, "xy", 4)
        for asked in WEAKEST_FIRST:
            found = verdict(transactions, asked)
            broken[asked] += found.verdict == INVALID
            if asked in levels.implied(level):
                assert found.verdict == VALID, (transactions, found.explanation)
    assert broken[SER] == broken[RR]
    assert (broken[SER] > 5) == (level != SER)
    assert (broken[SI] > 5) == (level == RC)


@pytest.mark.parametrize("level", WEAKEST_FIRST)
def test_lists_agree_with_the_definitions(level: str) -> None:
    chance = scalar_stream(2, level)
    seen = {VALID: 0, INVALID: 0}
    for turn in range(400):
        run_at = (SER, SI, RC)[turn % 3]
        transactions = Database(chance, run_at, lists=True).run(4, "xy", 3)
        if turn % 2:
            transactions = corrupted(chance, transactions)
        found = verdict(transactions, level)
        allowed = allowed_by_definition(transactions, level)
        assert found.verdict == (VALID if allowed else INVALID), (transactions, found.explanation)
        seen[found.verdict] += 1
    assert min(seen.values()) > 20


@pytest.mark.parametrize("level", WEAKEST_FIRST)
def test_registers_agree_with_the_definitions(level: str) -> None:
    chance = scalar_stream(3, level)
    seen = {VALID: 0, INVALID: 0, UNDECIDED: 0}
    missed = 0
    for turn in range(450):
        transactions = arbitrary(chance)
        if turn % 2:
            transactions = Database(chance, RC, lists=False).run(4, "xy", 4)
        found = verdict(transactions, level)
        allowed = allowed_by_definition(transactions, level)
        assert not (found.verdict == INVALID and allowed), (transactions, found.explanation)
        missed += found.verdict == VALID and not allowed
        seen[found.verdict] += 1
    assert min(seen[VALID], seen[INVALID]) > 100
    assert seen[UNDECIDED] == 0
    # Only snapshot isolation gives registers the benefit of the doubt.
    assert missed < 20 if level == SI else missed == 0


def test_refused_means_that_no_serial_order_exists() -> None:
    chance = scalar_stream(4, "serial")
    seen = {VALID: 0, INVALID: 0}
    for turn in range(450):
        lists = turn % 3 == 0
        transactions = (
            corrupted(chance, Database(chance, SER, lists=lists).run(6, "xyz", 3))
            if turn % 2
            else Database(chance, SI, lists=lists).run(6, "xyz", 4)
        )
        found = verdict(transactions, SER)
        if found.verdict == INVALID:
            assert not serializable_by_search(transactions), (transactions, found.explanation)
        seen[found.verdict] += 1
    assert min(seen.values()) > 50


@pytest.mark.parametrize("jitter", [0, 3, 10])
def test_longer_serial_histories_of_registers_are_proven(jitter: int) -> None:
    """Answers come up to ``jitter`` transactions out of order."""
    chance = scalar_stream(5, str(jitter))
    for _ in range(5):
        transactions = Database(chance, SER, lists=False).run(300, KEYS, 4)
        late = [at + chance.uniform(0, jitter) for at in range(len(transactions))]
        order = sorted(range(len(transactions)), key=late.__getitem__)
        shuffled = history([transactions[at] for at in order])
        times = replace(shuffled, returned_ns=shuffled.invoked_ns + 1)
        found = check(times, SER, Evidence(model="txn"))
        assert found.verdict == VALID, found.explanation


def test_a_register_history_that_nobody_can_order_in_time_is_unknown() -> None:
    chance = scalar_stream(6, "unknown")
    transactions = Database(chance, SER, lists=False).run(400, KEYS, 4)
    chance.shuffle(transactions)
    found = verdict(transactions, SER)
    assert found.verdict == UNDECIDED
    assert found.explanation == "Neither an anomaly nor a serial order was found."
    assert found.witness == ()
