"""Replay of a recorded trace: CSV, Parquet, oracleGeneral, or the text of ``redis-cli MONITOR``.

One request is one access of one key. Sizes weigh the entries of caches; they are not carried
(a write carries only the 8 bytes of its value's identity), so a trace of large blocks costs
the memory and bandwidth of small ones. Every key of the trace exists beforehand.

Rows are dealt to the clients in turn: client c of C gets rows c, c + C, c + 2C and so on. When
they start is the arrival's matter: as fast as possible or by the trace's own times with
``replay``, or at any other arrival's times. The formats: ``docs/traces.md``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import numpy

from orchestrator.core.history import VALUE_ID_BYTES
from orchestrator.core.keys import NamedKeys
from orchestrator.core.load import OperationBlock
from orchestrator.core.machine import Preload
from orchestrator.core.models import REGISTER
from orchestrator.core.registry import Family, register
from orchestrator.errors import DataError
from orchestrator.workloads._requests import (
    AUTO,
    CSV,
    FORMATS,
    LIMIT_MAX,
    ORACLE_GENERAL,
    PARQUET,
    REDIS_MONITOR,
    UNITS_NS,
    Columns,
    Requests,
    TraceParams,
)
from orchestrator.workloads._trace_csv import read_csv
from orchestrator.workloads._trace_oracle_general import read_oracle_general
from orchestrator.workloads._trace_parquet import read_parquet
from orchestrator.workloads._trace_redis_monitor import read_redis_monitor

__all__ = [
    "FORMATS",
    "LIMIT_MAX",
    "NAMED_COLUMNS",
    "TIME_UNITS",
    "Columns",
    "LeftOutWarning",
    "Requests",
    "Trace",
    "TraceParams",
    "format_of",
    "read_requests",
]

TIME_UNITS: Final = tuple(UNITS_NS)

NAMED_COLUMNS: Final = (CSV, PARQUET)
"""Formats in which ``columns`` and ``time_unit`` mean something; the others fix both."""

_ENDINGS: Final = {
    CSV: re.compile(r"\.csv$", re.IGNORECASE),
    PARQUET: re.compile(r"\.parquet$", re.IGNORECASE),
    # As they are published: w01.oracleGeneral.bin.zst, cluster50.oracleGeneral.sample10.zst.
    ORACLE_GENERAL: re.compile(r"\.oraclegeneral(\.[^/]*)?$", re.IGNORECASE),
    REDIS_MONITOR: re.compile(r"\.(monitor|log)$", re.IGNORECASE),
}
_READERS: Final[Mapping[str, Callable[[BinaryIO, TraceParams], Requests]]] = {
    CSV: read_csv,
    PARQUET: read_parquet,
    ORACLE_GENERAL: read_oracle_general,
    REDIS_MONITOR: read_redis_monitor,
}


class LeftOutWarning(UserWarning):
    """A trace holds commands that a replay leaves out."""


def format_of(params: TraceParams) -> str | None:
    """The format that was asked for, else the one that the path's ending tells, else None."""
    if params.format != AUTO:
        return params.format
    return next((name for name, ending in _ENDINGS.items() if ending.search(params.path)), None)


def read_requests(params: TraceParams) -> Requests:
    """Read the trace file.

    Raises DataError with the path where it cannot be read or its format is not known, with
    path:line or path:record where it has no such column, a malformed row, an unknown operation
    or a time before that of an earlier row.
    """
    path, chosen = Path(params.path), format_of(params)
    try:
        with path.open("rb") as file:
            if chosen is None:
                known = ", ".join(_READERS)
                raise DataError(
                    "the ending does not tell the trace's format",
                    path=params.path,
                    hint=f"give format: {known}",
                )
            return _READERS[chosen](file, params)
    except OSError as error:
        raise DataError(
            f"cannot read the trace file: {error.strerror or error}",
            path=params.path,
            hint=None if path.is_absolute() else f"a relative path starts at {Path.cwd()}",
        ) from error


@register(Family.WORKLOAD, "trace", params=TraceParams)
class Trace:
    """A recorded trace: CSV, Parquet, oracleGeneral or Redis MONITOR."""

    model = REGISTER

    def __init__(self, params: TraceParams) -> None:
        self._requests = read_requests(params)
        if self._requests.left_out:
            message = f"{params.path}: {self._requests.left_out_words()}"
            warnings.warn(message, LeftOutWarning, stacklevel=2)
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
        sizes = numpy.ones(rows, numpy.int32) if requests.size is None else requests.size[mine]
        self._rows = OperationBlock(
            kind=requests.kind[mine],
            key=requests.key[mine],
            size=sizes,
            count=numpy.ones(rows, dtype=numpy.int32),
            follow_up=numpy.zeros(rows, dtype=numpy.uint8),
            time_ns=None if requests.time_ns is None else requests.time_ns[mine],
        )
        self._position = 0

    def block(self, count: int) -> OperationBlock:
        """The next ``count`` rows, fewer (at last none) at the end."""
        block = self._rows.select(slice(self._position, self._position + count))
        self._position += len(block)
        return block
