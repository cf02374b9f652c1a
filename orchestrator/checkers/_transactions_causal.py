"""Causal consistency of transactions: all that a transaction wrote is seen together.

The axiom is that of Biswas and Enea, "On the Complexity of Checking Transactional Consistency"
(OOPSLA 2019): if t3 reads a key from t1, and t2 writes that key and causally precedes t3, then
t2 comes before t1 in one order of all transactions that follows causal order. Causal order is
between whole transactions: the sessions' order and, for every read, the transaction it saw
before the reader.

Transactions are laid out as sessions of single operations, so that the causal order of these is
theirs: first a read of the mark of every transaction that it saw, then its reads, its writes,
and the write of a mark of its own. So whoever saw any write of a transaction knows all of them
when its reads begin. What ``_causal_patterns`` finds then holds for transactions, and the order of
concurrent ones is closed over transactions instead of operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

from orchestrator.checkers._causal_patterns import Conflicts, Pattern, weakly_causal
from orchestrator.checkers._causality import causal_path, too_big
from orchestrator.checkers._clusters import counted, name_of
from orchestrator.checkers._operations import Operations, Rows, operations_of
from orchestrator.core.history import COLUMNS, DTYPES, NOTHING, PRELOADED, History
from orchestrator.core.levels import CAUSAL
from orchestrator.core.machine import FAIL, KIND_NAMES, OK, READ, TRANSACTION, WRITE
from orchestrator.core.verdict import INVALID, UNDECIDED, VALID, Verdict, operation

_READ, _WRITE = KIND_NAMES[READ], KIND_NAMES[WRITE]


@dataclass(frozen=True)
class _Transaction:
    """``reads``: key to value, of keys it had not written before; ``writes``: the last of each."""

    row: int
    reads: dict[Any, Any]
    writes: dict[Any, Any]


class _Unfit(Exception):
    """Why the history cannot be judged."""


def causal_transactions(history: History) -> Verdict:
    """The verdict for level ``causal`` and model ``txn``, for registers with unique values."""
    keys = 0
    try:
        transactions = _read(history)
        keys = len({key for one in transactions for key in (*one.reads, *one.writes)})
        found = _judge(history, transactions)
    except _Unfit as error:
        return Verdict(UNDECIDED, CAUSAL, len(history), keys, (), str(error))
    if found is None:
        text = (
            "One order of the transactions explains every read "
            f"({counted(len(transactions), 'transaction')}, {counted(keys, 'key')})."
        )
        return Verdict(VALID, CAUSAL, len(transactions), keys, (), text)
    text, rows = found
    rows = _shrunk(history, rows)
    ordered = sorted(rows, key=lambda row: (int(history.invoked_ns[row]), row))
    witness = tuple(operation(history, row) for row in ordered)
    return Verdict(INVALID, CAUSAL, len(transactions), keys, witness, text)


def _shrunk(history: History, rows: list[int]) -> list[int]:
    """The rows without those that are not needed; a writer stays while a reader of it does."""
    kept = sorted(dict.fromkeys(rows))
    for row in reversed(kept):
        less = [other for other in kept if other != row]
        part = history.select(numpy.array(less, dtype=numpy.int64))
        try:
            transactions = _read(part)
            if _sources(transactions, part) and _judge(part, transactions) is not None:
                kept = less
        except _Unfit:
            continue
    return kept


# --- reading ----------------------------------------------------------------------------


def _read(history: History) -> list[_Transaction]:
    """Transactions that count, in the order of the history."""
    if history.values is None:
        raise _Unfit("The history does not say what its transactions did.")
    found = []
    for row in range(len(history)):
        if history.outcome[row] == FAIL:
            continue
        steps = _steps(history, row)
        if any(step[0] not in (_READ, _WRITE) for step in steps):
            name = name_of(history, row)
            raise _Unfit(f"Causal consistency is judged for registers; {name} does more.")
        reads: dict[Any, Any] = {}
        writes: dict[Any, Any] = {}
        for what, key, value in steps:
            if what == _WRITE:
                writes[key] = value
            elif key not in writes and history.outcome[row] == OK:
                reads.setdefault(key, value)
        found.append(_Transaction(row, reads, writes))
    seen = {item for one in found for item in one.reads.items()}
    return [
        one
        for one in found
        if history.outcome[one.row] == OK or not seen.isdisjoint(one.writes.items())
    ]


def _steps(history: History, row: int) -> Sequence[tuple[Any, ...]]:
    value = int(history.value_id[row])
    held = None if value == NOTHING or history.values is None else history.values[value]
    if history.kind[row] == TRANSACTION:
        return held or ()
    return ((KIND_NAMES[int(history.kind[row])], history.key_names[history.key[row]], held),)


def _sources(transactions: Sequence[_Transaction], history: History) -> dict[Any, int] | None:
    """Which transaction wrote what; None where a read saw what none of them wrote."""
    writer: dict[Any, int] = {}
    for number, one in enumerate(transactions):
        for item in one.writes.items():
            if item in writer:
                raise _Unfit(f"Written values are not unique ({name_of(history, one.row)}).")
            writer[item] = number
    for one in transactions:
        for key, value in one.reads.items():
            if value is not None and (key, value) not in writer:
                return None
    return writer


# --- judging ----------------------------------------------------------------------------


def _judge(history: History, transactions: list[_Transaction]) -> tuple[str, list[int]] | None:
    """Why they are not causal and the rows that show it; None where they are."""
    alone = _internal(history, transactions)
    if alone is not None:
        return alone
    writer = _sources(transactions, history)
    if writer is None:
        return _thin_air(history, transactions)
    laid, unit = _laid_out(history, transactions, writer)
    ops = operations_of(laid)
    why = too_big(ops)
    if why is not None:
        raise _Unfit(why)
    of = unit[ops.row]
    found = weakly_causal(ops)
    rows = numpy.array([one.row for one in transactions], dtype=numpy.int64)
    if isinstance(found, Pattern):
        numbers = numpy.unique(of[found.witness])
        names = ", ".join(name_of(history, int(row)) for row in rows[numbers])
        text = f"No causal order explains what these transactions read: {names}."
        return text, rows[numbers].tolist()
    numbers = _cycle(ops, of, found[1])
    if len(numbers) == 0:
        return None
    names = ", ".join(name_of(history, int(row)) for row in rows[numbers])
    text = f"These transactions cannot be put in one order that all sessions agree on: {names}."
    return text, rows[numbers].tolist()


def _internal(history: History, transactions: list[_Transaction]) -> tuple[str, list[int]] | None:
    """A transaction whose own reads contradict what it had written or read."""
    for one in transactions:
        if history.outcome[one.row] != OK:
            continue
        held: dict[Any, Any] = {}
        for what, key, value in _steps(history, one.row):
            if what == _READ and held.get(key, value) != value:
                name = name_of(history, one.row)
                text = f"{name} read {value!r} where it had itself seen {held[key]!r}."
                return text[0].upper() + text[1:], [one.row]
            held[key] = value
    return None


def _thin_air(history: History, transactions: list[_Transaction]) -> tuple[str, list[int]]:
    written = {item for one in transactions for item in one.writes.items()}
    row, value = next(
        (one.row, value)
        for one in transactions
        for key, value in one.reads.items()
        if value is not None and (key, value) not in written
    )
    text = f"{name_of(history, row)} read {value!r}, which no transaction left there."
    return text[0].upper() + text[1:], [row]


def _laid_out(
    history: History, transactions: list[_Transaction], writer: dict[Any, int]
) -> tuple[History, NDArray[numpy.int64]]:
    """Single operations instead of transactions, and the transaction of each."""
    keys: dict[Any, int] = {}
    identities: dict[Any, int] = {}
    columns: dict[str, list[int]] = {name: [] for name in COLUMNS}
    units: list[int] = []
    for number, one in enumerate(transactions):
        for kind, key, value in _operations(one, number, writer):
            identity = identities.setdefault((key, value), len(identities) + 1)
            row = {
                "session": int(history.session[one.row]),
                "sequence": int(history.sequence[one.row]),
                "kind": kind,
                "key": keys.setdefault(key, len(keys)),
                "value_id": PRELOADED if value is None else identity,
                "outcome": OK,
                "invoked_ns": int(history.invoked_ns[one.row]),
                "returned_ns": int(history.invoked_ns[one.row]),
            }
            for name, column in columns.items():
                column.append(row.get(name, 0))
            units.append(number)
    made: dict[str, Any] = {
        name: numpy.array(columns[name], dtype=DTYPES[name]) for name in COLUMNS
    }
    names = [str(key).encode() for key in keys]
    return History(**made, key_names=names), numpy.array(units, dtype=numpy.int64)


def _operations(
    one: _Transaction, number: int, writer: dict[Any, int]
) -> Iterator[tuple[int, Any, Any]]:
    sources = {writer[item]: None for item in one.reads.items() if item[1] is not None}
    for source in sources:
        yield READ, ("mark", source), source + 1
    for key, value in one.reads.items():
        yield READ, ("key", key), value
    for key, value in one.writes.items():
        yield WRITE, ("key", key), value
    yield WRITE, ("mark", number), number + 1


def _cycle(ops: Operations, of: Rows, conflicts: Conflicts) -> Rows:
    """The transactions on a cycle of conflicts and causal order; empty where there is none."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    late = numpy.flatnonzero(ops.before >= 0)
    reads = numpy.flatnonzero(~ops.is_write & (ops.source >= 0))
    tails = of[numpy.concatenate([ops.before[late], ops.source[reads], conflicts.early])]
    heads = of[numpy.concatenate([late, reads, conflicts.late])]
    apart = tails != heads
    count = int(of.max(initial=-1)) + 1
    ones = numpy.ones(int(apart.sum()), dtype=numpy.int8)
    graph = coo_array((ones, (tails[apart], heads[apart])), (count, count)).tocsr()
    _, component = connected_components(graph, directed=True, connection="strong")
    closing = component[of[conflicts.early]] == component[of[conflicts.late]]
    if not closing.any():
        return numpy.empty(0, dtype=numpy.int64)
    first = int(numpy.argmax(closing))
    start, node = int(of[conflicts.late[first]]), int(of[conflicts.early[first]])
    _, origin = breadth_first_order(graph, start, directed=True, return_predecessors=True)
    path = [node]
    while node != start:
        node = int(origin[node])
        path.append(node)
    pairs = set(zip(path[1:], path, strict=False)) | {(path[0], path[-1])}
    numbers = list(path)
    edges = zip(conflicts.early, conflicts.late, conflicts.read, strict=True)
    for early, after, read in edges:
        if (int(of[early]), int(of[after])) in pairs:
            numbers += of[causal_path(ops, int(early), int(read))].tolist()
    found: Rows = numpy.unique(numpy.array(numbers, dtype=numpy.int64))
    return found
