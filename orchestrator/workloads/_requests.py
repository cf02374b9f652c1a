"""What is asked of a reader of traces, and what every one of them gives: columns of requests.

A reader is a function of an open binary file and the parameters. Its errors are DataError with
``path:line`` (text) or ``path:record`` (binary, counted from 1), and it refuses what a replay
could not keep: sizes below 0 or above 2^31 - 1, and times that go back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.machine import KIND_NAMES, READ, WRITE
from orchestrator.core.parameters import ParameterError, choice, number, text
from orchestrator.core.units import NS_PER_MS, NS_PER_S, NS_PER_US
from orchestrator.errors import DataError, suggestion

AUTO: Final = "auto"
CSV: Final = "csv"
PARQUET: Final = "parquet"
ORACLE_GENERAL: Final = "oracle_general"
REDIS_MONITOR: Final = "redis_monitor"
FORMATS: Final = (AUTO, CSV, PARQUET, ORACLE_GENERAL, REDIS_MONITOR)

UNITS_NS: Final = {"ns": 1, "us": NS_PER_US, "ms": NS_PER_MS, "s": NS_PER_S}
SIZE_MAX: Final = 2**31 - 1
SIZE_HINT: Final = f"whole bytes from 0 to {SIZE_MAX}"
TIME_MAX_NS: Final = 2**62
LIMIT_MAX: Final = 2**53  # as YAML, JSON and floats hold it alike
BACK_HINT: Final = "sort the trace by time"

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
    path: str = text(help="the trace file")
    columns: Columns = field(default_factory=Columns)  # of CSV and Parquet
    time_unit: str = choice("us", options=tuple(UNITS_NS), help="of CSV and Parquet")
    ops: dict[str, str] = field(default_factory=dict)  # code -> read | write, added to _OPS
    limit: int | None = number(None, low=1, high=LIMIT_MAX, help="requests to use; null: all")
    format: str = choice(AUTO, options=FORMATS, help="auto: by the ending of the path")

    def __post_init__(self) -> None:
        for code, kind in self.ops.items():
            if kind not in _KINDS:
                raise ParameterError(f"{kind!r} must be read or write", key=f"ops.{code}")

    def kinds(self) -> dict[str, int]:
        """Operation code in lower case -> READ or WRITE."""
        return _OPS | {str(code).lower(): _KINDS[kind] for code, kind in self.ops.items()}


@dataclass(frozen=True)
class Requests:
    """The rows of a trace as columns of equal length n; ``key`` indexes ``key_names``.

    ``size`` is in bytes; None where the trace has no sizes. ``time_ns`` is relative to the
    first row and never falls; None where the trace has no times. ``left_out`` counts, by name,
    what stands in the file and is no access to a key.
    """

    kind: NDArray[numpy.uint8]
    key: NDArray[numpy.int64]
    size: NDArray[numpy.int32] | None
    time_ns: NDArray[numpy.int64] | None
    key_names: list[bytes]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.kind)

    def left_out_words(self, shown: int = 5) -> str:
        """``12 commands left out: ping 9, expire 3``; empty where there is none."""
        if not self.left_out:
            return ""
        total = sum(self.left_out.values())
        named = sorted(self.left_out.items(), key=lambda each: (-each[1], each[0]))
        listed = ", ".join(f"{cut(name)} {count:,}" for name, count in named[:shown])
        more = ", ..." if len(named) > shown else ""
        return f"{total:,} command{'s' if total != 1 else ''} left out: {listed}{more}"


class Header:
    """Finds columns by name; ``place`` is where a message says that one is missing."""

    def __init__(self, names: Sequence[str], place: str) -> None:
        self._names = [name.strip() for name in names]
        self._place = place

    def places(self, columns: Columns) -> dict[str, int]:
        """Role -> position, of the columns that are used."""
        named = {"time": columns.time, "op": columns.op, "size": columns.size}
        found = {"key": self._position("key", columns.key)}
        for role, name in named.items():
            if name or (name is None and role in self._names):
                found[role] = self._position(role, name or role)
        return found

    def _position(self, role: str, name: str) -> int:
        if name not in self._names:
            raise DataError(
                f"the trace has no column {name!r} for columns.{role}",
                path=self._place,
                hint=suggestion(name, [cut(each) for each in self._names[:_SHOWN_COLUMNS]]),
            )
        return self._names.index(name)


def cut(text: str) -> str:
    """``text`` as a message quotes it."""
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def unknown_op(code: str, ops: Mapping[str, int]) -> tuple[str, str]:
    """Message and hint for an operation code that has no meaning."""
    known = f"known: {', '.join(ops)}; add others to ops as read or write"
    return f"unknown operation {cut(code)!r}", known


def time_back(time: str, before: str) -> str:
    """What to say of a time that is earlier than the one before it."""
    return f"time {cut(time)!r} is before that of the previous request, {cut(before)!r}"


def first_fall(times: NDArray[numpy.int64]) -> int | None:
    """Index of the first value below the one before it."""
    fallen = numpy.flatnonzero(times[1:] < times[:-1])
    return int(fallen[0]) + 1 if len(fallen) else None


def nothing_in(path: str) -> DataError:
    """The refusal of a file without a byte."""
    return DataError("the trace file is empty", path=path)
