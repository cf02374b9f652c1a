"""The command line's contract: what goes to stdout, what to stderr, and the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_runs import YAML

from orchestrator import cli, doctor
from orchestrator._terminal import json_line
from orchestrator.analysis.summary import KEYS
from orchestrator.config.load import load
from orchestrator.doctor import Check
from orchestrator.errors import EnvironmentFailure
from orchestrator.run import Runner

ROOT = Path(__file__).resolve().parent.parent


class Said:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def data(self) -> Any:
        """stdout as the one JSON object that it must be."""
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """The error object."""
        assert list(self.data) == ["error"]
        return self.data["error"]


class Shell:
    """Calls the command line in a folder of its own, with a small config in it."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self._capsys = capsys
        self.config = home / "small.yaml"
        self.config.write_text(YAML, encoding="utf-8")

    def __call__(self, *arguments: str) -> Said:
        self._capsys.readouterr()
        code = cli.main(list(arguments))
        printed = self._capsys.readouterr()
        return Said(code, printed.out, printed.err)


@pytest.fixture
def shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return Shell(tmp_path, capsys)


# --- run --------------------------------------------------------------------------------


def test_run_prints_one_object_with_every_key(shell: Shell) -> None:
    said = shell("run", "small.yaml", "--seed", "7", "--json")
    assert said.code == 0, said.err
    assert tuple(said.data) == KEYS
    assert (said.data["seed"], said.data["runtime"], said.data["results"]) == (7, "sim", "results")
    assert said.out.count("\n") == 1
    assert said.err == "running small on sim\n"


def test_run_tells_people_what_they_need(shell: Shell) -> None:
    said = shell("run", "small.yaml", "slo.p99=1s", "record.operations=sample", "--results", "here")
    assert said.code == 0
    for words in ("ops/s", "p99", "leader.cpu", "valid: linearizable", "SLO", "stored", "here"):
        assert words in said.out


@pytest.mark.parametrize(
    ("override", "reason"),
    [("slo.p99=1us", "p99 is"), ("duration=2ms", "operations were measured")],
)
def test_a_bad_verdict_is_exit_1_and_still_a_result(
    shell: Shell, override: str, reason: str
) -> None:
    said = shell("run", "small.yaml", override)
    assert said.code == 1
    assert reason in said.out
    assert shell("run", "small.yaml", override, "--json").code == 1


def test_options_win_over_overrides(shell: Shell) -> None:
    said = shell("run", "small.yaml", "runtime=ray", "seed=3", "--runtime", "sim", "--json")
    assert (said.data["runtime"], said.data["seed"]) == ("sim", 3)


def test_repeats_are_listed(shell: Shell) -> None:
    said = shell("run", "small.yaml", "--repeat", "2", "--json")
    assert [each["seed"] for each in said.data["repeats"]] == [1, 2]
    assert "2 repeats" in shell("run", "small.yaml", "--repeat", "2").out


def test_a_dry_run_runs_nothing(shell: Shell) -> None:
    said = shell("run", "small.yaml", "--dry-run", "--json")
    assert said.code == 0
    assert {"runs", "nodes", "seconds", "disk_bytes"} <= set(said.data)
    assert "virtual time" in shell("run", "small.yaml", "--dry-run").out
    assert not (shell.home / "results").exists()


# --- bad input --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "path", "words"),
    [
        ("system.replicsa=3", "system.replicsa", "did you mean 'replicas'?"),
        ("system.replicas=0", "system.replicas", "allowed: 1 to 1000"),
        ("duration=5", "duration", "no unit of time"),
        ("duration=5MiB", "duration", "no unit of time"),
        ("system.protocol.name=rafft", "system.protocol.name", "did you mean 'raft'?"),
        ("check.level=linearisable", "check.level", "linearizable"),
        ("runtime=simulator", "runtime", "sim"),
        ("nonsense", None, "write path=value"),
        ("clients=9", "arrival.sessions", "at least one"),
        ("workload={name: trace, path: gone.csv}", "gone.csv", "No such file"),
    ],
)
def test_wrong_input_is_one_message_and_exit_2(
    shell: Shell, override: str, path: str | None, words: str
) -> None:
    said = shell("run", "small.yaml", override)
    assert (said.code, said.out) == (2, "")
    assert words in said.err
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    told = shell("run", "small.yaml", override, "--json")
    assert told.code == 2
    assert told.error["path"] == path
    assert words in f"{told.error['message']} {told.error['hint']}"
    assert not (shell.home / "results").exists()


def test_a_malformed_line_of_a_trace_is_named(shell: Shell) -> None:
    (shell.home / "t.csv").write_text("time,op,size,key\n1,28,512,7\n2,28,many,8\n")
    said = shell("run", "small.yaml", "workload={name: trace, path: t.csv}", "--json")
    assert said.code == 2
    assert said.error["path"] == "t.csv:3"
    assert said.error["kind"] == "DataError"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "small.yaml", "--speed", "3"], "--speed"),
        (["run"], "CONFIG"),
        (["runn", "small.yaml"], "runn"),
        (["run", "small.yaml", "--seed", "x"], "--seed"),
        (["run", "smal.yaml"], "did you mean 'small.yaml'?"),
        (["run", "small.yaml", "--repeat", "0"], "--repeat"),
        (["list", "protocl"], "did you mean 'protocol'?"),
        (["sweep", "small.yaml", "system.replicas=0,1"], "system.replicas"),
        (["query", "SELECT 1"], "no results here"),
        (["report", "nobody"], "no results here"),
        (["show", "small.yaml", "seed=-1"], "seed"),
    ],
)
def test_a_wrong_command_line_is_exit_2(shell: Shell, arguments: list[str], words: str) -> None:
    said = shell(*arguments)
    assert (said.code, said.out) == (2, "")
    assert words in said.err
    assert said.err.count("\n") == 1
    told = shell(*arguments, "--json")
    assert told.code == 2
    assert words in f"{told.error['path']} {told.error['message']} {told.error['hint']}"


def test_an_unreachable_cluster_is_exit_3_and_leaves_nothing(shell: Shell) -> None:
    said = shell("run", "small.yaml", "runtime=ray", "--address", "127.0.0.1:1", "--json")
    assert said.code == 3
    assert said.error["kind"] == "EnvironmentFailure"
    assert "127.0.0.1:1" in said.error["message"]
    assert "Traceback" not in said.err
    assert not (shell.home / "results").exists()


# --- what else can happen ---------------------------------------------------------------


def broken(shell: Shell, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Said:
    """A run in which this happens."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Runner, "run", fail)
    return shell("run", "small.yaml", "--json")


def test_ctrl_c_is_exit_130(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    said = broken(shell, monkeypatch, KeyboardInterrupt())
    assert said.code == 130
    assert said.error["kind"] == "RunInterrupted"
    assert "Traceback" not in said.err


def test_a_failing_environment_is_exit_3(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    said = broken(shell, monkeypatch, EnvironmentFailure("a node died", hint="try again"))
    assert (said.code, said.error["hint"]) == (3, "try again")


def test_a_defect_shows_its_traceback_on_stderr_alone(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = broken(shell, monkeypatch, ZeroDivisionError("by zero"))
    assert said.code == 3
    assert said.error == {
        "kind": "ZeroDivisionError",
        "message": "by zero",
        "path": None,
        "hint": None,
    }
    assert "Traceback" in said.err


def test_whatever_a_library_prints_stays_off_stdout(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Runner.run

    def chatty(self: Runner, *arguments: Any, **named: Any) -> Any:
        print("hello from a library")
        return run(self, *arguments, **named)

    monkeypatch.setattr(Runner, "run", chatty)
    said = shell("run", "small.yaml", "--json")
    assert tuple(said.data) == KEYS
    assert "hello" in said.err


def test_numbers_that_json_lacks_become_null() -> None:
    line = json_line({"a": float("nan"), "b": [float("inf"), 1.5], 3: "–"})
    assert json.loads(line) == {"a": None, "b": [None, 1.5], "3": "–"}
    assert line.isascii()


# --- the other commands -----------------------------------------------------------------


def test_show_resolves_the_configuration(shell: Shell) -> None:
    said = shell("show", "small.yaml", "duration=1500ms")
    assert said.code == 0
    (shell.home / "again.yaml").write_text(said.out)
    assert load("again.yaml") == load("small.yaml", "duration=1.5s")
    assert shell("show", "small.yaml", "--json").data["system"]["protocol"]["name"] == "raft"


def test_list_describes_every_family(shell: Shell) -> None:
    found = shell("list", "--json").data
    assert {"protocol", "balancer", "cache", "workload", "arrival", "system"} <= set(found)
    (raft,) = [each for each in found["protocol"] if each["name"] == "raft"]
    assert set(raft) == {"name", "summary", "claims", "params"}
    assert "linearizable" in raft["claims"]
    assert list(shell("list", "cache", "--json").data) == ["cache"]
    assert "lru" in shell("list").out


def test_query_answers_with_columns_and_rows(shell: Shell) -> None:
    run_id = shell("run", "small.yaml", "--json").data["run_id"]
    sql = "SELECT run_id, valid, offered_ops FROM runs"
    said = shell("query", sql, "--json")
    assert said.data == {
        "columns": ["run_id", "valid", "offered_ops"],
        "rows": [[run_id, True, None]],
    }
    assert run_id in shell("query", sql).out
    wrong = shell("query", "SELECT nothing FROM runs", "--json")
    assert (wrong.code, wrong.error["kind"]) == (2, "InputError")
    assert shell("query", "DROP TABLE runs").code == 2


def test_report_is_of_the_newest_run_or_the_one_named(shell: Shell) -> None:
    first = shell("run", "small.yaml", "--json").data["run_id"]
    second = shell("run", "small.yaml", "experiment=other", "--json").data["run_id"]
    assert second in shell("report", "--json").data["report"]
    for name in (first, "small"):
        said = shell("report", name, "--json")
        page = Path(said.data["report"])
        assert page.parts[:2] == ("results", "reports")
        assert first in page.read_text(encoding="utf-8")
        assert said.data["figures"] and all(
            Path(each).stat().st_size for each in said.data["figures"]
        )
    assert shell("report", second).out.splitlines()[-1].endswith("report.html")
    assert "did you mean 'other'?" in shell("report", "othr").err


def test_sweep_prints_a_table_or_an_object(shell: Shell) -> None:
    command = ("sweep", "small.yaml", "system.replicas=1,3", "seed=4")
    said = shell(*command, "--json")
    assert said.code == 0
    assert [run["values"] for run in said.data["runs"]] == [
        {"system.replicas": 1},
        {"system.replicas": 3},
    ]
    assert {run["seed"] for run in said.data["runs"]} == {4}
    again = shell(*command)
    assert "reused" in again.out and "replicas" in again.out
    assert again.err.splitlines()[-1].startswith("[2/2] system.replicas=3: reused")


def test_doctor_fails_only_for_what_is_needed(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_cluster", lambda address: [Check("ray", True, "is there")])
    said = shell("doctor", "--json")
    names = [check["name"] for check in said.data["checks"]]
    assert {"python", "packages", "cores", "/dev/shm", "timer", "redis-server", "ray"} <= set(names)
    assert all({"name", "ok", "detail"} <= set(check) for check in said.data["checks"])
    monkeypatch.setattr(doctor, "_redis", lambda: Check("redis-server", False, "no", needed=False))
    assert shell("doctor").code == said.code
    monkeypatch.setattr(doctor, "_cluster", lambda address: [Check("ray", False, "will not start")])
    assert shell("doctor").code == 3


def test_help_names_every_command(shell: Shell) -> None:
    said = shell("--help")
    assert said.code == 0
    for command in ("run", "sweep", "tune", "show", "list", "query", "report", "doctor", "cache"):
        assert command in said.out


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    script = f"{sys.executable} -m orchestrator.cli list --json | head -c 10"
    found = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == '{"protocol'
    assert "Error" not in found.stderr


@pytest.mark.serial
def test_a_real_run_fills_the_same_keys(joined: None, shell: Shell) -> None:
    found = shell("run", "small.yaml", "--runtime", "ray", "duration=1s", "--json")
    assert found.code in (0, 1), found.err  # a busy machine may make it invalid
    summary = found.data
    assert tuple(summary) == KEYS
    assert (summary["runtime"], summary["clock"], summary["digest"]) == ("ray", "real", None)
    assert summary["outcomes"]["ok"] > 100
    assert summary["consistency"]["verdict"] == "valid"
