"""Traces in CSV: a header, then one request a line.

Lines are read by the csv module and turned into columns a thousand at a time, some 3 µs a line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import islice
from typing import BinaryIO, Final, Protocol

import numpy
from numpy.typing import NDArray

from orchestrator.core.machine import READ
from orchestrator.errors import DataError
from orchestrator.workloads._requests import (
    BACK_HINT,
    SIZE_HINT,
    SIZE_MAX,
    TIME_MAX_NS,
    UNITS_NS,
    Header,
    Requests,
    TraceParams,
    cut,
    nothing_in,
    time_back,
    unknown_op,
)

# Small enough for the rows to stay in the CPU's caches and out of the garbage collector's sight.
_CHUNK_ROWS: Final = 1024


class _BadRow(Exception):
    """Row ``index`` of the chunk being read is malformed."""

    def __init__(self, index: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.index = index
        self.hint = hint


def read_csv(file: BinaryIO, params: TraceParams) -> Requests:
    """The requests in a CSV file, with the columns that ``params`` name."""
    # Keys may be any bytes: what is not UTF-8 survives the way in and out.
    with io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="") as text:
        return _parse(csv.reader(text, strict=True, skipinitialspace=True), params)


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
            raise nothing_in(params.path)
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


class _Chunks:
    """Turns rows into columns, many at once: several times faster than row by row."""

    def __init__(self, header: Sequence[str], params: TraceParams) -> None:
        places = Header(header, f"{params.path}:1").places(params.columns)
        self._path = params.path
        self._width = len(header)
        self._key = places["key"]
        self._time = places.get("time")
        self._op = places.get("op")
        self._size = places.get("size")
        self._unit_ns = UNITS_NS[params.time_unit]
        self._ops = params.kinds()
        self._known: dict[str, int] = {}
        self._last_ns: int | None = None
        self._last_text = ""
        self._kinds: list[NDArray[numpy.uint8]] = []
        self._keys: list[NDArray[numpy.int64]] = []
        self._sizes: list[NDArray[numpy.int32]] = []
        self._times: list[NDArray[numpy.int64]] = []

    def add(self, rows: Sequence[list[str]]) -> None:
        """Append rows; raises _BadRow."""
        width = self._width
        for index, row in enumerate(rows):
            if len(row) != width:
                message = f"malformed line {cut(','.join(row))!r}: {len(row)} fields"
                raise _BadRow(index, message, f"the header has {width}")
        columns: list[tuple[str, ...]] = list(zip(*rows, strict=True))
        known = self._known
        keys = [known.setdefault(key, len(known)) for key in columns[self._key]]
        self._keys.append(numpy.array(keys, dtype=numpy.int64))
        if self._op is None:
            self._kinds.append(numpy.full(len(rows), READ, dtype=numpy.uint8))
        else:
            self._kinds.append(_kinds(columns[self._op], self._ops))
        if self._size is not None:
            self._sizes.append(_sizes(columns[self._size]))
        if self._time is not None:
            self._times.append(self._rising(columns[self._time]))

    def _rising(self, texts: Sequence[str]) -> NDArray[numpy.int64]:
        times_ns = _times_ns(texts, self._unit_ns)
        last_ns = int(times_ns[0]) if self._last_ns is None else self._last_ns
        fallen = numpy.flatnonzero(numpy.diff(times_ns, prepend=last_ns) < 0)
        if len(fallen):
            index = int(fallen[0])
            before = texts[index - 1] if index else self._last_text
            raise _BadRow(index, time_back(texts[index], before), BACK_HINT)
        self._last_ns, self._last_text = int(times_ns[-1]), texts[-1]
        return times_ns

    def requests(self) -> Requests:
        """All rows added; raises DataError where there is none."""
        if not self._keys:
            raise DataError("the trace has no request after its header", path=self._path)
        times_ns = numpy.concatenate(self._times) if self._times else None
        return Requests(
            kind=numpy.concatenate(self._kinds),
            key=numpy.concatenate(self._keys),
            size=numpy.concatenate(self._sizes) if self._sizes else None,
            time_ns=None if times_ns is None else times_ns - times_ns[0],
            key_names=[key.encode("utf-8", "surrogateescape") for key in self._known],
        )


def _kinds(texts: Sequence[str], ops: Mapping[str, int]) -> NDArray[numpy.uint8]:
    try:
        kinds = [ops[code.strip().lower()] for code in texts]
    except KeyError as error:
        index = next(i for i, code in enumerate(texts) if code.strip().lower() == error.args[0])
        raise _BadRow(index, *unknown_op(texts[index], ops)) from None
    return numpy.array(kinds, dtype=numpy.uint8)


def _sizes(texts: Sequence[str]) -> NDArray[numpy.int32]:
    try:
        sizes = numpy.array(list(map(int, texts)), dtype=numpy.int64)
        if sizes.min() >= 0 and sizes.max() <= SIZE_MAX:
            return sizes.astype(numpy.int32)
    except (ValueError, OverflowError):
        pass
    index = next(i for i, size in enumerate(texts) if not _is_size(size))
    message = f"malformed size {cut(texts[index])!r}"
    raise _BadRow(index, message, SIZE_HINT)


def _is_size(size: str) -> bool:
    try:
        return 0 <= int(size) <= SIZE_MAX
    except ValueError:
        return False


def _times_ns(texts: Sequence[str], unit_ns: int) -> NDArray[numpy.int64]:
    try:
        times = list(map(int, texts))
        limit = TIME_MAX_NS // unit_ns
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
        raise _BadRow(index, f"malformed time {cut(time)!r}", "a number in time_unit") from None
    if abs(time_ns) > TIME_MAX_NS:
        raise _BadRow(index, f"time {cut(time)!r} is out of range", "is time_unit right?")
    return time_ns
