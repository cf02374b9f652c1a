"""SQL over a results folder, by DuckDB, on Arrow views of its tables.

The views are made first; then the connection of :func:`query` loses all access to files and
the network and its settings are locked, so a statement can neither read anything else nor write
anything anywhere.
"""

from __future__ import annotations

import datetime
import decimal
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from typing import Any, Final

import duckdb

from orchestrator.errors import EnvironmentFailure, InputError
from orchestrator.store.parquet import Store
from orchestrator.store.tables import TABLES

_OUR_TROUBLE: Final = (
    duckdb.FatalException,
    duckdb.InternalException,
    duckdb.IOException,
    duckdb.OutOfMemoryException,
)
# Harmless, for they could change only what ends with the query, but not what was wanted.
_WRITING: Final = ("ALTER", "CREATE", "DELETE", "DROP", "INSERT", "MERGE_INTO", "UPDATE")
_ONLY_READ: Final = "queries only read the results"
_FORBIDDEN: Final = re.compile(r"disabled by configuration|disabled through|has been locked")


def relation(results: str | os.PathLike[str]) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection in memory with a view of every table.

    The views are ``runs``, ``intervals``, ``latencies``, ``nodes``, ``events``, ``operations``
    and ``trials``; a table without files is an empty view. Unlike :func:`query` the connection
    is not locked: its owner may export from it. Raises InputError where there is no such
    folder.
    """
    return _connect(_store(results), TABLES, deep=False)


def query(results: str | os.PathLike[str], sql: str) -> tuple[list[str], list[list[Any]]]:
    """(names of the columns, rows) of a statement; it cannot change anything.

    Values are None, bool, int, float, str, and lists and dicts of these; times are text in
    ISO 8601. Raises InputError with DuckDB's message for SQL that is wrong or not allowed,
    and where there is no such folder.
    """
    store = _store(results)
    needed = _named_in(sql)
    try:
        return _fetch(_connect(store, needed, deep=False), sql)
    except duckdb.InvalidInputException:
        # Damaged pages show while rows are read. Look for them; a wrong statement fails again.
        return _translated(store, needed, sql)
    except duckdb.Error as error:
        raise _explained(error) from error


def _translated(store: Store, needed: Iterable[str], sql: str) -> tuple[list[str], list[list[Any]]]:
    try:
        return _fetch(_connect(store, needed, deep=True), sql)
    except duckdb.Error as error:
        raise _explained(error) from error


def _store(results: str | os.PathLike[str]) -> Store:
    store = Store(results)
    if not store.exists():
        raise InputError("no results here", path=store.results, hint="run an experiment first")
    return store


def _named_in(sql: str) -> list[str]:
    """The tables that a statement can touch; reading the others' footers would be wasted."""
    if re.search("query", sql, re.IGNORECASE):  # query_table() takes a name that is computed
        return list(TABLES)
    return [name for name in TABLES if re.search(name, sql, re.IGNORECASE)]


def _connect(store: Store, needed: Iterable[str], *, deep: bool) -> duckdb.DuckDBPyConnection:
    # What does not fit into memory is for this user's eyes only, and goes with the connection.
    spill = tempfile.mkdtemp(prefix="archbench-query-")
    connection = duckdb.connect(config={"temp_directory": spill})
    weakref.finalize(connection, shutil.rmtree, spill, ignore_errors=True)
    for name, table in TABLES.items():
        rows = store.dataset(name, deep=deep) if name in needed else table.view.empty_table()
        connection.register(name, rows)
    return connection


def _fetch(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[list[str], list[list[Any]]]:
    with connection:
        connection.execute("SET enable_external_access = false")
        connection.execute("SET python_enable_replacements = false")
        connection.execute("SET autoinstall_known_extensions = false")
        connection.execute("SET autoload_known_extensions = false")
        connection.execute("SET lock_configuration = true")
        statements = connection.extract_statements(sql)
        if not statements:
            raise InputError("no statement", path="query", hint="try: SELECT * FROM runs")
        kind = statements[-1].type.name
        if kind in _WRITING:
            raise InputError(f"{kind} is not allowed", path="query", hint=_ONLY_READ)
        found: Any = connection.sql(sql)
        if found is None:  # a statement that gives no rows
            return [], []
        # By way of Arrow: DuckDB itself needs another package for times with a zone.
        table = found.to_arrow_table()
        columns = [[_plain(value) for value in column.to_pylist()] for column in table.columns]
        return list(table.column_names), [list(row) for row in zip(*columns, strict=True)]


def _explained(error: duckdb.Error) -> InputError | EnvironmentFailure:
    message = str(error).strip()
    if isinstance(error, _OUR_TROUBLE):
        return EnvironmentFailure(message, path="query")
    hint = _ONLY_READ if _FORBIDDEN.search(message) else None
    return InputError(message, path="query", hint=hint)


def _plain(value: Any) -> Any:
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
