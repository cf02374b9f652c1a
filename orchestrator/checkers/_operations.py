"""Operations of registers in the order of their sessions, each read with the write it saw.

This is what the levels below linearizability are decided on; they know no clock. What counts:
writes that are OK, writes without an answer that somebody read (any other may be left out of
every explanation), and reads that are OK. An operation without an answer may take effect at any
time after what its session did before, so nothing that follows in its session is ordered after
it: unless it is the last one, it is a chain of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy
from numpy.typing import NDArray

from orchestrator.checkers._clusters import changes, counted, name_of
from orchestrator.core.history import PRELOADED, History
from orchestrator.core.machine import FAIL, KIND_NAMES, OK, READ, READING, WRITE
from orchestrator.core.verdict import INVALID, UNDECIDED, VALID, Verdict, operation

INITIAL = -1
NOBODY = -2

Rows = NDArray[numpy.int64]
Mask = NDArray[numpy.bool_]


@dataclass(frozen=True)
class Operations:
    """The m operations that count, chain after chain, each chain in its session's order.

    Columns of length m: ``row`` in ``history``; ``chain`` (0 to c - 1) and ``position`` in it
    from 0; ``before``: the operation that the session had finished last (-1: none); ``key``
    (dense from 0); ``is_write``; ``source``: the operation that wrote the value (INITIAL for the
    initial one, NOBODY for one that nobody wrote, a write's own index). ``start`` (c + 1): where
    each chain begins.
    """

    history: History
    row: Rows
    chain: Rows
    position: Rows
    before: Rows
    key: Rows
    is_write: Mask
    source: Rows
    start: Rows

    def __len__(self) -> int:
        return len(self.row)

    @property
    def chains(self) -> int:
        """Number of chains."""
        return len(self.start) - 1

    @property
    def keys(self) -> int:
        """Number of keys."""
        return int(self.key.max()) + 1 if len(self) else 0

    @cached_property
    def readers(self) -> dict[int, list[int]]:
        """The reads of every write that has some, and under INITIAL those of initial values."""
        found: dict[int, list[int]] = {}
        for read in numpy.flatnonzero(~self.is_write).tolist():
            found.setdefault(int(self.source[read]), []).append(read)
        return found

    @cached_property
    def after(self) -> dict[int, list[int]]:
        """The operations that directly follow each one in its session."""
        found: dict[int, list[int]] = {}
        for late in numpy.flatnonzero(self.before >= 0).tolist():
            found.setdefault(int(self.before[late]), []).append(late)
        return found

    def name(self, index: int, *, with_key: bool = True) -> str:
        """``session 3's read #4 of key x``."""
        return name_of(self.history, int(self.row[index]), with_key=with_key)

    def value_name(self, index: int) -> str:
        """What a read returned or a write wrote, in words."""
        source = int(self.source[index])
        if source == INITIAL:
            return "the initial value"
        return f"the value of {self.name(source, with_key=False)}"


def operations_of(history: History) -> Operations:
    """The operations that count; O(n log n)."""
    ok = history.outcome == OK
    may_write = (history.kind == WRITE) & (history.outcome != FAIL)
    value = numpy.maximum(history.value_id, PRELOADED)
    row = numpy.flatnonzero(may_write | (ok & (history.kind == READ)))
    _, key = numpy.unique(history.key[row], return_inverse=True)
    _, dense = numpy.unique(value[row], return_inverse=True)
    identity = key * (int(dense.max(initial=0)) + 1) + dense
    is_read = ~may_write[row]
    seen = numpy.isin(identity, identity[is_read])
    counts = is_read | ok[row] | seen
    row, key, identity, is_read = row[counts], key[counts], identity[counts], is_read[counts]
    chain, before, order = _chains(history, row, ok[row])
    row, key, identity, is_read = row[order], key[order], identity[order], is_read[order]
    start = numpy.append(numpy.flatnonzero(changes(chain)), len(row))
    return Operations(
        history=history,
        row=row,
        chain=chain,
        position=numpy.arange(len(row)) - start[chain] if len(row) else row,
        before=before,
        key=key,
        is_write=~is_read,
        source=_sources(identity, is_read, value[row]),
        start=start,
    )


def _chains(history: History, row: Rows, ok: Mask) -> tuple[Rows, Rows, Rows]:
    """The chain of each operation, the one before it, and the order (all in that order)."""
    session = history.session[row]
    order = numpy.lexsort((row, history.sequence[row], session))
    session, ok = session[order], ok[order]
    last = numpy.ones(len(order), dtype=numpy.bool_)
    last[:-1] = session[1:] != session[:-1]
    apart = ~ok & ~last
    finished = numpy.where(apart, -1, numpy.arange(len(order)))
    latest = numpy.full(len(order), -1, dtype=numpy.int64)
    latest[1:] = numpy.maximum.accumulate(finished)[:-1]
    first = numpy.flatnonzero(changes(session))
    begin = first[numpy.cumsum(changes(session)) - 1] if len(order) else first
    latest[latest < begin] = -1
    # Chains of one operation go behind all others.
    moved = numpy.argsort(apart, kind="stable")
    place = numpy.empty(len(order), dtype=numpy.int64)
    place[moved] = numpy.arange(len(order))
    before = latest[moved]
    before = numpy.where(before >= 0, place[before], -1)
    chain = numpy.cumsum(changes(session[moved], numpy.cumsum(apart[moved]))) - 1
    return chain, before, order[moved]


def _sources(identity: Rows, is_read: Mask, value: Rows) -> Rows:
    writes = numpy.flatnonzero(~is_read)
    writes = writes[numpy.argsort(identity[writes], kind="stable")]
    at = numpy.searchsorted(identity[writes], identity)
    at = numpy.minimum(at, max(len(writes) - 1, 0))
    source = numpy.where(value <= PRELOADED, INITIAL, NOBODY)
    if len(writes):
        written = identity[writes[at]] == identity
        source = numpy.where(written, writes[at], source)
    source[~is_read] = numpy.flatnonzero(~is_read)
    return source


# --- what settles the matter before the level is looked at ------------------------------


def settled(ops: Operations, level: str) -> Verdict | None:
    """UNDECIDED for a record that cannot be judged, INVALID for a value out of thin air."""
    why = unusable(ops)
    if why is not None:
        return told(ops, level, UNDECIDED, why)
    return thin_air(ops, level)


def unusable(ops: Operations) -> str | None:
    """Why nothing can be concluded from this history; None where it is sound."""
    history = ops.history
    strange = ~numpy.isin(history.kind, [WRITE, *sorted(READING)])
    if strange.any():
        kind = KIND_NAMES[int(history.kind[numpy.argmax(strange)])]
        return f"This level is defined for reads and writes; there are operations {kind!r}."
    repeated = _repeated(history)
    if repeated is not None:
        return (
            f"Written values are not unique ({name_of(history, repeated)}), so reads cannot be "
            "told apart."
        )
    acknowledged = history.outcome[ops.row] == OK
    backwards = acknowledged & (history.returned_ns[ops.row] < history.invoked_ns[ops.row])
    if backwards.any():
        name = ops.name(int(numpy.argmax(backwards)), with_key=False)
        return f"The record is broken: {name} returned before it was invoked."
    late = numpy.flatnonzero(ops.before >= 0)
    early = ops.before[late]
    overlap = history.returned_ns[ops.row[early]] > history.invoked_ns[ops.row[late]]
    if overlap.any():
        at = int(numpy.argmax(overlap))
        first, second = (ops.name(int(index[at]), with_key=False) for index in (early, late))
        text = "A session is one sequence of operations"
        return f"{text}, but {second} began before {first} returned."
    return None


def _repeated(history: History) -> int | None:
    """A write of a value that its key holds or gets by another one, too."""
    writes = numpy.flatnonzero((history.kind == WRITE) & (history.outcome != FAIL))
    value = history.value_id[writes]
    order = numpy.lexsort((value, history.key[writes]))
    writes, value = writes[order], value[order]
    twice = ~changes(history.key[writes], value) | (value <= PRELOADED)
    return int(writes[numpy.argmax(twice)]) if twice.any() else None


def thin_air(ops: Operations, level: str) -> Verdict | None:
    """A read of what nobody wrote to that key (ThinAirRead)."""
    invented = numpy.flatnonzero(ops.source == NOBODY)
    if len(invented) == 0:
        return None
    history = ops.history
    first = int(invented[numpy.argmin(history.invoked_ns[ops.row[invented]])])
    text = f"{ops.name(first)} returned a value that nobody wrote"
    same = (history.kind == WRITE) & (history.value_id == history.value_id[ops.row[first]])
    rows = [int(ops.row[first])]
    if same.any():
        rows.append(int(numpy.argmax(same)))
        text += f" there: {name_of(history, rows[1], with_key=True)}"
        failed = history.key[rows[1]] == history.key[rows[0]]
        text += " had certainly failed" if failed else " wrote it elsewhere"
    return told(ops, level, INVALID, text + ".", rows=rows)


# --- verdicts ---------------------------------------------------------------------------


def told(
    ops: Operations,
    level: str,
    found: str,
    text: str,
    *,
    witness: Sequence[int] = (),
    rows: Sequence[int] = (),
) -> Verdict:
    """A verdict over all operations that count; the witness by operations, or by rows."""
    history = ops.history
    chosen = dict.fromkeys([*rows, *(int(ops.row[index]) for index in witness)])
    ordered = sorted(chosen, key=lambda row: (int(history.invoked_ns[row]), row))
    text = text[0].upper() + text[1:]
    shown = tuple(operation(history, row) for row in ordered)
    return Verdict(found, level, len(ops), ops.keys, shown, text)


def size_of(ops: Operations) -> str:
    """``7 operations, 2 sessions, 1 key``."""
    sessions = len(numpy.unique(ops.history.session[ops.row]))
    parts = ((len(ops), "operation"), (sessions, "session"), (ops.keys, "key"))
    return ", ".join(counted(count, noun) for count, noun in parts)


def valid(ops: Operations, level: str, text: str) -> Verdict:
    """VALID, with the size of what was looked at."""
    return told(ops, level, VALID, f"{text} ({size_of(ops)}).")


def shrunk(
    ops: Operations,
    witness: Sequence[int],
    is_invalid: Callable[[Operations], bool],
    *,
    tries_max: int = 400,
) -> list[int]:
    """The witness without the operations that it does not need; one at a time, last first.

    ``is_invalid`` judges a history of its own; a write stays while a read of it does.
    """
    kept = sorted(dict.fromkeys(witness))
    tries = 0
    changed = True
    while changed and tries < tries_max:
        changed = False
        for index in reversed(kept):
            less = [other for other in kept if other != index]
            if any(ops.source[other] == index for other in less):
                continue
            tries += 1
            if tries > tries_max:
                break
            if is_invalid(operations_of(ops.history.select(ops.row[less]))):
                kept, changed = less, True
    return kept
