"""Linearizability on histories with a known answer."""

from __future__ import annotations

from dataclasses import replace

from checker_histories import (
    Act,
    history,
    read,
    told,
    write,
)

from orchestrator.core.history import NOTHING, PRELOADED, value_id
from orchestrator.core.machine import (
    FAIL,
    SCAN,
    UNKNOWN,
)
from orchestrator.core.verdict import INVALID, UNDECIDED, VALID, Evidence, check


def test_published_register_histories() -> None:
    # The examples of porcupine's test of a register (Athalye), times as call and return.
    good = [
        write(1, 1, 0, 100),
        read(2, 1, 25, 75, value_id(1, 1)),
        read(3, 1, 30, 60, PRELOADED),
    ]
    bad = [
        write(1, 1, 0, 100),
        read(2, 1, 10, 30, value_id(1, 1)),
        read(3, 1, 40, 90, PRELOADED),
    ]
    assert check(history(good), "linearizable").verdict == VALID
    verdict = check(history(bad), "linearizable")
    assert verdict.verdict == INVALID
    assert told(verdict) == ["1w1", "2r1", "3r1"]
    assert verdict.explanation == (
        "Session 3's read #1 of key x returned the initial value, but session 2's read #1 had "
        "returned the value of session 1's write #1 before that read began."
    )


def test_a_stale_read_is_told_with_the_write_that_it_missed() -> None:
    acts = [
        write(1, 4, 0, 10),
        write(2, 5, 20, 30),
        read(3, 7, 40, 50, value_id(1, 4)),
        write(4, 1, 0, 90, key=1),
        read(5, 1, 0, 90, PRELOADED, key=1),
    ]
    verdict = check(history(acts), "linearizable")
    assert (verdict.verdict, verdict.operations, verdict.keys) == (INVALID, 5, 2)
    assert told(verdict) == ["1w4", "2w5", "3r7"]
    assert verdict.explanation == (
        "Session 3's read #7 of key x returned the value of session 1's write #4, but session "
        "2's write #5 had returned before that read began, and that is the newer value: session "
        "1's write #4 had returned before session 2's write #5 began."
    )
    assert verdict.witness[2] == {
        "session": 3,
        "sequence": 7,
        "op": "read",
        "key": "x",
        "value": value_id(1, 4),
        "invoked_ns": 40,
        "returned_ns": 50,
        "status": "ok",
        "version": 0,
        "node": 0,
        "phase": "warmup",
    }


def test_reads_that_see_concurrent_writes_in_different_orders_overlap_as_forward_zones() -> None:
    one, two = value_id(1, 1), value_id(2, 1)
    acts = [
        write(1, 1, 0, 100),
        write(2, 1, 0, 100),
        read(3, 1, 10, 20, one),
        read(4, 1, 10, 20, two),
        read(3, 2, 30, 40, two),
        read(4, 2, 30, 40, one),
    ]
    verdict = check(history(acts), "linearizable")
    assert verdict.verdict == INVALID
    assert told(verdict) == ["1w1", "2w1", "3r1", "4r1", "3r2", "4r2"]
    assert check(history(acts[:-1]), "linearizable").verdict == VALID


def test_a_write_between_two_reads_of_the_value_before_it_is_a_backward_zone_inside() -> None:
    old = value_id(1, 1)
    acts = [
        write(1, 1, 0, 10),
        write(2, 1, 20, 30),
        read(3, 1, 22, 28, value_id(2, 1)),
        read(4, 1, 31, 40, old),
    ]
    verdict = check(history(acts), "linearizable")
    assert verdict.verdict == INVALID
    assert told(verdict) == ["1w1", "2w1", "3r1", "4r1"]
    # An equal time is concurrent: the read may then stand before the write.
    touching = [*acts[:2], read(4, 1, 30, 40, old)]
    assert check(history(touching), "linearizable").verdict == VALID


def test_a_value_that_nobody_wrote_is_invalid() -> None:
    acts = [write(1, 1, 0, 10), read(2, 1, 20, 30, value_id(9, 9))]
    verdict = check(history(acts), "linearizable")
    assert (verdict.verdict, told(verdict)) == (INVALID, ["2r1"])
    assert verdict.explanation.endswith("which nobody wrote.")


def test_a_write_that_failed_and_a_write_to_another_key_cannot_be_read() -> None:
    failed = [write(1, 1, 0, 10, outcome=FAIL), read(2, 1, 20, 30, value_id(1, 1))]
    verdict = check(history(failed), "linearizable")
    assert (verdict.verdict, told(verdict)) == (INVALID, ["1w1", "2r1"])
    assert verdict.explanation.endswith("which session 1's write #1 certainly failed to write.")
    elsewhere = [write(1, 1, 0, 10, key=2), read(2, 1, 20, 30, value_id(1, 1))]
    verdict = check(history(elsewhere), "linearizable")
    assert (verdict.verdict, told(verdict)) == (INVALID, ["1w1", "2r1"])
    assert verdict.explanation.endswith("which session 1's write #1 wrote to key z.")


def test_a_read_that_is_over_before_its_write_begins_is_invalid() -> None:
    acts = [read(2, 1, 0, 5, value_id(1, 1)), write(1, 1, 10, 20)]
    verdict = check(history(acts), "linearizable")
    assert (verdict.verdict, told(verdict)) == (INVALID, ["2r1", "1w1"])
    touching = [read(2, 1, 0, 10, value_id(1, 1)), write(1, 1, 10, 20)]
    assert check(history(touching), "linearizable").verdict == VALID


def test_a_write_without_an_answer_may_happen_late_or_never_but_only_once() -> None:
    lost = write(1, 1, 0, -1, outcome=UNKNOWN)
    other = write(2, 1, 50, 60)
    late = [lost, other, read(3, 1, 70, 80, other.wrote), read(3, 2, 90, 95, lost.wrote)]
    assert check(history(late), "linearizable").verdict == VALID
    assert check(history(late[:-1]), "linearizable").verdict == VALID
    back = [*late, read(3, 3, 96, 99, other.wrote)]
    verdict = check(history(back), "linearizable")
    assert (verdict.verdict, told(verdict)) == (INVALID, ["1w1", "2w1", "3r2", "3r3"])
    lost_row = next(row for row in verdict.witness if row["status"] == "unknown")
    assert lost_row["returned_ns"] is None


def test_what_did_not_succeed_and_scans_are_no_evidence() -> None:
    acts = [
        write(1, 1, 0, 10),
        read(2, 1, 20, -1, value_id(9, 9), outcome=UNKNOWN),
        read(3, 1, 20, 30, value_id(9, 9), outcome=FAIL),
        Act(4, 1, SCAN, 20, 30, value_id(9, 9)),
    ]
    verdict = check(history(acts), "linearizable")
    assert (verdict.verdict, verdict.operations) == (VALID, 1)


def test_absent_and_preloaded_are_one_initial_value() -> None:
    acts = [read(1, 1, 0, 5, NOTHING), read(1, 2, 6, 9, PRELOADED), read(1, 3, 10, 15, NOTHING)]
    for level in ("linearizable", "monotonic_reads"):
        assert check(history(acts), level).verdict == VALID
    gone = [*acts, write(2, 1, 20, 30), read(1, 4, 40, 50, NOTHING)]
    verdict = check(history(gone), "linearizable")
    assert (verdict.verdict, told(verdict)) == (INVALID, ["2w1", "1r4"])
    assert verdict.witness[1]["value"] is None


def test_several_bad_keys_are_counted() -> None:
    acts = [
        act
        for key in (0, 1, 2)
        for act in (
            write(1 + key, 1, 0, 10, key=key),
            read(5, 1 + key, 20, 30, value_id(1, 1) if key == 0 else PRELOADED, key=key),
        )
    ]
    verdict = check(history(acts), "linearizable")
    assert verdict.verdict == INVALID
    assert verdict.explanation.endswith("Of 3 keys, 2 break the level; this is one of them.")


def test_the_uncertainty_of_clocks_is_part_of_the_verdict() -> None:
    acts = [
        write(1, 1, 1_000_000, 1_100_000),
        read(2, 1, 1_300_000, 1_400_000, PRELOADED, client=1),
    ]
    assert check(history(acts), "linearizable").verdict == INVALID
    forgiven = check(history(acts), "linearizable", Evidence(uncertainty_ns=200_000))
    assert forgiven.verdict == VALID
    assert "linearizable up to 200us" in forgiven.explanation
    short = check(history(acts), "linearizable", Evidence(uncertainty_ns=50_000))
    assert short.verdict == INVALID
    assert "widened by 50us" in short.explanation


def test_what_one_clock_shows_needs_no_comparison_of_clocks() -> None:
    acts = [
        write(1, 1, 1_000_000, 1_100_000, client=0),
        read(2, 1, 1_300_000, 1_400_000, PRELOADED, client=1),
        write(3, 1, 1_000_000, 1_100_000, client=2, key=1),
    ]
    far = Evidence(uncertainty_ns=200_000, clocks=("a", "b", "b"))
    assert check(history(acts), "linearizable", far).verdict == VALID
    near = replace(far, clocks=("a", "a", "b"))
    for level in ("linearizable", "regular"):
        verdict = check(history(acts), level, near)
        assert (verdict.verdict, told(verdict)) == (INVALID, ["1w1", "2r1"])
        assert verdict.explanation.endswith("(By the clock of one host alone.)")
    # Of a value that another host wrote, one clock only knows that it was read.
    foreign = [
        write(1, 1, 1_000_000, 1_100_000, client=0),
        read(2, 1, 1_000_000, 1_100_000, value_id(1, 1), client=1),
        read(3, 1, 1_300_000, 1_400_000, PRELOADED, client=1),
    ]
    verdict = check(history(foreign), "linearizable", far)
    assert (verdict.verdict, told(verdict)) == (INVALID, ["1w1", "2r1", "3r1"])
    assert check(history(foreign), "linearizable", replace(far, clocks="abb")).verdict == INVALID
    apart = [foreign[0], foreign[1], replace(foreign[2], client=2)]
    assert check(history(apart), "linearizable", replace(far, clocks="abc")).verdict == VALID


def test_a_session_keeps_its_order_where_the_clock_shows_none() -> None:
    # In virtual time a session without think time returns and goes on at the same nanosecond.
    acts = [write(1, 1, 0, 10), read(1, 2, 10, 20, PRELOADED)]
    verdict = check(history(acts), "linearizable")
    assert (verdict.verdict, told(verdict)) == (INVALID, ["1w1", "1r2"])
    assert verdict.explanation == (
        "The values of key x cannot be put in an order: the initial value comes before the value "
        "of session 1's write #1; the value of session 1's write #1 comes before the initial "
        "value, because session 1's write #1 was over before session 1's read #2 began."
    )
    # Nor is it lost in the uncertainty of clocks: it needs no comparison of them.
    assert check(history(acts), "linearizable", Evidence(uncertainty_ns=1_000)).verdict == INVALID
    other = [acts[0], replace(acts[1], session=2)]
    assert check(history(other), "linearizable").verdict == VALID


def test_a_session_cannot_read_what_it_writes_next() -> None:
    acts = [read(1, 1, 0, 10, value_id(1, 2)), write(1, 2, 10, 20)]
    for uncertainty_ns in (0, 50):
        verdict = check(history(acts), "linearizable", Evidence(uncertainty_ns=uncertainty_ns))
        assert (verdict.verdict, told(verdict)) == (INVALID, ["1r1", "1w2"])
        assert "which the session wrote afterwards" in verdict.explanation


def test_three_sessions_that_see_three_writes_in_a_circle() -> None:
    values = [value_id(session, 1) for session in (4, 5, 6)]
    acts = [write(session, 1, 0, 100) for session in (4, 5, 6)]
    for at, session in enumerate((1, 2, 3)):
        acts.append(read(session, 1, 40, 50, values[at]))
        acts.append(read(session, 2, 50, 60, values[(at + 1) % 3]))
    verdict = check(history(acts), "linearizable")
    assert verdict.verdict == INVALID
    assert sorted(told(verdict)) == sorted(
        ["4w1", "5w1", "6w1", "1r1", "1r2", "2r1", "2r2", "3r1", "3r2"]
    )
    assert verdict.explanation.count("comes before") == 3
    assert check(history(acts[:-1]), "linearizable").verdict == VALID


def test_a_record_that_cannot_be_trusted_is_unknown() -> None:
    twice = [write(1, 1, 0, 10), write(1, 1, 20, 30)]
    ambiguous = [write(0, 0, 0, 10)]
    backwards = [write(1, 1, 20, 10)]
    for acts in (twice, ambiguous, backwards):
        for level in ("linearizable", "read_your_writes", "monotonic_reads"):
            verdict = check(history(acts), level)
            assert (verdict.verdict, verdict.witness) == (UNDECIDED, ())
            assert "session" in verdict.explanation.lower()


def test_an_empty_history_breaks_nothing() -> None:
    for level in ("linearizable", "read_your_writes", "monotonic_reads"):
        verdict = check(history([]), level)
        assert (verdict.verdict, verdict.operations, verdict.keys) == (VALID, 0, 0)
