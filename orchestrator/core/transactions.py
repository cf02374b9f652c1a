"""What the replicated state of one shard knows of transactions: locks, votes and decisions.

Each function here is a step of a deterministic state machine: every replica of the shard takes
it at the same place of the one order that its protocol applies. So what a resource manager or a
coordinator would keep on stable storage (Gray, "Notes on Data Base Operating Systems", 1978;
Bernstein, Hadzilacos and Goodman, "Concurrency Control and Recovery in Database Systems", 1987,
chapter 7) is an operation in a shard, as in Spanner (Corbett et al., OSDI 2012, section 4.2).

A transaction is identified by (session, sequence). Locks are held from the vote on (strict
two-phase locking) and never waited for. A decision to commit is kept in the home shard until all
others have heard it; that there is none means abort (presumed abort). ``finished`` is the fence:
of each session the newest transaction that is over in this shard, so that whatever arrives late
locks and changes nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import msgspec

from orchestrator.core.machine import APPEND, READ, WRITE, Op
from orchestrator.core.steps import ALL_KEYS, DECIDE, EXECUTE, FINISH, PREPARE

# What a shard says of a transaction.
YES: Final = 1  # it is prepared: its locks are held until it is finished
COMMITTED: Final = 2
ABORTED: Final = 3
RELEASED: Final = 4  # it changed nothing anywhere, and its locks are gone
BUSY: Final = 5  # it met a lock; nothing has happened

Identity = tuple[int, int]
"""(session, sequence) of a transaction."""
MicroOperation = tuple[int, bytes, bytes | None]
"""(READ, WRITE or APPEND; key; what is written or appended)."""


class Part(msgspec.Struct, array_like=True, gc=False):
    """A transaction's part in one shard.

    ``others``: its shards besides ``home``. ``writes``: whether it changes anything anywhere.
    """

    ops: list[MicroOperation]
    home: int
    others: list[int]
    writes: bool


class Said(msgspec.Struct, array_like=True, gc=False):
    """A shard's answer; ``reads``: what the part's reads found, in their order."""

    status: int
    reads: list[bytes | None] = []


class Finished(msgspec.Struct, array_like=True, gc=False):
    """The newest transaction of a session that is over, with what its retries are told."""

    sequence: int
    said: Said


class Kept(msgspec.Struct, array_like=True, gc=False):
    """All of a shard's transactions as plain columns, for a snapshot."""

    prepared: list[tuple[Identity, Part]]
    decisions: list[tuple[Identity, list[int]]]
    finished: list[tuple[int, Finished]]


class Store(Protocol):
    """The values that transactions read and write."""

    @abstractmethod
    def read(self, key: bytes) -> bytes | None:
        """The value of a key; None where there is none."""

    @abstractmethod
    def put(self, key: bytes, value: bytes, version: int) -> None:
        """Set the value of a key."""


_encode = msgspec.msgpack.Encoder().encode
_decode_part = msgspec.msgpack.Decoder(Part).decode
_decode_ops = msgspec.msgpack.Decoder(list[MicroOperation]).decode
_decode_reads = msgspec.msgpack.Decoder(list[bytes | None]).decode

encode_ops = _encode
"""A list of micro-operations as a transaction's value."""
encode_reads = _encode
"""What the reads of a transaction found, as its answer's value."""


def decode_ops(value: bytes | None) -> list[MicroOperation]:
    """A transaction's micro-operations; ValueError where it has none that can be carried out."""
    try:
        ops = _decode_ops(value or b"")
    except msgspec.MsgspecError as error:
        raise ValueError(f"no transaction: {error}") from None
    if not ops or not all(
        kind == READ or (kind in (WRITE, APPEND) and new is not None) for kind, _, new in ops
    ):
        raise ValueError("no transaction: it reads, writes or appends")
    return ops


def decode_reads(value: bytes) -> list[bytes | None]:
    """What the reads of a transaction found."""
    return _decode_reads(value)


def step(kind: int, of: Identity, part: Part) -> Op:
    """The operation that has a shard execute or prepare its part."""
    size = sum(len(key) + len(new or b"") for _, key, new in part.ops)
    return Op(of[0], of[1], kind, part.ops[0][1], _encode(part), size)


def ruling(kind: int, of: Identity, commit: bool) -> Op:
    """The operation that has a shard decide, finish or forget a transaction."""
    return Op(of[0], of[1], kind, ALL_KEYS, b"1" if commit else b"0")


# --- locks ------------------------------------------------------------------------------


class LockTable:
    """Who may read and who may write a key, until their transactions are finished."""

    def __init__(self) -> None:
        self.exclusive: dict[bytes, Identity] = {}
        self.shared: dict[bytes, dict[Identity, None]] = {}

    def refuses(self, of: Identity, ops: Iterable[MicroOperation]) -> bool:
        """Whether another transaction holds a lock that this one needs to be without."""
        for kind, key, _ in ops:
            if self.exclusive.get(key, of) != of:
                return True
            if kind != READ and any(other != of for other in self.shared.get(key, ())):
                return True
        return False

    def take(self, of: Identity, ops: Iterable[MicroOperation]) -> None:
        """Lock every key that is read or written."""
        for kind, key, _ in ops:
            if kind == READ:
                self.shared.setdefault(key, {})[of] = None
            else:
                self.exclusive[key] = of

    def release(self, of: Identity, ops: Iterable[MicroOperation]) -> None:
        """Give up all locks of a transaction."""
        for _, key, _ in ops:
            if self.exclusive.get(key) == of:
                del self.exclusive[key]
            sharing = self.shared.get(key)
            if sharing is not None and of in sharing:
                del sharing[of]
                if not sharing:
                    del self.shared[key]

    def check(self, prepared: dict[Identity, Part]) -> None:
        """Every lock belongs to a prepared transaction, and the other way round."""
        if not (prepared or self.exclusive or self.shared):
            return
        again = LockTable()
        for of, part in prepared.items():
            assert not again.refuses(of, part.ops), f"{of} shares an exclusive lock"
            again.take(of, part.ops)
        assert self.exclusive == again.exclusive, "exclusive locks are not those of the prepared"
        assert self.shared == again.shared, "shared locks are not those of the prepared"


# --- the state --------------------------------------------------------------------------


class Transactions:
    """The transactions of one shard, beside its values."""

    def __init__(self) -> None:
        self.locks = LockTable()
        self.prepared: dict[Identity, Part] = {}
        self.decisions: dict[Identity, list[int]] = {}
        self.finished: dict[int, Finished] = {}
        self.torn: Identity | None = None
        """A transaction that was to be committed here after it had been aborted."""

    def take(self, store: Store, op: Op, version: int) -> Said:
        """Take one step; ``version`` is that of everything it writes."""
        of = (op.session, op.sequence)
        if op.kind == EXECUTE:
            return self._execute(store, of, _decode_part(op.value or b""), version)
        if op.kind == PREPARE:
            return self._prepare(store, of, _decode_part(op.value or b""))
        commit = op.value == b"1"
        if op.kind == DECIDE:
            return self._decide(store, of, commit, version)
        if op.kind == FINISH:
            return self._finish(store, of, commit, version)
        self.decisions.pop(of, None)
        return Said(COMMITTED)

    def _over(self, of: Identity) -> Said | None:
        """What was said of a transaction that is over here; None where it may yet begin.

        Of one before the session's newest nothing is known any more but that its session has
        heard of its end.
        """
        if of in self.decisions:
            return Said(COMMITTED)
        last = self.finished.get(of[0])
        if last is None or last.sequence < of[1]:
            return None
        return last.said if last.sequence == of[1] else Said(ABORTED)

    def _end(self, of: Identity, said: Said) -> Said:
        """It is over: from now on nothing of it is carried out any more."""
        last = self.finished.get(of[0])
        if last is None or last.sequence < of[1]:
            self.finished[of[0]] = Finished(of[1], said)
        return said

    def _execute(self, store: Store, of: Identity, part: Part, version: int) -> Said:
        """All of a transaction that needs no other shard."""
        over = self._over(of)
        if over is not None:
            return over
        if self.locks.refuses(of, part.ops):
            return Said(BUSY)
        reads, written = outcome(store, part.ops)
        for key, value in written.items():
            store.put(key, value, version)
        return self._end(of, Said(COMMITTED, reads))

    def _prepare(self, store: Store, of: Identity, part: Part) -> Said:
        """Vote; what is voted is voted for good."""
        if of not in self.prepared:
            over = self._over(of)
            if over is not None:
                return over
            if self.locks.refuses(of, part.ops):
                return self._end(of, Said(ABORTED))
            self.locks.take(of, part.ops)
            self.prepared[of] = part
        # Its locks keep what it reads as it is.
        return Said(YES, outcome(store, part.ops)[0])

    def _decide(self, store: Store, of: Identity, commit: bool, version: int) -> Said:
        """At home: the first one to ask decides, and everybody hears the same."""
        part = self.prepared.get(of)
        if part is None:
            return self._over(of) or self._end(of, Said(ABORTED))
        said = self._leave(store, of, part, commit, version)
        if said.status == COMMITTED:
            self.decisions[of] = part.others
        return said

    def _finish(self, store: Store, of: Identity, commit: bool, version: int) -> Said:
        """Do as was decided."""
        part = self.prepared.get(of)
        if part is not None:
            return self._leave(store, of, part, commit, version)
        over = self._over(of)
        if commit and (over is None or over.status == ABORTED) and of[1] == self._newest(of):
            self.torn = of
        return over or self._end(of, Said(ABORTED))

    def _newest(self, of: Identity) -> int:
        last = self.finished.get(of[0])
        return of[1] if last is None else max(of[1], last.sequence)

    def _leave(self, store: Store, of: Identity, part: Part, commit: bool, version: int) -> Said:
        """A prepared transaction is over: its writes take effect or do not."""
        if commit:
            for key, value in outcome(store, part.ops)[1].items():
                store.put(key, value, version)
        del self.prepared[of]
        self.locks.release(of, part.ops)
        return self._end(of, Said((COMMITTED if part.writes else RELEASED) if commit else ABORTED))

    # --- as a whole -----------------------------------------------------------------------

    def kept(self) -> Kept:
        """A copy of everything; locks follow from what is prepared."""
        return Kept(
            list(self.prepared.items()), list(self.decisions.items()), list(self.finished.items())
        )

    def restore(self, kept: Kept) -> None:
        """Be, as a new one, as ``kept`` says."""
        self.prepared.update(kept.prepared)
        self.decisions.update(kept.decisions)
        self.finished.update(kept.finished)
        for of, part in kept.prepared:
            self.locks.take(of, part.ops)

    def check(self) -> None:
        """Assert the invariants."""
        assert self.torn is None, f"transaction {self.torn} is both committed and aborted"
        self.locks.check(self.prepared)
        assert self.decisions.keys().isdisjoint(self.prepared)


def outcome(
    store: Store, ops: Sequence[MicroOperation]
) -> tuple[list[bytes | None], dict[bytes, bytes]]:
    """What the reads find, own writes before them included, and what is written in the end."""
    reads: list[bytes | None] = []
    written: dict[bytes, bytes] = {}
    for kind, key, new in ops:
        if kind == WRITE:
            written[key] = new or b""
            continue
        before = written[key] if key in written else store.read(key)
        if kind == READ:
            reads.append(before)
        else:
            written[key] = (before or b"") + (new or b"")
    return reads, written
