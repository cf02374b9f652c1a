"""The levels below linearizability on histories with a known answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy
import pytest
from checker_histories import Act, history, read, told, write

from orchestrator.core import levels
from orchestrator.core.history import PRELOADED, History, value_id
from orchestrator.core.machine import (
    CAS,
    FAIL,
    TRANSACTION,
    UNKNOWN,
)
from orchestrator.core.verdict import (
    INVALID,
    UNDECIDED,
    VALID,
    Evidence,
    check,
)

CHECKED = (
    levels.REGULAR,
    levels.SEQUENTIAL,
    levels.CAUSAL,
    levels.CAUSAL_MEMORY,
    levels.SESSIONS,
    levels.READ_YOUR_WRITES,
    levels.MONOTONIC_READS,
    levels.MONOTONIC_WRITES,
    levels.WRITES_FOLLOW_READS,
)
TIMELESS = CHECKED[1:]


def sessions(*programs: str) -> list[Act]:
    """Sessions side by side in time; ``wx1 ry0`` writes 1 to x, then reads y's initial value."""
    writer = {
        (word[1], word[2]): value_id(session, sequence)
        for session, program in enumerate(programs, 1)
        for sequence, word in enumerate(program.split(), 1)
        if word[0] == "w"
    }
    acts = []
    for session, program in enumerate(programs, 1):
        for sequence, word in enumerate(program.split(), 1):
            begin, key = 100 * sequence, "xyz".index(word[1])
            if word[0] == "w":
                acts.append(write(session, sequence, begin, begin + 90, key=key))
            else:
                value = writer.get((word[1], word[2]), PRELOADED)
                acts.append(read(session, sequence, begin, begin + 90, value, key=key))
    return acts


def broken(acts: Sequence[Act]) -> set[str]:
    """The levels that find a violation; every other one is content."""
    verdicts = {level: check(history(acts), level).verdict for level in TIMELESS}
    assert set(verdicts.values()) <= {VALID, INVALID}
    return {level for level, verdict in verdicts.items() if verdict == INVALID}


WEAKER_THAN_MEMORY = {levels.CAUSAL, levels.CAUSAL_MEMORY, levels.SEQUENTIAL, levels.SESSIONS}


@pytest.mark.parametrize(
    ("programs", "expected"),
    [
        # Litmus tests: store buffer, message passing, independent reads of independent writes.
        (("wx1 ry0", "wy1 rx0"), {levels.SEQUENTIAL}),
        (("wx1 wy1", "ry1 rx1"), set()),
        (("wx1 wy1", "ry1 rx0"), WEAKER_THAN_MEMORY | {levels.MONOTONIC_WRITES}),
        (("wx1", "wy1", "rx1 ry0", "ry1 rx0"), {levels.SEQUENTIAL}),
        # What a session wrote after reading carries what it had read.
        (("wx1", "rx1 wy1", "ry1 rx0"), WEAKER_THAN_MEMORY | {levels.WRITES_FOLLOW_READS}),
        (("wx1 wx2", "rx2 rx1"), WEAKER_THAN_MEMORY | {"monotonic_reads", "monotonic_writes"}),
        (("wx1 rx0",), WEAKER_THAN_MEMORY | {levels.READ_YOUR_WRITES}),
        (("wx1 wx2 rx1",), WEAKER_THAN_MEMORY | {levels.READ_YOUR_WRITES}),
        # Two sessions order concurrent writes differently: each has a memory, no one order.
        (("wx1 rx2", "wx2 rx1"), {levels.SEQUENTIAL, levels.CAUSAL}),
        (
            ("wx1", "wx2", "rx1 rx2", "rx2 rx1"),
            {levels.SEQUENTIAL, levels.CAUSAL},
        ),
        # One order of the writes exists, but the last session would have to forget (CCv, not CM).
        (("wz1 wx1 wy1", "wx2 rz0 ry1 rx2"), {levels.SEQUENTIAL, levels.CAUSAL_MEMORY}),
        (("rx1 wy1", "ry1 wx1"), WEAKER_THAN_MEMORY | {levels.WRITES_FOLLOW_READS}),
    ],
)
def test_litmus_tests_tell_the_levels_apart(programs: Sequence[str], expected: set[str]) -> None:
    assert broken(sessions(*programs)) == expected


def test_published_history_that_is_causal_and_not_sequential() -> None:
    acts = sessions("wx1 wy1", "rx1 wx2", "ry1 wy2", "rx2 ry1", "ry2 rx1")
    assert broken(acts) == {levels.SEQUENTIAL}
    verdict = check(history(acts), levels.SEQUENTIAL)
    assert told(verdict) and "would have to come before and after" in verdict.explanation


def test_explanations_name_the_operations_and_what_broke() -> None:
    acts = sessions("wx1", "rx1 wy1", "ry1 rx0")
    verdict = check(history(acts), levels.WRITES_FOLLOW_READS)
    assert told(verdict) == ["1w1", "2r1", "3r1", "2w2", "3r2"]
    assert verdict.explanation == (
        "Session 3's read #2 of key x returned the initial value after session 3's read #1 of key "
        "y had shown the value of session 2's write #2: that write followed what its session had "
        "read (session 1's write #1 to key x, which session 2's read #1 of key x returned, then "
        "session 2's write #2 to key y, which session 3's read #1 of key y returned)."
    )
    for level, start in (
        (levels.SESSIONS, "Of the four guarantees writes_follow_reads is broken: session 3's"),
        (levels.CAUSAL, "Session 3's read #2 of key x returned the initial value, though it"),
        (levels.CAUSAL_MEMORY, "Session 3's read #2 of key x returned the initial value, though"),
    ):
        assert check(history(acts), level).explanation.startswith(start)
    acts = sessions("wx1", "wx2", "rx1 rx2", "rx2 rx1")
    verdict = check(history(acts), levels.CAUSAL)
    assert verdict.explanation.startswith("The writes cannot be put in one order: session")
    assert set(told(verdict)) == {"1w1", "2w1", "3r1", "3r2", "4r1", "4r2"}


def test_a_copy_that_is_merely_behind_breaks_monotonic_reads_only() -> None:
    acts = sessions("wx1 wx2", "rx2 rx1")
    elsewhere = history(acts)
    node = numpy.where((elsewhere.session == 2) & (elsewhere.sequence == 2), 7, 3)
    elsewhere = replace(elsewhere, node=node.astype(numpy.int16))
    assert check(elsewhere, levels.MONOTONIC_WRITES).verdict == VALID
    assert check(elsewhere, levels.MONOTONIC_READS).verdict == INVALID
    assert check(elsewhere, levels.SESSIONS).verdict == INVALID


# --- regular ----------------------------------------------------------------------------


def test_a_regular_read_may_return_the_last_write_or_one_beside_it() -> None:
    acts = [write(1, 1, 0, 10), write(2, 1, 20, 40), write(3, 1, 30, 60)]
    for begin, allowed in ((15, {1, 2, 3}), (45, {2, 3}), (70, {2, 3})):
        for writer in (1, 2, 3):
            late = read(4, 1, begin, 90, value_id(writer, 1))
            verdict = check(history([*acts, late]), levels.REGULAR)
            assert verdict.verdict == (VALID if writer in allowed else INVALID)
    # New before old: regular, not linearizable.
    flip = [write(1, 1, 0, 10), write(1, 2, 20, 90)]
    flip += [read(2, 1, 30, 40, value_id(1, 2)), read(3, 1, 50, 60, value_id(1, 1))]
    assert check(history(flip), levels.REGULAR).verdict == VALID
    assert check(history(flip), levels.LINEARIZABLE).verdict == INVALID


def test_regularity_names_what_was_replaced_and_knows_the_future() -> None:
    stale = [write(1, 1, 0, 10), write(1, 2, 20, 30), read(2, 1, 40, 50, value_id(1, 1))]
    verdict = check(history(stale), levels.REGULAR)
    assert (verdict.verdict, told(verdict)) == (INVALID, ["1w1", "1w2", "2r1"])
    assert verdict.explanation == (
        "Session 2's read #1 of key x returned the value of session 1's write #1, but session 1's "
        "write #2 to key x had replaced it: that write began after the older one had returned, and "
        "had returned before the read began."
    )
    wide = check(history(stale), levels.REGULAR, Evidence(uncertainty_ns=5))
    assert wide.verdict == VALID
    future = [read(2, 1, 0, 5, value_id(1, 1)), write(1, 1, 10, 20)]
    verdict = check(history(future), levels.REGULAR)
    assert (verdict.verdict, told(verdict)) == (INVALID, ["2r1", "1w1"])
    # Sequential consistency and what is below know no clock.
    assert broken(future) == set()


# --- what cannot be judged --------------------------------------------------------------


@pytest.mark.parametrize("level", CHECKED)
def test_what_cannot_be_judged_is_unknown_with_its_reason(level: str) -> None:
    def reason(acts: Sequence[Act]) -> str:
        verdict = check(history(acts), level)
        assert (verdict.verdict, verdict.witness) == (UNDECIDED, ())
        return verdict.explanation

    twice = [write(1, 1, 0, 10), replace(write(2, 1, 0, 10), value=value_id(1, 1))]
    assert "not unique" in reason(twice)
    assert "operations 'cas'" in reason([replace(write(1, 1, 0, 10), kind=CAS)])
    assert "returned before it was invoked" in reason([write(1, 1, 20, 10)])
    together = [write(1, 1, 0, 30), read(1, 2, 20, 40, PRELOADED)]
    assert "session 1's read #2 began before session 1's write #1" in reason(together)


@pytest.mark.parametrize("level", CHECKED)
def test_a_value_out_of_thin_air_is_invalid_everywhere(level: str) -> None:
    failed = write(1, 1, 0, 10, outcome=FAIL)
    verdict = check(history([failed, read(2, 1, 20, 30, failed.wrote)]), level)
    assert (verdict.verdict, told(verdict)) == (INVALID, ["1w1", "2r1"])
    assert "had certainly failed" in verdict.explanation
    verdict = check(history([read(2, 1, 20, 30, value_id(9, 9))]), level)
    assert (verdict.verdict, told(verdict)) == (INVALID, ["2r1"])


@pytest.mark.parametrize("level", [levels.SEQUENTIAL, levels.CAUSAL_MEMORY])
def test_a_search_without_steps_is_unknown(level: str) -> None:
    acts = sessions("wx1 rx2", "wx2 rx1", "rx1 rx2")
    verdict = check(history(acts), level, Evidence(steps_max=1))
    assert verdict.verdict == UNDECIDED
    assert "1 steps were too few" in verdict.explanation
    assert check(history(acts), level).verdict != UNDECIDED


def test_nothing_is_valid_at_every_level() -> None:
    assert {check(history([]), level).verdict for level in CHECKED} == {VALID}


def test_what_follows_a_write_without_an_answer_is_not_ordered_after_it() -> None:
    lost = write(1, 1, 0, -1, outcome=UNKNOWN)
    acts = [lost, read(1, 2, 20, 30, PRELOADED), read(2, 1, 40, 50, lost.wrote)]
    assert broken(acts) == set()
    assert broken([replace(lost, outcome=0, returned=10), *acts[1:]]) >= {levels.READ_YOUR_WRITES}


# --- transactions -----------------------------------------------------------------------


def transactions(*programs: str) -> History:
    """One session for each program of transactions ``wx1 ry0 | wx2``; 0 is nothing there."""
    rows, values = list[Act](), list[object]()
    for session, program in enumerate(programs, 1):
        for sequence, body in enumerate(program.split("|"), 1):
            steps = tuple(
                (
                    "write" if word[0] == "w" else "read",
                    word[1],
                    None if word[2] == "0" else int(word[2]),
                )
                for word in body.split()
            )
            begin = 100 * sequence
            rows.append(Act(session, sequence, TRANSACTION, begin, begin + 90, len(values)))
            values.append(steps)
    return replace(history(rows), values=values)


@pytest.mark.parametrize(
    ("programs", "expected"),
    [
        (("wx1 wy1", "rx1 wx2", "ry1 wy2", "rx2 ry1", "ry2 rx1"), VALID),
        (
            ("wx1 wa1", "rx1 wy1", "ry1 wz1", "rz1 wa2", "ra2 wp1", "rp1 wq1", "rq1 ra1"),
            INVALID,
        ),
        # Half of a transaction, an order that two sessions see differently, lost updates.
        (("wx1 wy1", "rx1 ry0"), INVALID),
        (("wx1", "wx2", "rx1 | rx2", "rx2 | rx1"), INVALID),
        (("wx1 wy2", "wx3 wy4", "rx1 | rx3", "ry4 | ry2"), INVALID),
        (("wx1", "rx1 wx2", "rx1 wx3"), VALID),
        (("rx1 wy1", "ry1 wx1"), INVALID),
        (("wx1 rx2",), INVALID),
        (("rx7",), INVALID),
    ],
)
def test_causal_consistency_sees_transactions_whole(programs: Sequence[str], expected: str) -> None:
    verdict = check(transactions(*programs), levels.CAUSAL, Evidence(model="txn"))
    assert verdict.verdict == expected, verdict.explanation
    assert bool(verdict.witness) == (expected == INVALID)
