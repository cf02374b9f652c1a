"""What a run leaves behind: convergence, durability, staleness, and levels of single operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy
import pytest
from checker_histories import Act, history, read, told, write
from checker_levels import random_registers, regular_by_definition

from orchestrator.analysis.durability import Survival, durability, survival
from orchestrator.analysis.staleness import NOT_A_READ, staleness
from orchestrator.core import levels
from orchestrator.core.history import NOTHING, PHASE_FINAL, PRELOADED, History, value_id
from orchestrator.core.machine import ADD, APPEND, CAS, FAIL, INCREMENT, READ, UNKNOWN, WRITE
from orchestrator.core.per_level import check_levels
from orchestrator.core.randomness import scalar_stream
from orchestrator.core.verdict import (
    INVALID,
    UNDECIDED,
    VALID,
    ClaimsVerdict,
    Evidence,
    check,
    check_claims,
)

# --- convergence and durability ---------------------------------------------------------


def objects(kind: int, *operations: tuple[object, ...]) -> History:
    """Operations in sequence: (what, value) or (what, value, outcome); what: do, read, final."""
    values: list[object] = []
    acts = []
    for at, (what, value, *outcome) in enumerate(operations):
        values.append(value)
        mutates = what == "do"
        lost = UNKNOWN in outcome
        acts.append(
            Act(
                session=at + 1,
                sequence=1,
                kind=kind if mutates else READ,
                invoked=10 * at,
                returned=-1 if lost else 10 * at + 5,
                value=at,
                outcome=UNKNOWN if lost else FAIL if FAIL in outcome else 0,
            )
        )
    made = history(acts)
    phase = [PHASE_FINAL if what == "final" else 1 for what, *_ in operations]
    return replace(made, values=values, phase=numpy.array(phase, dtype=numpy.uint8))


def test_final_reads_decide_convergence_where_replicas_are_not_known() -> None:
    def found(made: History, model: str = "register", digests: tuple[str, ...] = ()) -> str:
        return check(made, levels.EVENTUAL, Evidence(model, digests)).verdict

    one, two = value_id(1, 1), value_id(2, 1)
    acts = [write(1, 1, 0, 5), write(2, 1, 0, 5), read(3, 1, 10, 15, one), read(4, 1, 10, 15, two)]
    apart = replace(history(acts), phase=numpy.array([1, 1, 3, 3], dtype=numpy.uint8))
    assert found(history(acts)) == UNDECIDED
    assert found(apart) == INVALID
    assert found(apart, digests=("a", "a")) == INVALID
    same = replace(apart, value_id=numpy.array([one, two, two, two]))
    assert found(same) == VALID
    assert found(same, digests=("a", "b")) == INVALID
    assert found(same, digests=("a", "")) == UNDECIDED
    # A write without an answer may still arrive.
    late = replace(apart, outcome=numpy.array([UNKNOWN, 0, 0, 0], dtype=numpy.uint8))
    assert found(late) == VALID
    assert found(objects(ADD, ("final", (1, 2)), ("final", (2, 1))), "set") == VALID
    assert found(objects(APPEND, ("final", (1, 2)), ("final", (2, 1))), "append") == INVALID
    grown = (("do", 3, UNKNOWN), ("final", (1, 2)), ("final", (1, 2, 3)))
    assert found(objects(APPEND, *grown), "append") == VALID
    assert found(objects(INCREMENT, ("final", 4), ("final", 5)), "counter") == INVALID


def final(acts: Sequence[Act]) -> History:
    """What is invoked from 100 on is read in the end."""
    phase = [PHASE_FINAL if act.invoked >= 100 else 1 for act in acts]
    return replace(history(acts), phase=numpy.array(phase, dtype=numpy.uint8))


def test_an_acknowledged_write_must_be_there_at_the_end() -> None:
    one, two = write(1, 1, 0, 10), write(2, 1, 20, 30)
    verdict = durability(final([one, two, read(3, 1, 100, 110, one.wrote)]))
    assert (verdict.verdict, told(verdict)) == (INVALID, ["1w1", "2w1", "3r1"])
    assert verdict.explanation == (
        "Session 3's read #1 of key x returned the value of session 1's write #1 at the end, "
        "though session 2's write #1 was acknowledged and is newer."
    )
    good = final([one, two, read(3, 1, 100, 110, two.wrote)])
    assert durability(good).verdict == VALID
    # Writes side by side, one without an answer, and versions that say which one is newer.
    beside = replace(two, invoked=5)
    assert durability(final([one, beside, read(3, 1, 100, 110, one.wrote)])).verdict == VALID
    lost = replace(two, outcome=UNKNOWN, returned=-1)
    assert durability(final([one, lost, read(3, 1, 100, 110, one.wrote)])).verdict == VALID
    ranked = [replace(one, version=1), replace(beside, version=2)]
    assert durability(final([*ranked, read(3, 1, 100, 110, one.wrote)])).verdict == INVALID
    assert durability(final([*ranked, read(3, 1, 100, 110, two.wrote)])).verdict == VALID
    nobody = durability(final([one, read(3, 1, 100, 110, value_id(9, 9))]))
    assert nobody.verdict == INVALID and "nobody wrote" in nobody.explanation
    assert durability(final([one, two])).verdict == UNDECIDED
    strange = final([replace(one, kind=CAS), read(3, 1, 100, 110, one.wrote)])
    assert durability(strange).verdict == UNDECIDED


def test_what_was_not_read_is_not_taken_for_kept() -> None:
    kept, gone = write(1, 1, 0, 10, key=0), write(2, 1, 0, 10, key=1)
    shows = read(3, 1, 100, 110, kept.wrote, key=0)
    lost = read(4, 1, 100, 110, NOTHING, key=1)
    silent = replace(lost, outcome=UNKNOWN, returned=-1)
    assert survival(final([kept, shows])) == Survival(VALID, (), 0, least=False)
    assert survival(final([kept, gone, shows, silent])) == Survival(UNDECIDED, None, 1, least=False)
    verdict = durability(final([kept, gone, shows, silent]))
    assert (verdict.verdict, verdict.keys, verdict.witness) == (UNDECIDED, 1, ())
    assert verdict.explanation.startswith("1 key with acknowledged changes could not be read")
    # A loss is a loss, whatever else was not read; then there may be more.
    assert survival(final([kept, gone, shows, lost])) == Survival(INVALID, (1,), 0, least=False)
    unread = write(5, 1, 0, 10, key=2)
    found = survival(final([kept, gone, unread, shows, lost]))
    assert found == Survival(INVALID, (1,), 1, least=True)
    assert survival(final([kept, gone])) == Survival(UNDECIDED, None, 2, least=False)
    # Nobody was promised a write without an answer.
    doubtful = replace(gone, outcome=UNKNOWN, returned=-1)
    assert survival(final([kept, doubtful, shows])) == Survival(VALID, (), 0, least=False)


def test_of_a_register_only_its_one_write_is_counted() -> None:
    one, two = write(1, 1, 0, 10), write(2, 1, 20, 30)
    older, nothing = read(3, 1, 100, 110, one.wrote), read(3, 1, 100, 110, NOTHING)
    assert survival(final([one, nothing])).lost == (0,)
    # One of the two had been overwritten: the verdict is clear, the number is not.
    for shown in (older, nothing):
        assert survival(final([one, two, shown])) == Survival(INVALID, None, 0, least=False)
    other = write(4, 1, 0, 10, key=1)
    found = survival(final([one, two, other, older, read(5, 1, 100, 110, NOTHING, key=1)]))
    assert (found.lost, found.least) == ((1,), True)
    unanswered = replace(two, outcome=UNKNOWN, returned=-1)
    assert survival(final([one, unanswered, nothing])).lost == (0,)
    appended = objects(APPEND, ("do", 1), ("do", 2), ("do", 3), ("final", (1,)))
    assert survival(appended, Evidence(model="append")).lost == (1, 2)
    counted = objects(INCREMENT, ("do", 2), ("do", 3), ("final", 2))
    assert survival(counted, Evidence(model="counter")).lost is None
    twice = objects(ADD, ("do", 1), ("final", (1, 1)))
    assert survival(twice, Evidence(model="set")) == Survival(INVALID, (), 0, least=False)


@pytest.mark.parametrize(
    ("model", "kind", "operations", "expected"),
    [
        ("set", ADD, (("do", 1), ("do", 2), ("final", (2, 1))), VALID),
        ("set", ADD, (("do", 1), ("do", 2), ("final", (2,))), INVALID),
        ("set", ADD, (("do", 1), ("final", (1, 1))), INVALID),
        ("set", ADD, (("do", 1), ("final", (1, 7))), INVALID),
        ("set", ADD, (("do", 1, UNKNOWN), ("final", (1,))), VALID),
        ("set", ADD, (("do", 1, UNKNOWN), ("final", ())), VALID),
        ("set", ADD, (("do", 1, FAIL), ("final", (1,))), INVALID),
        ("append", APPEND, (("do", 1), ("do", 2), ("final", (1, 2))), VALID),
        ("append", APPEND, (("do", 1), ("do", 2), ("final", (1, 2, 2))), INVALID),
        ("append", APPEND, (("do", 1), ("do", 2), ("read", (1, 2)), ("final", (1,))), INVALID),
        ("counter", INCREMENT, (("do", 2), ("do", 3), ("final", 5)), VALID),
        ("counter", INCREMENT, (("do", 2), ("do", 3, UNKNOWN), ("final", 5)), VALID),
        ("counter", INCREMENT, (("do", 2), ("do", 3, UNKNOWN), ("final", 2)), VALID),
        ("counter", INCREMENT, (("do", 2), ("do", 3), ("final", 2)), INVALID),
        ("counter", INCREMENT, (("do", 2), ("do", 3, FAIL), ("final", 5)), INVALID),
        ("queue", WRITE, (("do", 2), ("final", 2)), UNDECIDED),
    ],
)
def test_durability_of_other_objects(
    model: str, kind: int, operations: tuple[tuple[object, ...], ...], expected: str
) -> None:
    verdict = durability(objects(kind, *operations), Evidence(model=model))
    assert verdict.verdict == expected
    assert bool(verdict.witness) == (expected == INVALID)


# --- staleness --------------------------------------------------------------------------


def test_staleness_counts_from_the_first_write_that_was_surely_newer() -> None:
    acts = [
        write(1, 1, 0, 10),
        write(1, 2, 20, 30),
        write(2, 1, 25, 35),
        write(1, 3, 40, 90),
        read(3, 1, 50, 60, value_id(1, 1)),
        read(3, 2, 70, 80, value_id(1, 2)),
        read(3, 3, 100, 110, value_id(1, 2)),
        read(3, 4, 120, 130, PRELOADED),
        read(3, 5, 140, 150, PRELOADED, key=1),
        read(3, 6, 160, 170, value_id(9, 9)),
        replace(read(3, 7, 180, 190, PRELOADED), outcome=UNKNOWN, returned=-1),
    ]
    made = history(acts)
    by_sequence = made.session == 3
    age_ns, versions = staleness(made)
    assert age_ns[by_sequence].tolist() == [20, 0, 10, 110, 0, 0, NOT_A_READ]
    assert versions[by_sequence].tolist() == [2, 0, 1, 4, 0, 0, NOT_A_READ]
    assert (age_ns[~by_sequence] == NOT_A_READ).all()
    narrowed, _ = staleness(made, uncertainty_ns=2)
    assert narrowed[by_sequence].tolist() == [16, 0, 6, 106, 0, 0, NOT_A_READ]


def test_staleness_agrees_with_counting_and_with_regularity() -> None:
    chance = scalar_stream(21, "staleness")
    stale = 0
    for _ in range(600):
        acts = random_registers(chance)
        made = history(acts)
        age_ns, versions = staleness(made)
        written = {(act.key, act.wrote): act for act in acts if act.kind == WRITE}
        for row, act in enumerate(sorted(acts, key=lambda act: act.invoked)):
            if act.kind != READ:
                assert age_ns[row] == versions[row] == NOT_A_READ
                continue
            own = written.get((act.key, act.value))
            over = -1 if own is None else own.last
            newer = [
                other.returned
                for other in written.values()
                if other.key == act.key and other.outcome == 0
                if other.invoked > over and other.returned < act.invoked
            ]
            assert versions[row] == len(newer), acts
            assert age_ns[row] == (act.invoked - min(newer) if newer else 0), acts
        past = [act for act in acts if act.kind == READ and made_before(act, written)]
        if len(past) == sum(act.kind == READ for act in acts):
            assert bool((versions > 0).any()) != regular_by_definition(acts)
        stale += bool((versions > 0).any())
    assert 100 < stale < 500


def made_before(act: Act, written: dict[tuple[int, int], Act]) -> bool:
    """Whether a read's value had begun to be written when it was over."""
    own = written.get((act.key, act.value))
    return own is None or own.invoked <= act.returned


# --- levels of single operations --------------------------------------------------------


def asking(acts: Sequence[Act], asked: dict[tuple[int, int], str]) -> History:
    """The history in which the operations (session, sequence) ask for levels of their own."""
    rows = sorted(acts, key=lambda act: act.invoked)
    codes = [levels.CODES.get(asked.get((act.session, act.sequence), ""), 0) for act in rows]
    return replace(history(acts), level=numpy.array(codes, dtype=numpy.uint8))


def test_each_level_is_checked_on_all_writes_and_the_reads_that_asked_for_it() -> None:
    acts = [
        write(1, 1, 0, 10),
        write(1, 2, 20, 30),
        read(2, 1, 40, 50, value_id(1, 1)),
        read(3, 1, 40, 50, value_id(1, 2)),
    ]
    weak = asking(acts, {(2, 1): levels.MONOTONIC_READS})
    found = check_levels(weak, {levels.LINEARIZABLE})
    assert (found.verdict, found.strongest) == (VALID, (levels.MONOTONIC_READS,))
    assert [verdict.operations for verdict in found.verdicts] == [3, 4]
    # The weak level covers the strong reads as well, and the strong level those that ask for it.
    both = asking(acts, {(2, 1): levels.LINEARIZABLE, (3, 1): levels.LINEARIZABLE})
    found = check_levels(both, {levels.MONOTONIC_READS})
    assert found.verdict == INVALID
    assert [verdict.verdict for verdict in found.verdicts] == [INVALID, VALID]
    assert found.strongest == (levels.NONE,)
    unasked = check_levels(history(acts), {levels.MONOTONIC_READS})
    assert unasked == check_claims(history(acts), {levels.MONOTONIC_READS})
    assert isinstance(unasked, ClaimsVerdict)


def test_reads_that_ask_for_more_than_is_known_leave_the_run_undecided() -> None:
    acts = [write(1, 1, 0, 10), read(2, 1, 20, 30, value_id(1, 1))]
    asked = asking(acts, {(2, 1): levels.EVENTUAL})
    found = check_levels(asked, {levels.LINEARIZABLE})
    assert (found.verdict, found.strongest) == (UNDECIDED, (levels.NONE,))
    found = check_levels(asked, {levels.LINEARIZABLE}, Evidence(digests=("a", "a")))
    assert (found.verdict, found.strongest) == (VALID, (levels.EVENTUAL,))
