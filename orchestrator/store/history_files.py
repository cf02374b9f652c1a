"""Histories in files: JSON lines, Parquet, Jepsen's EDN operations and plain jepsen log lines.

``docs/histories.md`` describes the formats and how fail, info and a missing answer are read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final, Literal

import msgspec

from orchestrator.core.history import PRELOADED
from orchestrator.core.models import APPEND_LIST, QUEUE, SET
from orchestrator.errors import DataError, EnvironmentFailure, InputError, suggestion
from orchestrator.store._jepsen import read_edn, read_log
from orchestrator.store._raw_history import ABSENT, Columns, RawHistory, columns

CHUNK_BYTES: Final = 1 << 24
_WHOLE_COLUMNS: Final = ("session", "sequence", "invoked_ns", "returned_ns", "version", "node")
_REQUIRED: Final = ("op", "invoked_ns", "status")


def read_history(path: str, model: str, *, initial: Any = None, form: str | None = None) -> Columns:
    """The history in a file; ``form``: its format, by default told by the ending of its name.

    Raises InputError for a file that is not there, DataError with the line for a wrong one.
    """
    chosen = form or os.path.splitext(path)[1].lstrip(".").lower()
    if chosen not in FORMATS:
        what = f"unknown format {chosen!r}" if chosen else "the format is not known"
        path_ = "--format" if form else path
        hint = suggestion(chosen, FORMATS) if form else "give --format " + "|".join(FORMATS)
        raise InputError(what, path=path_, hint=hint)
    try:
        with open(path, "rb") as file:
            raw = FORMATS[chosen](path, file, model)
    except FileNotFoundError:
        raise InputError("there is no such file", path=path) from None
    except IsADirectoryError:
        raise InputError("is a folder", path=path) from None
    except OSError as error:
        raise EnvironmentFailure(error.strerror or str(error), path=path) from error
    return columns(raw, model, initial)


# --- JSON lines -------------------------------------------------------------------------


class _MicroOperation(msgspec.Struct, gc=False):
    op: Literal["read", "write", "append", "r", "w"]
    key: Any
    value: Any = None


class _Row(msgspec.Struct, gc=False):
    op: str
    invoked_ns: int
    status: str
    session: int | None = None
    client: int | None = None
    sequence: int | None = None
    key: str | int | float | bool | msgspec.UnsetType | None = msgspec.UNSET
    value: Any = ABSENT
    expected: Any = ABSENT
    returned_ns: int | None = None
    level: str | None = None
    version: int | None = None
    node: int | None = None
    phase: str | None = None
    ops: list[_MicroOperation] | None = None


_decoder: Final = msgspec.json.Decoder(_Row)


def _read_json_lines(path: str, file: BinaryIO, model: str) -> RawHistory:
    raw = RawHistory(path)
    lines: list[int] = []
    for first, chunk in _chunks(file):
        try:
            rows = _decoder.decode_lines(chunk)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            rows = []
        numbers: Sequence[int] = range(first, first + _lines_in(chunk))
        if len(rows) != len(numbers):  # blank lines, or one that is wrong
            numbers, rows = _line_by_line(path, first, chunk)
        lines += numbers
        _extend(raw, rows)
    raw.line = lines
    return raw


def _chunks(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(number of the first line, whole lines), some megabytes at a time."""
    first, rest = 1, b""
    while block := file.read(CHUNK_BYTES):
        whole, newline, rest_of_block = block.rpartition(b"\n")
        if not newline:
            rest += block
            continue
        chunk = rest + whole + newline
        yield first, chunk
        first += chunk.count(b"\n")
        rest = rest_of_block
    if rest:
        yield first, rest


def _lines_in(chunk: bytes) -> int:
    return chunk.count(b"\n") + (not chunk.endswith(b"\n"))


def _line_by_line(path: str, first: int, chunk: bytes) -> tuple[list[int], list[_Row]]:
    numbers, rows = [], []
    for number, line in enumerate(chunk.splitlines(), first):
        if not line.strip():
            continue
        try:
            rows.append(_decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DataError(_reason(error, line), path=f"{path}:{number}") from None
        numbers.append(number)
    return numbers, rows


def _reason(error: Exception, line: bytes) -> str:
    text = str(error)
    if "truncated" in text:
        return "the line is cut off: no whole JSON object"
    if isinstance(error, msgspec.ValidationError):
        reason, _, place = text.partition(" - at ")
        field = place.strip("`$.")
        return f"{field}: {reason}" if field else reason
    shown = line[:60].decode("utf-8", "backslashreplace")
    return f"not JSON: {text} ({shown!r})"


def _extend(raw: RawHistory, rows: list[_Row]) -> None:
    raw.op += [row.op for row in rows]
    raw.invoked_ns += [row.invoked_ns for row in rows]
    raw.returned_ns += [row.returned_ns for row in rows]
    raw.status += [row.status for row in rows]
    raw.session += [row.client if row.session is None else row.session for row in rows]
    raw.key += [ABSENT if row.key is msgspec.UNSET else row.key for row in rows]
    raw.value += [_value(row) for row in rows]
    raw.expected += [row.expected for row in rows]
    raw.sequence += [row.sequence for row in rows]
    raw.level += [row.level for row in rows]
    raw.version += [row.version for row in rows]
    raw.node += [row.node for row in rows]
    raw.phase += [row.phase for row in rows]


_MICRO: Final = {"r": "read", "w": "write"}


def _value(row: _Row) -> Any:
    if row.ops is None:
        return row.value
    return tuple((_MICRO.get(one.op, one.op), one.key, one.value) for one in row.ops)


# --- Parquet ----------------------------------------------------------------------------


def _read_parquet(path: str, file: BinaryIO, model: str) -> RawHistory:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
    except pyarrow.ArrowException as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"not a whole Parquet file: {reason}", path=path) from None
    names = set(table.column_names)
    for name in _REQUIRED:
        if name not in names:
            raise DataError(f"there is no column {name}", path=path)
    if "session" not in names and "client" in names:
        table = table.rename_columns({"client": "session"})
    for name in (*_WHOLE_COLUMNS, "op", "status", "level", "phase"):
        _check_column(path, table, name)
    count = len(table)

    def column(name: str, default: Any) -> list[Any]:
        values: list[Any] = table.column(name).to_pylist() if name in names else []
        return values or [default] * count

    raw = RawHistory(path, line=range(1, count + 1))
    raw.session = column("session", None) if "session" in table.column_names else [None] * count
    for name in ("op", "status", "invoked_ns"):
        values = column(name, None)
        if None in values:
            row = values.index(None) + 1
            raise DataError(f"the field {name} is missing", path=f"{path}:{row}")
        setattr(raw, name, values)
    for name in ("returned_ns", "sequence", "level", "version", "node", "phase"):
        setattr(raw, name, column(name, None))
    raw.key, raw.value = column("key", ABSENT), column("value", ABSENT)
    raw.expected = column("expected", ABSENT)
    if (table.schema.metadata or {}).get(b"table") == b"operations":
        # A run's own table has identities for values: 0 and null are what was there first.
        raw.initial = PRELOADED
        raw.value = [PRELOADED if value is None else value for value in raw.value]
        raw.expected = [PRELOADED if value is None else value for value in raw.expected]
    if model in {APPEND_LIST, SET, QUEUE}:
        raw.value = [_parsed_list(value) for value in raw.value]
    if "ops" in names:
        ops = [_micro_operations(raw, row, one) for row, one in enumerate(column("ops", None))]
        raw.value = [
            value if given is None else given for value, given in zip(raw.value, ops, strict=True)
        ]
    return raw


def _check_column(path: str, table: Any, name: str) -> None:
    import pyarrow.types

    if name not in table.column_names:
        return
    kind = table.schema.field(name).type
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)
    wanted_whole = name in _WHOLE_COLUMNS
    fits = pyarrow.types.is_integer(kind) if wanted_whole else is_text
    if not (fits or pyarrow.types.is_null(kind)):
        wanted = "integers" if wanted_whole else "text"
        raise DataError(f"column {name} holds {kind}, not {wanted}", path=path)


def _parsed_list(value: Any) -> Any:
    """A list in a column that also holds elements is written as JSON."""
    if isinstance(value, str) and value.startswith("["):
        try:
            return msgspec.json.decode(value)
        except msgspec.DecodeError:
            return value
    return value


def _micro_operations(raw: RawHistory, row: int, given: Any) -> Any:
    if given is None:
        return None
    try:
        listed = msgspec.json.decode(given) if isinstance(given, str) else given
        made = msgspec.convert(listed, list[_MicroOperation])
    except msgspec.MsgspecError as error:
        raise raw.error(row, f"ops: {error}") from None
    return tuple((_MICRO.get(one.op, one.op), one.key, one.value) for one in made)


FORMATS: Final[Mapping[str, Callable[[str, BinaryIO, str], RawHistory]]] = {
    "jsonl": _read_json_lines,
    "parquet": _read_parquet,
    "edn": read_edn,
    "log": read_log,
}
