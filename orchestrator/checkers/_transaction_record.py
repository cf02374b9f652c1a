"""Transactions as a checker sees them: who committed, who wrote what, who read what of whom.

A history of transactions holds one row each; ``values[value_id]`` of a row is its tuple of
micro-operations ``(op, key, value)`` with op ``read``, ``write`` or ``append``. Single reads,
writes and appends beside them count as transactions of one micro-operation. ``values[0]`` is
what every register holds at first; None stands for it. Lists are empty at first.

Every value written to a key is unique, aborted writes included, so that a read names the
transaction that it saw ("recoverability" of Kingsbury and Alvaro, "Elle", VLDB 2020). A key is
either a register (``write``) or a list (``append``).

A transaction with outcome OK committed and one with FAIL aborted. One with UNKNOWN committed if
a committed one saw a value of it; otherwise it is left out, as if it had aborted: nothing else
in the history depends on it. Reads of such a transaction that found nothing say nothing,
because that is also how a read without an answer is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from orchestrator.core.history import PHASE_LOAD, PRELOADED, History
from orchestrator.core.machine import (
    APPEND,
    FAIL,
    KIND_NAMES,
    OK,
    READ,
    TRANSACTION,
    UNKNOWN,
    WRITE,
)
from orchestrator.errors import DataError

READS: Final = "read"
WRITES: Final = "write"
APPENDS: Final = "append"

MicroOperation = tuple[str, Any, Any]


@dataclass(slots=True, eq=False)
class Key:
    """What happened to one key; transactions are numbers, committed or not.

    ``writer`` maps a value to its transaction, and ``replaced`` a value to the one that the
    same transaction wrote or appended next. ``reads`` holds (transaction, value) of reads that
    no own write precedes, and ``own_reads`` (transaction, value, own values so far) of all
    others. ``rereads`` holds (transaction, value, later value) where they differ.
    """

    name: str
    writes_by: str = ""
    writer: dict[Any, int] = field(default_factory=dict)
    replaced: dict[Any, Any] = field(default_factory=dict)
    reads: list[tuple[int, Any]] = field(default_factory=list)
    own_reads: list[tuple[int, Any, tuple[Any, ...]]] = field(default_factory=list)
    rereads: list[tuple[int, Any, Any]] = field(default_factory=list)

    @property
    def is_list(self) -> bool:
        """Whether it is appended to."""
        return self.writes_by == APPENDS

    def all_reads(self) -> Iterator[tuple[int, Any]]:
        """(transaction, value) of every read."""
        yield from self.reads
        for reader, value, _ in self.own_reads:
            yield reader, value


@dataclass(slots=True)
class Record:
    """The transactions by number, in the order of the history.

    ``row``: where each stands in the history; ``outcome``: as recorded; ``committed``: after
    what others saw; ``load``: whether it belongs to the preload.
    """

    history: History
    initial: Any = None
    row: list[int] = field(default_factory=list)
    operations: list[tuple[MicroOperation, ...]] = field(default_factory=list)
    outcome: list[int] = field(default_factory=list)
    load: list[bool] = field(default_factory=list)
    committed: list[bool] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)

    def name(self, transaction: int) -> str:
        """``session 3's txn #4``."""
        row = self.row[transaction]
        kind = KIND_NAMES[int(self.history.kind[row])]
        session, sequence = int(self.history.session[row]), int(self.history.sequence[row])
        return f"session {session}'s {kind} #{sequence}"


def record_of(history: History) -> Record:
    """The transactions of a history; raises DataError where they cannot be told apart."""
    record = Record(history, history.values[PRELOADED] if history.values else None)
    for row, operations in _rows(history):
        record.row.append(row)
        record.operations.append(operations)
        record.outcome.append(int(history.outcome[row]))
        record.load.append(int(history.phase[row]) == PHASE_LOAD)
    keys = _Keys(record)
    for transaction in range(len(record.row)):
        keys.take_in(transaction)
    record.keys = keys.distinct
    for key in record.keys:
        _tidy(record, key)
    _decide(record)
    return record


def _rows(history: History) -> Iterator[tuple[int, tuple[MicroOperation, ...]]]:
    values = history.values
    words = {READ: READS, WRITE: WRITES, APPEND: APPENDS}
    for row, (kind, value_id) in enumerate(
        zip(history.kind.tolist(), history.value_id.tolist(), strict=True)
    ):
        value = None if value_id < 0 else value_id or None if values is None else values[value_id]
        if kind == TRANSACTION:
            if not isinstance(value, tuple):
                raise DataError(
                    f"session {int(history.session[row])}'s txn #{int(history.sequence[row])} "
                    "does not say what it read and wrote",
                    hint='a txn has "ops": [{"op", "key", "value"}, ...]',
                )
            yield row, value
        elif kind in words:
            yield row, ((words[kind], history.key_names[int(history.key[row])], value),)
        else:
            raise DataError(
                f"session {int(history.session[row])}'s {KIND_NAMES[kind]} "
                f"#{int(history.sequence[row])} is no transaction",
                hint="allowed: txn, read, write, append",
            )


class _Keys:
    """Sorts the micro-operations by key."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._by_name: dict[Any, Key] = {}

    @property
    def distinct(self) -> list[Key]:
        """The keys in the order of their first use."""
        return list(dict.fromkeys(self._by_name.values()))

    def take_in(self, transaction: int) -> None:
        """Note the reads and writes of one transaction; those of aborted ones saw nothing."""
        record = self._record
        outcome = record.outcome[transaction]
        by_name = self._by_name
        own: dict[Any, list[Any]] = {}
        seen: dict[Any, Any] = {}
        for op, name, value in record.operations[transaction]:
            key = by_name.get(name) or self._key(name)
            if op != READS:
                self._write(transaction, key, op, value, own.setdefault(name, []))
            elif outcome == FAIL or (outcome != OK and value is None):
                continue
            elif name in own:
                key.own_reads.append((transaction, value, tuple(own[name])))
            elif name not in seen:
                seen[name] = value
                key.reads.append((transaction, value))
            elif seen[name] != value:
                key.reads.append((transaction, value))
                key.rereads.append((transaction, seen[name], value))

    def _key(self, name: Any) -> Key:
        text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
        key = self._by_name.get(text) or Key(text)
        self._by_name[text] = self._by_name[name] = key
        return key

    def _write(self, transaction: int, key: Key, op: str, value: Any, own: list[Any]) -> None:
        name = self._record.name
        if op not in (WRITES, APPENDS):
            raise DataError(
                f"{name(transaction)}: unknown micro-operation {op!r} of key {key.name}",
                hint=f"allowed: {READS}, {WRITES}, {APPENDS}",
            )
        if key.writes_by != op:
            if key.writes_by:
                raise DataError(
                    f"{name(transaction)}: key {key.name} is both written and appended to",
                    hint="a key is either a register or a list",
                )
            key.writes_by = op
        if value is None:
            raise DataError(
                f"{name(transaction)}: {op} of null to key {key.name}",
                hint="null is what a read of a key without a value returns",
            )
        if op == WRITES and value == self._record.initial:
            raise DataError(
                f"{name(transaction)}: write of {value!r} to key {key.name}, its initial value",
                hint="every value written to a key must be unique",
            )
        if value in key.writer:
            raise DataError(
                f"{name(transaction)}: {op} of {value!r} to key {key.name}, which "
                f"{name(key.writer[value])} already did",
                hint="every value written to a key must be unique",
            )
        key.writer[value] = transaction
        if own:
            key.replaced[own[-1]] = value
        own.append(value)


def _tidy(record: Record, key: Key) -> None:
    """One way to write that nothing was there: None in a register, () in a list."""
    if key.is_list:
        for transaction, value in key.all_reads():
            if value is not None and not isinstance(value, tuple):
                raise DataError(
                    f"{record.name(transaction)}: a read of key {key.name}, which is appended "
                    f"to, returned {value!r}",
                    hint="it must be a list or null",
                )
        key.reads = [(reader, value or ()) for reader, value in key.reads]
        key.own_reads = [(reader, value or (), own) for reader, value, own in key.own_reads]
        key.rereads = [
            (reader, value or (), later or ())
            for reader, value, later in key.rereads
            if (value or ()) != (later or ())
        ]
        return
    nothing = (record.initial,) if key.writer else (record.initial, ())
    key.reads = [(reader, None if value in nothing else value) for reader, value in key.reads]
    key.rereads = [
        (reader, value, later)
        for reader, value, later in key.rereads
        if {value, later} != {None, record.initial}
    ]


def _decide(record: Record) -> None:
    """Find who committed, and drop the reads of all others.

    A list's longest read and the last element of every read name all that was seen, unless
    reads contradict each other, which no level allows whoever committed.
    """
    committed = record.committed = [outcome == OK for outcome in record.outcome]
    doubtful = [outcome == UNKNOWN for outcome in record.outcome]
    if any(doubtful):
        longest: list[int] = []
        own_sights: dict[int, list[int]] = {}
        for key in record.keys:
            _sightings(key, committed, longest, own_sights)
        while longest:
            seen = longest.pop()
            if doubtful[seen] and not committed[seen]:
                committed[seen] = True
                longest += own_sights.get(seen, ())
    for key in record.keys:
        key.reads = [read for read in key.reads if committed[read[0]]]
        key.own_reads = [read for read in key.own_reads if committed[read[0]]]
        key.rereads = [read for read in key.rereads if committed[read[0]]]


def _sightings(
    key: Key, committed: list[bool], certain: list[int], by_reader: dict[int, list[int]]
) -> None:
    """Add the writers that committed readers saw to ``certain``, those of others by reader."""
    longest: tuple[Any, ...] = ()
    for reader, value in key.all_reads():
        if not committed[reader]:
            seen = value if key.is_list else (value,)
            by_reader.setdefault(reader, []).extend(
                key.writer[one] for one in seen if one in key.writer
            )
            continue
        seen = value[-1:] if key.is_list else (value,)
        if key.is_list and len(value) > len(longest):
            longest = value
        certain.extend(key.writer[one] for one in seen if one in key.writer)
    certain.extend(key.writer[one] for one in longest if one in key.writer)
