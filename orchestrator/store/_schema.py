"""What tables are made of: types, columns, and the schemas of files and views."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = 1
VERSION_KEY: Final = b"schema_version"

TEXT = pa.string()
NAME = pa.dictionary(pa.int32(), pa.string())  # text of few different values
WHOLE = pa.int64()
NUMBER = pa.float64()
FLAG = pa.bool_()
TIME = pa.timestamp("us")
TEXTS = pa.list_(pa.field("element", pa.string()))
WHOLES = pa.list_(pa.field("element", pa.int64()))
NUMBERS = pa.list_(pa.field("element", pa.float64()))


@dataclass(frozen=True)
class Column:
    """One column; ``unit`` is empty where there is none."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str

    @property
    def field(self) -> pa.Field:
        """The Arrow field, with unit and meaning as metadata."""
        return pa.field(self.name, self.type, metadata={"unit": self.unit, "meaning": self.meaning})


EXPERIMENT: Final = Column("experiment", TEXT, "", "name of the experiment (from the path)")


@dataclass(frozen=True)
class Table:
    """One table: what a row is, and its columns."""

    name: str
    row: str
    columns: tuple[Column, ...]

    @cached_property
    def schema(self) -> pa.Schema:
        """What a file holds."""
        return pa.schema(
            [column.field for column in self.columns],
            metadata={VERSION_KEY: str(SCHEMA_VERSION).encode(), b"table": self.name.encode()},
        )

    @cached_property
    def view(self) -> pa.Schema:
        """What a reader sees: the file's columns after the partition column."""
        return self.schema.insert(0, EXPERIMENT.field)


def columns_of(*rows: tuple[str, pa.DataType, str, str]) -> tuple[Column, ...]:
    return tuple(Column(*row) for row in rows)
