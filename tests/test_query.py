"""Reading results: right rows, clear errors, no way to write, and nothing half or damaged."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest
from test_store import HOSTILE, small_history, summary, write

from orchestrator.errors import EnvironmentFailure, InputError
from orchestrator.store.parquet import DamagedFileWarning, Store
from orchestrator.store.query import query, relation
from orchestrator.store.tables import TABLES


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three runs of two experiments, one trial; the folder's name is hostile, too."""
    folder = tmp_path / 'it\'s; "DROP" -- 100%'
    store = Store(folder)
    write(store, summary("r1", experiment="1"))
    write(store, summary("r2", experiment="1", throughput_ops=1.5), operations=None)
    write(store, summary("r3", experiment="second"))
    store.write_trial("1", {"study": "s", "number": 0, "state": "complete", "params": {"a": 3}})
    return folder


def rows(results: Path | str, sql: str) -> list[list[Any]]:
    return query(results, sql)[1]


def test_rows_and_columns(results: Path) -> None:
    columns, found = query(
        results,
        "SELECT experiment, run_id, throughput_ops AS x, latency_ms_write_p99 FROM runs ORDER BY 2",
    )
    assert columns == ["experiment", "run_id", "x", "latency_ms_write_p99"]
    assert found == [
        ["1", "r1", 1998.25, None],
        ["1", "r2", 1.5, None],
        ["second", "r3", 1998.25, None],
    ]


def test_tables_join(results: Path) -> None:
    sql = """
        SELECT r.run_id, count(*) FILTER (o.status = 'ok'), max(o.returned_ns - o.invoked_ns)
        FROM runs r JOIN operations o USING (experiment, run_id)
        WHERE o.op = 'read' GROUP BY 1 ORDER BY 1
    """
    assert rows(results, sql) == [["r1", 2, 21], ["r3", 2, 21]]
    assert rows(results, "SELECT count(*) FROM operations") == [[2 * len(small_history())]]
    assert rows(results, "SELECT max(cpu_utilisation) FROM nodes WHERE role = 'leader'") == [[0.5]]


def test_lists_and_json_are_within_reach(results: Path) -> None:
    sql = "SELECT throughput_ci95_ops[2], faults->>'$[0].name' FROM runs WHERE run_id = 'r3'"
    assert rows(results, sql) == [[2004.5, "crash"]]
    assert rows(results, "SELECT (params->'a')::int FROM trials") == [[3]]
    sql = "SELECT unnest(values_ms), unnest(counts) FROM latencies WHERE kind='all' AND run_id='r1'"
    assert rows(results, sql) == [[1.0, 3], [2.0, 1]]


def test_values_are_plain() -> None:
    sql = """SELECT sum(x), 1.5, TIMESTAMPTZ '2026-01-02 03:04:05+00', DATE '2026-01-02',
             {'a': [1.5, NULL]}, true, 18446744073709551616::HUGEINT, '\\xAA'::BLOB
             FROM range(3) t(x)"""
    [found] = rows("memory://", sql)
    day = "2026-01-02"
    assert found[2][:10] == day
    assert found[:2] + found[3:] == [3, 1.5, day, {"a": [1.5, None]}, True, 2**64, "aa"]
    assert query("memory://", "SELECT 1 AS a, 2 AS a") == (["a", "a"], [[1, 2]])


@pytest.mark.parametrize("name", TABLES)
def test_an_empty_table_is_an_empty_view(name: str, tmp_path: Path) -> None:
    columns, found = query(tmp_path, f"SELECT * FROM {name}")
    assert (columns, found) == (TABLES[name].view.names, [])
    described = rows(tmp_path, f"DESCRIBE {name}")
    assert [row[0] for row in described] == columns
    assert not list(tmp_path.iterdir())


def test_empty_and_full_views_have_the_same_types(results: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for name in TABLES:
        sql = f"DESCRIBE {name}"
        assert rows(results, sql) == rows(empty, sql)


def test_views_are_listed_and_found_by_computed_names(results: Path) -> None:
    assert [row[0] for row in rows(results, "SHOW TABLES")] == sorted(TABLES)
    assert rows(results, "SELECT count(*) FROM query_table('ru' || 'ns')") == [[3]]
    assert rows(results, 'SELECT count(*) FROM "RUNS"') == [[3]]


def test_text_is_only_text(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number, text in enumerate(HOSTILE):
        write(store, summary(f"r{number}"), config_yaml=text)
    found = rows(tmp_path, "SELECT config_yaml FROM runs ORDER BY run_id")
    assert [row[0] for row in found] == [text.replace("\udcff", "\\udcff") for text in HOSTILE]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM rums", 'Did you mean "runs"'),
        ("SELECT throughput FROM runs", "throughput_ops"),
        ("SELECT CAST(run_id AS INT) FROM runs", "Could not convert"),
        ("", "no statement"),
        ("  -- nothing", "no statement"),
    ],
)
def test_wrong_sql_is_explained(sql: str, message: str, results: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        query(results, sql)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "sql",
    [
        "COPY runs TO '{out}'",
        "SELECT 1; COPY (SELECT 1) TO '{out}' (FORMAT parquet)",
        "EXPLAIN ANALYZE COPY runs TO '{out}'",
        "ATTACH '{out}' AS disk; CREATE TABLE disk.t AS SELECT 1",
        "EXPORT DATABASE '{out}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET temp_directory = '{out}'",
        "PRAGMA profiling_output = '{out}'",
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM glob('{secret}*')",
        "SELECT * FROM results",
        "DELETE FROM runs",
    ],
)
def test_queries_only_read_the_results(sql: str, results: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError):
        query(results, sql.format(out=tmp_path / "out", secret=secret))
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_what_is_refused_says_why(results: Path, tmp_path: Path) -> None:
    for sql in (f"COPY runs TO '{tmp_path}/out'", "SET threads = 1", "LOAD httpfs"):
        with pytest.raises(InputError, match="only read the results"):
            query(results, sql)


def test_results_that_are_not_there(tmp_path: Path) -> None:
    for read in (lambda: query(tmp_path / "no", "SELECT 1"), lambda: relation(tmp_path / "no")):
        with pytest.raises(InputError, match="no results here"):
            read()


def test_damaged_files_are_named_and_left_out(results: Path) -> None:
    files = {file.name: Path(file.path) for file in Store(results).files("runs")}
    files["r1"].write_bytes(files["r1"].read_bytes()[:-9])
    with pytest.warns(DamagedFileWarning, match=r"r1\.parquet: damaged"):
        assert rows(results, "SELECT run_id FROM runs ORDER BY 1") == [["r2"], ["r3"]]
    content = files["r1"].write_bytes(files["r2"].read_bytes())
    broken = bytearray(files["r2"].read_bytes())
    start = broken.index(b"\x28\xb5\x2f\xfd")  # first compressed page
    broken[start : start + 12] = bytes(12)
    files["r2"].write_bytes(broken)
    assert content == len(broken)
    with pytest.warns(DamagedFileWarning, match=r"r2\.parquet: damaged"):
        assert rows(results, "SELECT count(*), min(run_id) FROM runs") == [[2, "r2"]]


def test_hidden_and_foreign_files_are_passed_over(results: Path) -> None:
    folder = results / "runs" / "experiment=1"
    for name in (".r9.host.1.0.tmp", ".r9.parquet", "_r9.parquet", "note.txt"):
        (folder / name).write_bytes(b"not parquet")
    (results / "runs" / "stray.parquet").write_bytes(b"not parquet")
    (results / "study.db").write_bytes(b"not parquet")
    assert rows(results, "SELECT count(*) FROM runs") == [[3]]


def test_any_file_system_will_do(tmp_path: Path) -> None:
    address = f"memory://{tmp_path.name}/query"
    write(Store(address), summary())
    assert rows(address, "SELECT experiment, count(*) FROM intervals GROUP BY 1") == [["kv", 3]]


def test_the_connection_is_the_callers_own(results: Path, tmp_path: Path) -> None:
    connection = relation(results)
    assert isinstance(connection, duckdb.DuckDBPyConnection)
    assert connection.sql("SELECT count(*) FROM runs").fetchall() == [(3,)]
    arrow: Any = connection.sql("SELECT run_id FROM trials").to_arrow_table()
    assert arrow.num_rows == 1
    out = tmp_path / "export.csv"
    connection.execute(f"COPY (SELECT run_id FROM runs) TO '{out}'")
    assert len(out.read_text().splitlines()) == 4


# --- damage and interruption ------------------------------------------------------------


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(rows: pa.Table, sink: Any) -> None:
        sink.write(b"PAR1 half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orchestrator.store.parquet._write_parquet", full)
    store = Store(tmp_path)
    with pytest.raises(EnvironmentFailure, match="no room is left"):
        write(store, summary())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_truncated_file_is_named_and_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, summary("good"))
    bad = Path(write(store, summary("bad")))
    bad.write_bytes(bad.read_bytes()[:-100])
    with pytest.warns(DamagedFileWarning, match=re.escape(str(bad))):
        assert [row["run_id"] for row in store.runs_by_config_hash("c0ffee")] == ["good"]
    bad.write_bytes(b"")
    with pytest.warns(DamagedFileWarning, match=re.escape(str(bad))):
        assert store.run("bad") is None


def test_damage_behind_a_sound_footer_is_named_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, summary("good"))
    bad = Path(write(store, summary("bad")))
    content = bytearray(bad.read_bytes())
    start = content.index(b"\x28\xb5\x2f\xfd")  # first compressed page
    content[start : start + 12] = bytes(12)
    bad.write_bytes(content)
    with pytest.warns(DamagedFileWarning, match=re.escape(str(bad))):
        assert store.table("runs").column("run_id").to_pylist() == ["good"]


def test_only_listed_runs_have_rows(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, summary("whole"))
    Path(write(store, summary("half"))).unlink()
    for table in ("intervals", "operations", "nodes"):
        assert {row["run_id"] for row in store.table(table).to_pylist()} == {"whole"}


def test_files_of_other_versions_are_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = Path(write(store, summary("r1")))
    old = pyarrow.parquet.read_table(path).drop_columns(["host_busy", "hosts"])
    pyarrow.parquet.write_table(old, path)
    row = store.run("r1")
    assert row is not None
    assert (row["hosts"], row["seed"]) == (None, 2**63 - 1)
    new = old.append_column("colour", pa.array(["red"]))
    new = new.replace_schema_metadata({b"schema_version": b"99"})
    pyarrow.parquet.write_table(new, path)
    with pytest.warns(UserWarning, match="schema version 99"):
        row = store.run("r1")
    assert row is not None
    assert row["colour"] == "red"


ROOT = Path(__file__).resolve().parent.parent
WRITER = """
import sys, time
sys.path[:0] = [{root!r}, {tests!r}]
import pyarrow
from test_store import Store, summary, write
from orchestrator.store import parquet

at_once = parquet._write_parquet

def slowly(rows, sink):
    buffer = pyarrow.BufferOutputStream()
    at_once(rows, buffer)
    content = buffer.getvalue().to_pybytes()
    for part in (content[:100], content[100:]):
        sink.write(part)
        sink.flush()
        time.sleep({pause_s})

parquet._write_parquet = slowly
store = Store({results!r})
for number in range({count}):
    write(store, summary(f"{name}-{{number}}"))
"""


def writer(results: Path, name: str, count: int, pause_s: float) -> subprocess.Popen[bytes]:
    """A process that writes runs, with a pause in the midst of every file."""
    tests = str(Path(__file__).parent)
    code = WRITER.format(
        root=str(ROOT), tests=tests, results=str(results), name=name, count=count, pause_s=pause_s
    )
    return subprocess.Popen([sys.executable, "-c", code])


def expect_whole(store: Store) -> set[str]:
    """Every visible file is whole, and every listed run has all its tables."""
    runs = set(store.table("runs").column("run_id").to_pylist())
    for table in TABLES:
        for file in store.files(table):
            pyarrow.parquet.read_table(file.path, partitioning=None)
    for table in ("intervals", "latencies", "nodes", "events", "operations"):
        assert {file.name for file in store.files(table)} >= runs
    return runs


@pytest.mark.parametrize("delay_s", [0.0, 0.013, 0.029])
def test_a_killed_writer_leaves_nothing_half(tmp_path: Path, delay_s: float) -> None:
    process = writer(tmp_path, "run", 10**9, pause_s=0.005)
    store = Store(tmp_path)
    try:
        while len(store.files("runs")) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(delay_s)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    for path in tmp_path.rglob("[!.]*.parquet"):  # those of the run that was cut off, too
        assert pyarrow.parquet.ParquetFile(path).read().num_rows > 0
    assert len(expect_whole(store)) >= 2
    write(store, summary("afterwards"))
    assert "afterwards" in expect_whole(store)


def test_two_writers_and_a_reader_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    processes = [writer(tmp_path, name, 10, pause_s=0.001) for name in ("a", "b")]
    while any(process.poll() is None for process in processes):
        expect_whole(store)
        time.sleep(0.05)
    assert [process.returncode for process in processes] == [0, 0]
    assert expect_whole(store) == {f"{name}-{number}" for name in "ab" for number in range(10)}
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
