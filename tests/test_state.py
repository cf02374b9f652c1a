"""The replicated state: snapshots of it."""

from __future__ import annotations

import msgspec

from orchestrator.core.keys import KeyRange
from orchestrator.core.machine import WRITE, Op
from orchestrator.core.state import KeyValueState, Snapshot


def made() -> KeyValueState:
    return KeyValueState(KeyRange(4, 8), accesses=False)


def written() -> KeyValueState:
    state = made()
    state.write(Op(1, 1, WRITE, b"a", b"first"), 1)
    state.write(Op(2, 7, WRITE, b"b", b"second"), 2)
    state.write(Op(1, 2, WRITE, b"a", b"third"), 5)
    return state


def test_a_restored_state_holds_values_versions_and_sessions() -> None:
    wire = msgspec.msgpack.encode(written().snapshot())
    state = made()
    state.write(Op(9, 1, WRITE, b"z", b"forgotten"), 1)
    state.restore(msgspec.msgpack.decode(wire, type=Snapshot))
    assert state.contents() == written().contents()
    # What took effect before the snapshot does not again, and answers as it did.
    assert state.write(Op(1, 1, WRITE, b"a", b"again"), 8) == 5
    assert state.write(Op(2, 7, WRITE, b"b", b"again"), 8) == 2
    assert state.read(b"a") == b"third"
    # A session that the snapshot does not know starts afresh.
    assert state.write(Op(9, 1, WRITE, b"z", b"new"), 9) == 9


def test_a_scan_after_restoring_sees_what_is_restored() -> None:
    state = made()
    state.write(Op(3, 1, WRITE, b"zz", b"gone"), 1)
    assert (b"zz", b"gone") in state.scan(b"a", 10)
    state.restore(written().snapshot())
    assert [key for key, _ in state.scan(b"a", 10)][:2] == [b"a", b"b"]
    assert (b"zz", b"gone") not in state.scan(b"a", 10)


def test_a_snapshot_does_not_change_when_the_state_does() -> None:
    state = written()
    before = state.snapshot()
    encoded = msgspec.msgpack.encode(before)
    other = made()
    other.restore(before)
    for changed, session in ((state, 4), (other, 5)):
        changed.write(Op(session, 1, WRITE, b"a", b"changed"), 6)
    assert msgspec.msgpack.encode(before) == encoded
