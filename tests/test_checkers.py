"""The consistency checkers on histories with a known answer, and the verdict on claims."""

from __future__ import annotations

from dataclasses import replace

import pytest
from checker_histories import (
    history,
    read,
    told,
    write,
)

from orchestrator.core import levels
from orchestrator.core.history import NOTHING, PRELOADED, History, value_id
from orchestrator.core.machine import (
    UNKNOWN,
)
from orchestrator.core.registry import Family, plugins
from orchestrator.core.verdict import INVALID, UNDECIDED, VALID, Evidence, check, check_claims
from orchestrator.errors import ConfigError

# --- session guarantees: known histories ------------------------------------------------


def test_losing_ones_own_write_breaks_read_your_writes() -> None:
    acts = [write(3, 1, 0, 10, version=1), read(3, 2, 20, 30, PRELOADED)]
    verdict = check(history(acts), "read_your_writes")
    assert (verdict.verdict, told(verdict)) == (INVALID, ["3w1", "3r2"])
    assert verdict.explanation == (
        "Session 3's read #2 of key x returned the initial value, which is older than the value "
        "of the session's own write #1."
    )
    # Another session, another key, or a write without an answer: nothing was promised.
    for harmless in (
        [acts[0], replace(acts[1], session=4)],
        [acts[0], replace(acts[1], key=1)],
        [replace(acts[0], outcome=UNKNOWN, returned=-1), acts[1]],
    ):
        assert check(history(harmless), "read_your_writes").verdict == VALID
    assert check(history(acts), "monotonic_reads").verdict == VALID


def test_what_a_session_overwrote_knowingly_is_older_than_its_own_write() -> None:
    acts = [
        write(1, 1, 0, 10),
        read(3, 1, 12, 15, value_id(1, 1)),
        write(3, 2, 20, 30),
        write(4, 1, 25, 60),
        read(3, 3, 40, 50, value_id(1, 1)),
    ]
    verdict = check(history(acts), "read_your_writes")
    assert (verdict.verdict, told(verdict)) == (INVALID, ["1w1", "3r1", "3w2", "3r3"])
    assert verdict.explanation.endswith(
        "session 3's write #2 came after its session had read that value."
    )
    concurrent = [*acts[:4], read(3, 3, 40, 50, value_id(4, 1))]
    assert check(history(concurrent), "read_your_writes").verdict == VALID
    # These levels know no clock: a write that was over earlier may still be the newer one.
    assert check(history([acts[0], *acts[2:]]), "read_your_writes").verdict == VALID


def test_a_lost_write_that_the_session_had_seen_is_older_than_what_it_wrote_then() -> None:
    acts = [
        write(1, 1, 0, -1, outcome=UNKNOWN),
        read(3, 1, 5, 15, value_id(1, 1)),
        write(3, 2, 20, 30),
        read(3, 3, 40, 50, value_id(1, 1)),
    ]
    verdict = check(history(acts), "read_your_writes")
    assert (verdict.verdict, told(verdict)) == (INVALID, ["1w1", "3r1", "3w2", "3r3"])
    unseen = [acts[0], *acts[2:]]
    assert check(history(unseen), "read_your_writes").verdict == VALID


def test_versions_order_concurrent_writes_only_where_they_can_be_trusted() -> None:
    def story(first: int, second: int, third: int) -> History:
        return history(
            [
                write(1, 1, 0, 100, version=first),
                write(3, 1, 0, 30, version=second),
                write(2, 1, 110, 120, version=third),
                read(3, 2, 40, 50, value_id(1, 1)),
            ]
        )

    verdict = check(story(1, 2, 3), "read_your_writes")
    assert (verdict.verdict, told(verdict)) == (INVALID, ["1w1", "3w1", "3r2"])
    assert verdict.explanation.endswith("(versions 1 and 2).")
    assert check(story(2, 1, 3), "read_your_writes").verdict == VALID
    # Missing, repeated, and against time.
    for untrusted in ((0, 2, 3), (1, 2, 2), (3, 4, 2)):
        assert check(story(*untrusted), "read_your_writes").verdict == VALID


def test_going_back_to_an_older_value_breaks_monotonic_reads() -> None:
    acts = [
        write(1, 1, 0, 10),
        write(1, 2, 20, 30),
        read(3, 1, 40, 50, value_id(1, 2)),
        read(3, 2, 60, 70, value_id(1, 1)),
    ]
    verdict = check(history(acts), "monotonic_reads")
    assert (verdict.verdict, told(verdict)) == (INVALID, ["1w1", "1w2", "3r1", "3r2"])
    assert "older than the value of session 1's write #2, returned by the session's read #1" in (
        verdict.explanation
    )
    apart = [*acts[:3], replace(acts[3], session=4)]
    assert check(history(apart), "monotonic_reads").verdict == VALID
    assert check(history(acts), "read_your_writes").verdict == VALID


def test_going_back_to_the_initial_value_breaks_monotonic_reads() -> None:
    acts = [
        write(1, 1, 0, -1, outcome=UNKNOWN),
        read(3, 1, 40, 50, value_id(1, 1)),
        read(3, 2, 60, 70, NOTHING),
    ]
    verdict = check(history(acts), "monotonic_reads")
    assert (verdict.verdict, told(verdict)) == (INVALID, ["1w1", "3r1", "3r2"])


def test_coming_back_to_a_value_breaks_monotonic_reads_whichever_is_older() -> None:
    one, two = value_id(1, 1), value_id(2, 1)
    acts = [
        write(1, 1, 0, 100),
        write(2, 1, 0, 100),
        read(3, 1, 10, 20, one),
        read(3, 2, 30, 40, two),
        read(3, 3, 50, 60, one),
    ]
    verdict = check(history(acts), "monotonic_reads")
    assert (verdict.verdict, told(verdict)) == (INVALID, ["1w1", "2w1", "3r1", "3r2", "3r3"])
    assert verdict.explanation.endswith("one of the two steps goes back.")
    assert check(history(acts[:-1]), "monotonic_reads").verdict == VALID


def test_a_session_with_two_operations_outstanding_is_unknown() -> None:
    acts = [write(3, 1, 0, 30), read(3, 2, 20, 40, PRELOADED)]
    for level in ("read_your_writes", "monotonic_reads"):
        verdict = check(history(acts), level)
        assert verdict.verdict == UNDECIDED
        assert "session 3's read #2 began before session 3's write #1" in verdict.explanation


# --- convergence ------------------------------------------------------------------------


def test_converged_compares_the_replicas() -> None:
    nothing = history([])
    verdict = check(nothing, "eventual", Evidence(digests=("a", "a", "a")))
    assert verdict.verdict == VALID
    assert verdict.explanation == "The contents of replicas 0, 1, 2 are equal after the run."
    verdict = check(nothing, "eventual", Evidence(digests=("a", "b", "a", "c")))
    assert (verdict.verdict, verdict.witness) == (INVALID, ())
    assert verdict.explanation == (
        "After the run the contents of replicas 1, 3 differ from those of replicas 0, 2."
    )
    for silent in ((), ("",), ("a", "", "a")):
        assert check(nothing, "eventual", Evidence(digests=silent)).verdict == UNDECIDED
    assert check(nothing, "eventual", Evidence(digests=("a", "", "b"))).verdict == INVALID


# --- claims -----------------------------------------------------------------------------


STALE = history([write(1, 1, 0, 10), read(2, 1, 20, 30, PRELOADED)])


def test_claims_are_checked_one_by_one_and_together() -> None:
    found = check_claims(
        STALE,
        frozenset({"monotonic_reads", "read_your_writes", "eventual"}),
        Evidence(digests=("a", "a")),
    )
    assert found.verdict == VALID
    assert found.strongest == ("eventual", "monotonic_reads", "read_your_writes")
    assert [verdict.level for verdict in found.verdicts] == [
        level for level in levels.LEVELS if level in found.strongest
    ]


def test_one_broken_claim_breaks_them_all_and_unknown_is_no_success() -> None:
    broken = check_claims(STALE, {"strict", "monotonic_reads", "eventual"})
    assert broken.verdict == INVALID
    assert broken.strongest == ("monotonic_reads",)
    undecided = check_claims(STALE, {"monotonic_reads", "eventual"})
    assert undecided.verdict == UNDECIDED
    assert undecided.strongest == ("monotonic_reads",)
    held = check_claims(history([]), {"linearizable", "monotonic_reads"})
    assert (held.verdict, held.strongest) == (VALID, ("linearizable",))


def test_claiming_nothing_is_the_level_none() -> None:
    for claimed in (frozenset[str](), frozenset({"none"})):
        found = check_claims(STALE, claimed)
        assert (found.verdict, found.strongest) == (VALID, ("none",))
    with pytest.raises(ConfigError):
        check_claims(STALE, {"quantum"})


def test_every_level_but_none_has_its_checker_and_it_names_its_level() -> None:
    assert set(plugins(Family.CHECKER)) == set(levels.LEVELS) - {levels.NONE}
    for name in plugins(Family.CHECKER):
        model = "txn" if name in levels.TRANSACTIONAL else "register"
        assert check(history([]), name, Evidence(model, digests=("a",))).level == name


def test_a_level_without_a_checker_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(levels._IMPLIES, "made_up", (levels.NONE,))
    verdict = check(STALE, "made_up")
    assert verdict.verdict == UNDECIDED
    assert "no checker" in verdict.explanation
