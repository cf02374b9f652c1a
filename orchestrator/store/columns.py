"""Columns of numbers in a CSV file, for the commands that judge a series of figures."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.errors import DataError, InputError, suggestion


def read_columns(path: str, names: Sequence[str]) -> list[list[float]]:
    """The named columns of a CSV file with a header, each of finite numbers; names are compared
    without regard to case and spaces around them. A line without anything in it is passed over.

    Raises InputError where the file cannot be read, and DataError, with the line, for what is wrong
    in it.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            return _columns(csv.reader(file, strict=True), path, names)
    except OSError as error:
        raise InputError(error.strerror or str(error), path=path) from None
    except UnicodeDecodeError:
        raise DataError("is no UTF-8 text", path=path) from None


def _columns(rows: Iterator[list[str]], path: str, names: Sequence[str]) -> list[list[float]]:
    line = 0
    places: list[int] | None = None
    columns: list[list[float]] = [[] for _ in names]
    while True:
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as error:
            raise DataError(f"malformed CSV: {error}", path=f"{path}:{line + 1}") from None
        line = rows.line_num  # type: ignore[attr-defined]
        if not any(cell.strip() for cell in row):
            continue
        if places is None:
            places = _places(row, names, f"{path}:{line}")
            continue
        for column, name, place in zip(columns, names, places, strict=True):
            column.append(_number(row[place] if place < len(row) else "", name, f"{path}:{line}"))
    if places is None:
        raise DataError("is empty", path=path, hint=f"a header with {', '.join(names)}")
    if not columns[0]:
        raise DataError("has a header and no line below it", path=path)
    return columns


def _places(header: Sequence[str], names: Sequence[str], path: str) -> list[int]:
    there = [cell.strip().lower() for cell in header]
    places = []
    for name in names:
        if name.lower() not in there:
            hint = suggestion(name, [cell.strip() for cell in header])
            raise DataError(f"there is no column {name!r}", path=path, hint=hint)
        places.append(there.index(name.lower()))
    return places


def _number(cell: str, name: str, path: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        raise DataError(f"{cell!r} is no number", path=path, hint=f"column {name}") from None
    if not math.isfinite(number):
        raise DataError(f"{cell!r} is not finite", path=path, hint=f"column {name}")
    return number
