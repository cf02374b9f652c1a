"""Formats of traces beside CSV: each from small made files, whole, cut off, and hostile.

``test_trace_monitor`` has the text of MONITOR.
"""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_traces import records, refused, told, zstd

from orchestrator.config.load import load
from orchestrator.core.machine import READ, WRITE
from orchestrator.errors import DataError
from orchestrator.plan import plan
from orchestrator.run import execute
from orchestrator.workloads.trace import FORMATS, TIME_UNITS, Columns, TraceParams, read_requests

ROWS = [(5, "a", "read", 10), (5, "b", "write", 20), (9, "a", "read", 10)]


EXPECTED = [(0, b"a", READ, 10), (0, b"b", WRITE, 20), (4000, b"a", READ, 10)]


# --- which format -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.CSV", "t.txt", "t", "t.csv.gz"])
def test_the_ending_or_the_parameter_tells_the_format(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("key\nk\n")
    if name == "t.CSV":
        assert len(read_requests(TraceParams(str(path)))) == 1
    else:
        error = refused(path)
        assert error.path == str(path)
        assert "give format: csv, parquet, oracle_general, redis_monitor" in str(error)
    assert len(read_requests(TraceParams(str(path), format="csv"))) == 1


@pytest.mark.parametrize("form", ["csv", "parquet", "oracle_general", "redis_monitor"])
def test_an_empty_file_is_refused(tmp_path: Path, form: str) -> None:
    path = tmp_path / "t"
    path.touch()
    assert refused(path, format=form).message == "the trace file is empty"


@pytest.mark.parametrize("form", ["csv", "parquet", "oracle_general", "redis_monitor"])
@given(content=st.binary(max_size=120))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, form: str, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any-{form}"
    path.write_bytes(content)
    try:
        assert len(read_requests(TraceParams(str(path), format=form))) > 0
    except DataError as error:
        assert error.path is not None
        assert error.path.startswith(str(path))


def test_every_format_drives_a_run(tmp_path: Path) -> None:
    config = Path(__file__).parent.parent / "configs" / "trace.yaml"
    path = tmp_path / "t.oracleGeneral.zst"
    path.write_bytes(zstd(records(RECORDS)))
    record = execute(plan(load(config, f"workload.path={path}", "runtime=sim")))
    assert sorted(record.history.kind.tolist()) == [READ] * 3
    assert len(record.history.key_names) == 2


def test_the_page_on_traces_names_every_format_and_role() -> None:
    page = (Path(__file__).parent.parent / "docs" / "traces.md").read_text("utf-8")
    roles = [field.name for field in dataclasses.fields(Columns)]
    assert [word for word in (*FORMATS, *roles, *TIME_UNITS) if f"`{word}`" not in page] == []


# --- Parquet ----------------------------------------------------------------------------


def parquet(folder: Path, columns: dict[str, Any], **options: Any) -> Path:
    path = folder / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def columns_of(rows: list[tuple[int, str, str, int]]) -> dict[str, Any]:
    time, key, op, size = zip(*rows, strict=True)
    return {"time": list(time), "key": list(key), "op": list(op), "size": list(size)}


def test_parquet_says_what_csv_says(tmp_path: Path) -> None:
    path = parquet(tmp_path, columns_of(ROWS))
    found = read_requests(TraceParams(str(path)))
    assert told(found) == EXPECTED
    text = "time,key,op,size\n" + "".join(",".join(map(str, row)) + "\n" for row in ROWS)
    (tmp_path / "t.csv").write_text(text)
    assert told(read_requests(TraceParams(str(tmp_path / "t.csv")))) == EXPECTED


KEYS = [
    (pyarrow.array([7, 8, 7], pyarrow.uint64()), [b"7", b"8"]),
    (pyarrow.array([-7, 8, -7], pyarrow.int8()), [b"-7", b"8"]),
    (pyarrow.array([b"\xff", b"", b"\xff"]), [b"\xff", b""]),
    (pyarrow.array(["é", "b", "é"], pyarrow.large_string()), ["é".encode(), b"b"]),
    (pyarrow.array([b"ab", b"cd", b"ab"], pyarrow.binary(2)), [b"ab", b"cd"]),
    (pyarrow.array(["x", "y", "x"]).dictionary_encode(), [b"x", b"y"]),
    (pyarrow.DictionaryArray.from_arrays([1, 2, 0], ["x", "x", "y"]), [b"x", b"y"]),
]


@pytest.mark.parametrize(("keys", "names"), KEYS, ids=[str(keys.type) for keys, _ in KEYS])
def test_parquet_keys_may_be_text_bytes_or_numbers(
    tmp_path: Path, keys: Any, names: list[bytes]
) -> None:
    found = read_requests(TraceParams(str(parquet(tmp_path, {"key": keys}))))
    assert found.key_names == names
    assert found.key.tolist() == [0, 1, 0]
    assert (found.size, found.time_ns) == (None, None)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pyarrow.array([1, 3], pyarrow.uint32()), 2_000_000),
        (pyarrow.array([1.5, 3.25]), 1_750_000),
        (pyarrow.array([1, 3], pyarrow.timestamp("s")), 2 * 10**9),
        (pyarrow.array([1, 3], pyarrow.timestamp("us", tz="UTC")), 2000),
    ],
)
def test_parquet_times(tmp_path: Path, times: Any, expected: int) -> None:
    path = parquet(tmp_path, {"time": times, "key": ["a", "b"]})
    found = read_requests(TraceParams(str(path), time_unit="ms"))
    assert found.time_ns is not None
    assert found.time_ns.tolist() == [0, expected]


def test_parquet_operations_may_be_numbers(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"key": ["a", "b", "c"], "op": [28, 7, 28]})
    found = read_requests(TraceParams(str(path), ops={"7": "write"}))
    assert found.kind.tolist() == [READ, WRITE, READ]
    assert refused(path).path == f"{path}:2"


def test_parquet_reads_no_further_than_the_limit(tmp_path: Path) -> None:
    sizes = [1] * 100 + [-1]
    path = parquet(tmp_path, {"key": list(range(101)), "size": sizes}, row_group_size=10)
    assert len(read_requests(TraceParams(str(path), limit=100))) == 100
    assert refused(path).path == f"{path}:101"


@pytest.mark.parametrize(
    ("change", "row", "words"),
    [
        ({"size": [1, -1, 1]}, 2, "malformed size '-1'"),
        ({"size": [1, 1, 2**31]}, 3, "malformed size '2147483648'"),
        ({"size": [1, None, 1]}, 2, "column 'size' is null"),
        ({"size": [1.0, 2.0, 3.0]}, None, "column 'size' holds double, not whole numbers"),
        ({"key": ["a", "b", None]}, 3, "column 'key' is null"),
        ({"key": [["a"], [], []]}, None, "not text, bytes or whole numbers"),
        ({"op": ["read", "fly", "read"]}, 2, "unknown operation 'fly'"),
        ({"time": [5, 9, 7]}, 3, "time '7' is before that of the previous request, '9'"),
        ({"time": [5.0, float("nan"), 7.0]}, 2, "time 'nan' is out of range"),
        ({"time": [5, 2**62, 2**62]}, 2, "is out of range (is time_unit right?)"),
        (
            {"time": pyarrow.array([5, 2**40, 2**40], pyarrow.timestamp("s"))},
            2,
            "time '1099511627776000 ms since 1970' is out of range",
        ),
        (
            {"time": pyarrow.array([5, 9, 7], pyarrow.timestamp("ns"))},
            3,
            "time '7 ns since 1970' is before that of the previous request, '9 ns since 1970'",
        ),
        ({"time": ["5", "6", "7"]}, None, "not numbers or timestamps"),
    ],
)
def test_a_bad_row_of_parquet_is_named(
    tmp_path: Path, change: dict[str, Any], row: int | None, words: str
) -> None:
    path = parquet(tmp_path, columns_of(ROWS) | change)
    error = refused(path)
    assert words in str(error)
    assert error.path == (str(path) if row is None else f"{path}:{row}")


def test_a_damaged_parquet_file_is_read_or_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path, columns_of(ROWS), compression="none")
    whole = path.read_bytes()
    refusals = 0
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xA5]) + whole[at + 1 :])
        try:
            assert len(read_requests(TraceParams(str(path)))) > 0
        except DataError as error:
            assert str(error.path).startswith(str(path))
            refusals += 1
    assert refusals > 100


def test_other_wrong_parquet_files(tmp_path: Path) -> None:
    path = parquet(tmp_path, columns_of(ROWS))
    assert "did you mean 'size'?" in str(refused(path, columns=Columns(size="sise")))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "not a whole Parquet file" in str(refused(path))
    path.write_bytes(whole[:20] + bytes(40) + whole[60:])
    assert refused(path).path == str(path)
    twice = pyarrow.Table.from_arrays([pyarrow.array([1])] * 2, ["key", "key"])
    pyarrow.parquet.write_table(twice, path)
    assert "more than one column 'key'" in str(refused(path))
    assert "no request" in str(refused(parquet(tmp_path, {"key": pyarrow.array([], "string")})))


# --- oracleGeneral ----------------------------------------------------------------------

RECORDS = [(5, 2**63, 512, 2), (5, 7, 0, -1), (8, 2**63, 4096, -1)]


@pytest.mark.parametrize(
    "name",
    [
        "t.oracleGeneral",
        "t.oracleGeneral.bin",
        "t.oracleGeneral.zst",
        "t.oracleGeneral.bin.zst",
        "t.ORACLEGENERAL.sample10.ZST",
    ],
)
def test_records_plain_and_compressed(tmp_path: Path, name: str) -> None:
    content = records(RECORDS)
    path = tmp_path / name
    path.write_bytes(zstd(content) if name.lower().endswith(".zst") else content)
    first = str(2**63).encode()
    expected = [
        (0, first, READ, 512),
        (0, b"7", READ, 0),
        (3_000_000_000, first, READ, 4096),
    ]
    found = read_requests(TraceParams(str(path)))
    assert told(found) == expected
    assert found.key_names == [first, b"7"]
    assert told(read_requests(TraceParams(str(path), limit=2))) == expected[:2]


@pytest.mark.parametrize("name", ["t.oracleGeneral", "t.oracleGeneral.zst"])
def test_records_are_read_as_libcachesim_reads_them(tmp_path: Path, name: str) -> None:
    libcachesim: Any = pytest.importorskip(
        "libcachesim", reason="needs GLib: apt-get install libglib2.0-0", exc_type=ImportError
    )
    chance = random.Random(name)
    rows = [
        (at // 3, chance.randrange(50) + 2**40, chance.randrange(1, 10**6), -1)
        for at in range(1000)
    ]
    path = tmp_path / name
    content = records(rows)
    path.write_bytes(zstd(content) if name.endswith(".zst") else content)
    kind = libcachesim.TraceType.ORACLE_GENERAL_TRACE
    reader = libcachesim.TraceReader(str(path), kind, libcachesim.ReaderInitParam())
    expected = [(each.clock_time, each.obj_id, each.obj_size) for each in reader]
    found = told(read_requests(TraceParams(str(path))))
    assert [(at // 10**9, int(key), size) for at, key, _, size in found] == expected
    assert len(expected) == 1000


@pytest.mark.parametrize("missing", [1, 12, 23])
def test_a_record_that_is_cut_off_is_named(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "t.oracleGeneral"
    path.write_bytes(records(RECORDS)[:-missing])
    error = refused(path)
    assert error.path == f"{path}:3"
    assert error.message == f"the record is cut off: {24 - missing} of 24 bytes"
    assert len(read_requests(TraceParams(str(path), limit=2))) == 2
    assert refused(path, limit=3).path == f"{path}:3"


@pytest.mark.parametrize(
    ("rows", "record", "words"),
    [
        ([*RECORDS, (7, 1, 1, 1)], 4, "time '7 s' is before that of the previous request, '8 s'"),
        ([*RECORDS, (9, 1, 2**31, 1)], 4, "size 2147483648 (whole bytes from 0 to 2147483647)"),
    ],
)
def test_a_bad_record_is_named(
    tmp_path: Path, rows: list[tuple[int, int, int, int]], record: int, words: str
) -> None:
    path = tmp_path / "t.oracleGeneral"
    path.write_bytes(records(rows))
    error = refused(path)
    assert error.path == f"{path}:{record}"
    assert words in str(error)


def test_damaged_zstd_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.oracleGeneral.zst"
    whole = zstd(records([(at, at * 7919, at, -1) for at in range(1000)]))
    for content in (whole[:-5], b"no zstd at all", records(RECORDS)):
        path.write_bytes(content)
        error = refused(path)
        assert error.path == str(path)
        assert "not a whole zstd file" in error.message
