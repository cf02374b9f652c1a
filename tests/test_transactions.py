"""Isolation levels: known anomalies and their good neighbours, and how they are told."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest
from transaction_histories import (
    Txn,
    a,
    aborted,
    allowed_by_definition,
    history,
    loaded,
    r,
    serializable_by_search,
    t,
    unanswered,
    w,
)

from orchestrator.core import levels
from orchestrator.core.history import NOTHING
from orchestrator.core.machine import CAS, FAIL, OK, READ, WRITE
from orchestrator.core.verdict import INVALID, VALID, Evidence, Verdict, check
from orchestrator.errors import DataError

RC, SI, RR, SER = (
    levels.READ_COMMITTED,
    levels.SNAPSHOT_ISOLATION,
    levels.REPEATABLE_READ,
    levels.SERIALIZABLE,
)
WEAKEST_FIRST = (RC, SI, RR, SER)


def verdict(transactions: list[Txn], level: str) -> Verdict:
    return check(history(transactions), level, Evidence(model="txn"))


def refused_by(transactions: list[Txn]) -> str:
    """The levels that say invalid, in short."""
    names = dict(zip(WEAKEST_FIRST, ("RC", "SI", "RR", "SER"), strict=True))
    return " ".join(
        names[level] for level in WEAKEST_FIRST if verdict(transactions, level).verdict == INVALID
    )


ALL = "RC SI RR SER"
BAD: dict[str, tuple[str, str, list[Txn]]] = {
    "G0 list": (
        "G0",
        ALL,
        [t(a("x", 1), a("y", 1)), t(a("x", 2), a("y", 2)), t(r("x", (1, 2)), r("y", (2, 1)))],
    ),
    "G0 interleaved": ("G0", ALL, [t(a("x", 1), a("x", 2)), t(a("x", 3)), t(r("x", (1, 3, 2)))]),
    "G0 unseen": ("G0", ALL, [t(a("x", 1), a("x", 2)), t(a("x", 3)), t(r("x", (1, 3)))]),
    "G1a list": ("G1a", ALL, [aborted(a("x", 1)), t(r("x", (1,)))]),
    "G1a register": ("G1a", ALL, [aborted(w("x", 1)), t(r("x", 1))]),
    "G1a inside": ("G1a", ALL, [aborted(a("x", 1)), t(a("x", 2)), t(r("x", (1, 2)))]),
    "G1b list": ("G1b", ALL, [t(a("x", 1), a("x", 2)), t(r("x", (1,))), t(r("x", (1, 2)))]),
    "G1b register": ("G1b", ALL, [t(w("x", 1), w("x", 2)), t(r("x", 1))]),
    "G1c list": ("G1c", ALL, [t(a("x", 1), r("y", (1,))), t(a("y", 1), r("x", (1,)))]),
    "G1c register": ("G1c", ALL, [t(w("x", 1), r("y", 1)), t(w("y", 1), r("x", 1))]),
    "internal list": ("internal", ALL, [t(r("x", (1,))), t(a("x", 1)), t(a("x", 2), r("x", (1,)))]),
    "internal register": ("internal", ALL, [t(w("x", 1)), t(w("x", 2), r("x", 1))]),
    "own future": ("internal", ALL, [t(r("x", 1), w("x", 1))]),
    "unwritten list": ("unwritten", ALL, [t(r("x", (1, 9))), t(a("x", 1))]),
    "unwritten register": ("unwritten", ALL, [t(w("x", 1)), t(r("x", 9))]),
    "duplicate": ("duplicate", ALL, [t(a("x", 1)), t(a("x", 2)), t(r("x", (1, 2, 1)))]),
    "incompatible": (
        "incompatible",
        ALL,
        [t(a("x", 1)), t(a("x", 2)), t(r("x", (1, 2))), t(r("x", (2,)))],
    ),
    "non-repeatable list": ("G-single", "SI RR SER", [t(a("x", 1)), t(r("x", ()), r("x", (1,)))]),
    "non-repeatable register": (
        "G-single",
        "SI RR SER",
        [t(w("x", 1)), t(r("x", None), r("x", 1))],
    ),
    "lost update list": (
        "G-single (lost update)",
        "SI RR SER",
        [t(r("x", None), a("x", 1)), t(r("x", None), a("x", 2)), t(r("x", (1, 2)))],
    ),
    "lost update unseen": (
        "G-single (lost update)",
        "SI RR SER",
        [t(r("x", None), a("x", 1)), t(r("x", ()), a("x", 2))],
    ),
    "lost update register": (
        "G-single (lost update)",
        "SI RR SER",
        [t(w("x", 1)), t(r("x", 1), w("x", 2)), t(r("x", 1), w("x", 3))],
    ),
    "read skew list": (
        "G-single",
        "SI RR SER",
        [t(a("x", 1), a("y", 1)), t(r("x", None), r("y", (1,)))],
    ),
    "read skew register": (
        "G-single",
        "SI RR SER",
        [t(w("x", 1), w("y", 1)), t(r("x", None), r("y", 1))],
    ),
    "long fork register": (
        "G-nonadjacent",
        "SI RR SER",
        [
            t(w("x", 1)),
            t(w("y", 1)),
            t(r("x", 1), r("y", None)),
            t(r("x", None), r("y", 1)),
        ],
    ),
    "long fork list": (
        "G-nonadjacent",
        "SI RR SER",
        [t(a("x", 1)), t(a("y", 1)), t(r("x", (1,)), r("y", ())), t(r("x", ()), r("y", (1,)))],
    ),
    "own appends apart": ("incompatible", ALL, [t(a("x", 1), a("x", 2)), t(r("x", (2,)))]),
    "own appends turned": ("incompatible", ALL, [t(a("x", 1), a("x", 2)), t(r("x", (2, 1)))]),
    "write skew list": (
        "G2-item",
        "RR SER",
        [t(r("x", None), a("y", 1)), t(r("y", None), a("x", 1))],
    ),
    "write skew register": (
        "G2-item",
        "RR SER",
        [t(r("x", None), w("y", 1)), t(r("y", None), w("x", 1))],
    ),
    "stale preload": (
        "G-single",
        "SI RR SER",
        [loaded(w("x", 1)), t(w("x", 2), w("y", 2)), t(r("y", 2), r("x", 1))],
    ),
    "unanswered but seen": (
        "G-single",
        "SI RR SER",
        [unanswered(w("x", 1), w("y", 1)), t(r("x", 1), r("y", None))],
    ),
}

GOOD: dict[str, list[Txn]] = {
    "G0 list": [
        t(a("x", 1), a("y", 1)),
        t(a("x", 2), a("y", 2)),
        t(r("x", (1, 2)), r("y", (1, 2))),
    ],
    "G0 interleaved": [t(a("x", 1), a("x", 2)), t(a("x", 3)), t(r("x", (1, 2, 3)))],
    "G0 unseen": [t(a("x", 1), a("x", 2)), t(a("x", 3)), t(r("x", (1, 2)))],
    "G1a list": [aborted(a("x", 1)), t(r("x", ()))],
    "G1a register": [unanswered(w("x", 1)), t(r("x", 1))],
    "G1b list": [t(a("x", 1), r("x", (1,)), a("x", 2)), t(r("x", (1, 2)))],
    "G1b register": [t(w("x", 1), r("x", 1), w("x", 2)), t(r("x", 2))],
    "G1c": [t(a("x", 1), r("y", (1,))), t(a("y", 1), r("x", ()))],
    "internal list": [t(a("x", 1)), t(r("x", (1,)), a("x", 2), r("x", (1, 2)))],
    "internal register": [t(w("x", 1)), t(r("x", 1), w("x", 2), r("x", 2))],
    "nothing, in two ways": [t(r("x", None), r("x", ()), a("x", 1), r("x", (1,)))],
    "nothing in no list": [t(r("x", ())), t(r("x", None))],
    "update": [t(r("x", None), w("x", 1)), t(r("x", 1), w("x", 2)), t(r("x", 2))],
    "blind writes": [t(w("x", 1), w("y", 1)), t(w("x", 2), w("y", 2)), t(r("x", 1)), t(r("y", 2))],
    "aborted update": [t(r("x", None), w("x", 1)), aborted(r("x", None), w("x", 2))],
    "aborted reads say nothing": [t(w("x", 1)), aborted(r("x", 9), r("x", 1))],
    "unanswered reads say nothing": [
        t(a("x", 1)),
        unanswered(r("x", None), a("x", 2)),
        t(r("x", (1, 2))),
    ],
    "unanswered and unseen": [unanswered(r("x", None), w("y", 1)), t(r("y", None), w("x", 1))],
    "preload": [loaded(w("x", 1)), t(w("x", 2), w("y", 2)), t(r("y", None), r("x", 1))],
    "empty": [],
    "one of nothing": [t()],
}


@pytest.mark.parametrize("name", BAD)
def test_known_anomalies_are_found_where_they_are_forbidden(name: str) -> None:
    said, levels_refusing, transactions = BAD[name]
    assert refused_by(transactions) == levels_refusing
    found = verdict(transactions, SER)
    assert found.explanation.startswith(said), found.explanation
    weakest = {"RC": RC, "SI": SI, "RR": RR}[levels_refusing.split()[0]]
    assert not allowed_by_definition(transactions, weakest)


@pytest.mark.parametrize("name", GOOD)
def test_their_good_neighbours_pass(name: str) -> None:
    assert refused_by(GOOD[name]) == ""
    assert serializable_by_search(GOOD[name])


REFUSED: dict[str, tuple[list[Txn], str]] = {
    "register": (
        [t(w("x", 1)), t(w("x", 1))],
        "session 1's txn #0: write of 1 to key x, which session 0's",
    ),
    "list": ([t(a("x", 1)), aborted(a("x", 1))], "session 1's txn #0: append of 1 to key x"),
    "one transaction": ([t(w("x", 1), w("x", 1))], "session 0's txn #0: write of 1 to key x"),
    "mixed": ([t(w("x", 1)), t(a("x", 2))], "session 1's txn #0: key x is both written and app"),
    "null": ([t(w("x", None))], "session 0's txn #0: write of null to key x"),
    "no list": ([t(a("x", 1)), t(r("x", 1))], "session 1's txn #0: a read of key x, which is app"),
    "word": ([t(("cas", "x", 1))], "session 0's txn #0: unknown micro-operation 'cas' of key x"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_apart_is_refused_by_name(name: str) -> None:
    transactions, message = REFUSED[name]
    with pytest.raises(DataError) as caught:
        verdict(transactions, SER)
    assert str(caught.value).startswith(message)
    assert caught.value.hint


def test_a_transaction_must_say_what_it_did_and_other_kinds_are_refused() -> None:
    good = history([t(w("x", 1))])
    with pytest.raises(DataError, match="does not say what it read and wrote"):
        check(replace(good, values=None), SER, Evidence(model="txn"))
    with pytest.raises(DataError, match="session 0's cas #0 is no transaction"):
        check(replace(good, kind=good.kind * 0 + CAS), SER, Evidence(model="txn"))


def test_registers_may_have_an_initial_value() -> None:
    skew = [t(r("x", 0), w("y", 1)), t(r("y", None), r("y", 0), w("x", 1))]
    found = check(history(skew, initial=0), SER, Evidence(model="txn"))
    assert found.explanation.startswith("G2-item: T1 (session 0's txn #0) read x = nothing")
    assert check(history(skew, initial=0), SI, Evidence(model="txn")).verdict == VALID
    with pytest.raises(DataError, match="write of 1 to key y, its initial value"):
        check(history(skew, initial=1), SER, Evidence(model="txn"))


def test_single_operations_are_transactions_too() -> None:
    both = history([t(w("x", 1)), t(r("x", 1))])
    single = replace(
        both,
        kind=numpy.array([WRITE, READ], dtype=numpy.uint8),
        value_id=numpy.array([1, NOTHING]),
        key_names=(b"x",),
        values=(None, 1),
    )
    assert check(single, SER, Evidence(model="txn")).verdict == VALID
    lost = replace(
        single, outcome=numpy.array([FAIL, OK], dtype=numpy.uint8), value_id=both.value_id * 0 + 1
    )
    found = check(lost, RC, Evidence(model="txn"))
    assert found.explanation == (
        "G1a (aborted read): session 1's read #0 read x = 1, but session 0's write #0, "
        "which wrote it, aborted."
    )
    assert [operation["op"] for operation in found.witness] == ["write", "read"]
    assert found.witness[0]["ops"] == [{"op": "write", "key": "x", "value": 1}]


STORIES = {
    "write skew list": (
        "G2-item: T1 (session 0's txn #0) read x = nothing, older than the 1 that T2 (session 1's "
        "txn #0) appended; T2 read y = nothing, older than the 1 that T1 appended."
    ),
    "G1c register": (
        "G1c: T1 (session 0's txn #0) wrote x = 1, which T2 (session 1's txn #0) read; "
        "T2 wrote y = 1, which T1 read."
    ),
    "G0 unseen": (
        "G0: T1 (session 0's txn #0) appended 1 to x before T2 (session 1's txn #0) 3; T2 appended "
        "3 to x before T1 2, which is not in the longest read."
    ),
    "stale preload": (
        "G-single: T1 (session 1's txn #0) wrote y = 2, which T2 (session 2's txn #0) read; "
        "T2 read x = 1, older than the 2 that T1 wrote."
    ),
}


@pytest.mark.parametrize("name", STORIES)
def test_cycles_are_told_edge_by_edge(name: str) -> None:
    assert verdict(BAD[name][2], SER).explanation == STORIES[name]


def test_the_witness_is_the_cycle_and_nothing_else() -> None:
    bystanders = [t(r("z", None)), t(w("z", 1)), t(r("z", 1), w("u", 1))]
    skew = [t(r("x", None), w("y", 1)), t(r("y", None), w("x", 1))]
    found = verdict([*bystanders, *skew], SER)
    assert [operation["session"] for operation in found.witness] == [3, 4]
    assert found.witness[0] == {
        "session": 3,
        "sequence": 0,
        "op": "txn",
        "ops": [{"op": "read", "key": "x", "value": None}, {"op": "write", "key": "y", "value": 1}],
        "invoked_ns": 3,
        "returned_ns": 10**6,
        "status": "ok",
        "node": 0,
        "phase": "run",
    }
    assert (found.operations, found.keys) == (5, 4)


def test_more_of_a_kind_are_counted() -> None:
    found = verdict([aborted(w("x", 1)), t(r("x", 1)), t(r("x", 1)), t(r("x", 1))], RC)
    assert found.explanation.endswith("aborted. There are 2 more of these.")


def test_long_lists_are_told_by_their_end() -> None:
    writers = [t(a("x", value)) for value in range(9)]
    found = verdict([*writers, t(r("x", tuple(range(9)))), t(r("x", (0, 2)))], RC)
    assert (
        "read x = [..., 4, 5, 6, 7, 8], session 10's txn #0 [0, 2], and neither"
        in found.explanation
    )


def test_the_first_of_many_cycles_is_a_short_one() -> None:
    ring = [t(r(f"k{at}", None), w(f"k{(at + 1) % 40}", 1)) for at in range(40)]
    assert len(verdict(ring, SER).witness) == 40
    chord = [t(r("k0", None), r("k7", None), w("k1", 2))]
    assert 2 < len(verdict([*ring, *chord], SER).witness) < 40


# --- registers whose version order has to be found --------------------------------------


def test_a_replay_finds_the_order_of_blind_writes() -> None:
    # T1 answered first, but T0 must go last: its x is read by one that also sees T1's y.
    transactions = [t(w("x", 1)), t(w("x", 2), w("y", 2)), t(r("y", 2), r("x", 1))]
    assert verdict(transactions, SER).verdict == VALID
    assert verdict([*transactions, t(r("x", 2), r("y", 2))], SER).verdict == VALID


def test_a_contradiction_of_learned_orders_is_told() -> None:
    transactions = [
        t(w("x", 1), w("y", 1)),
        t(w("x", 2), w("y", 2)),
        t(r("x", 1), w("a", 1)),
        t(r("x", 2), r("a", 1)),
        t(r("y", 2), w("b", 1)),
        t(r("y", 1), r("b", 1)),
    ]
    assert not serializable_by_search(transactions)
    found = verdict(transactions, SER)
    assert found.verdict == INVALID
    assert found.explanation == (
        "G2-item: T1 (session 0's txn #0) wrote x = 1 before T2 (session 1's txn #0) wrote 2, "
        "because session 3's txn #0 read that and comes after T1; T2 wrote y = 2 before T1 wrote "
        "1, because session 5's txn #0 read that and comes after T2."
    )
    assert len(found.witness) == 6
