"""What a new user gets wrong: one message that helps, the right exit code, nothing left behind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import YAML

from orchestrator import cli
from orchestrator._terminal import printable

TUNED = f"""\
{YAML}tune:
  trials: 3
  search:
    system.replicas: {{type: int, low: 1, high: 5}}
"""
ROWS = "lbn,time,op,size\n1,1,28,512\n"

Refused = Callable[..., dict[str, Any]]


@pytest.fixture
def refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Refused:
    """Gives a command twice, for people and for programs; returns the error object.

    There must be one message on stderr, nothing or one object on stdout, and no new file.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "small.yaml").write_text(YAML, encoding="utf-8")
    (tmp_path / "tuned.yaml").write_text(TUNED, encoding="utf-8")

    def give(*arguments: str, code: int = 2) -> dict[str, Any]:
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        assert cli.main(arguments) == code
        told = capsys.readouterr()
        assert told.out == ""
        assert sum(line.startswith("error: ") for line in told.err.splitlines()) == 1
        assert "Traceback" not in told.err
        assert cli.main([*arguments, "--json"]) == code
        printed = capsys.readouterr()
        assert printed.out.count("\n") == 1
        data = json.loads(printed.out)
        assert list(data) == ["error"]
        assert sorted(tmp_path.rglob("*")) == before
        error: dict[str, Any] = data["error"]
        error["words"] = f"{error['message']} ({error['hint']})"
        return error

    return give


# --- the command line -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["foretell", "a"], "no such command: 'foretell' (allowed: run, sweep, tune"),
        (["runn", "small.yaml"], "no such command: 'runn' (did you mean 'run'?)"),
        (["--speed", "3"], "No such option: --speed (see archbench --help)"),
        (["run"], "Missing argument 'CONFIG' (see archbench run --help)"),
        (["predict", "small.yaml", "--loads", "0.5,2"], "'0.5,2' are none (shares of the capacity"),
        (["predict", "small.yaml", "--repeat", "0"], "0 are too few (1 or more)"),
        (["predict", "small.yaml", "--sessions", "0"], "0 are too few (1 or more)"),
        (["calibrate", "--seconds", "0"], "0 is none (from 0.2 to 60)"),
        (["calibrate", "--protocol", "rafd"], "did you mean 'raft'"),
        (["sweep", "small.yaml"], "no axis to sweep (give a list"),
        (["sweep", "small.yaml", "seed=4"], "no axis to sweep"),
        (["sweep", "small.yaml", "--dry-run"], "No such option: --dry-run"),
        (["sweep", "small.yaml", "nonsense"], "malformed override 'nonsense' (write path=value"),
        (["list", "nosuchfamily"], "unknown family 'nosuchfamily' (allowed: protocol, "),
    ],
)
def test_a_wrong_command_says_what_there_is(
    refused: Refused, arguments: list[str], words: str
) -> None:
    assert words in refused(*arguments)["words"]


@pytest.mark.parametrize(
    ("overrides", "path", "words"),
    [
        (["system.replicas=0,1"], "system.replicas", "0 is out of bounds (allowed: 1 to 1000)"),
        (["system.replcas=1,2"], "system.replcas", "did you mean 'replicas'?"),
        (["seed=1,2", "seed=3,4"], "seed", "the axis is given twice (join the two lists)"),
        (["seed=1,2", "seed=3"], "seed", "is an axis, and 'seed=3' gives it one value"),
        (["seed=1,2", "--seed", "3"], "seed", "is an axis, and 'seed=3' gives it one value"),
        (["system.memory=1GiB,"], "system.memory", "'1GiB,' has an empty value (write null"),
    ],
)
def test_a_wrong_axis_is_refused_before_anything_runs(
    refused: Refused, overrides: list[str], path: str, words: str
) -> None:
    error = refused("sweep", "small.yaml", *overrides)
    assert error["path"] == path
    assert words in error["words"]


@pytest.mark.parametrize(
    ("arguments", "path", "words"),
    [
        (["arrival={name: poisson, rate: 9/s}"], "tune.objectives[0].metric", "fixed open rate"),
        (["tune.search={system.replcas: {type: int, low: 1, high: 5}}"], "tune.search.system.", ""),
        (["tune.search.system.replicas.low=9"], "tune.search.system.replicas.high", "below low 9"),
        (["tune.search={}"], "tune.search", "nothing is searched (name a config path"),
        (["--trials", "0"], "--trials", "0 is no number of trials (at least 1)"),
        (["--storage", "mysql"], "--storage", "unknown storage 'mysql' (allowed: journal, sqlite"),
        (["--study", "a/b"], "--study", "'a/b' cannot name a study"),
        (["--results", "s3://bucket/folder"], "--results", "must be local"),
        (["tune.objectives[0].metric=throughput"], "tune.obj", "did you mean 'throughput_ops'?"),
    ],
)
def test_a_study_that_cannot_be_is_refused_before_it_starts(
    refused: Refused, arguments: list[str], path: str, words: str
) -> None:
    error = refused("tune", "tuned.yaml", *arguments)
    assert error["path"].startswith(path)
    assert words in error["words"]


def test_a_forgotten_space_after_a_colon_is_pointed_out(refused: Refused) -> None:
    error = refused("run", "small.yaml", "arrival={name:poisson,rate:100/s}")
    assert "put a space after the colon: {name: poisson}" in error["words"]


# --- files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "place", "words"),
    [
        (b"just a text\n", "c.yaml", "no mapping"),
        (b"- 1\n", "c.yaml", "no mapping"),
        (b"{a: [1\n", "c.yaml:2", "bad YAML"),
        (b"\x89PNG\r\n\x1a\n\0", "c.yaml", "not UTF-8"),
        (b"\x7fELF\x02\x01\x01\0", "c.yaml", "bad YAML"),
    ],
)
def test_a_file_that_is_no_config(
    refused: Refused, tmp_path: Path, content: bytes, place: str, words: str
) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    for command in ("run", "tune", "show"):
        error = refused(command, "c.yaml")
        assert error["path"] == place
        assert words in error["words"]


def test_a_folder_is_no_config(refused: Refused) -> None:
    error = refused("run", ".")
    assert (error["path"], error["hint"]) == (".", "give a YAML file in it")


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (ROWS + "2,2,28\n", ":3", "malformed line '2,2,28': 3 fields (the header has 4"),
        (ROWS + "2,2,zz,8\n", ":3", "unknown operation 'zz' (known: read"),
        (ROWS + "2,0,28,8\n", ":3", "before that of the previous request, '1' (sort"),
        (ROWS + "2,nan,28,8\n", ":3", "malformed time 'nan'"),
        (ROWS + f"2,2,28,{'9' * 5000}\n", ":3", f"malformed size '{'9' * 60}...'"),
        (ROWS + f"{'x' * 5000}\n", ":3", f"malformed line '{'x' * 60}...': 1 fields"),
        ('lbn,time,op,size\n"1,2,28,8\n', ":2", "unexpected end of data"),
        ("x" * 5000, ":1", f"no column 'lbn' for columns.key (allowed: {'x' * 60}...)"),
        ("lbn,time,op,size\n", "", "no request after its header"),
        ("", "", "the trace file is empty"),
        (None, "", "cannot read the trace file: No such file"),
    ],
)
@pytest.mark.parametrize("runtime", ["sim", "ray"])
def test_a_trace_names_its_bad_line(
    refused: Refused, tmp_path: Path, content: str | None, line: str, words: str, runtime: str
) -> None:
    if content is not None:
        (tmp_path / "t.csv").write_text(content, encoding="utf-8")
    slot = "workload={name: trace, path: t.csv, columns: {key: lbn}}"
    error = refused("run", "small.yaml", slot, "--runtime", runtime)
    assert error["path"] == f"t.csv{line}"
    assert words in error["words"]


def test_what_would_garble_a_terminal_is_escaped() -> None:
    assert printable("a\x1b[31m\ttab\nü\udcff") == "a\\x1b[31m\\ttab\nü\\udcff"


# --- the results folder -----------------------------------------------------------------

COMMANDS = [
    ("run", "small.yaml"),
    ("sweep", "small.yaml", "system.replicas=1,3"),
    ("tune", "tuned.yaml"),
]


@pytest.fixture
def no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that comes to life fails the test: it must be told before."""

    def fail(*_: Any) -> None:
        pytest.fail("a run was started")

    monkeypatch.setattr("orchestrator.runtimes.simulated.run", fail)


@pytest.mark.usefixtures("no_run")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("results", ["", "file", "file/below/it", "nosuch://folder"])
def test_results_that_can_be_no_folder(
    refused: Refused, tmp_path: Path, command: tuple[str, ...], results: str
) -> None:
    (tmp_path / "file").write_text("")
    error = refused(*command, "--results", results)
    assert error["path"] in (results, "--results")
    assert error["hint"]


@pytest.mark.usefixtures("no_run")
@pytest.mark.parametrize("command", COMMANDS)
def test_results_that_may_not_be_written_are_told_before_the_run(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    access = os.access

    def readable(path: str, mode: int) -> bool:
        return access(path, mode) and not mode & os.W_OK

    monkeypatch.setattr(os, "access", readable)
    error = refused(*command, "--results", "some/where", code=3)
    assert (error["kind"], error["path"]) == ("EnvironmentFailure", "some/where")
    assert "may not be written" in error["message"]


def test_writing_that_fails_is_told_without_a_traceback(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["run", "small.yaml"]) == 0

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "results/reports")

    monkeypatch.setattr("orchestrator.report.page.write", full)
    error = refused("report", code=3)
    assert (error["path"], error["message"]) == ("results/reports", "No space left on device")


def test_names_that_are_not_there(refused: Refused) -> None:
    assert cli.main(["run", "small.yaml"]) == 0
    error = refused("report", "smal")
    assert (error["path"], error["hint"]) == ("results", "did you mean 'small'?")
    assert (
        "neither a run nor an experiment is called '../up'" in refused("report", "../up")["words"]
    )


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE mine AS SELECT 1",
        "INSERT INTO runs SELECT * FROM runs",
        "UPDATE runs SET valid = true",
        "DELETE FROM runs",
        "DROP VIEW runs",
        "SELECT 1; DROP TABLE runs",
        "COPY runs TO 'runs.csv'",
        "ATTACH 'new.db'",
    ],
)
def test_a_query_that_would_write_is_refused(refused: Refused, tmp_path: Path, sql: str) -> None:
    (tmp_path / "results").mkdir()
    error = refused("query", sql)
    assert (error["path"], error["hint"]) == ("query", "queries only read the results")


def test_bad_sql_is_bad_input(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    assert "SELECT * FROM runs" in refused("query", "")["hint"]
    for sql in ("SELEC 1", "SELECT nothing FROM runs", "SELECT * FROM rums"):
        assert refused("query", sql)["kind"] == "InputError"


# --- the cluster ------------------------------------------------------------------------


@pytest.mark.parametrize("command", [*COMMANDS, ("run", "small.yaml", "--dry-run")])
def test_a_cluster_that_is_not_there(refused: Refused, command: tuple[str, ...]) -> None:
    error = refused(*command, "--runtime", "ray", "--address", "127.0.0.1:1", code=3)
    assert error["kind"] == "EnvironmentFailure"
    assert "no Ray cluster answers at '127.0.0.1:1'" in error["message"]
    assert "ray start --head" in error["hint"]
