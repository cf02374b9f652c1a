"""Traces in Parquet: one request a row, columns by name as in CSV.

Keys are text, bytes or whole numbers (whose digits are then the key), operations text or whole
numbers, sizes whole numbers, times numbers in ``time_unit`` or timestamps. No value may be
null. All is done on whole columns: O(n).
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy
from numpy.typing import NDArray

from orchestrator.core.machine import READ
from orchestrator.errors import DataError
from orchestrator.workloads._arrow import (
    decoded,
    distinct,
    first_null,
    opened_parquet,
    rows_of,
    time_text,
    times_ns,
    whole_numbers,
)
from orchestrator.workloads._requests import (
    BACK_HINT,
    SIZE_HINT,
    SIZE_MAX,
    TIME_MAX_NS,
    UNITS_NS,
    Header,
    Requests,
    TraceParams,
    first_fall,
    nothing_in,
    time_back,
    unknown_op,
)


def read_parquet(file: BinaryIO, params: TraceParams) -> Requests:
    """The requests in a Parquet file, with the columns that ``params`` name."""
    if file.seekable() and not file.seek(0, 2):
        raise nothing_in(params.path)
    source, names = opened_parquet(file, params.path)
    places = Header(names, params.path).places(params.columns)
    chosen = {role: names[place] for role, place in places.items()}
    for name in chosen.values():
        if names.count(name) > 1:
            raise DataError(f"the trace has more than one column {name!r}", path=params.path)
    wanted = list(dict.fromkeys(chosen.values()))
    table = rows_of(source, wanted, params.limit, params.path)
    if not len(table):
        raise DataError("the trace has no request", path=params.path)
    return _Table(params, chosen, table).requests()


class _Table:
    """The columns of a file by their roles."""

    def __init__(self, params: TraceParams, names: dict[str, str], table: Any) -> None:
        self._params = params
        self._names = names
        self._table = table

    def requests(self) -> Requests:
        """All rows; raises DataError with the first that is wrong."""
        key, key_names = self._distinct("key")
        return Requests(
            kind=self._kinds(len(key)),
            key=key,
            size=self._sizes() if "size" in self._names else None,
            time_ns=self._times() if "time" in self._names else None,
            key_names=key_names,
        )

    def _column(self, role: str) -> Any:
        column = decoded(self._table.column(self._names[role]))
        null = first_null(column)
        if null is not None:
            raise self._row_error(null, f"column {self._names[role]!r} is null")
        return column

    def _row_error(self, index: int, message: str, hint: str | None = None) -> DataError:
        return DataError(message, path=f"{self._params.path}:{index + 1}", hint=hint)

    def _not(self, role: str, wanted: str) -> DataError:
        name = self._names[role]
        holds = f"column {name!r} holds {self._table.column(name).type}"
        return DataError(f"{holds}, not {wanted}", path=self._params.path)

    def _distinct(self, role: str) -> tuple[NDArray[numpy.int64], list[bytes]]:
        found = distinct(self._column(role))
        if found is None:
            raise self._not(role, "text, bytes or whole numbers")
        return found

    def _kinds(self, rows: int) -> NDArray[numpy.uint8]:
        if "op" not in self._names:
            return numpy.full(rows, READ, dtype=numpy.uint8)
        known = self._params.kinds()
        place, codes = self._distinct("op")
        texts = [code.decode("utf-8", "backslashreplace") for code in codes]
        kinds = [known.get(text.strip().lower(), -1) for text in texts]
        if -1 in kinds:
            unknown = kinds.index(-1)  # the earliest: codes stand as they first appear
            message, hint = unknown_op(texts[unknown], known)
            raise self._row_error(int((place == unknown).argmax()), message, hint)
        return numpy.array(kinds, dtype=numpy.uint8)[place]

    def _sizes(self) -> NDArray[numpy.int32]:
        sizes = whole_numbers(self._column("size"))
        if sizes is None:
            raise self._not("size", "whole numbers")
        wrong = (sizes < 0) | (sizes > SIZE_MAX)
        if wrong.any():
            index = int(wrong.argmax())
            raise self._row_error(index, f"malformed size '{sizes[index]}'", SIZE_HINT)
        return sizes.astype(numpy.int32)

    def _times(self) -> NDArray[numpy.int64]:
        column = self._column("time")
        found = times_ns(column, UNITS_NS[self._params.time_unit], TIME_MAX_NS)
        if found is None:
            raise self._not("time", "numbers or timestamps")
        if isinstance(found, int):
            message = f"time {time_text(column, found)!r} is out of range"
            raise self._row_error(found, message, "is time_unit right?")
        fallen = first_fall(found)
        if fallen is not None:
            time, before = (time_text(column, each) for each in (fallen, fallen - 1))
            raise self._row_error(fallen, time_back(time, before), BACK_HINT)
        since_first: NDArray[numpy.int64] = found - found[0]
        return since_first
