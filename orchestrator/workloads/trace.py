"""Replay of a recorded trace: a CSV file with a header, one request a line.

One request is one access of one key. Sizes weigh the entries of caches; they are not carried
(a write carries only the 8 bytes of its value's identity), so a trace of large blocks costs
the memory and bandwidth of small ones. Every key of the trace exists beforehand.

Rows are dealt to the clients in turn: client c of C gets rows c, c + C, c + 2C and so on. When
they start is the arrival's matter: as fast as possible or by the trace's own times with
``replay``, or at any other arrival's times.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

import numpy
from numpy.typing import NDArray

from orchestrator.core.history import VALUE_ID_BYTES
from orchestrator.core.keys import NamedKeys
from orchestrator.core.load import OperationBlock
from orchestrator.core.machine import KIND_NAMES, READ, WRITE, Preload
from orchestrator.core.models import REGISTER
from orchestrator.core.parameters import ParameterError, choice, number, text
from orchestrator.core.registry import Family, register
from orchestrator.core.units import NS_PER_MS, NS_PER_S, NS_PER_US
from orchestrator.errors import DataError, suggestion

_UNITS_NS: Final = {"ns": 1, "us": NS_PER_US, "ms": NS_PER_MS, "s": NS_PER_S}
_OPS: Final = {
    "read": READ,
    "get": READ,
    "r": READ,
    "28": READ,  # SCSI READ(10)
    "88": READ,  # SCSI READ(16)
    "write": WRITE,
    "set": WRITE,
    "w": WRITE,
    "2a": WRITE,  # SCSI WRITE(10)
    "8a": WRITE,  # SCSI WRITE(16)
}
_KINDS: Final = {KIND_NAMES[kind]: kind for kind in (READ, WRITE)}
_SIZE_MAX: Final = 2**31 - 1
_TIME_MAX_NS: Final = 2**62
# Small enough for the rows to stay in the CPU's caches and out of the garbage collector's sight.
_CHUNK_ROWS = 1024
# A file that is no trace at all may hold anything: what a message quotes of it has an end.
_SHOWN_CHARACTERS: Final = 60
_SHOWN_COLUMNS: Final = 20


@dataclass(frozen=True)
class Columns:
    """Names in the file's header. Null: the column of that very name, if there is one.

    Without operations all are reads, without sizes each weighs 1, without times there is no
    replay by the original timing. An empty text leaves a column of the file unused.
    """

    key: str = text("key")
    time: str | None = text(None)
    op: str | None = text(None)
    size: str | None = text(None)


@dataclass(frozen=True)
class TraceParams:
    path: str = text(help="CSV file with a header line")
    columns: Columns = field(default_factory=Columns)
    time_unit: str = choice("us", options=tuple(_UNITS_NS))
    ops: dict[str, str] = field(default_factory=dict)  # code -> read | write, added to _OPS
    limit: int | None = number(None, low=1, help="requests to use; null: all")

    def __post_init__(self) -> None:
        for code, kind in self.ops.items():
            if kind not in _KINDS:
                raise ParameterError(f"{kind!r} must be read or write", key=f"ops.{code}")


@dataclass(frozen=True)
class Requests:
    """The rows of a trace as columns of equal length n; ``key`` indexes ``key_names``.

    ``time_ns`` is relative to the first row and never falls; None without a time column.
    """

    kind: NDArray[numpy.uint8]
    key: NDArray[numpy.int64]
    size: NDArray[numpy.int32]
    time_ns: NDArray[numpy.int64] | None
    key_names: list[bytes]

    def __len__(self) -> int:
        return len(self.kind)


class _BadRow(Exception):
    """Row ``index`` of the chunk being read is malformed."""

    def __init__(self, index: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.index = index
        self.hint = hint


def read_requests(params: TraceParams) -> Requests:
    """Read the trace file.

    Raises DataError with the path where it cannot be read, with path:line where it has no
    such column, a malformed line, an unknown operation or a time before that of an earlier
    row.
    """
    path = Path(params.path)
    try:
        # Keys may be any bytes: what is not UTF-8 survives the way in and out.
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            return _parse(csv.reader(file, strict=True, skipinitialspace=True), params)
    except OSError as error:
        raise DataError(
            f"cannot read the trace file: {error.strerror}",
            path=params.path,
            hint=None if path.is_absolute() else f"a relative path starts at {Path.cwd()}",
        ) from error


class _Lines(Protocol):
    """A csv reader: iterates over rows and knows the line of the file that it has reached."""

    @property
    def line_num(self) -> int: ...

    def __iter__(self) -> Iterator[list[str]]: ...


def _parse(lines: _Lines, params: TraceParams) -> Requests:
    rows = ((lines.line_num, row) for row in lines if row)
    try:
        _, header = next(rows, (0, []))
        if not header:
            raise DataError("the trace file is empty", path=params.path)
        chunks = _Chunks(header, params)
        chosen = islice(rows, params.limit)
        while chunk := list(islice(chosen, _CHUNK_ROWS)):
            numbers, fields = zip(*chunk, strict=True)
            try:
                chunks.add(fields)
            except _BadRow as bad:
                place = f"{params.path}:{numbers[bad.index]}"
                raise DataError(str(bad), path=place, hint=bad.hint) from None
    except csv.Error as error:
        place = f"{params.path}:{lines.line_num}"
        raise DataError(f"malformed line: {error}", path=place) from error
    return chunks.requests()


class _Header:
    """Finds columns by name."""

    def __init__(self, names: Sequence[str], path: str) -> None:
        self._names = [name.strip() for name in names]
        self._place = f"{path}:1"

    def position(self, role: str, name: str) -> int:
        """Of a column that must be there."""
        if name not in self._names:
            raise DataError(
                f"the trace has no column {name!r} for columns.{role}",
                path=self._place,
                hint=suggestion(name, [_cut(each) for each in self._names[:_SHOWN_COLUMNS]]),
            )
        return self._names.index(name)

    def optional(self, role: str, name: str | None) -> int | None:
        """Of a column that need not be there, as Columns describes it."""
        if name is None:
            return self.position(role, role) if role in self._names else None
        return self.position(role, name) if name else None


class _Chunks:
    """Turns rows into columns, many at once: several times faster than row by row."""

    def __init__(self, header: Sequence[str], params: TraceParams) -> None:
        columns, named = params.columns, _Header(header, params.path)
        self._path = params.path
        self._width = len(header)
        self._key = named.position("key", columns.key)
        self._time = named.optional("time", columns.time)
        self._op = named.optional("op", columns.op)
        self._size = named.optional("size", columns.size)
        self._unit_ns = _UNITS_NS[params.time_unit]
        extra = {str(code).lower(): _KINDS[kind] for code, kind in params.ops.items()}
        self._ops = _OPS | extra
        self._known: dict[str, int] = {}
        self._last_ns: int | None = None
        self._kinds: list[NDArray[numpy.uint8]] = []
        self._keys: list[NDArray[numpy.int64]] = []
        self._sizes: list[NDArray[numpy.int32]] = []
        self._times: list[NDArray[numpy.int64]] = []

    def add(self, rows: Sequence[list[str]]) -> None:
        """Append rows; raises _BadRow."""
        width = self._width
        for index, row in enumerate(rows):
            if len(row) != width:
                message = f"malformed line {_cut(','.join(row))!r}: {len(row)} fields"
                raise _BadRow(index, message, f"the header has {width}")
        columns: list[tuple[str, ...]] = list(zip(*rows, strict=True))
        known = self._known
        keys = [known.setdefault(key, len(known)) for key in columns[self._key]]
        self._keys.append(numpy.array(keys, dtype=numpy.int64))
        if self._op is None:
            self._kinds.append(numpy.full(len(rows), READ, dtype=numpy.uint8))
        else:
            self._kinds.append(_kinds(columns[self._op], self._ops))
        if self._size is None:
            self._sizes.append(numpy.ones(len(rows), dtype=numpy.int32))
        else:
            self._sizes.append(_sizes(columns[self._size]))
        if self._time is not None:
            self._times.append(self._rising(columns[self._time]))

    def _rising(self, texts: Sequence[str]) -> NDArray[numpy.int64]:
        times_ns = _times_ns(texts, self._unit_ns)
        last_ns = int(times_ns[0]) if self._last_ns is None else self._last_ns
        fallen = numpy.flatnonzero(numpy.diff(times_ns, prepend=last_ns) < 0)
        if len(fallen):
            index = int(fallen[0])
            message = f"time {_cut(texts[index])!r} is before that of the previous request"
            raise _BadRow(index, message, "sort the trace by time")
        self._last_ns = int(times_ns[-1])
        return times_ns

    def requests(self) -> Requests:
        """All rows added; raises DataError where there is none."""
        if not self._keys:
            raise DataError("the trace has no request after its header", path=self._path)
        times_ns = numpy.concatenate(self._times) if self._times else None
        return Requests(
            kind=numpy.concatenate(self._kinds),
            key=numpy.concatenate(self._keys),
            size=numpy.concatenate(self._sizes),
            time_ns=None if times_ns is None else times_ns - times_ns[0],
            key_names=[key.encode("utf-8", "surrogateescape") for key in self._known],
        )


def _cut(text: str) -> str:
    """``text`` as a message quotes it."""
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def _kinds(texts: Sequence[str], ops: Mapping[str, int]) -> NDArray[numpy.uint8]:
    try:
        kinds = [ops[code.strip().lower()] for code in texts]
    except KeyError as error:
        index = next(i for i, code in enumerate(texts) if code.strip().lower() == error.args[0])
        message = f"unknown operation {_cut(texts[index])!r}"
        raise _BadRow(
            index, message, f"known: {', '.join(ops)}; add others to ops as read or write"
        ) from None
    return numpy.array(kinds, dtype=numpy.uint8)


def _sizes(texts: Sequence[str]) -> NDArray[numpy.int32]:
    try:
        sizes = numpy.array(list(map(int, texts)), dtype=numpy.int64)
        if sizes.min() >= 0 and sizes.max() <= _SIZE_MAX:
            return sizes.astype(numpy.int32)
    except (ValueError, OverflowError):
        pass
    index = next(i for i, size in enumerate(texts) if not _is_size(size))
    message = f"malformed size {_cut(texts[index])!r}"
    raise _BadRow(index, message, f"whole bytes from 0 to {_SIZE_MAX}")


def _is_size(size: str) -> bool:
    try:
        return 0 <= int(size) <= _SIZE_MAX
    except ValueError:
        return False


def _times_ns(texts: Sequence[str], unit_ns: int) -> NDArray[numpy.int64]:
    try:
        times = list(map(int, texts))
        limit = _TIME_MAX_NS // unit_ns
        if -limit <= min(times) and max(times) <= limit:
            return numpy.array(times, dtype=numpy.int64) * unit_ns
    except ValueError:
        pass
    times_ns = [_time_ns(index, time, unit_ns) for index, time in enumerate(texts)]
    return numpy.array(times_ns, dtype=numpy.int64)


def _time_ns(index: int, time: str, unit_ns: int) -> int:
    """One time, fractions of the unit included and exact."""
    try:
        time_ns = round(Decimal(time.strip()) * unit_ns)
    except (ValueError, ArithmeticError):
        raise _BadRow(index, f"malformed time {_cut(time)!r}", "a number in time_unit") from None
    if abs(time_ns) > _TIME_MAX_NS:
        raise _BadRow(index, f"time {_cut(time)!r} is out of range", "is time_unit right?")
    return time_ns


@register(Family.WORKLOAD, "trace", params=TraceParams)
class Trace:
    """A recorded trace from a CSV file with named columns."""

    model = REGISTER

    def __init__(self, params: TraceParams) -> None:
        self._requests = read_requests(params)
        self.total: int | None = len(self._requests)
        self.payload_bytes = VALUE_ID_BYTES

    @property
    def key_names(self) -> Sequence[bytes]:
        """Key index -> key as it stands in the file, in order of first appearance."""
        return self._requests.key_names

    def preload(self) -> Preload:
        """Every key of the trace, never written."""
        return NamedKeys(self._requests.key_names, self.payload_bytes)

    def stream(self, seed: int, client: int, clients: int) -> TraceStream:
        """Client ``client``'s share of the rows; chance plays no part."""
        return TraceStream(self._requests, client, clients)


class TraceStream:
    """One client's rows, in order."""

    def __init__(self, requests: Requests, client: int, clients: int) -> None:
        mine = slice(client, None, clients)
        rows = len(requests.kind[mine])
        self._rows = OperationBlock(
            kind=requests.kind[mine],
            key=requests.key[mine],
            size=requests.size[mine],
            count=numpy.ones(rows, dtype=numpy.int32),
            follow_up=numpy.zeros(rows, dtype=numpy.bool_),
            time_ns=None if requests.time_ns is None else requests.time_ns[mine],
        )
        self._position = 0

    def block(self, count: int) -> OperationBlock:
        """The next ``count`` rows, fewer (at last none) at the end."""
        block = self._rows.select(slice(self._position, self._position + count))
        self._position += len(block)
        return block
