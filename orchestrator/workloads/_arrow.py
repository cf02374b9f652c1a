"""What traces need of Arrow: the one module among the plug-ins that may import it, and late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy
from numpy.typing import NDArray

from orchestrator.errors import DataError


@contextmanager
def _told(what: str, path: str) -> Iterator[None]:
    """Turns what Arrow says of a file into DataError."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"not a whole {what} file: {reason}", path=path) from None


def decompressed(file: BinaryIO, portion: int, path: str) -> Iterator[bytes]:
    """What zstd had compressed, in portions of that many bytes at most."""
    import pyarrow

    with _told("zstd", path):
        stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd")
        while data := stream.read(portion):
            yield data


def opened_parquet(file: BinaryIO, path: str) -> tuple[Any, list[str]]:
    """A Parquet file, its footer read, and the names of its columns."""
    import pyarrow.parquet

    with _told("Parquet", path):
        source = pyarrow.parquet.ParquetFile(file)
        return source, source.schema_arrow.names


def rows_of(source: Any, names: Sequence[str], limit: int | None, path: str) -> Any:
    """A table of the columns ``names`` and the first ``limit`` rows, reading little more."""
    import pyarrow

    most = source.metadata.num_rows if limit is None else limit
    batches, count = [], 0
    with _told("Parquet", path):
        for batch in source.iter_batches(min(1 << 16, max(1, most)), columns=list(names)):
            batches.append(batch)
            count += len(batch)
            if count >= most:
                break
        if not batches:
            return source.schema_arrow.empty_table().select(list(names))
        return pyarrow.Table.from_batches(batches).slice(0, most)


def decoded(column: Any) -> Any:
    """A column without a dictionary of its own, which may hold values twice or in vain."""
    import pyarrow

    is_encoded = pyarrow.types.is_dictionary(column.type)
    return column.cast(column.type.value_type) if is_encoded else column


def first_null(column: Any) -> int | None:
    """Index of the first null of a column."""
    return int(column.is_null().to_numpy().argmax()) if column.null_count else None


def distinct(column: Any) -> tuple[NDArray[numpy.int64], list[bytes]] | None:
    """(index into the values, shape (n,); values as they first appear) of text, bytes or whole
    numbers, the last as decimal digits. None for a column of anything else.
    """
    import pyarrow

    is_whole = pyarrow.types.is_integer(column.type)
    if not is_whole:
        if not _is_text(column.type):
            return None
        column = column.cast(pyarrow.large_binary())  # room for more than 2 GiB of text
    encoded = column.combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_pylist()
    names = [b"%d" % value for value in values] if is_whole else values
    return encoded.indices.to_numpy().astype(numpy.int64), names


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    texts = (types.is_string, types.is_large_string)
    binaries = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary)
    return any(fits(kind) for fits in (*texts, *binaries))


def whole_numbers(column: Any) -> NDArray[Any] | None:
    """A column of integers of any width; None for any other."""
    import pyarrow

    return column.to_numpy() if pyarrow.types.is_integer(column.type) else None


def time_text(column: Any, index: int) -> str:
    """One time as a message quotes it: Python has no date for many a timestamp."""
    import pyarrow

    if pyarrow.types.is_timestamp(column.type):
        since_1970 = column.slice(index, 1).cast(pyarrow.int64())[0].as_py()
        return f"{since_1970} {column.type.unit} since 1970"
    return str(column[index].as_py())


def times_ns(column: Any, unit_ns: int, most_ns: int) -> NDArray[numpy.int64] | int | None:
    """A column of timestamps, or of numbers in a unit, as nanoseconds.

    An int is the index of a time that is not finite or beyond ``most_ns``; None stands for a
    column that holds no times.
    """
    import pyarrow

    types = pyarrow.types
    if types.is_timestamp(column.type):
        unit_ns = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[column.type.unit]
        column = column.cast(pyarrow.int64())
    if types.is_floating(column.type):
        values = column.to_numpy().astype(numpy.float64)
        wrong = ~(numpy.abs(values) <= most_ns / unit_ns)
        scaled = numpy.rint(numpy.where(wrong, 0.0, values) * unit_ns).astype(numpy.int64)
    else:
        whole = whole_numbers(column)
        if whole is None:
            return None
        most = most_ns // unit_ns
        wrong = whole > most if whole.dtype.kind == "u" else (whole > most) | (whole < -most)
        scaled = numpy.where(wrong, 0, whole).astype(numpy.int64) * unit_ns
    return int(wrong.argmax()) if wrong.any() else scaled
