"""History files: every format says the same, and what is wrong is told with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checker_histories import history, read, write
from model_histories import Row, row, write_lines

from orchestrator.check import check_file
from orchestrator.core.history import NOTHING
from orchestrator.core.machine import CAS, FAIL, INCREMENT, OK, READ, TRANSACTION, UNKNOWN, WRITE
from orchestrator.core.verdict import operation
from orchestrator.errors import DataError, InputError
from orchestrator.store._edn import EdnError, Keyword, read_values
from orchestrator.store.history_files import read_history

GOOD = [row(1, "write", 3, 10, 20), row(2, "read", 3, 15, 25)]


def lines(tmp_path: Path, text: str, ending: str = "jsonl") -> str:
    path = tmp_path / f"history.{ending}"
    path.write_text(text)
    return str(path)


# --- JSON lines -------------------------------------------------------------------------


def test_rows_become_columns_in_the_order_of_invocation(tmp_path: Path) -> None:
    rows = [
        {"client": 7, "op": "get", "key": 1, "value": None, "invoked_ns": 50, "returned_ns": 60,
         "status": "ok", "phase": "final", "level": "causal", "version": 4, "node": 2},
        {"session": 3, "op": "cas", "key": "x", "value": 4, "expected": 3, "invoked_ns": 10,
         "returned_ns": 25, "status": "fail"},
        {"session": 3, "op": "put", "key": "x", "value": 3, "invoked_ns": 30,
         "returned_ns": None, "status": "unknown"},
    ]  # fmt: skip
    found = read_history(write_lines(tmp_path / "h.jsonl", rows), "cas-register")
    history = found.history
    assert found.line.tolist() == [2, 3, 1]
    assert history.session.tolist() == [3, 3, 7]
    assert history.sequence.tolist() == [0, 1, 0]
    assert history.kind.tolist() == [CAS, WRITE, READ]
    assert history.outcome.tolist() == [FAIL, UNKNOWN, OK]
    assert history.returned_ns.tolist() == [25, -1, 60]
    assert [history.key_names[key] for key in history.key] == [b"x", b"x", b"1"]
    assert history.values is not None and history.expected_id is not None
    assert [history.values[one] for one in history.value_id] == [4, 3, None]
    assert history.values[history.expected_id[0]] == 3
    assert history.value_id[2] == 0  # null is the initial value
    shown = operation(history, 2)
    assert (shown["version"], shown["node"], shown["phase"]) == (4, 2, "final")
    assert operation(history, 0)["expected"] == 3


def test_values_are_told_apart_as_json_does(tmp_path: Path) -> None:
    values = [1, True, "1", None, 1.5, [1, 2], [True, 2], "", 0, False]
    rows = [row(1, "write", value, at, at) for at, value in enumerate(values)]
    history = read_history(write_lines(tmp_path / "h.jsonl", rows), "register", initial=0).history
    assert history.values is not None
    assert len(set(history.value_id.tolist())) == len(values)
    assert history.value_id[8] == 0
    assert history.values[history.value_id[5]] == (1, 2)
    assert history.values[history.value_id[1]] is True


def test_reads_without_an_answer_have_no_value(tmp_path: Path) -> None:
    lost = row(1, "read", None, 5, None)
    del lost["value"]
    history = read_history(write_lines(tmp_path / "h.jsonl", [lost]), "register").history
    assert history.value_id.tolist() == [NOTHING]


def test_transactions(tmp_path: Path) -> None:
    ops = [{"op": "r", "key": "x", "value": None}, {"op": "append", "key": "y", "value": [1]}]
    one = row(1, "txn", None, 0, 5, ops=ops)
    del one["key"], one["value"]
    history = read_history(write_lines(tmp_path / "h.jsonl", [one]), "txn").history
    assert history.kind.tolist() == [TRANSACTION]
    assert history.values is not None
    assert history.values[history.value_id[0]] == (("read", "x", None), ("append", "y", (1,)))
    assert operation(history, 0)["ops"][0] == {"op": "read", "key": "x", "value": None}


def test_blank_lines_count_and_the_last_newline_may_be_missing(tmp_path: Path) -> None:
    text = "\n\n".join(json.dumps(one) for one in GOOD)
    assert read_history(lines(tmp_path, text), "register").line.tolist() == [1, 3]


BAD_LINES: list[tuple[str, dict[str, Any], str]] = [
    ("before it was invoked", {"invoked_ns": 30, "returned_ns": 29}, "returned before"),
    ("unknown op", {"op": "reed"}, "unknown op 'reed' (did you mean 'read'?)"),
    ("foreign op", {"op": "enqueue"}, "model register has no operation 'enqueue'"),
    ("unknown status", {"status": "okay"}, "unknown status 'okay'"),
    ("unknown phase", {"phase": "late"}, "unknown phase 'late'"),
    ("unknown level", {"level": "quantum"}, "unknown level 'quantum'"),
    ("time is text", {"invoked_ns": "30"}, "invoked_ns: Expected `int`, got `str`"),
    ("session is text", {"session": "a"}, "session: Expected"),
    ("time is negative", {"invoked_ns": -1}, "invoked_ns is negative"),
    ("time is too large", {"returned_ns": 1 << 70}, "does not fit 64 bits"),
    ("ok without return", {"returned_ns": None}, "returned_ns is missing"),
    ("no session", {"session": None}, "the field session is missing"),
    ("overlap", {"session": 2, "invoked_ns": 20}, "began this operation before the one at line 2"),
    ("no key", {"key": None}, "the field key is missing"),
]


@pytest.mark.parametrize(("change", "message"), [(c, m) for _, c, m in BAD_LINES],
                         ids=[name for name, _, _ in BAD_LINES])  # fmt: skip
def test_bad_lines_are_told_with_their_number(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    rows = [*GOOD, {**row(4, "write", 9, 30, 40), **change}]
    with pytest.raises(DataError) as caught:
        read_history(write_lines(tmp_path / "h.jsonl", rows), "register")
    assert message in str(caught.value)
    assert str(caught.value.path).endswith(":3")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["op", "key", "invoked_ns", "status", "value", "session"])
def test_missing_fields_are_named(name: str, tmp_path: Path) -> None:
    spoilt = dict(GOOD[1])
    del spoilt[name]
    with pytest.raises(DataError, match=name) as caught:
        read_history(write_lines(tmp_path / "h.jsonl", [GOOD[0], spoilt]), "register")
    assert str(caught.value.path).endswith(":2")


def test_a_file_that_is_cut_off_or_no_json(tmp_path: Path) -> None:
    text = "".join(json.dumps(one) + "\n" for one in GOOD)
    for cut, line in ((text[:-20], 2), (text + "{", 3), (text + "[1]\n", 3), ("hello\n" + text, 1)):
        with pytest.raises(DataError) as caught:
            read_history(lines(tmp_path, cut), "register")
        assert str(caught.value.path).endswith(f":{line}")
    with pytest.raises(InputError, match="no such file"):
        read_history(str(tmp_path / "absent.jsonl"), "register")
    with pytest.raises(InputError, match="format is not known"):
        read_history(str(tmp_path / "absent"), "register")
    with pytest.raises(InputError, match="unknown format"):
        read_history(lines(tmp_path, text), "register", form="csv")


def test_collections_and_counters_need_fitting_values(tmp_path: Path) -> None:
    for model, op, value in (
        ("append", "read", 3),
        ("set", "read", "abc"),
        ("counter", "incr", "1"),
        ("counter", "read", True),
        ("queue", "enqueue", None),
        ("kv", "append", 3),
    ):
        with pytest.raises(DataError, match="must be"):
            path = write_lines(tmp_path / "h.jsonl", [row(1, op, value, 0, 5)])
            read_history(path, model)


def test_values_that_must_be_unique(tmp_path: Path) -> None:
    rows = [row(1, "write", 3, 0, 5), row(2, "read", 3, 10, 15), row(1, "write", 3, 20, 25)]
    path = write_lines(tmp_path / "h.jsonl", rows)
    with pytest.raises(DataError, match="3 is written to key x again") as caught:
        check_file(path, model="register", level="causal")
    assert str(caught.value.path).endswith(":3")
    assert check_file(path, model="register", level="strict")["verdict"] == "valid"
    with pytest.raises(DataError, match="initial value"):
        check_file(path, model="register", level="causal", initial=3)


# --- other formats ----------------------------------------------------------------------


EDN = """; from a test
{:process 0, :type :invoke, :f :write, :value 3}
{:process 1, :type :invoke, :f :read, :value nil, :key :x}
{:process :nemesis, :type :info, :f :start, :value nil}
#jepsen.history.Op{:process 1, :type :ok, :f :read, :value 3, :key :x}
{:process 0, :type :info, :f :write, :value :timed-out}
{:process 2, :type :invoke, :f :cas, :value [3 4]}
{:process 2, :type :fail, :f :cas, :value [3 4]}
{:process 3, :type :invoke, :f :read, :value nil}
"""
LOG = """INFO  jepsen.core - setting up
INFO  jepsen.util - 0\t:invoke\t:write\t3
INFO  jepsen.util - 1\t:invoke\t:read\tnil
INFO  jepsen.util - :nemesis\t:info\t:start\tnil
INFO  jepsen.util - 1\t:ok\t:read\t3
INFO  jepsen.util - 0\t:info\t:write\t:timed-out
INFO  jepsen.util - 2\t:invoke\t:cas\t[3 4]
INFO  jepsen.util - 2\t:fail\t:cas\t[3 4]
INFO  jepsen.util - 3\t:invoke\t:read\tnil
"""


@pytest.mark.parametrize(
    ("text", "ending"),
    [(EDN, "edn"), ("[" + EDN + "]", "edn"), (LOG, "log"), (EDN.partition("\n")[2], "log")],
)
def test_jepsen_histories(text: str, ending: str, tmp_path: Path) -> None:
    history = read_history(lines(tmp_path, text, ending), "cas-register").history
    assert history.session.tolist() == [0, 1, 2, 3]
    assert history.outcome.tolist() == [UNKNOWN, OK, FAIL, UNKNOWN]
    assert history.returned_ns[0] == history.returned_ns[3] == -1
    assert history.invoked_ns[1] < history.returned_ns[1] < history.invoked_ns[2]
    assert history.values is not None and history.expected_id is not None
    assert [history.values[one] for one in history.value_id[:3]] == [3, 3, 4]
    assert history.values[history.expected_id[2]] == 3


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("{:process 0 :type :ok :f :read :value 1}", 1, "without an open :invoke"),
        ("{:process 0 :type :invoke :f :read}\n" * 2, 2, "process 0 invokes again"),
        ("{:process 0 :type :invoke :f :read}\n{:process 0 :type :ok :f :write}", 2, "not :write"),
        ("{:process 0 :type :done :f :read}", 1, "unknown :type 'done'"),
        ("{:process 0 :type :invoke}", 1, ":f is missing"),
        ("{:process 0\n :type :invoke", 1, "cut off"),
        ("{:process 0 :type :invoke :f :reed}", 1, "unknown op 'reed'"),
        ("{:process 0 :type :invoke :f :cas :value 3}", 1, "[expected new]"),
        ('{:process 0 :type :invoke :f :write :value "a', 1, "not closed"),
        ("{:process x :type :invoke :f :read}\n{:process 0.5 :type :invoke :f :read}", 2, "number"),
        ("3", 1, "expected a map"),
    ],
)
def test_bad_edn_is_told_with_its_line(text: str, line: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_history(lines(tmp_path, text, "edn"), "cas-register")
    assert message in str(caught.value)
    assert str(caught.value.path).endswith(f":{line}")


@pytest.mark.parametrize(
    "tail", ["INFO  jepsen.util - 3\t:ok", "INFO  jepsen.util - 3\t:ok\t:read", "INFO  jep"]
)
def test_a_log_that_is_cut_off(tail: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cut off") as caught:
        read_history(lines(tmp_path, LOG + tail, "log"), "cas-register")
    assert str(caught.value.path).endswith(":10")


def test_jepsen_counters_add_and_transactions_are_vectors(tmp_path: Path) -> None:
    text = "{:process 0 :type :invoke :f :add :value 2}\n{:process 0 :type :ok :f :add :value 2}"
    history = read_history(lines(tmp_path, text, "edn"), "counter").history
    assert history.kind.tolist() == [INCREMENT]
    text = (
        "{:process 0 :type :invoke :f :txn :value [[:append 5 1] [:r 6 nil]]}\n"
        "{:process 0 :type :ok :f :txn :value [[:append 5 1] [:r 6 [1 2]]]}"
    )
    history = read_history(lines(tmp_path, text, "edn"), "txn").history
    assert history.values is not None
    assert history.values[history.value_id[0]] == (("append", 5, 1), ("read", 6, (1, 2)))


def test_edn_values() -> None:
    text = r'nil true -3 4N 2.5 :a/b "x\n\"y\"" #{1} (1 2) #_ {:gone 1} #inst "z" #_ 7 sym ; end'
    values = [value for _, value in read_values(text)]
    assert values[:4] == [None, True, -3, 4]
    assert values[4:7] == [2.5, "a/b", 'x\n"y"']
    assert isinstance(values[5], Keyword)
    assert values[7:] == [[(1, 1)], [(1, 1), (1, 2)], "z", "sym"]
    for wrong in ("]", "(]", "{:a}", "1.2.3", "^"):
        with pytest.raises(EdnError):
            list(read_values(wrong + " ("))


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    rows: list[Row] = [*GOOD, row(3, "cas", 5, 30, 40, expected=3), row(4, "write", 6, 50, None)]
    names = list(rows[2])
    table = pa.table({name: [one.get(name) for one in rows] for name in names})
    path = str(tmp_path / "h.parquet")
    pyarrow.parquet.write_table(table, path)
    expected = read_history(write_lines(tmp_path / "h.jsonl", rows), "cas-register").history
    found = read_history(path, "cas-register").history
    for name in ("session", "kind", "value_id", "returned_ns", "outcome", "key", "sequence"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()
    with pytest.raises(DataError, match="no column op"):
        pyarrow.parquet.write_table(table.drop_columns(["op"]), path)
        read_history(path, "cas-register")
    with pytest.raises(DataError, match="column invoked_ns holds"):
        wrong = table.set_column(table.schema.get_field_index("invoked_ns"), "invoked_ns",
                                 pa.array(["a"] * 4))  # fmt: skip
        pyarrow.parquet.write_table(wrong, path)
        read_history(path, "cas-register")
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a whole Parquet file"):
        read_history(path, "cas-register")


def test_lists_and_transactions_in_parquet_are_json_or_columns(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    path = str(tmp_path / "h.parquet")
    rows = [row(1, "append", "3", 0, 5), row(2, "read", '["3"]', 6, 9)]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    history = read_history(path, "append").history
    assert history.values is not None
    assert history.values[history.value_id[1]] == ("3",)
    one = row(1, "txn", None, 0, 5, ops=[{"op": "w", "key": "x", "value": 1}])
    pyarrow.parquet.write_table(pa.Table.from_pylist([one]), path)
    history = read_history(path, "txn").history
    assert history.values is not None
    assert history.values[history.value_id[0]] == (("write", "x", 1),)


def test_the_operations_of_a_run_are_a_history_file(tmp_path: Path) -> None:
    import pyarrow.parquet

    from orchestrator.core.history import PRELOADED, value_id
    from orchestrator.store.parquet import operation_rows

    acts = [
        read(2, 1, 0, 5, NOTHING),
        read(2, 2, 6, 9, PRELOADED),
        write(1, 1, 10, 20),
        read(2, 3, 30, 40, value_id(1, 1)),
    ]
    path = str(tmp_path / "run.parquet")
    pyarrow.parquet.write_table(operation_rows("run", history(acts)), path)
    assert check_file(path, model="register", level="linearizable")["verdict"] == "valid"
    stale = [*acts, read(2, 4, 50, 60, PRELOADED)]
    pyarrow.parquet.write_table(operation_rows("run", history(stale)), path)
    found = check_file(path, model="register", level="linearizable")
    assert (found["verdict"], len(found["witness"])) == ("invalid", 2)
