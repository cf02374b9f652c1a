"""A node's part of the common order of writes: in memory, in messages, in records.

Positions count from 1. The state holds the first ``committed`` writes; those behind ``base`` are
kept in memory as well, for nodes that lack them, and a node that lacks more is sent the state.
"""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar, Final

import msgspec

from orchestrator.core.machine import (
    ACKNOWLEDGE,
    OK,
    READ_COPY,
    READ_REPLY,
    REPLICATE,
    WRITE,
    Effect,
    MachineContext,
    Mark,
    Op,
    Persist,
    Reply,
)
from orchestrator.core.portions import ops_end
from orchestrator.core.state import Snapshot, state_for
from orchestrator.protocols._views import View

UNKNOWN_POSITION: Final = -1
UNPINNED: Final = 2**63
"""Above all positions."""


class Replicate(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Writes ``first``, ``first`` + 1, ...; the first ``committed`` of all may be shown."""

    link: ClassVar[str] = REPLICATE
    epoch: int
    first: int
    committed: int
    ops: list[Op]


class Acknowledge(msgspec.Struct, array_like=True, tag=2, gc=False):
    """The sender holds all up to ``position`` and knows all up to ``committed`` to be that."""

    link: ClassVar[str] = ACKNOWLEDGE
    epoch: int
    position: int
    committed: int


class Fetch(msgspec.Struct, array_like=True, tag=3, gc=False):
    """A node outside the view wants what is committed after ``position`` (UNKNOWN: all)."""

    link: ClassVar[str] = READ_COPY
    epoch: int
    position: int


class Transfer(msgspec.Struct, array_like=True, tag=4, gc=False):
    """A piece of the encoded state after the first ``position`` writes, all of them committed;
    it is whole with the ``last``.
    """

    link: ClassVar[str] = READ_REPLY
    epoch: int
    position: int
    offset: int
    data: bytes
    last: bool


class Continue(msgspec.Struct, array_like=True, tag=10, gc=False):
    """Of the state at ``position`` the sender has the first ``offset`` bytes, and wants more."""

    link: ClassVar[str] = READ_COPY
    epoch: int
    position: int
    offset: int


class Entries(msgspec.Struct, array_like=True, tag=5, gc=False):
    """Record: all from ``first`` on is cut off, then these follow; ``committed`` as known."""

    first: int
    committed: int
    ops: list[Op]


class Vow(msgspec.Struct, array_like=True, tag=6, gc=False):
    """Record: the view, and whether it is sealed."""

    view: View
    sealed: bool


class Base(msgspec.Struct, array_like=True, tag=7, gc=False):
    """Record in place of all before: a state that was transferred."""

    vow: Vow
    position: int
    snapshot: Snapshot


class Order:
    """What one node holds of the order, and how much of it is committed and durable.

    ``early`` holds writes whose predecessors have not come yet. ``trusted``: everything here is
    part of the current view's order. ``pending``: how many writes of a key are here and not
    known to be committed, where they are counted. ``keep`` to twice as many committed writes are
    kept in memory, and all behind ``pinned``.
    """

    def __init__(self, context: MachineContext, keep: int, *, counts_pending: bool = False) -> None:
        self.state = state_for(context)
        self.base = 0
        self.ops: list[Op] = []
        self.last = 0
        self.committed = 0
        self.durable = 0
        self.early: dict[int, list[Op]] = {}
        self.trusted = True
        self.pinned = UNPINNED
        self.pending: dict[bytes, int] = {}
        self._counts_pending = counts_pending
        self._keep = keep
        self._token = 0
        # (token, last position then) of records under way.
        self._persisting: deque[tuple[int, int]] = deque()

    # --- growing --------------------------------------------------------------------------

    def extend(self, ops: list[Op], effects: list[Effect]) -> None:
        """New writes at the end."""
        record = Entries(self.last + 1, self.committed, ops)
        self.ops.extend(ops)
        self.last += len(ops)
        if self._counts_pending:
            self._count_pending(ops)
        self.persist(record, effects)

    def _count_pending(self, ops: list[Op]) -> None:
        pending = self.pending
        for op in ops:
            pending[op.key] = pending.get(op.key, 0) + 1

    def take(self, message: Replicate, effects: list[Effect]) -> list[Op]:
        """Add what is new in a message, and what has waited for it; returns what was added."""
        before = self.last
        first, ops = message.first, message.ops
        if first > before + 1:
            # It overtook others, or they were lost: it waits here for them.
            if ops:
                self.early[first] = ops
            return []
        # What has arrived before is cut off.
        written = ops[before + 1 - first :] if first <= before else ops
        early = self.early
        if early:
            written = list(written)
            while early and (first := min(early)) <= before + 1 + len(written):
                written.extend(early.pop(first)[before + 1 + len(written) - first :])
        if written:
            self.extend(written, effects)
        return written

    def from_position(self, position: int, through: int) -> list[Op]:
        """The writes after ``position`` up to ``through``, a portion at the most; not before
        ``base``.
        """
        start, stop = position - self.base, min(len(self.ops), max(0, through - self.base))
        return self.ops[start : ops_end(self.ops, start, stop)]

    def held_after(self, position: int) -> tuple[int, list[Op]]:
        """The writes after a position that are kept: (position of the first, writes)."""
        position = max(position, self.base)
        return position + 1, self.ops[position - self.base :]

    def persist(self, record: Any, effects: list[Effect], *, replaces: bool = False) -> None:
        """Make a record durable."""
        self._token += 1
        self._persisting.append((self._token, self.last))
        effects.append(Persist(record, self._token, replaces))

    def persisted(self, token: int) -> None:
        """Everything up to the record with this token is durable."""
        persisting = self._persisting
        while persisting and persisting[0][0] <= token:
            last = persisting.popleft()[1]
            if last > self.durable:
                self.durable = last

    # --- committing -----------------------------------------------------------------------

    def commit(self, position: int, handles: list[Any], effects: list[Effect]) -> None:
        """Apply everything up to ``position``, and answer those who wait for it."""
        state, base = self.state, self.base
        write, touches = state.write, state.accesses
        version = self.committed
        ops = self.ops[version - base : position - base]
        if handles:
            for op, handle in zip(ops, handles, strict=True):
                version += 1
                if op.kind != WRITE:
                    state.change(handle, op, version, effects)
                    continue
                took_effect_at = write(op, version)
                if touches:
                    state.touch(op, effects)
                if handle is not None:
                    effects.append(Reply(handle, OK, None, took_effect_at))
        else:
            for op in ops:
                version += 1
                if op.kind != WRITE:
                    state.change(None, op, version, effects)
                    continue
                write(op, version)
                if touches:
                    state.touch(op, effects)
        self.committed = position
        if self._counts_pending:
            self._discount(ops)
        if position - base >= 2 * self._keep:
            # In large steps, because cutting a list at its head copies the rest.
            self.base = max(base, min(position - self._keep, self.pinned))
            del self.ops[: self.base - base]

    def _discount(self, ops: list[Op]) -> None:
        pending = self.pending
        for op in ops:
            left = pending[op.key] - 1
            if left:
                pending[op.key] = left
            else:
                del pending[op.key]

    # --- shrinking, and being replaced ----------------------------------------------------

    def cut(self, effects: list[Effect]) -> None:
        """Forget what is not committed."""
        if self.last > self.committed:
            effects.append(Mark("truncation"))
            self._cut_after(self.committed)
            self.persist(Entries(self.committed + 1, self.committed, []), effects)

    def _cut_after(self, position: int) -> None:
        if self._counts_pending:
            self._discount(self.ops[max(0, position - self.base) :])
        del self.ops[position - self.base :]
        self.last = position
        self.durable = min(self.durable, position)
        self._persisting = deque((token, min(last, position)) for token, last in self._persisting)

    def install(self, position: int, snapshot: Snapshot, vow: Vow, effects: list[Effect]) -> None:
        """Hold a transferred state and nothing else."""
        self._restore(position, snapshot)
        self.early.clear()
        self._persisting = deque((token, 0) for token, _ in self._persisting)
        self.durable = 0
        self.trusted = True
        self.persist(Base(vow, position, snapshot), effects, replaces=True)

    def _restore(self, position: int, snapshot: Snapshot) -> None:
        self.state.restore(snapshot)
        self.ops.clear()
        self.pending.clear()
        self.base = self.last = self.committed = position

    # --- after a crash --------------------------------------------------------------------

    def recover(self, record: Entries | Vow | Base) -> Vow | None:
        """Take up one of the records, in order; returns the vow where it is or holds one."""
        match record:
            case Vow():
                return record
            case Base():
                self._restore(record.position, record.snapshot)
                return record.vow
            case Entries():
                self._cut_after(record.first - 1)
                self.ops.extend(record.ops)
                self.last += len(record.ops)
                if self._counts_pending:
                    self._count_pending(record.ops)
                self.commit(min(record.committed, self.last), [], [])
        return None

    def recovered(self, *, shows_all: bool) -> None:
        """All records are in; ``shows_all``: what is here is the order, whoever else has it."""
        self.durable = self.last
        if shows_all:
            self.commit(self.last, [], [])

    def check(self) -> None:
        assert self.base <= self.committed <= self.last == self.base + len(self.ops)
        assert self.durable <= self.last
        assert not self.early or min(self.early) > self.last + 1
        assert not self._counts_pending or sum(self.pending.values()) == self.last - self.committed
        versions = [entry.version for entry in self.state.values.values()]
        assert max(versions, default=0) <= self.committed
