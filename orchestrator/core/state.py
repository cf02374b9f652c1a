"""The replicated key-value state: what every protocol applies its operations to.

An operation takes effect once: a session has at most one operation outstanding, so the last
sequence number of each session is all that deduplication needs (Ongaro's dissertation,
section 6.3). The table grows with the number of sessions, not of operations. Of a compare-and-set
it keeps the outcome as well: who asks again hears what was found the first time.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from orchestrator.core.compare_and_set import decode_exchange
from orchestrator.core.holdings import (
    DONE,
    Aside,
    Cell,
    Held,
    Holdings,
    Piece,
    decode_cell,
    decode_piece,
)
from orchestrator.core.machine import (
    CAS,
    OK,
    READ,
    UNKNOWN,
    UNMATCHED,
    WRITE,
    Access,
    Effect,
    Entry,
    MachineContext,
    Op,
    Preload,
    Reply,
)
from orchestrator.core.steps import ADOPT, EXECUTE, FENCE, PREPARE, RELEASE, STEPS
from orchestrator.core.transactions import COMMITTED, YES, Kept, Part, Transactions

OTHER_CHANGES: Final = STEPS | {CAS}
"""Kinds of operation that may change the state, besides the plain write."""


class Snapshot(msgspec.Struct, array_like=True, gc=False):
    """All that a state holds beyond its preload, as plain columns for a message or a record.

    Entry i is (``keys[i]``, ``values[i]``, ``versions[i]``); session ``sessions[i]`` wrote last
    with sequence number ``sequences[i]``, which took effect at version ``took_effect_at[i]``.
    ``transactions``: None where there never was one. ``unmatched``: of sessions that wrote last
    by a compare-and-set that did not match its sequence number. ``holdings``: None where data
    never moves.
    """

    keys: list[bytes]
    values: list[bytes]
    versions: list[int]
    sessions: list[int]
    sequences: list[int]
    took_effect_at: list[int]
    transactions: Kept | None = None
    unmatched: dict[int, int] = {}
    holdings: Held | None = None


_decode_part = msgspec.msgpack.Decoder(Part).decode


class KeyValueState:
    """Values and versions by key over a preload, with the sessions that wrote them."""

    __slots__ = (
        "_inserted",
        "_preload",
        "_sessions",
        "_tokens",
        "_unmatched",
        "accesses",
        "transactions",
        "values",
    )

    def __init__(self, preload: Preload, *, accesses: bool) -> None:
        self.values: dict[bytes, Entry] = {}
        self._preload = preload
        self.accesses = accesses
        self._sessions: dict[int, tuple[int, int]] = {}
        # session -> sequence number of its last compare-and-set that did not match.
        self._unmatched: dict[int, int] = {}
        self._inserted: list[bytes] | None = None
        self._tokens = 0
        self.transactions: Transactions | None = None

    def write(self, op: Op, version: int) -> int:
        """Apply a write once; returns the version at which it took effect."""
        session = op.session
        done = self._sessions.get(session)
        if done is not None and done[0] >= op.sequence:
            return done[1]
        self._sessions[session] = (op.sequence, version)
        entry = self.values.get(op.key)
        if entry is not None:
            # In place: with many keys every object touched is a miss of the processor's caches.
            entry.value = op.value or b""
            entry.version = version
        else:
            self._insert(op.key, Entry(op.value or b"", version))
        return version

    def compare_and_set(self, op: Op, version: int) -> tuple[int, int]:
        """Compare and set once; returns OK or UNMATCHED, and the version that it is about.

        One that its session has left behind is UNKNOWN: nobody waits for its answer.
        """
        session, sequence = op.session, op.sequence
        done = self._sessions.get(session)
        if done is not None and done[0] >= sequence:
            if done[0] > sequence:
                return UNKNOWN, done[1]
            return UNMATCHED if self._unmatched.get(session) == sequence else OK, done[1]
        exchange = decode_exchange(op.value)
        if self.read(op.key) == exchange.expected:
            self._sessions[session] = (sequence, version)
            self.put(op.key, exchange.new, version)
            return OK, version
        # It is about the state as the changes before it have left it.
        self._sessions[session] = (sequence, version - 1)
        self._unmatched[session] = sequence
        return UNMATCHED, version - 1

    def put(self, key: bytes, value: bytes, version: int) -> None:
        """Set a value on behalf of what sees to it that it does so once."""
        entry = self.values.get(key)
        if entry is None:
            self._insert(key, Entry(value, version))
        else:
            entry.value, entry.version = value, version

    def change(self, handle: Any, op: Op, version: int, effects: list[Effect]) -> None:
        """Apply one of OTHER_CHANGES, and answer who waits for it.

        What is compared goes through cache and storage where it is answered.
        """
        if op.kind != CAS:
            self.step(handle, op, version, effects)
            return
        outcome, about = self.compare_and_set(op, version)
        token = 0
        if self.accesses:
            if handle is not None:
                self._tokens += 1
                token = self._tokens
                effects.append(Access(token, op.key, op.size, READ))
            if outcome == OK:
                self.touch(op, effects)
        if handle is not None:
            effects.append(Reply(handle, outcome, None, about, token))

    def step(self, handle: Any, op: Op, version: int, effects: list[Effect]) -> None:
        """Take a transaction's step (``transactions.STEPS``), and answer who waits for it.

        What it reads goes through cache and storage where it is answered; what it writes is left
        in the cache everywhere.
        """
        if self.transactions is None:
            self.transactions = Transactions()
        said = self.transactions.take(self, op, version)
        token = 0
        if self.accesses and op.kind in (EXECUTE, PREPARE) and said.status in (YES, COMMITTED):
            self._tokens += 1
            for kind, key, new in _decode_part(op.value or b"").ops:
                size = len(key) + len(new or b"")
                if kind != READ:
                    effects.append(Access(0, key, size, WRITE))
                elif handle is not None:
                    token = self._tokens
                    effects.append(Access(token, key, size, READ))
        if handle is not None:
            effects.append(Reply(handle, OK, said, version, token))

    def _insert(self, key: bytes, entry: Entry) -> None:
        self.values[key] = entry
        if self._inserted is not None and self._preload.get(key) is None:
            insort(self._inserted, key)

    def read(self, key: bytes) -> bytes | None:
        """The value of a key; None where there is none."""
        found = self.values.get(key)
        return self._preload.get(key) if found is None else found.value

    def scan(self, start: bytes, count: int) -> list[tuple[bytes, bytes]]:
        """Up to ``count`` pairs at or after ``start`` in key order."""
        if self._inserted is None:
            preload = self._preload
            self._inserted = sorted(key for key in self.values if preload.get(key) is None)
        at = bisect_left(self._inserted, start)
        keys = sorted([*self._preload.keys_from(start, count), *self._inserted[at : at + count]])
        return [(key, self.read(key) or b"") for key in keys[:count]]

    def serve(self, handle: Any, op: Op, version: int, effects: list[Effect]) -> None:
        """Answer a read or scan from the state as it is now, through cache and storage."""
        if op.kind == READ:
            value: Any = self.read(op.key)
            keys = (op.key,)
        else:
            value = self.scan(op.key, op.count)
            keys = tuple(pair[0] for pair in value)
        if not self.accesses:
            effects.append(Reply(handle, OK, value, version))
            return
        self._tokens += 1
        token = self._tokens
        for key in keys:
            effects.append(Access(token, key, op.size, READ))
        effects.append(Reply(handle, OK, value, version, token))

    def touch(self, op: Op, effects: list[Effect]) -> None:
        """A write leaves its entry in the cache of the node that applies it."""
        if self.accesses:
            effects.append(Access(0, op.key, op.size, WRITE))

    def contents(self) -> Mapping[bytes, Entry]:
        """The written entries."""
        return self.values

    def snapshot(self) -> Snapshot:
        """A copy of everything written and of the sessions that wrote it; O(keys + sessions)."""
        entries = self.values.values()
        done = self._sessions.values()
        return Snapshot(
            list(self.values),
            [entry.value for entry in entries],
            [entry.version for entry in entries],
            list(self._sessions),
            [sequence for sequence, _ in done],
            [version for _, version in done],
            None if self.transactions is None else self.transactions.kept(),
            {
                session: sequence
                for session, sequence in self._unmatched.items()
                if self._sessions[session][0] == sequence
            },
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Hold what the snapshot holds, and nothing else; the snapshot itself is not kept."""
        entries = map(Entry, snapshot.values, snapshot.versions)
        done = zip(snapshot.sequences, snapshot.took_effect_at, strict=True)
        self.values = dict(zip(snapshot.keys, entries, strict=True))
        self._sessions = dict(zip(snapshot.sessions, done, strict=True))
        self._unmatched = dict(snapshot.unmatched)
        self._inserted = None
        self.transactions = None
        if snapshot.transactions is not None:
            self.transactions = Transactions()
            self.transactions.restore(snapshot.transactions)


VOID: Final = -1
"""Version of a write that has had no effect, since its key is not here."""


class OwnedState(KeyValueState):
    """A state that data moves to and from: what does not belong to it has no effect on it.

    ``holdings`` says which cells are here. What comes too late is answered all the same: a write
    with version VOID, a read with its place in the order, by which whoever asked can tell.
    """

    __slots__ = ("holdings",)

    def __init__(self, preload: Preload, *, accesses: bool, held: Holdings) -> None:
        super().__init__(preload, accesses=accesses)
        self.holdings = held

    def write(self, op: Op, version: int) -> int:
        held = self.holdings
        if held.holds(held.layouts.cell_of(op.key)):
            return super().write(op, version)
        return VOID

    def step(self, handle: Any, op: Op, version: int, effects: list[Effect]) -> None:
        """Take a step of a move; the answer is the number of the piece that is wanted, or DONE."""
        self.holdings.steps += 1
        said = DONE
        if op.kind == FENCE:
            self._fence(decode_cell(op.value or b""), version)
        elif op.kind == ADOPT:
            said = self._adopt(decode_piece(op.value or b""), version)
        elif op.kind == RELEASE:
            self._release(decode_cell(op.value or b""))
        if handle is not None:
            effects.append(Reply(handle, OK, said, version))

    def _insert(self, key: bytes, entry: Entry) -> None:
        super()._insert(key, entry)
        self._note_written(key)

    def _note_written(self, key: bytes) -> None:
        layouts = self.holdings.layouts
        cell = layouts.cell_of(key)
        if len(layouts.owners(cell)) > 1:
            keys = self.holdings.written.get(cell)
            if keys is None:
                keys = self.holdings.written[cell] = {}
                self.holdings.first_written += 1
            keys[key] = True

    def _fence(self, of: Cell, version: int) -> None:
        held = self.holdings
        if not held.may_fence(of):
            return
        keys, since = sorted(held.written.get(of.cell, ())), held.told_through(of)
        news = [(s, done[0]) for s, done in self._sessions.items() if done[1] > since]
        aside = Aside(
            of.epoch,
            keys,
            [self.values[key].value for key in keys],
            [session for session, _ in news],
            [sequence for _, sequence in news],
        )
        held.fenced(of, version, aside)

    def _adopt(self, piece: Piece, version: int) -> int:
        held = self.holdings
        wanted = held.wants(piece)
        if wanted != piece.number:
            return wanted
        if held.aside.get(piece.cell) is not None:
            # It went away, and comes back before anybody has asked to forget it.
            self.holdings.released(piece.cell)
            self._forget(piece.cell)
        for key, value in zip(piece.keys, piece.values, strict=True):
            if key in self.values or self._preload.get(key) != value:
                self.put(key, value, version)
        for session, sequence in zip(piece.sessions, piece.sequences, strict=True):
            if self._sessions.get(session, (-1, 0))[0] < sequence:
                self._sessions[session] = (sequence, version)
        return held.adopted(piece, version)

    def _release(self, of: Cell) -> None:
        aside = self.holdings.aside.get(of.cell)
        if aside is not None and aside.epoch == of.epoch:
            self.holdings.released(of.cell)
            self._forget(of.cell)

    def _forget(self, cell: int) -> None:
        for key in self.holdings.written.pop(cell, ()):
            del self.values[key]
        self._inserted = None

    def snapshot(self) -> Snapshot:
        whole = super().snapshot()
        whole.holdings = self.holdings.kept()
        return whole

    def restore(self, snapshot: Snapshot) -> None:
        super().restore(snapshot)
        self.holdings.restore(snapshot.holdings or Held([], [], [], [], []))
        self.holdings.written.clear()
        for key in self.values:
            self._note_written(key)


def state_for(context: MachineContext) -> KeyValueState:
    """The state of a machine: one that data moves to and from where it has holdings."""
    if context.holdings is None:
        return KeyValueState(context.preload, accesses=context.accesses)
    return OwnedState(context.preload, accesses=context.accesses, held=context.holdings)
