"""Writing runs and trials as Parquet, and reading them back.

``results`` is a folder or any fsspec address (``s3://bucket/folder``). A file is written under
a temporary name in its own folder (it begins with a dot, which every reader passes over) and
renamed, so what is visible is whole; the row of ``runs`` comes last, and the other tables show
only runs that have it. A file that was damaged later is named in a
:class:`DamagedFileWarning` and left out.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy
import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet

from orchestrator.core.history import PHASE_NAMES, History
from orchestrator.core.machine import KIND_NAMES, OUTCOME_NAMES, TRANSACTION
from orchestrator.core.record import INTERVAL_NS, NodeRecord, RunRecord
from orchestrator.core.units import NS_PER_S
from orchestrator.core.verdict import value_of
from orchestrator.errors import EnvironmentFailure, InputError
from orchestrator.store import place, tables
from orchestrator.store._rows import event_rows, span_rows
from orchestrator.store.tables import SUMMARY_PATHS, block, named, same
from orchestrator.store.text import json_text, plain_name

_counter = itertools.count()


class DamagedFileWarning(UserWarning):
    """A file of the results cannot be read; it is left out."""


# --- rows of a run ----------------------------------------------------------------------


def run_row(
    summary: Mapping[str, Any],
    record: RunRecord,
    config_yaml: str,
    provenance: Mapping[str, Any],
    lost_between_trials_s: float | None,
) -> pa.Table:
    """The row of ``runs``; ``provenance`` is that of :mod:`orchestrator.store.provenance`."""
    values = {name: tables.at(summary, path) for name, path in SUMMARY_PATHS.items()}
    return tables.row(
        tables.RUNS,
        dict(provenance)
        | values
        | {
            "summary": json_text(summary),
            "warmup_s": record.warmup_ns / NS_PER_S,
            "end_s": record.end_ns / NS_PER_S,
            "setup_s": record.setup_ns / NS_PER_S,
            "lost_between_trials_s": lost_between_trials_s,
            "host_busy": record.host_busy,
            "hosts": list(record.hosts),
            "clock_uncertainty_s": record.clock_uncertainty_ns / NS_PER_S,
            "config_yaml": config_yaml,
            "schema_version": tables.SCHEMA_VERSION,
        },
    )


def interval_rows(run_id: str, series: Mapping[str, Any]) -> pa.Table:
    """``series``: columns of ``intervals`` but run_id; ``source`` defaults to clients."""
    count = len(series["start_s"])
    return block(
        tables.INTERVALS,
        {"source": same("clients", count), **series, "run_id": same(run_id, count)},
    )


def latency_rows(run_id: str, latencies: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    """``latencies``: kind -> payload, values_ms and counts."""
    columns: dict[str, Any] = {"kind": pa.array(list(latencies), pa.string())}
    for name in ("payload", "values_ms", "counts"):
        cells = [latency[name] for latency in latencies.values()]
        columns[name] = pa.array(cells, tables.LATENCIES.schema.field(name).type)
    return block(tables.LATENCIES, {**columns, "run_id": same(run_id, len(latencies))})


def _node_rows(run_id: str, node: NodeRecord) -> pa.Table:
    count = len(node.operations)
    slots = node.storage_parallel
    return block(
        tables.NODES,
        {
            "run_id": same(run_id, count),
            "node": numpy.full(count, node.node),
            "host": same(node.host, count),
            "role": same(node.role, count),
            "start_s": numpy.arange(count) * (INTERVAL_NS / NS_PER_S),
            "operations": node.operations,
            "messages": node.messages,
            "refused": node.refused,
            "cancelled": node.cancelled,
            "cpu_utilisation": node.cpu_busy_ns / node.provided_ns,
            "cores": node.provided_ns / INTERVAL_NS,
            "storage_utilisation": node.storage_busy_ns / (INTERVAL_NS * slots)
            if slots
            else pa.nulls(count, tables.NUMBER),
            "network_utilisation": pa.nulls(count, tables.NUMBER)
            if node.network_busy_ns is None
            else node.network_busy_ns / INTERVAL_NS,
            "cache_hits": node.cache_hits,
            "cache_misses": node.cache_misses,
            "cache_evictions": node.cache_evictions,
        },
    )


def node_rows(run_id: str, nodes: Sequence[NodeRecord]) -> pa.Table:
    """Every interval of every node."""
    parts = [_node_rows(run_id, node) for node in nodes]
    return pa.concat_tables(parts) if parts else tables.NODES.schema.empty_table()


def _keys(history: History) -> pa.Array:
    coded = pa.array(history.key).dictionary_encode()
    # Doubling the backslash keeps different keys different once bad bytes are escaped.
    names = [
        history.key_names[index].replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
        for index in coded.dictionary.to_pylist()
    ]
    return pa.DictionaryArray.from_arrays(coded.indices, pa.array(names, pa.string()))


def operation_rows(run_id: str, history: History) -> pa.Table:
    """The history as rows; negative identities, times, versions and nodes are null."""

    def known(column: Any) -> pa.Array:
        return pa.array(column, mask=column < 0)

    count = len(history)
    whole, ops = pa.nulls(count, tables.WHOLE), pa.nulls(count, pa.string())
    expected = history.expected_id if history.values is None else None
    if history.values is not None:
        found = [value_of(history, identity) for identity in history.value_id.tolist()]
        transaction = (history.kind == TRANSACTION).tolist()
        texts = [
            json_text(value) if one else None for value, one in zip(found, transaction, strict=True)
        ]
        ops = pa.array(texts, pa.string())
    return block(
        tables.OPERATIONS,
        {
            "run_id": same(run_id, count),
            "session": history.session,
            "sequence": history.sequence,
            "client": history.client,
            "op": named(history.kind, KIND_NAMES),
            "key": _keys(history),
            "value": known(history.value_id) if history.values is None else whole,
            "expected": whole if expected is None else known(expected),
            "ops": ops,
            "level": pa.nulls(count, tables.NAME),
            "intended_ns": history.intended_ns,
            "invoked_ns": history.invoked_ns,
            "returned_ns": known(history.returned_ns),
            "status": named(history.outcome, OUTCOME_NAMES),
            "version": known(history.version),
            "node": known(history.node),
            "phase": named(history.phase, PHASE_NAMES),
        },
    )


# --- the store --------------------------------------------------------------------------


class StoredFile(NamedTuple):
    """A visible file; ``name`` is the run id (of a trial: study and number)."""

    experiment: str
    name: str
    path: str


class Store:
    """One results folder. Safe for any number of writers and readers at once.

    Raises InputError for an address that cannot be one, EnvironmentFailure where writing fails.
    """

    def __init__(self, results: str | os.PathLike[str]) -> None:
        self.results = os.fspath(results)
        self._files, self._root = place.opened(self.results)
        if self._files.get_file_info(self._root or "/").type == pyarrow.fs.FileType.File:
            raise InputError("is a file", path=self.results, hint="results go to a folder")
        checksums = pyarrow.dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
        self._format = pyarrow.dataset.ParquetFileFormat(default_fragment_scan_options=checksums)

    def exists(self) -> bool:
        """Whether the folder is there."""
        kind = self._files.get_file_info(self._root or "/").type
        return bool(kind == pyarrow.fs.FileType.Directory)

    # --- writing ------------------------------------------------------------------------

    def check_writable(self) -> None:
        """Tell before a run that its results could not be kept; see :mod:`.place`."""
        place.check_writable(self.results)

    def _write(self, table: str, experiment: str, name: str, rows: pa.Table) -> str:
        folder = f"{self._root}/{table}/experiment={experiment}"
        path = f"{folder}/{name}.parquet"
        unique = f"{socket.gethostname()}.{os.getpid()}.{next(_counter)}"
        temporary = f"{folder}/.{name}.{unique}.tmp"
        try:
            self._files.create_dir(folder, recursive=True)
            try:
                with self._files.open_output_stream(temporary) as sink:
                    _write_parquet(rows, sink)
                self._files.move(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    self._files.delete_file(temporary)
                raise
        except OSError as error:
            if place.is_full(error):
                raise place.full(self.results) from error
            reason = error.strerror or str(error)
            raise EnvironmentFailure(f"cannot write: {reason}", path=path) from error
        return path

    def write_run(
        self,
        summary: Mapping[str, Any],
        record: RunRecord,
        *,
        config_yaml: str,
        provenance: Mapping[str, Any],
        intervals: Mapping[str, Any],
        latencies: Mapping[str, Mapping[str, Any]],
        operations: History | None = None,
        lost_between_trials_s: float | None = None,
    ) -> str:
        """Every table of one run; gives the path of its row in ``runs``.

        ``summary``: the result object of the run. ``intervals``: the columns of that table but
        ``run_id`` (and ``source``, which defaults to clients), arrays of equal length; NaN is
        null. ``latencies``: kind -> ``payload``, ``values_ms``, ``counts``. ``operations``: the
        part of the history to keep. Tables without rows get no file. Raises ConfigError for a
        name that cannot be part of a path, ValueError for columns that do not fit.
        """
        run_id = plain_name(str(summary["run_id"]), "run_id")
        experiment = plain_name(str(summary["experiment"]), "experiment")
        parts = {
            "latencies": latency_rows(run_id, latencies),
            "intervals": interval_rows(run_id, intervals),
            "nodes": node_rows(run_id, record.counted),
            "events": event_rows(run_id, record),
            "spans": span_rows(run_id, record),
        }
        if operations is not None:
            parts["operations"] = operation_rows(run_id, operations)
        listed = run_row(summary, record, config_yaml, provenance, lost_between_trials_s)
        written: list[str] = []
        try:
            for table, rows in parts.items():
                if rows.num_rows:
                    written.append(self._write(table, experiment, run_id, rows))
            return self._write("runs", experiment, run_id, listed)
        except BaseException:
            # Nobody would ever read them.
            for path in written:
                with contextlib.suppress(OSError):
                    self._files.delete_file(path)
            raise

    def write_trial(self, experiment: str, trial: Mapping[str, Any]) -> str:
        """One trial, given by the columns of ``trials`` (absent ones are null); gives its path.

        Writing the same study and number again replaces it. ``params`` is a dict.
        """
        if trial["state"] not in tables.TRIAL_STATES:
            raise ValueError(f"trials.state: {trial['state']!r}, not in {tables.TRIAL_STATES}")
        name = f"{plain_name(str(trial['study']), 'study')}-{int(trial['number']):06d}"
        rows = tables.row(tables.TRIALS, trial)
        return self._write("trials", plain_name(experiment, "experiment"), name, rows)

    # --- reading ------------------------------------------------------------------------

    def _listing(self, table: str) -> list[StoredFile]:
        folder = f"{self._root}/{table}"
        selector = pyarrow.fs.FileSelector(folder, recursive=True, allow_not_found=True)
        found = []
        for info in self._files.get_file_info(selector):
            parent = info.path.split("/")[-2]
            name, ending = os.path.splitext(info.base_name)
            if parent.startswith("experiment=") and ending == ".parquet" and name[0] not in "._":
                found.append(StoredFile(parent.removeprefix("experiment="), name, info.path))
        return sorted(found)

    def files(self, table: str, run_id: str | None = None) -> list[StoredFile]:
        """The visible files of a table: those of listed runs (or of one), and every trial."""
        found = [file for file in self._listing(table) if run_id in {None, file.name}]
        if table in {"runs", "trials"}:
            return found
        listed = {(run.experiment, run.name) for run in self._listing("runs")}
        return [file for file in found if (file.experiment, file.name) in listed]

    def dataset(self, table: str, run_id: str | None = None, *, deep: bool = False) -> Any:
        """A lazy Arrow dataset over the sound files of a table, of one run where it is given.

        A file is sound when its footer is; with ``deep`` its pages are read, too. The schema is
        that of the table after ``experiment``, then columns that only newer versions have.
        """
        schema = tables.TABLES[table].view
        fragments = []
        for file in self.files(table, run_id):
            inside = pyarrow.dataset.field("experiment") == file.experiment
            fragment = self._format.make_fragment(
                file.path, self._files, partition_expression=inside
            )
            try:
                stored = fragment.physical_schema
                if deep:
                    fragment.to_table(schema=schema)
            except (pa.ArrowException, OSError) as error:
                message = f"{file.path}: damaged, left out: {str(error).partition(chr(10))[0]}"
                warnings.warn(message, DamagedFileWarning, stacklevel=2)
                continue
            version = int((stored.metadata or {}).get(tables.VERSION_KEY, b"0"))
            if version > tables.SCHEMA_VERSION:
                message = f"{file.path}: has schema version {version}, newer than this program's"
                warnings.warn(message, stacklevel=2)
            for name in stored.names:
                if name not in schema.names:
                    schema = schema.append(stored.field(name))
            fragments.append(fragment)
        return pyarrow.dataset.FileSystemDataset(fragments, schema, self._format, self._files)

    def table(self, table: str, run_id: str | None = None, where: Any = None) -> pa.Table:
        """The rows of a table as an Arrow table; ``where`` is an Arrow filter expression."""
        try:
            return self.dataset(table, run_id).to_table(filter=where)
        except (pa.ArrowException, OSError):  # damage behind a sound footer
            return self.dataset(table, run_id, deep=True).to_table(filter=where)

    def run(self, run_id: str) -> dict[str, Any] | None:
        """The row of ``runs``, None where there is none; see :func:`result` for its object."""
        rows = self.table("runs", run_id).to_pylist()
        return dict(rows[0]) if rows else None

    def runs_by_config_hash(self, config_hash: str) -> list[dict[str, Any]]:
        """Rows of ``runs`` with this configuration, oldest first."""
        where = pyarrow.dataset.field("config_hash") == config_hash
        rows = self.table("runs", where=where).to_pylist()
        return sorted(rows, key=lambda found: (str(found["started_utc"]), found["run_id"]))

    def experiments(self) -> list[str]:
        """Names of the experiments that have runs or trials, sorted."""
        files = [*self._listing("runs"), *self._listing("trials")]
        return sorted({file.experiment for file in files})


def result(run: Mapping[str, Any]) -> dict[str, Any]:
    """The result object that a row of ``runs`` was written from."""
    found: dict[str, Any] = json.loads(run["summary"])
    return found


def _write_parquet(rows: pa.Table, sink: Any) -> None:
    """Dictionaries where the schema has them, differences for other integers."""
    types = {field.name: field.type for field in rows.schema}
    pyarrow.parquet.write_table(
        rows,
        sink,
        compression="zstd",
        compression_level=1,
        use_dictionary=[name for name, kind in types.items() if pa.types.is_dictionary(kind)],
        column_encoding={
            name: "DELTA_BINARY_PACKED" for name, kind in types.items() if kind == tables.WHOLE
        },
        write_page_checksum=True,
    )
