"""Runs and trials on disk: what is written is read back whole, what is damaged is named."""

from __future__ import annotations

import datetime
import math
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pyarrow as pa
import pyarrow.parquet
import pytest
from made_records import sampling_generator

from orchestrator.core.history import COLUMNS, DTYPES, History, value_id
from orchestrator.core.machine import OK, READ, UNKNOWN, WRITE
from orchestrator.core.record import INTERVAL_NS, EventRecord, NodeRecord, RunRecord
from orchestrator.errors import ConfigError, EnvironmentFailure, InputError
from orchestrator.store.parquet import Store, result
from orchestrator.store.provenance import PACKAGES, collect, git_commit
from orchestrator.store.readme import readme
from orchestrator.store.tables import RUNS, SUMMARY_PATHS, TABLES

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = [
    "it's; DROP TABLE runs; --",
    'a "quoted" name',
    "line\nline\r\nline\ttab\x00nul",
    "<script>alert('x')</script>",
    "'\"\\`$(rm -rf x)%s{}",
    "\u202eright to left \U0001f980",
    "lone \udcff surrogate",
    "x" * 1_000_000,
]


def history(*rows: tuple[int, int, int, int, int, int, int], keys: list[bytes]) -> History:
    """Rows of session, sequence, kind, key, value_id, returned_ns and outcome."""
    columns: dict[str, Any] = {name: numpy.zeros(len(rows), DTYPES[name]) for name in COLUMNS}
    given = ("session", "sequence", "kind", "key", "value_id", "returned_ns", "outcome")
    for name, values in zip(given, zip(*rows, strict=True), strict=True):
        columns[name] = numpy.array(values, DTYPES[name])
    columns["invoked_ns"] = numpy.arange(len(rows), dtype=numpy.int64) * 10
    columns["node"][columns["returned_ns"] < 0] = -1
    columns["phase"][1:] = 1
    return History(**columns, key_names=keys)


def small_history() -> History:
    return history(
        (1, 1, WRITE, 0, value_id(1, 1), 25, OK),
        (2, 1, READ, 0, value_id(1, 1), 31, OK),
        (2, 2, READ, 1, -1, -1, UNKNOWN),
        (3, 1, READ, 2, 0, 50, OK),
        keys=[b"plain", b"\xff\x00", b"\\xff\\x00"],
    )


def record(**changes: Any) -> RunRecord:
    """Two nodes of three intervals, the second without a limit of its storage."""
    busy = numpy.array([0, 50_000_000, 100_000_000], numpy.int64)
    counts, provided = numpy.arange(3, dtype=numpy.int64), numpy.full(3, 2 * INTERVAL_NS)
    four, caching = (counts,) * 4, (counts,) * 3
    node = NodeRecord(0, "h", "leader", 2, 1, provided, *four, busy, busy, *caching, 0, "")
    other = replace(node, node=1, role="follower", cores=1, storage_parallel=None)
    base = RunRecord(
        runtime="sim",
        clock="virtual",
        history=small_history(),
        nodes=(node, replace(other, provided_ns=provided // 2)),
        clients=(sampling_generator(),),
        events=(EventRecord(1_500_000_000, 0, "role", "leader"),),
        warmup_ns=1_000_000_000,
        end_ns=3_000_000_000,
        offered_ops=None,
        setup_ns=250_000_000,
    )
    return replace(base, **changes)


def intervals(count: int = 3) -> dict[str, Any]:
    whole, names = numpy.arange(count), ("intended", "ok", "fail", "unknown")
    return {
        "start_s": whole * 0.1,
        "duration_s": numpy.full(count, 0.1),
        **dict.fromkeys(names, whole),
        "throughput_ops": whole * 10.0,
        "goodput_ops": whole * 10.0,
        "p50_ms": numpy.where(whole == 0, numpy.nan, 1.5),
        "p99_ms": numpy.where(whole == 0, numpy.nan, 2.5),
        "phase": ["warmup"] + ["run"] * (count - 1),
        "jain": numpy.full(count, 0.75),
        "max_over_mean": numpy.full(count, 1.5),
    }


LATENCIES = {
    "all": {"payload": "HISTFAAA", "values_ms": numpy.array([1.0, 2.0]), "counts": [3, 1]},
    "read": {"payload": "HISTFAAB", "values_ms": [1.0], "counts": [3]},
}


def summary(run_id: str = "r1", experiment: str = "kv", **changes: Any) -> dict[str, Any]:
    kinds = {"count": 4, "mean": 1.25, "p50": 1.0, "p90": 2.0, "p99": 2.0, "p999": 2.0, "max": 2.0}
    base: dict[str, Any] = {
        "run_id": run_id,
        "experiment": experiment,
        "config_hash": "c0ffee",
        "runtime": "sim",
        "clock": "virtual",
        "seed": 2**63 - 1,
        "valid": True,
        "invalid_reasons": [],
        "throughput_ops": numpy.float64(1998.25),
        "throughput_ci95_ops": [1990.0, 2004.5],
        "latency_ms": {"all": kinds, "read": kinds, "write": {}},
        "outcomes": {"ok": numpy.int64(3), "fail": 0, "unknown": 1},
        "consistency": {"claimed": "linearizable", "strongest": ["eventual"], "witness": None},
        "faults": [{"name": "crash", "at_s": 3.0}],
        "cache": None,
        "slo": {"met": None, "violations": ["p99"]},
    }
    return base | changes


def write(store: Store, run: dict[str, Any], **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "config_yaml": "seed: 1\n",
        "provenance": {"host": "h", "started_utc": "2026-02-03T04:05:06.789+01:00"},
        "intervals": intervals(),
        "latencies": LATENCIES,
        "operations": small_history(),
    }
    return store.write_run(run, changes.pop("record", record()), **(arguments | changes))


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "local":
        yield Store(tmp_path / 'it\'s a "folder"; results')
        return
    import fsspec  # type: ignore[import-untyped]

    memory = fsspec.filesystem("memory")
    yield Store(f"memory://{tmp_path.name}/results")
    memory.rm(f"/{tmp_path.name}", recursive=True)


# --- writing and reading ----------------------------------------------------------------


def test_a_run_comes_back(store: Store) -> None:
    write(store, summary(uncorrected_p99_ms=math.nan), lost_between_trials_s=0.125)
    row = store.run("r1")
    assert row is not None
    assert list(row) == ["experiment", *RUNS.schema.names]
    expected = {
        "experiment": "kv",
        "seed": 2**63 - 1,
        "throughput_ops": 1998.25,
        "throughput_ci95_ops": [1990.0, 2004.5],
        "latency_ms_all_p99": 2.0,
        "latency_ms_write_p99": None,
        "outcomes_ok": 3,
        "consistency_strongest": ["eventual"],
        "uncorrected_p99_ms": None,
        "faults": '[{"name": "crash", "at_s": 3.0}]',
        "cache_hit_ratio": None,
        "slo_met": None,
        "slo_violations": ["p99"],
        "warmup_s": 1.0,
        "end_s": 3.0,
        "setup_s": 0.25,
        "lost_between_trials_s": 0.125,
        "host_busy": None,
        "started_utc": datetime.datetime(2026, 2, 3, 3, 5, 6, 789000),
        "schema_version": 1,
    }
    assert {name: row[name] for name in expected} == expected
    assert result(row) == summary(uncorrected_p99_ms=None)


def test_every_table_of_a_run_comes_back(store: Store) -> None:
    write(store, summary())
    nodes = store.table("nodes", "r1").to_pydict()
    assert nodes["cpu_utilisation"] == [0.0, 0.25, 0.5, 0.0, 0.5, 1.0]
    assert nodes["storage_utilisation"] == [0.0, 0.5, 1.0, None, None, None]
    assert nodes["role"] == ["leader"] * 3 + ["follower"] * 3
    assert nodes["start_s"] == pytest.approx([0.0, 0.1, 0.2] * 2)
    series = store.table("intervals", "r1").to_pydict()
    assert series["p99_ms"] == [None, 2.5, 2.5]
    assert series["source"] == ["clients"] * 3
    assert series["phase"] == ["warmup", "run", "run"]
    latencies = store.table("latencies").to_pylist()
    assert [row["kind"] for row in latencies] == ["all", "read"]
    assert (latencies[0]["values_ms"], latencies[0]["counts"]) == ([1.0, 2.0], [3, 1])
    [event] = store.table("events", "r1").to_pylist()
    assert (event["at_s"], event["kind"], event["detail"]) == (1.5, "role", "leader")


def test_operations_follow_the_history_format(store: Store) -> None:
    write(store, summary())
    rows = store.table("operations", "r1").to_pylist()
    assert rows[0] == {
        "experiment": "kv",
        "run_id": "r1",
        "session": 1,
        "sequence": 1,
        "client": 0,
        "op": "write",
        "key": "plain",
        "value": value_id(1, 1),
        "expected": None,
        "ops": None,
        "level": None,
        "intended_ns": 0,
        "invoked_ns": 0,
        "returned_ns": 25,
        "status": "ok",
        "version": 0,
        "node": 0,
        "phase": "warmup",
    }
    assert [row["value"] for row in rows] == [value_id(1, 1), value_id(1, 1), None, 0]
    assert [row["returned_ns"] for row in rows] == [25, 31, None, 50]
    assert [row["node"] for row in rows] == [0, 0, None, 0]
    assert [row["status"] for row in rows] == ["ok", "ok", "unknown", "ok"]
    # Bytes that are not text stay different from text that looks like their escape.
    assert [row["key"] for row in rows[2:]] == ["\\xff\x00", "\\\\xff\\\\x00"]


def test_tables_without_rows_get_no_file(store: Store) -> None:
    write(store, summary(), record=record(events=()), operations=None)
    assert store.files("operations") == store.files("events") == []
    assert store.table("operations").schema == TABLES["operations"].view
    assert store.run("r1") is not None


@pytest.mark.parametrize("name", TABLES)
def test_schemas_survive_the_file(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, summary())
    store.write_trial("kv", {"study": "s", "number": 0, "state": "complete"})
    [file] = store.files(name)
    schema = pyarrow.parquet.read_schema(file.path)
    assert schema.equals(TABLES[name].schema, check_metadata=True)
    assert schema.metadata[b"schema_version"] == b"1"
    assert all(b"unit" in field.metadata for field in schema)
    # Units in names are the units in the metadata.
    for ending, unit in (("_ms", b"ms"), ("_s", b"s"), ("_ns", b"ns"), ("_ops", b"1/s")):
        fields = [field for field in schema if field.name.endswith(ending)]
        assert {field.metadata[b"unit"] for field in fields} <= {unit}


def test_columns_of_runs_are_the_joined_keys() -> None:
    assert SUMMARY_PATHS["latency_ms_read_p999"] == ("latency_ms", "read", "p999")
    assert SUMMARY_PATHS["consistency_staleness_ms_p99"] == ("consistency", "staleness_ms", "p99")
    for table in TABLES.values():
        names = table.view.names
        assert len(set(names)) == len(names)


def test_trials_come_back_and_are_replaced(store: Store) -> None:
    trial = {"study": "s.1", "number": 7, "state": "infeasible", "params": {"a.b": 3, "c": "x"}}
    store.write_trial("kv", trial | {"constraints": [0.5, -1.0], "reason": "too big"})
    store.write_trial("kv", trial | {"state": "complete", "value": 2.5, "seconds": 1.25})
    [row] = store.table("trials").to_pylist()
    assert (row["state"], row["value"], row["constraints"]) == ("complete", 2.5, None)
    assert row["params"] == '{"a.b": 3, "c": "x"}'
    assert [file.name for file in store.files("trials")] == ["s.1-000007"]
    assert store.experiments() == ["kv"]


def test_runs_are_found_by_their_configuration(store: Store) -> None:
    for index, day in enumerate(("03", "01", "02")):
        when = {"started_utc": f"2026-01-{day}T00:00:00Z"}
        write(store, summary(f"r{index}", config_hash="same"), provenance=when)
    write(store, summary("other", experiment="second"))
    assert [row["run_id"] for row in store.runs_by_config_hash("same")] == ["r1", "r2", "r0"]
    assert store.runs_by_config_hash("none") == []
    assert store.run("absent") is None
    assert store.experiments() == ["kv", "second"]


# --- what is given is wrong or hostile --------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_only_text(text: str, store: Store) -> None:
    written = text.replace("\udcff", "\\udcff")
    events = (EventRecord(0, 0, text, text),)
    run = summary(invalid_reasons=[text], faults=[{"name": text}], bottleneck={"resource": text})
    write(store, run, config_yaml=text, record=record(events=events))
    row = store.run("r1")
    assert row is not None
    assert (row["config_yaml"], row["bottleneck_resource"]) == (written, written)
    assert row["invalid_reasons"] == [written]
    assert result(row)["faults"] == [{"name": written}]
    [event] = store.table("events").to_pylist()
    assert (event["kind"], event["detail"]) == (written, written)
    trial = {"study": "s", "number": 1, "state": "failed", "reason": text, "params": {text: text}}
    store.write_trial("kv", trial)
    assert store.table("trials").to_pylist()[0]["reason"] == written


@pytest.mark.parametrize("name", [*HOSTILE, "", ".", "..", "../up", "a/b", ".hidden", "a\n", "é"])
def test_names_in_paths_are_checked(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    with pytest.raises(ConfigError, match="cannot name results") as caught:
        write(store, summary(experiment=name))
    assert caught.value.path == "experiment"
    assert len(str(caught.value)) < 1000
    with pytest.raises(ConfigError):
        write(store, summary(run_id=name))
    with pytest.raises(ConfigError):
        store.write_trial("kv", {"study": name, "number": 0, "state": "complete"})
    assert list(tmp_path.rglob("*")) == []


def test_values_that_do_not_fit_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    wrong: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        (summary(seed="one"), {}, r"runs\.seed"),
        (summary(outcomes={"ok": 1.5}), {}, r"runs\.outcomes_ok"),
        (summary(), {"provenance": {"colour": "red"}}, "no column colour"),
        (summary(), {"intervals": intervals() | {"p42_ms": [1, 2, 3]}}, "p42_ms"),
        (summary(), {"intervals": {"start_s": [0.0]}}, "duration_s"),
        (summary(), {"intervals": intervals() | {"ok": ["a", "b", "c"]}}, r"intervals\.ok"),
    ]
    for run, changes, message in wrong:
        with pytest.raises(ValueError, match=message):
            write(store, run, **changes)
    trial = {"study": "s", "number": 0, "state": "complete"}
    for change, message in (({"state": "fine"}, "fine"), ({"colour": 1}, "colour")):
        with pytest.raises(ValueError, match=message):
            store.write_trial("kv", trial | change)
    assert list(tmp_path.rglob("*")) == []


def test_addresses_that_cannot_be_results(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for results, message in ((file, "is a file"), ("nowhere://x", "nowhere")):
        with pytest.raises(InputError, match=message):
            Store(results)
    with pytest.raises(EnvironmentFailure, match="cannot write"):
        store = Store(tmp_path / "results")
        (tmp_path / "results").write_text("in the way")
        write(store, summary())


# --- provenance and documentation -------------------------------------------------------


def test_provenance_fills_the_columns_of_runs(tmp_path: Path) -> None:
    found = collect(ray_nodes=1, ray_cpus=2.0)
    assert set(found) <= set(RUNS.schema.names)
    assert found["cpu_count"] >= 1
    assert found["package_versions"]["pyarrow"] == pa.__version__
    assert set(found["package_versions"]) <= set(PACKAGES)
    store = Store(tmp_path)
    write(store, summary(), provenance=found)
    row = store.run("r1")
    assert row is not None
    assert (row["ray_nodes"], row["ray_cpus"], row["host"]) == (1, 2.0, found["host"])
    age = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - row["started_utc"]
    assert abs(age.total_seconds()) < 600


def test_the_commit_is_that_of_the_folder(tmp_path: Path) -> None:
    assert git_commit(str(tmp_path)) is None
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@localhost"}
    who |= {name.replace("AUTHOR", "COMMITTER"): value for name, value in who.items()}
    environment = os.environ | who | {"GIT_CONFIG_GLOBAL": os.devnull}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), *arguments]
        return subprocess.check_output(command, env=environment, text=True).strip()

    git("init", "--quiet")
    assert git_commit(str(tmp_path)) is None
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "--quiet", "--message=one")
    assert git_commit(str(tmp_path)) == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("two")
    assert git_commit(str(tmp_path)) == git("rev-parse", "HEAD") + "-dirty"


def test_the_page_about_the_tables_is_current() -> None:
    stored = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    assert stored == readme(), "see the docstring of orchestrator/store/readme.py"
    for table in TABLES.values():
        assert f"## {table.name}\n" in stored
        assert all(f"| `{column.name}` |" in stored for column in table.columns)
