"""Operations as a file has them, before they are checked and become the columns of a history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy
from numpy.typing import NDArray

from orchestrator.core import levels
from orchestrator.core.history import (
    COLUMNS,
    DTYPES,
    NEVER,
    NOTHING,
    PHASE_NAMES,
    PHASE_RUN,
    History,
)
from orchestrator.core.machine import (
    ADD,
    APPEND,
    CAS,
    DEQUEUE,
    ENQUEUE,
    FAIL,
    INCREMENT,
    KIND_NAMES,
    OK,
    READ,
    SCAN,
    TRANSACTION,
    UNKNOWN,
    WRITE,
)
from orchestrator.core.models import COLLECTIONS, COUNTER, KV, OPERATIONS, SET
from orchestrator.errors import DataError, suggestion

ABSENT: Final = type("Absent", (), {"__repr__": lambda self: "ABSENT"})()
"""A field that a row does not have, where null would be a value."""

_SYNONYMS: Final = {"get": READ, "put": WRITE}
KINDS: Final = {name: code for code, name in enumerate(KIND_NAMES)} | _SYNONYMS
STATUSES: Final = {"ok": OK, "fail": FAIL, "unknown": UNKNOWN, "info": UNKNOWN}
_PHASES: Final = {name: code for code, name in enumerate(PHASE_NAMES)}
_RESULTS: Final = (READ, SCAN, DEQUEUE, TRANSACTION)
_PLAIN: Final = frozenset({int, str, type(None)})
_WORD_MAX: Final = 60


@dataclass
class RawHistory:
    """Columns of the n operations of a file, in its order; ``line[i]`` is where i began.

    ``value`` and ``expected`` hold ABSENT where the row has none, ``session`` None. Times are
    integers, ``returned_ns`` None where no answer came. A column that no row has is empty.
    ``initial``: the first value of every key, where the file tells.
    """

    path: str
    line: Sequence[int] = ()
    op: list[str] = field(default_factory=list)
    key: list[Any] = field(default_factory=list)
    value: list[Any] = field(default_factory=list)
    expected: list[Any] = field(default_factory=list)
    session: list[int | None] = field(default_factory=list)
    sequence: list[int | None] = field(default_factory=list)
    invoked_ns: list[int] = field(default_factory=list)
    returned_ns: list[int | None] = field(default_factory=list)
    status: list[str] = field(default_factory=list)
    level: list[str | None] = field(default_factory=list)
    version: list[int | None] = field(default_factory=list)
    node: list[int | None] = field(default_factory=list)
    phase: list[str | None] = field(default_factory=list)
    initial: Any = None

    def error(self, row: int, message: str, hint: str | None = None) -> DataError:
        """What is wrong with a row."""
        return DataError(message, path=f"{self.path}:{self.line[row]}", hint=hint)


class Columns(NamedTuple):
    """A checked history and the line of each of its rows."""

    history: History
    line: NDArray[numpy.int64]


def columns(raw: RawHistory, model: str, initial: Any) -> Columns:
    """The history of a file, ordered by invocation (ties: as in the file).

    Raises DataError, with the line, for whatever cannot be.
    """
    count = len(raw.op)
    kind = _kinds(raw, model)
    outcome = _codes(raw, raw.status, STATUSES, "status", numpy.uint8)
    invoked_ns = _times(raw, raw.invoked_ns, "invoked_ns")
    returned_ns = _times(raw, raw.returned_ns, "returned_ns")
    _check_times(raw, outcome, invoked_ns, returned_ns)
    session = _sessions(raw)
    interned = Interned(model, raw.initial if initial is None else initial)
    value_id, expected_id = _values(raw, kind, outcome, model, interned)
    key, key_names = _keys(raw, kind)
    order = numpy.argsort(invoked_ns, kind="stable")
    made: dict[str, Any] = {
        "session": session,
        "kind": kind,
        "key": key,
        "value_id": value_id,
        "version": _optional(raw.version, count),
        "node": _optional(raw.node, count),
        "intended_ns": invoked_ns,
        "invoked_ns": invoked_ns,
        "returned_ns": returned_ns,
        "previous_return_ns": numpy.full(count, NEVER),
        "outcome": outcome,
        "phase": _codes(raw, raw.phase, _PHASES, "phase", numpy.uint8, PHASE_RUN),
        "level": _codes(raw, raw.level, levels.CODES, "level", numpy.uint8, levels.UNASKED),
    }
    line = numpy.asarray(raw.line, dtype=numpy.int64)
    made["sequence"] = _sequences(raw, session, order)
    zeros = numpy.zeros(count, dtype=numpy.int64)
    history = History(
        **{name: numpy.asarray(made.get(name, zeros), dtype=DTYPES[name]) for name in COLUMNS},
        key_names=key_names,
        expected_id=expected_id,
        values=interned.values,
    ).select(order)
    checked = Columns(history, line[order])
    _check_sessions(raw, checked, order)
    return checked


class Interned:
    """Numbers values in the order in which they come; 0 is the initial one."""

    def __init__(self, model: str, initial: Any) -> None:
        self._text = model == KV
        self._index: defaultdict[Hashable, int] = defaultdict()
        self._index.default_factory = self._index.__len__
        self._originals: dict[Hashable, Any] = {}
        self.identity(initial)

    def identity(self, value: Any) -> int:
        """The number of a value."""
        frozen = self._frozen(value)
        return self._index[frozen]

    def identities(self, values: Sequence[Any]) -> NDArray[numpy.int64]:
        """The numbers of values, fast where they are plain."""
        if not self._text and _PLAIN.issuperset(map(type, values)):
            numbers: Iterable[int] = map(self._index.__getitem__, values)
        else:
            numbers = map(self.identity, values)
        return numpy.fromiter(numbers, dtype=numpy.int64, count=len(values))

    def _frozen(self, value: Any) -> Hashable:
        if type(value) in _PLAIN:
            # To a store of texts, nothing and the empty text are one.
            return None if self._text and value == "" else value
        frozen = freeze(value)
        if isinstance(value, bool | float | list | tuple | dict):
            # True and 1 are equal in Python and differ in JSON.
            key = (type(value), repr(frozen)) if _has_bool(value) else frozen
            self._originals[key] = frozen
            return key
        return frozen

    @property
    def values(self) -> list[Any]:
        """Number -> value."""
        originals = self._originals
        return [originals.get(key, key) for key in self._index]


def freeze(value: Any) -> Hashable:
    """Lists as tuples, objects as sorted tuples of pairs."""
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    if isinstance(value, dict):
        return tuple(sorted((str(name), freeze(item)) for name, item in value.items()))
    frozen: Hashable = value
    return frozen


def _has_bool(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_has_bool, value))
    return isinstance(value, bool)


# --- one column after the other ---------------------------------------------------------


def _kinds(raw: RawHistory, model: str) -> NDArray[numpy.uint8]:
    kind = _codes(raw, raw.op, KINDS, "op", numpy.uint8)
    if model == COUNTER:  # jepsen's counters add
        kind[kind == ADD] = INCREMENT
    allowed = OPERATIONS[model]
    foreign = ~numpy.isin(kind, sorted(allowed))
    if foreign.any():
        row = int(numpy.argmax(foreign))
        names = ", ".join(KIND_NAMES[code] for code in sorted(allowed))
        raise raw.error(row, f"model {model} has no operation {raw.op[row]!r}", f"it has: {names}")
    return kind


def _codes(
    raw: RawHistory,
    words: Sequence[str | None],
    codes: Mapping[str, int],
    name: str,
    dtype: Any,
    default: int | None = None,
) -> NDArray[Any]:
    if default is not None and not words:
        return numpy.full(len(raw.op), default, dtype=dtype)
    found = list(map(codes.get, words))  # type: ignore[arg-type]
    if default is not None:
        found = [default if word is None else code for word, code in zip(words, found, strict=True)]
    try:
        return numpy.array(found, dtype=dtype)
    except TypeError:
        row = found.index(None)
        word = str(words[row])[:_WORD_MAX]
        raise raw.error(row, f"unknown {name} {word!r}", suggestion(word, codes)) from None


def _times(raw: RawHistory, times: Sequence[int | None], name: str) -> NDArray[numpy.int64]:
    try:
        if None in times:
            return numpy.array([NEVER if t is None else t for t in times], dtype=numpy.int64)
        return numpy.array(times, dtype=numpy.int64)
    except OverflowError:
        row = next(row for row, at in enumerate(times) if at is not None and abs(at) >= 1 << 63)
        raise raw.error(row, f"{name} {times[row]} does not fit 64 bits") from None


def _check_times(
    raw: RawHistory,
    outcome: NDArray[numpy.uint8],
    invoked_ns: NDArray[numpy.int64],
    returned_ns: NDArray[numpy.int64],
) -> None:
    absent = numpy.array([at is None for at in raw.returned_ns], dtype=numpy.bool_)
    for wrong, message in (
        (invoked_ns < 0, "invoked_ns is negative"),
        (~absent & (returned_ns < invoked_ns), "the operation returned before it was invoked"),
        (absent & (outcome == OK), "status is ok, but returned_ns is missing"),
    ):
        if wrong.any():
            row = int(numpy.argmax(wrong))
            times = f"invoked_ns {raw.invoked_ns[row]}, returned_ns {raw.returned_ns[row]}"
            raise raw.error(row, f"{message} ({times})")


def _sessions(raw: RawHistory) -> NDArray[numpy.int64]:
    if None in raw.session:
        raise raw.error(raw.session.index(None), "the field session is missing")
    return numpy.array(raw.session, dtype=numpy.int64)


def _optional(column: Sequence[int | None], count: int) -> NDArray[numpy.int64]:
    if not column:
        return numpy.full(count, -1)
    return numpy.array([-1 if one is None else one for one in column], dtype=numpy.int64)


def _keys(raw: RawHistory, kind: NDArray[numpy.uint8]) -> tuple[NDArray[numpy.int64], list[bytes]]:
    if ABSENT in raw.key or None in raw.key:
        rows = [row for row, key in enumerate(raw.key) if key is ABSENT or key is None]
        rows = [row for row in rows if kind[row] != TRANSACTION]
        if rows:
            raise raw.error(rows[0], "the field key is missing")
    index: defaultdict[Any, int] = defaultdict()
    index.default_factory = index.__len__
    texts = [
        key if type(key) is str else "" if key is ABSENT or key is None else str(key)
        for key in raw.key
    ]
    key = numpy.fromiter(map(index.__getitem__, texts), dtype=numpy.int64, count=len(texts))
    return key, [name.encode("utf-8", "surrogatepass") for name in index]


def _sequences(
    raw: RawHistory, session: NDArray[numpy.int64], order: NDArray[numpy.int64]
) -> NDArray[numpy.int64]:
    """As given; counted from 0 in the order of time where any is missing."""
    count = len(session)
    if raw.sequence and None not in raw.sequence:
        return numpy.array(raw.sequence, dtype=numpy.int64)
    by_session = order[numpy.argsort(session[order], kind="stable")]
    first = numpy.ones(count, dtype=numpy.bool_)
    first[1:] = session[by_session[1:]] != session[by_session[:-1]]
    starts = numpy.maximum.accumulate(numpy.where(first, numpy.arange(count), 0))
    sequence = numpy.empty(count, dtype=numpy.int64)
    sequence[by_session] = numpy.arange(count) - starts
    return sequence


def _check_sessions(raw: RawHistory, checked: Columns, order: NDArray[numpy.int64]) -> None:
    """A session is one sequence: in its order nothing overlaps, and no number comes twice."""
    history = checked.history
    by_session = numpy.lexsort((history.sequence, history.session))
    before, after = by_session[:-1], by_session[1:]
    same = history.session[before] == history.session[after]
    ended = numpy.where(
        history.outcome[before] == UNKNOWN,
        history.invoked_ns[before],  # given up at some time; it may still take effect
        numpy.maximum(history.returned_ns[before], history.invoked_ns[before]),
    )
    twice = same & (history.sequence[before] == history.sequence[after])
    overlapping = same & (ended > history.invoked_ns[after])
    for wrong, message in (
        (twice, "session {0} has two operations of sequence {1}; the other is {2}"),
        (overlapping, "session {0} began this operation before the one at {2} was over"),
    ):
        if wrong.any():
            at = int(numpy.argmax(wrong))
            one, other = int(before[at]), int(after[at])
            where = f"line {int(checked.line[one])}"
            said = message.format(int(history.session[one]), int(history.sequence[one]), where)
            raise raw.error(int(order[other]), said)


# --- values -----------------------------------------------------------------------------


def _values(
    raw: RawHistory,
    kind: NDArray[numpy.uint8],
    outcome: NDArray[numpy.uint8],
    model: str,
    interned: Interned,
) -> tuple[NDArray[numpy.int64], NDArray[numpy.int64]]:
    unanswered = numpy.isin(kind, _RESULTS[:-1]) & (outcome != OK)
    values = raw.value
    if unanswered.any():
        values = [
            None if skip else value for value, skip in zip(values, unanswered.tolist(), strict=True)
        ]
    if ABSENT in values:
        row = next(row for row, value in enumerate(values) if value is ABSENT)
        name = "ops" if kind[row] == TRANSACTION else "value"
        raise raw.error(row, f"the field {name} is missing")
    _check_types(raw, values, kind, outcome, model)
    value_id = interned.identities(values)
    value_id[unanswered] = NOTHING
    expected_id = numpy.full(len(values), NOTHING, dtype=numpy.int64)
    rows = numpy.flatnonzero(kind == CAS)
    if len(rows):
        expected = [raw.expected[row] for row in rows.tolist()]
        if ABSENT in expected:
            row = int(rows[[one is ABSENT for one in expected].index(True)])
            raise raw.error(row, "the field expected is missing")
        expected_id[rows] = interned.identities(expected)
    return value_id, expected_id


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_types(
    raw: RawHistory,
    values: Sequence[Any],
    kind: NDArray[numpy.uint8],
    outcome: NDArray[numpy.uint8],
    model: str,
) -> None:
    """What a model needs to know of a value: numbers are counted, collections are lists."""
    rules: list[tuple[tuple[int, ...], Callable[[Any], bool], str]] = []
    if model == COUNTER:
        rules.append(((READ, INCREMENT), lambda v: v is None or _is_number(v), "a number"))
    elif model in COLLECTIONS:
        rules.append(((READ,), lambda v: v is None or isinstance(v, list | tuple), "a list"))
        if model != SET:
            rules.append(((ENQUEUE,), lambda v: v is not None, "an element, not null"))
    elif model == KV:
        rules.append(((APPEND,), lambda v: v is None or isinstance(v, str), "a text"))
    for kinds, holds, wanted in rules:
        for row in numpy.flatnonzero(numpy.isin(kind, kinds)).tolist():
            if not holds(values[row]) and not (kind[row] == READ and outcome[row] != OK):
                text = repr(values[row])[:_WORD_MAX]
                what = f"the value of {raw.op[row]} must be {wanted}"
                raise raw.error(row, f"{what}, not {text}")
