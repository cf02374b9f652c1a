"""What one shard's state does with the steps of transactions: locks, votes, decisions, fences."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from orchestrator.core.keys import KeyRange
from orchestrator.core.machine import APPEND, READ, WRITE, Op
from orchestrator.core.state import KeyValueState, Snapshot
from orchestrator.core.steps import DECIDE, EXECUTE, FINISH, FORGET, PREPARE, STEPS
from orchestrator.core.transactions import (
    ABORTED,
    BUSY,
    COMMITTED,
    RELEASED,
    YES,
    Identity,
    MicroOperation,
    Part,
    Said,
    Transactions,
    decode_ops,
    encode_ops,
    ruling,
    step,
)
from orchestrator.runtimes import _wire

FIRST, SECOND, THIRD = (1, 1), (2, 1), (3, 1)


def appends(key: bytes, element: bytes) -> MicroOperation:
    return (APPEND, key, element)


def reads(key: bytes) -> MicroOperation:
    return (READ, key, None)


class Shard:
    """A shard's state; each step gets the next version."""

    def __init__(self) -> None:
        self.state = KeyValueState(KeyRange(0, 8), accesses=False)
        self._version = 0

    def take(self, op: Op) -> Said:
        self._version += 1
        effects: list[Any] = []
        self.state.step("handle", op, self._version, effects)
        self.known.check()
        said: Said = effects[-1].value
        return said

    @property
    def known(self) -> Transactions:
        assert self.state.transactions is not None
        return self.state.transactions

    def prepare(self, of: Identity, *ops: MicroOperation, writes: bool = True) -> Said:
        return self.take(step(PREPARE, of, Part(list(ops), 0, [1], writes)))

    def execute(self, of: Identity, *ops: MicroOperation) -> Said:
        return self.take(step(EXECUTE, of, Part(list(ops), 0, [], True)))

    def decide(self, of: Identity, commit: bool) -> int:
        return self.take(ruling(DECIDE, of, commit)).status

    def finish(self, of: Identity, commit: bool) -> int:
        return self.take(ruling(FINISH, of, commit)).status


def test_a_part_sees_its_own_writes_and_changes_nothing_before_the_decision() -> None:
    shard = Shard()
    shard.execute(SECOND, appends(b"a", b"1"))
    said = shard.prepare(FIRST, reads(b"a"), appends(b"a", b"2"), reads(b"a"), (WRITE, b"b", b"x"))
    assert (said.status, said.reads) == (YES, [b"1", b"12"])
    assert (shard.state.read(b"a"), shard.state.read(b"b")) == (b"1", None)
    assert shard.decide(FIRST, True) == COMMITTED
    assert (shard.state.read(b"a"), shard.state.read(b"b")) == (b"12", b"x")
    assert not shard.known.prepared and not shard.known.locks.exclusive


def test_locks_are_shared_by_readers_and_refused_to_others() -> None:
    shard = Shard()
    assert shard.prepare(FIRST, reads(b"a")).status == YES
    assert shard.prepare(SECOND, reads(b"a")).status == YES
    assert shard.prepare(THIRD, appends(b"a", b"1")).status == ABORTED
    assert shard.execute((4, 1), appends(b"a", b"1")).status == BUSY
    assert shard.execute((4, 1), reads(b"a")).status == COMMITTED
    assert shard.finish(FIRST, False) == ABORTED
    assert shard.prepare((5, 1), reads(b"b"), appends(b"b", b"1")).status == YES
    assert shard.execute((6, 1), reads(b"b")).status == BUSY


def test_a_vote_is_for_good() -> None:
    shard = Shard()
    shard.prepare(FIRST, appends(b"a", b"1"))
    assert shard.prepare(SECOND, reads(b"a")).status == ABORTED
    shard.finish(FIRST, True)
    # Nothing is in its way any more, but it said no.
    assert shard.prepare(SECOND, reads(b"a")).status == ABORTED
    assert shard.prepare(THIRD, reads(b"a")).reads == [b"1"]
    assert shard.prepare(THIRD, reads(b"a")).reads == [b"1"]


def test_what_comes_after_the_end_takes_no_locks() -> None:
    shard = Shard()
    shard.prepare(FIRST, appends(b"a", b"1"))
    shard.decide(FIRST, True)
    shard.take(ruling(FORGET, FIRST, True))
    assert shard.prepare(FIRST, appends(b"a", b"1")).status == COMMITTED
    assert shard.decide(FIRST, False) == COMMITTED
    assert shard.execute((1, 2), appends(b"a", b"2")).status == COMMITTED
    # The session has gone on: all that is known of the last one is that it is over.
    assert shard.prepare(FIRST, appends(b"a", b"1")).status == ABORTED
    assert shard.execute((1, 2), appends(b"a", b"2")).status == COMMITTED
    assert shard.state.read(b"a") == b"12"
    # An abort that overtook what it is about.
    assert shard.finish(SECOND, False) == ABORTED
    assert shard.prepare(SECOND, appends(b"a", b"3")).status == ABORTED
    assert shard.execute(SECOND, appends(b"a", b"3")).status == ABORTED


def test_the_first_to_ask_decides() -> None:
    shard = Shard()
    shard.prepare(FIRST, appends(b"a", b"1"))
    assert shard.decide(FIRST, False) == ABORTED
    assert shard.decide(FIRST, True) == ABORTED
    shard.prepare(SECOND, appends(b"a", b"2"))
    assert shard.decide(SECOND, True) == COMMITTED
    assert shard.decide(SECOND, False) == COMMITTED
    assert shard.known.decisions == {SECOND: [1]}
    # Whoever was never asked to prepare will not be any more.
    assert shard.decide(THIRD, False) == ABORTED
    assert shard.prepare(THIRD, reads(b"a")).status == ABORTED
    assert shard.prepare((4, 1), reads(b"a"), writes=False).status == YES
    assert shard.decide((4, 1), True) == RELEASED
    assert shard.known.decisions == {SECOND: [1]}


def test_a_decision_outlives_the_next_transaction_of_its_session() -> None:
    shard = Shard()
    shard.prepare(FIRST, appends(b"a", b"1"))
    shard.decide(FIRST, True)
    shard.execute((1, 2), appends(b"b", b"1"))
    assert shard.decide(FIRST, False) == COMMITTED


def test_a_commit_of_what_was_aborted_is_noticed() -> None:
    shard = Shard()
    shard.prepare(FIRST, appends(b"a", b"1"))
    shard.finish(FIRST, False)
    with pytest.raises(AssertionError, match="both committed and aborted"):
        shard.finish(FIRST, True)


def test_a_snapshot_holds_locks_votes_decisions_and_fences() -> None:
    shard, other = Shard(), Shard()
    shard.prepare(FIRST, appends(b"a", b"1"), reads(b"b"))
    shard.prepare(SECOND, appends(b"c", b"1"))
    shard.decide(SECOND, True)
    other.prepare(THIRD, appends(b"z", b"1"))
    wire = msgspec.msgpack.encode(shard.state.snapshot())
    other.state.restore(msgspec.msgpack.decode(wire, type=Snapshot))
    other.known.check()
    assert other.known.kept() == shard.known.kept()
    assert other.known.locks.exclusive == {b"a": FIRST}
    assert other.execute((9, 1), appends(b"b", b"1")).status == BUSY
    assert other.finish(FIRST, True) == COMMITTED
    assert other.state.read(b"a") == b"1"
    assert other.prepare(SECOND, reads(b"c")).status == COMMITTED


def test_clients_cannot_ask_for_steps() -> None:
    for kind in sorted(STEPS):
        assert _wire.decode_request([b"AB", _request_header(READ), b"k"]).kind == READ
        with pytest.raises(ValueError, match="malformed"):
            _wire.decode_request([b"AB", _request_header(kind), b"k"])


def _request_header(kind: int) -> bytes:
    return _wire._REQUEST.pack(1, 1, 0, 0, 1, kind, 0)


@pytest.mark.parametrize(
    "value", [None, b"", b"\xc1", encode_ops([]), encode_ops([(WRITE, b"a", None)])]
)
def test_what_is_no_transaction_is_refused(value: bytes | None) -> None:
    with pytest.raises(ValueError, match="no transaction"):
        decode_ops(value)
