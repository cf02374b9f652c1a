"""The trace workload: parsing, dealing out, and what is wrong with a file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy
import pytest

from orchestrator.config.load import load
from orchestrator.core.load import OperationBlock
from orchestrator.core.machine import OK, READ, WRITE
from orchestrator.core.parameters import ParameterError
from orchestrator.errors import DataError
from orchestrator.plan import plan
from orchestrator.run import execute
from orchestrator.workloads.trace import Columns, Trace, TraceParams

BLOCK_IO = """version,time,op,size,lbn
1,100,28,512,7
1,100,2A,4096,8
1,103,88,512,7
1,110,8a,1024,9
1,110,28,512,8
"""
BLOCK_COLUMNS = Columns(key="lbn")


def write(folder: Path, content: str | bytes) -> str:
    path = folder / "trace.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def everything(trace: Trace) -> OperationBlock:
    assert trace.total is not None
    return trace.stream(1, 0, 1).block(trace.total)


def test_reads_named_columns(tmp_path: Path) -> None:
    trace = Trace(TraceParams(write(tmp_path, BLOCK_IO), BLOCK_COLUMNS))
    block = everything(trace)
    assert trace.total == 5
    assert trace.payload_bytes == 8
    assert trace.key_names == [b"7", b"8", b"9"]
    assert block.key.tolist() == [0, 1, 0, 2, 1]
    assert block.kind.tolist() == [READ, WRITE, READ, WRITE, READ]
    assert block.size.tolist() == [512, 4096, 512, 1024, 512]
    assert block.time_ns is not None
    assert block.time_ns.tolist() == [0, 0, 3000, 10000, 10000]
    assert block.count.tolist() == [1] * 5
    assert not block.follow_up.any()


def test_only_the_key_is_needed(tmp_path: Path) -> None:
    trace = Trace(TraceParams(write(tmp_path, "key\na\nb\na\n")))
    block = everything(trace)
    assert block.kind.tolist() == [READ] * 3
    assert block.size.tolist() == [1] * 3
    assert block.time_ns is None


def test_an_empty_name_leaves_a_column_unused(tmp_path: Path) -> None:
    columns = Columns(key="lbn", time="", op="", size="")
    block = everything(Trace(TraceParams(write(tmp_path, BLOCK_IO), columns)))
    assert block.kind.tolist() == [READ] * 5
    assert block.size.tolist() == [1] * 5
    assert block.time_ns is None


def test_default_operation_codes(tmp_path: Path) -> None:
    codes = ["read", "GET", "R", "28", "88", "Write", "set", "w", "2A", "8a"]
    content = "op,key\n" + "".join(f"{code},k\n" for code in codes)
    block = everything(Trace(TraceParams(write(tmp_path, content))))
    assert block.kind.tolist() == [READ] * 5 + [WRITE] * 5


def test_own_operation_codes(tmp_path: Path) -> None:
    path = write(tmp_path, "op,key\nFetch,k\nput,k\nread,k\n")
    block = everything(Trace(TraceParams(path, ops={"fetch": "read", "PUT": "write"})))
    assert block.kind.tolist() == [READ, WRITE, READ]


def test_operation_codes_map_to_read_or_write() -> None:
    with pytest.raises(ParameterError, match="'delete' must be read or write") as caught:
        TraceParams("t.csv", ops={"x": "delete"})
    assert caught.value.key == "ops.x"


@pytest.mark.parametrize(
    ("unit", "times", "expected"),
    [
        ("ns", ("5", "8"), 3),
        ("us", ("5", "8"), 3_000),
        ("ms", ("5", "8"), 3_000_000),
        ("s", ("1700000000", "1700000003"), 3_000_000_000),
        ("s", ("1700000000.000001", "1700000000.000004"), 3_000),
        ("us", ("0.5", "2"), 1_500),
    ],
)
def test_time_units(tmp_path: Path, unit: str, times: tuple[str, str], expected: int) -> None:
    path = write(tmp_path, f"time,key\n{times[0]},a\n{times[1]},b\n")
    block = everything(Trace(TraceParams(path, time_unit=unit)))
    assert block.time_ns is not None
    assert block.time_ns.tolist() == [0, expected]


def test_limit_reads_no_further(tmp_path: Path) -> None:
    trace = Trace(TraceParams(write(tmp_path, "key,size\na,1\nb,2\nc,bad\n"), limit=2))
    assert trace.total == 2
    assert trace.key_names == [b"a", b"b"]


def test_keys_are_any_bytes(tmp_path: Path) -> None:
    content = '\ufeffkey,size\r\n"a,b",1\r\n'.encode() + b"\xff\xfe,2\r\n"
    trace = Trace(TraceParams(write(tmp_path, content)))
    assert trace.key_names == [b"a,b", b"\xff\xfe"]


def test_blank_lines_are_skipped(tmp_path: Path) -> None:
    assert Trace(TraceParams(write(tmp_path, "key\na\n\nb\n\n\n"))).total == 2


def test_rows_are_dealt_in_turn(tmp_path: Path) -> None:
    rows = 5000
    content = "time,key\n" + "".join(f"{row},k{row}\n" for row in range(rows))
    trace = Trace(TraceParams(write(tmp_path, content)))
    for client in range(3):
        stream = trace.stream(1, client, 3)
        parts = [stream.block(count) for count in (1, 7, 0, 1000, 10_000, 10)]
        mine = OperationBlock.concatenate(parts)
        assert len(parts[-1]) == 0
        expected = numpy.arange(client, rows, 3)
        numpy.testing.assert_array_equal(mine.key, expected)
        # Relative to the first row of the trace, not to the client's own.
        assert mine.time_ns is not None
        numpy.testing.assert_array_equal(mine.time_ns, expected * 1000)


def test_every_key_is_preloaded(tmp_path: Path) -> None:
    preload = Trace(TraceParams(write(tmp_path, BLOCK_IO), BLOCK_COLUMNS)).preload()
    assert preload.get(b"9") == bytes(8)
    assert preload.get(b"10") is None
    assert list(preload.keys_from(b"8", 10)) == [b"8", b"9"]


# --- what is wrong with a file ----------------------------------------------------------


@pytest.mark.parametrize(
    ("bad_line", "text"),
    [
        ("1,120,28,512", "1,120,28,512"),
        ("1,120,28,512,7,8", "1,120,28,512,7,8"),
        ("garbage", "garbage"),
        ("1,noon,28,512,7", "'noon'"),
        ("1,nan,28,512,7", "'nan'"),
        ("1,,28,512,7", "''"),
        (f"1,{10**30},28,512,7", str(10**30)),
        ("1,109,28,512,7", "'109'"),
        ("1,120,35,512,7", "'35'"),
        ("1,120,28,big,7", "'big'"),
        ("1,120,28,1.5,7", "'1.5'"),
        ("1,120,28,-1,7", "'-1'"),
        ("1,120,28,3000000000,7", "'3000000000'"),
        (f"1,120,28,{10**30},7", str(10**30)),
        ('1,120,28,512,"7', "unexpected end of data"),
    ],
)
@pytest.mark.parametrize("filler", [0, 1, 3000])
def test_a_bad_line_is_named(tmp_path: Path, bad_line: str, text: str, filler: int) -> None:
    content = BLOCK_IO + "1,110,28,512,7\n" * filler + bad_line + "\n"
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=re.escape(text)) as caught:
        Trace(TraceParams(path, BLOCK_COLUMNS))
    assert caught.value.path == f"{path}:{7 + filler}"
    assert caught.value.exit_code == 2


def test_line_numbers_count_blank_and_quoted_lines(tmp_path: Path) -> None:
    path = write(tmp_path, 'key,size\n\n"a\nb",1\n\nc,x\n')
    with pytest.raises(DataError) as caught:
        Trace(TraceParams(path))
    assert caught.value.path == f"{path}:6"


def test_time_going_back_across_chunks(tmp_path: Path) -> None:
    content = "time,key\n" + "5,a\n" * 1024 + "4,a\n"
    path = write(tmp_path, content)
    words = "time '4' is before that of the previous request, '5'"
    with pytest.raises(DataError, match=words) as caught:
        Trace(TraceParams(path))
    assert caught.value.path == f"{path}:1026"


def test_an_unknown_column_is_named_with_a_suggestion(tmp_path: Path) -> None:
    path = write(tmp_path, BLOCK_IO)
    with pytest.raises(DataError, match=r"columns\.key") as caught:
        Trace(TraceParams(path, Columns(key="lbm")))
    assert caught.value.path == f"{path}:1"
    assert "'lbn'" in str(caught.value)
    with pytest.raises(DataError, match=r"'when' for columns\.time"):
        Trace(TraceParams(path, Columns(key="lbn", time="when")))


@pytest.mark.parametrize(
    ("content", "message"), [("", "empty"), ("\n\n", "empty"), ("key\n", "no request")]
)
def test_a_file_without_requests(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=message) as caught:
        Trace(TraceParams(path))
    assert caught.value.path == path


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="No such file") as caught:
        Trace(TraceParams("no/trace.csv"))
    assert caught.value.path == "no/trace.csv"
    assert str(tmp_path) in str(caught.value)


def test_a_folder_is_no_trace(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the trace file"):
        Trace(TraceParams(str(tmp_path)))


def test_a_trace_runs_in_the_simulator_row_by_row(tmp_path: Path) -> None:
    config = Path(__file__).parent.parent / "configs" / "trace.yaml"
    path = write(tmp_path, BLOCK_IO)
    overrides = (f"workload.path={path}", "runtime=sim", "arrival.sessions=1")
    record = execute(plan(load(config, *overrides)))
    history = record.history
    assert sorted(history.kind.tolist()) == [READ] * 3 + [WRITE] * 2
    assert (history.outcome == OK).all()
    assert sorted(history.key_names[key] for key in history.key) == [b"7", b"7", b"8", b"8", b"9"]
    # What was written is in the cache by then.
    (node,) = record.nodes
    assert (node.cache_hits.sum(), node.cache_misses.sum()) == (2, 1)
