"""The tables of a results folder: their columns, and how values become cells.

A table lives in ``<results>/<table>/experiment=<name>/<run_id>.parquet``. ``experiment`` is the
partition column: it is part of the path and of every view, and not of the file. Each field
carries its unit and meaning as metadata; :mod:`orchestrator.store.readme` makes a page of them.

Within one :data:`SCHEMA_VERSION` columns may be added; files that lack one read as null.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy
import pyarrow as pa

from orchestrator.core.record import INTERVAL_NS
from orchestrator.core.spans import PARTS
from orchestrator.core.units import NS_PER_S
from orchestrator.store import _trust
from orchestrator.store._model_columns import MODEL
from orchestrator.store._schema import (
    EXPERIMENT,
    NAME,
    NUMBER,
    SCHEMA_VERSION,
    VERSION_KEY,
    WHOLE,
    Column,
    Table,
)
from orchestrator.store._schema import FLAG as _FLAG
from orchestrator.store._schema import NUMBERS as _NUMBERS
from orchestrator.store._schema import TEXT as _TEXT
from orchestrator.store._schema import TEXTS as _TEXTS
from orchestrator.store._schema import TIME as _TIME
from orchestrator.store._schema import WHOLES as _WHOLES
from orchestrator.store._schema import columns_of as _columns
from orchestrator.store.text import clean, json_text

# What a table is made of is known by way of its table, too.
__all__ = (
    "EXPERIMENT", "NAME", "NUMBER", "SCHEMA_VERSION", "VERSION_KEY", "WHOLE", "Column", "Table",
)  # fmt: skip
TRIAL_STATES: Final = ("complete", "pruned", "infeasible", "failed")


def _latencies() -> list[tuple[str, pa.DataType, str, str]]:
    rows = []
    for kind in ("all", "read", "write"):
        of = "all operations" if kind == "all" else f"{kind}s"
        rows.append((f"latency_ms.{kind}.count", WHOLE, "", f"{of} in the latency figures"))
        for what in ("mean", "p50", "p90", "p99", "p999", "max"):
            meaning = f"{what} latency of {of}, from the intended start"
            rows.append((f"latency_ms.{kind}.{what}", NUMBER, "ms", meaning))
    return rows


# Paths into the result object of a run; the column is the path joined by "_".
_SUMMARY: Final[tuple[tuple[str, pa.DataType, str, str], ...]] = (
    ("run_id", _TEXT, "", "identity of the run"),
    ("config_hash", _TEXT, "", "hash of the resolved configuration"),
    ("runtime", _TEXT, "", "ray or sim"),
    ("clock", _TEXT, "", "real or virtual; the two never share an axis unmarked"),
    ("seed", WHOLE, "", "root seed"),
    ("valid", _FLAG, "", "whether the figures may be believed"),
    ("invalid_reasons", _TEXTS, "", "why not"),
    ("host_limited", _FLAG, "", "a saturated host under measured costs"),
    *_trust.STEADY_STATE,
    ("digest", _TEXT, "", "SHA-256 of history and series; null outside sim"),
    ("offered_ops", NUMBER, "1/s", "intended operations; null where the load sets no rate"),
    ("throughput_ops", NUMBER, "1/s", "OK operations of the measured window"),
    ("throughput_ci95_ops", _NUMBERS, "1/s", "95 % confidence interval [low, high]"),
    ("goodput_ops", NUMBER, "1/s", "OK operations within the latency bound of the SLO"),
    *_latencies(),
    ("latency_p99_ci95_ms", _NUMBERS, "ms", "95 % confidence interval [low, high]"),
    *_trust.LATENCY_INTERVALS,
    *_trust.EFFECTIVE_SAMPLES,
    ("uncorrected_p99_ms", NUMBER, "ms", "p99 blind to waiting before the send"),
    ("outcomes.ok", WHOLE, "", "operations answered"),
    ("outcomes.fail", WHOLE, "", "operations that definitely did not happen"),
    ("outcomes.unknown", WHOLE, "", "operations that may have happened"),
    ("compare_and_set.compared", WHOLE, "", "compare-and-sets that were answered; null: none was"),
    ("compare_and_set.unmatched", WHOLE, "", "of these, what found another value than expected"),
    ("compare_and_set.unmatched_share", NUMBER, "share", "their share"),
    ("consistency.claimed", _TEXT, "", "level that protocol and parameters claim"),
    ("consistency.verdict", _TEXT, "", "valid, invalid or unknown"),
    ("consistency.strongest", _TEXTS, "", "strongest levels that the history passed"),
    ("consistency.operations_checked", WHOLE, "", "operations in the checked history"),
    ("consistency.witness", _TEXT, "", "JSON: operations that break the claim"),
    ("consistency.staleness_ms.p50", NUMBER, "ms", "median age of what reads returned"),
    ("consistency.staleness_ms.p99", NUMBER, "ms", "p99 age of what reads returned"),
    ("consistency.staleness_versions.p50", NUMBER, "", "median of versions that reads were behind"),
    ("consistency.staleness_versions.p99", NUMBER, "", "p99 of versions that reads were behind"),
    ("availability", NUMBER, "share", "OK share of intended operations"),
    ("faults", _TEXT, "", "JSON: faults with detection and recovery"),
    ("resilience.strikes", WHOLE, "", "how often faults struck; null without faults"),
    ("resilience.recovered", WHOLE, "", "after how many of them goodput came back and stayed"),
    ("resilience.recovery_unknown", WHOLE, "", "after how many of them nobody can tell"),
    ("resilience.recovered_s.p50", NUMBER, "s", "median time until it did"),
    ("resilience.recovered_s.max", NUMBER, "s", "longest time until it did"),
    ("resilience.durability", _TEXT, "", "valid (all acknowledged is there), invalid or unknown"),
    ("resilience.lost_acknowledged_writes", WHOLE, "", "null where nobody can tell"),
    ("resilience.lost_is_least", _FLAG, "", "whether more may be lost than that"),
    ("resilience.unread_keys", WHOLE, "", "keys with acknowledged changes not read in the end"),
    ("resilience.operations_lost", WHOLE, "", "operations that failed or stayed unknown"),
    ("resilience.availability", NUMBER, "share", "OK share of intended operations"),
    ("resilience.goodput_availability", NUMBER, "share", "good share of intended operations"),
    ("resilience.slo_minutes_burnt", NUMBER, "min", "time in which too few operations were good"),
    ("resilience.good_within_ms", NUMBER, "ms", "what counted as good"),
    ("overload.refused", WHOLE, "", "operations that nodes turned away"),
    ("overload.cancelled", WHOLE, "", "copies dropped since another node began first"),
    ("overload.answers_in_vain", WHOLE, "", "answers that nobody waited for any more"),
    ("overload.attempts_per_operation", NUMBER, "", "how often clients sent an operation"),
    ("overload.metastable", _TEXT, "", "JSON: the collapse that outlived its cause"),
    ("scaling.actions", WHOLE, "", "how often nodes' cores changed; null without an autoscaler"),
    ("scaling.mean_cores", NUMBER, "", "in service, of all nodes together"),
    ("scaling.most_cores", WHOLE, "", "in service at once, of all nodes together"),
    ("links.asked_ms", NUMBER, "ms", "mean that links were asked to take, one way; null in sim"),
    ("links.got_ms", NUMBER, "ms", "mean that probes took before the load, one way"),
    ("links.lead_ms", NUMBER, "ms", "mean that came off what they were asked, as they take it"),
    ("links.excess_p50_ms", NUMBER, "ms", "median of what they took beyond what was asked"),
    *_trust.HARNESS,
    ("links.as_asked", _FLAG, "", "whether every link took about as long as asked"),
    ("cache.hit_ratio", NUMBER, "share", "hits of all cache accesses, all nodes"),
    ("cache.client_hit_ratio", NUMBER, "share", "hits of all look-ups in caches of clients"),
    ("cache.evictions", WHOLE, "", "entries that left caches for want of room, all nodes"),
    ("balance.jain", NUMBER, "", "Jain's fairness index of operations over nodes"),
    ("balance.max_over_mean", NUMBER, "", "busiest node over the mean node"),
    ("balance.ejections", NUMBER, "", "how often clients left a node out; null: they judge none"),
    ("shards.by_shard", _TEXT, "", "JSON: operations and latency by shard; null: there is one"),
    ("shards.hot", _WHOLES, "", "shards that take far more than their fair share"),
    ("shards.max_over_fair", NUMBER, "", "busiest shard over its fair share"),
    ("shards.jain", NUMBER, "", "Jain's fairness index of operations over shards"),
    ("moves", _TEXT, "", "JSON: what operators' commands moved, how long it took, what it cost"),
    ("bottleneck.resource", _TEXT, "", "the busiest resource"),
    ("bottleneck.utilisation", NUMBER, "share", "its busy share"),
    ("bottleneck.saturates_at_ops", NUMBER, "1/s", "throughput over that share: where it is full"),
    ("utilisations", _TEXT, "", "JSON: resource to busy share, the busiest first"),
    *(
        (f"latency_breakdown_ms.{part}", NUMBER, "ms", f"mean time of sampled operations in {part}")
        for part in PARTS
    ),
    ("latency_breakdown", _TEXT, "", "JSON: parts of the latency by kind and in the tail"),
    ("generator.lag_p99_ms", NUMBER, "ms", "how late the generator sent"),
    ("generator.cpu", NUMBER, "share", "CPU share of the busiest generator"),
    ("generator.operations_per_request", NUMBER, "", "mean; null: each travels by itself"),
    *_trust.GENERATOR,
    ("cost", NUMBER, "price/h", "nodes x (price + cores x price + memory x price)"),
    ("slo.met", _FLAG, "", "whether the SLO was met; null without one"),
    ("slo.violations", _TEXTS, "", "parts of the SLO that were missed"),
    *_trust.PRECISION,
    *MODEL,
    ("placement", _TEXT, "", "JSON: which host carried which node and client"),
    ("results", _TEXT, "", "results folder that the run was written to"),
)
SUMMARY_PATHS: Final = {
    path.replace(".", "_"): tuple(path.split(".")) for path, _, _, _ in _SUMMARY
}

_RUN_ID = ("run_id", NAME, "", "the run")

RUNS = Table(
    "runs",
    "a run; written last, so a run that is listed is whole",
    _columns(
        *((path.replace(".", "_"), kind, unit, text) for path, kind, unit, text in _SUMMARY),
        ("summary", _TEXT, "", "JSON: the whole result object, as printed by run --json"),
        ("warmup_s", NUMBER, "s", "length of the warm-up, from the start of the load"),
        ("end_s", NUMBER, "s", "end of the measured window, from the start of the load"),
        ("setup_s", NUMBER, "s", "from asking for the run to its first intended start"),
        ("lost_between_trials_s", NUMBER, "s", "from the last return of the trial before"),
        ("host_busy", NUMBER, "share", "CPU in use on the busiest host; null in sim"),
        ("hosts", _TEXTS, "", "hosts that took part"),
        ("clock_uncertainty_s", NUMBER, "s", "error of comparing times of two hosts"),
        ("config_yaml", _TEXT, "", "the resolved configuration"),
        ("git_commit", _TEXT, "", "commit of the working directory, -dirty where changed"),
        ("package_versions", _TEXT, "", "JSON: versions of the main dependencies"),
        ("host", _TEXT, "", "host that drove the run"),
        ("cpu_model", _TEXT, "", "its processor"),
        ("cpu_count", WHOLE, "", "processors that the driver may use"),
        ("python", _TEXT, "", "version of Python"),
        ("ray_nodes", WHOLE, "", "machines of the Ray cluster; null in sim"),
        ("ray_cpus", NUMBER, "", "CPUs of the Ray cluster; null in sim"),
        ("started_utc", _TIME, "UTC", "when the run was started"),
        ("schema_version", WHOLE, "", "version of this schema"),
    ),
)
INTERVALS = Table(
    "intervals",
    "an interval of a run, as its clients saw it",
    _columns(
        _RUN_ID,
        ("source", NAME, "", "who counted: clients"),
        ("start_s", NUMBER, "s", "from the start of the load"),
        ("duration_s", NUMBER, "s", "length of the interval"),
        ("intended", WHOLE, "", "operations whose intended start lies in it"),
        ("ok", WHOLE, "", "of these, answered"),
        ("fail", WHOLE, "", "of these, definitely not done"),
        ("unknown", WHOLE, "", "of these, perhaps done"),
        ("throughput_ops", NUMBER, "1/s", "OK operations"),
        ("goodput_ops", NUMBER, "1/s", "OK operations within the latency bound of the SLO"),
        ("p50_ms", NUMBER, "ms", "median latency; null where nothing was done"),
        ("p99_ms", NUMBER, "ms", "p99 latency; null where nothing was done"),
        ("phase", NAME, "", "warmup or run"),
        ("jain", NUMBER, "", "Jain's index of operations over nodes; null where none was done"),
        ("max_over_mean", NUMBER, "", "busiest node over the mean node"),
    ),
)
LATENCIES = Table(
    "latencies",
    "a latency distribution of a run's measured window",
    _columns(
        _RUN_ID,
        ("kind", NAME, "", "all, read or write"),
        ("payload", _TEXT, "", "HdrHistogram, compressed, base64"),
        ("values_ms", _NUMBERS, "ms", "latencies, ascending"),
        ("counts", _WHOLES, "", "operations at each of values_ms"),
    ),
)
NODES = Table(
    "nodes",
    "an interval of one node",
    _columns(
        _RUN_ID,
        ("node", WHOLE, "", "index of the node"),
        ("host", NAME, "", "where it ran"),
        ("role", NAME, "", "its role at the end of the run"),
        ("start_s", NUMBER, "s", f"from the start of the load; {INTERVAL_NS / NS_PER_S:g} s long"),
        ("operations", WHOLE, "", "operations of clients handled"),
        ("messages", WHOLE, "", "messages received from other nodes"),
        ("refused", WHOLE, "", "of the operations, those turned away"),
        ("cancelled", WHOLE, "", "of the operations, copies that another node began first"),
        ("cpu_utilisation", NUMBER, "share", "modelled CPU in use, over its cores"),
        ("cores", NUMBER, "", "mean of the cores in service"),
        ("storage_utilisation", NUMBER, "share", "null where parallel requests have no limit"),
        ("network_utilisation", NUMBER, "share", "busiest link out; null: bandwidth has no limit"),
        ("cache_hits", WHOLE, "", "cache accesses that found their entry"),
        ("cache_misses", WHOLE, "", "cache accesses that did not"),
        ("cache_evictions", WHOLE, "", "entries that left the cache for want of room"),
    ),
)
EVENTS = Table(
    "events",
    "something that happened once: a role, a lost process, a restart",
    _columns(
        _RUN_ID,
        ("at_s", NUMBER, "s", "from the start of the load"),
        ("node", WHOLE, "", "index of the node"),
        ("kind", NAME, "", "what"),
        ("detail", _TEXT, "", "in words"),
    ),
)
SPANS = Table(
    "spans",
    "a sampled operation that was answered, with the parts that its latency is made of",
    _columns(
        _RUN_ID,
        ("session", WHOLE, "", "sequential process, as in operations"),
        ("sequence", WHOLE, "", "number within the session"),
        ("op", NAME, "", "kind of operation: read, write, scan, ..."),
        ("intended_ns", WHOLE, "ns", "when the schedule wanted it to start"),
        *((f"{part}_ns", WHOLE, "ns", meaning) for part, meaning in PARTS.items()),
        ("total_ns", WHOLE, "ns", "its latency from the intended start: the sum of the parts"),
    ),
)
OPERATIONS = Table(
    "operations",
    "an operation (present when record.operations asks for it)",
    _columns(
        _RUN_ID,
        ("session", WHOLE, "", "sequential process"),
        ("sequence", WHOLE, "", "number within the session"),
        ("client", pa.int16(), "", "load generator"),
        ("op", NAME, "", "kind of operation: read, write, scan, ..."),
        ("key", NAME, "", "UTF-8; a backslash is doubled, other bytes are \\x.."),
        ("value", WHOLE, "", "session << 32 | sequence of its write; 0: preloaded; null: nothing"),
        ("expected", WHOLE, "", "what a compare-and-set expected, as value; null: nothing"),
        ("ops", _TEXT, "", "JSON: [op, key, value] of each part of a transaction; null: none"),
        ("level", NAME, "", "level asked of this operation; null: that of the run"),
        ("intended_ns", WHOLE, "ns", "when the schedule wanted it to start"),
        ("invoked_ns", WHOLE, "ns", "when it started"),
        ("returned_ns", WHOLE, "ns", "when its answer came; null where none came"),
        ("status", NAME, "", "ok, fail or unknown"),
        ("version", WHOLE, "", "order of the state that the answer is from"),
        ("node", pa.int16(), "", "node that answered; null where none did"),
        ("phase", NAME, "", "warmup or run"),
    ),
)
TRIALS = Table(
    "trials",
    "a trial of a study; its file is <study>-<number>.parquet",
    _columns(
        ("study", _TEXT, "", "name of the study"),
        ("number", WHOLE, "", "number of the trial, from 0"),
        ("is_default", _FLAG, "", "whether it is the variant that the config itself describes"),
        ("state", _TEXT, "", ", ".join(TRIAL_STATES)),
        ("params", _TEXT, "", "JSON: config path to value"),
        ("value", NUMBER, "", "the objective, in its metric's unit; null: not measured"),
        ("values", _NUMBERS, "", "all objectives, where a study has several"),
        ("constraints", _NUMBERS, "", "constraint values; at most 0 where met"),
        ("run_id", _TEXT, "", "its run; null where it was refused before it ran"),
        ("reason", _TEXT, "", "why it is pruned, infeasible or failed"),
        ("started_utc", _TIME, "UTC", "when the trial was started"),
        ("seconds", NUMBER, "s", "from its start to its end"),
        ("overhead_s", NUMBER, "s", "of these, not spent under load"),
        ("lost_between_trials_s", NUMBER, "s", "last return before to first intended start"),
        ("lost_runs", WHOLE, "", "runs of it that lost a process or a host, and were made again"),
    ),
)
_ALL: Final = (RUNS, INTERVALS, LATENCIES, NODES, EVENTS, SPANS, OPERATIONS, TRIALS)
TABLES: Final = {table.name: table for table in _ALL}


# --- cells ------------------------------------------------------------------------------


def at(value: Any, path: Sequence[str]) -> Any:
    """What lies at ``path`` within nested dicts; None where a part of it is missing."""
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _cell(kind: pa.DataType, value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if kind == WHOLE and value != int(value):  # Arrow would drop the fraction
        raise ValueError("not a whole number")
    if kind == _TEXT:
        return clean(value) if isinstance(value, str) else json_text(value)
    if kind == _TEXTS:
        return [clean(item) if isinstance(item, str) else json_text(item) for item in value]
    if kind == _TIME:
        moment = datetime.datetime.fromisoformat(value) if isinstance(value, str) else value
        return moment.astimezone(datetime.UTC).replace(tzinfo=None) if moment.tzinfo else moment
    return value


def row(table: Table, values: Mapping[str, Any]) -> pa.Table:
    """One row; columns without a value are null, values without a column are refused."""
    unknown = [name for name in values if name not in table.schema.names]
    if unknown:
        raise ValueError(f"{table.name} has no column {', '.join(unknown)}")
    arrays = []
    for column in table.columns:
        value = values.get(column.name)
        try:
            arrays.append(pa.array([_cell(column.type, value)], column.type))
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise ValueError(f"{table.name}.{column.name}: {value!r}: {error}") from error
    return pa.Table.from_arrays(arrays, schema=table.schema)


def block(table: Table, columns: Mapping[str, Any]) -> pa.Table:
    """Columns of equal length; exactly those of the table."""
    names = set(table.schema.names)
    if names != set(columns):
        raise ValueError(f"{table.name}: columns that do not fit: {sorted(names ^ set(columns))}")
    arrays = []
    for column in table.columns:
        values = columns[column.name]
        if not isinstance(values, pa.Array):
            values = pa.array(values, from_pandas=True)  # NaN is null
        try:
            arrays.append(values if values.type == column.type else values.cast(column.type))
        except pa.ArrowException as error:
            raise ValueError(f"{table.name}.{column.name}: {error}") from error
    return pa.Table.from_arrays(arrays, schema=table.schema)


def named(index: Any, names: Sequence[str]) -> pa.Array:
    """Names by index, without a string per row."""
    indices = pa.array(numpy.asarray(index).astype(numpy.int32))
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string()))


def same(text: str, count: int) -> pa.Array:
    return named(numpy.zeros(count, numpy.int32), [clean(text)])


# --- documentation ----------------------------------------------------------------------
