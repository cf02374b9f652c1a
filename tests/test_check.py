"""`archbench check` from the outside: its object, its words, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from model_histories import row, write_lines

from orchestrator.cli import main
from orchestrator.core.levels import LEVELS, NONE, TRANSACTIONAL
from orchestrator.core.randomness import scalar_stream

GOOD = [row(1, "write", 100, 0, 100), row(2, "read", 100, 25, 75), row(3, "read", 0, 30, 60)]
BAD = [row(1, "write", 200, 0, 100), row(2, "read", 200, 10, 30), row(3, "read", 0, 40, 90)]


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], int]:
    code = main(["check", *arguments, "--json"])
    return json.loads(capsys.readouterr().out), code


def test_the_object_and_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--model", "register", "--level", "linearizable", "--initial", "0")
    found, code = asked(capsys, write_lines(tmp_path / "h.jsonl", GOOD), *options)
    assert code == 0
    assert list(found) == [
        "verdict", "level", "model", "operations", "keys", "witness", "explanation", "seconds",
    ]  # fmt: skip
    assert (found["verdict"], found["operations"], found["keys"]) == ("valid", 3, 1)
    found, code = asked(capsys, write_lines(tmp_path / "h.jsonl", BAD), *options)
    assert (found["verdict"], code) == ("invalid", 1)
    assert [one["session"] for one in found["witness"]] == [1, 2, 3]
    assert [one["value"] for one in found["witness"]] == [200, 200, 0]
    assert "Session 3's read #0 of key x returned the initial value 0, but" in found["explanation"]
    # The witness is a history of its own.
    found, code = asked(capsys, write_lines(tmp_path / "w.jsonl", found["witness"]), *options)
    assert (found["verdict"], code) == ("invalid", 1)


def test_what_people_see(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_lines(tmp_path / "h.jsonl", BAD)
    assert main(["check", path, "--model", "register", "--initial", "0"]) == 1
    said = capsys.readouterr().out
    assert "invalid" in said and "3 operations on 1 key" in said and "200" in said
    cas = [row(1, "cas", 2, 0, 5, expected=1), row(1, "read", 2, 6, 9)]
    path = write_lines(tmp_path / "h.jsonl", cas)
    assert main(["check", path, "--model", "cas-register"]) == 1
    assert "[1, 2]" in capsys.readouterr().out


def test_unknown_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(s, "enqueue", s, 0, 100) for s in range(1, 9)]
    rows += [row(s, "dequeue", 9 - s, 100 + 10 * s, 109 + 10 * s) for s in range(1, 9)]
    path = write_lines(tmp_path / "h.jsonl", rows)
    found, code = asked(capsys, path, "--model", "queue", "--budget", "2")
    assert (found["verdict"], code) == ("unknown", 1)


def test_durability_asks_what_is_still_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writes = [row(1, "write", 1, 0, 5), row(1, "write", 2, 6, 9)]
    options = ("--model", "register", "--level", "durability")

    def judged(*rows: dict[str, Any]) -> tuple[dict[str, Any], int]:
        return asked(capsys, write_lines(tmp_path / "h.jsonl", [*writes, *rows]), *options)

    found, code = judged(row(2, "read", 2, 20, 30, phase="final"))
    assert (found["level"], found["verdict"], code) == ("durability", "valid", 0)
    found, code = judged(row(2, "read", 1, 20, 30, phase="final"))
    assert (found["verdict"], code) == ("invalid", 1)
    assert "was acknowledged and is newer" in found["explanation"]
    found, code = judged(row(2, "read", 1, 20, 30))
    assert (found["verdict"], code) == ("unknown", 1)
    found, code = judged(row(2, "write", 1, 20, 30))
    assert code == 2
    assert found["error"]["path"].endswith("h.jsonl:3")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "registre"), "did you mean 'register'"),
        (("--model", "register", "--level", "linear"), "did you mean 'linearizable'"),
        (("--model", "queue", "--level", "causal"), "not defined here for model 'queue'"),
        (("--model", "register", "--failed-cas", "maybe"), "observed or not-happened"),
        (("--model", "register", "--budget", "0"), "no number of steps"),
        (("--model", "register", "--format", "csv"), "unknown format"),
        (("--level", "causal"), "--model"),
    ],
)
def test_wrong_questions_are_refused(
    arguments: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, code = asked(capsys, write_lines(tmp_path / "h.jsonl", GOOD), *arguments)
    assert code == 2
    assert said in json.dumps(found["error"])


def test_a_wrong_file_is_told_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "h.jsonl"
    write_lines(path, GOOD)
    path.write_text(path.read_text() + '{"session": 4, "op": "wri')
    found, code = asked(capsys, str(path), "--model", "register")
    assert code == 2
    assert found["error"]["path"] == f"{path}:4"


@pytest.mark.parametrize("level", [*LEVELS, "strict", "converged"])
def test_every_level_answers_for_a_file(
    level: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row(1, "write", 5, 0, 10), row(2, "read", 5, 20, 30, phase="final")]
    model = "register"
    if level in TRANSACTIONAL:
        rows = [row(1, "txn", None, 0, 10, ops=[{"op": "write", "key": "x", "value": 5}])]
        model = "txn"
    path = write_lines(tmp_path / "h.jsonl", rows)
    found, code = asked(capsys, path, "--model", model, "--level", level)
    assert (found["verdict"], code) == ("valid", 0), found["explanation"]
    assert found["level"] in {*LEVELS, NONE}


def timed_out_history(seed: int) -> list[dict[str, Any]]:
    """170 operations of 5 processes on one cas-register of 5 values, a third without an answer."""
    chance = scalar_stream(seed, "timed out")
    points, free = [], [0] * 5
    for number in range(170):
        process = min(range(5), key=lambda one: free[one])
        invoked = free[process] + chance.randrange(1, 20)
        returned = invoked + chance.randrange(1, 100)
        free[process] = returned
        kind = chance.choice(("read", "write", "cas"))
        lost = kind != "read" and chance.random() < 0.5
        late = invoked + chance.randrange(1, 2000)
        happens = (late if chance.random() < 0.5 else None) if lost else (invoked + returned) / 2
        points.append((happens, number, process, kind, lost, invoked, returned))
    rows, state = [], None
    for happens, number, process, kind, lost, invoked, returned in sorted(
        points, key=lambda point: (point[0] is None, point[0])
    ):
        new, expected = chance.randrange(5), chance.randrange(5)
        # Who got no answer goes on as another process.
        one = row(number * 5 + process, kind, new, invoked, None if lost else returned)
        if kind == "cas":
            one["expected"] = expected
            if state != expected:
                one["status"] = one["status"] if lost else "fail"
            elif happens is not None:
                state = new
        elif kind == "write":
            state = new if happens is not None else state
        else:
            one["value"] = state
        rows.append(one)
    return sorted(rows, key=lambda one: one["invoked_ns"])


def test_hard_histories_with_many_unanswered_operations_are_decided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(8):
        rows = timed_out_history(seed)
        path = write_lines(tmp_path / "h.jsonl", rows)
        found, code = asked(capsys, path, "--model", "cas-register", "--budget", "20000")
        assert (found["verdict"], code) == ("valid", 0), seed
        reads = [one for one in rows if one["op"] == "read" and one["value"] is not None]
        reads[-1]["value"] = 7
        path = write_lines(tmp_path / "h.jsonl", rows)
        found, code = asked(capsys, path, "--model", "cas-register", "--budget", "20000")
        assert (found["verdict"], code) == ("invalid", 1), seed
