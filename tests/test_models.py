"""Linearizability of every model agrees with trying every order, on thousands of histories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from model_histories import Row, linearizable_by_trying, random_rows, row, write_lines

from orchestrator.check import check_file
from orchestrator.core.machine import CAS, DEQUEUE, FAIL, OK, READ, UNKNOWN, WRITE
from orchestrator.core.models import ILLEGAL, MODELS, TXN, Call, canonical, initial_state, step
from orchestrator.core.randomness import scalar_stream
from orchestrator.errors import ConfigError

OBJECTS = tuple(model for model in MODELS if model != TXN)


def judged(tmp_path: Path, model: str, rows: list[Row], **more: Any) -> dict[str, Any]:
    path = write_lines(tmp_path / "history.jsonl", rows)
    return check_file(path, model=model, level="linearizable", **more)


@pytest.mark.parametrize("model", OBJECTS)
def test_every_model_agrees_with_trying_every_order(model: str, tmp_path: Path) -> None:
    chance = scalar_stream(1, model)
    seen = {"valid": 0, "invalid": 0}
    for _ in range(250):
        rows = random_rows(model, chance)
        found = judged(tmp_path, model, rows)
        expected = "valid" if linearizable_by_trying(model, rows) else "invalid"
        assert found["verdict"] == expected, rows
        seen[expected] += 1
        if expected == "valid":
            assert found["witness"] == []
            continue
        witness = [dict(one) for one in found["witness"]]
        assert 0 < len(witness) <= len(rows)
        for one in witness:  # sets and lists are tuples inside
            one["value"] = list(one["value"]) if isinstance(one["value"], tuple) else one["value"]
        assert not linearizable_by_trying(model, witness), rows
        assert found["explanation"].endswith(".")
    assert min(seen.values()) > 20


KNOWN_BAD: dict[str, list[Row]] = {
    "register": [
        row(1, "write", 1, 0, 10),
        row(1, "write", 2, 20, 30),
        row(2, "write", 1, 40, 50),
        row(3, "read", 2, 60, 70),
    ],
    "cas-register": [
        row(1, "write", 1, 0, 10),
        row(1, "cas", 2, 20, 30, expected=1),
        row(2, "cas", 3, 40, 50, expected=1),
    ],
    "kv": [
        row(1, "put", "a", 0, 10),
        row(1, "append", "b", 20, 30),
        row(2, "get", "b", 40, 50),
    ],
    "append": [
        row(1, "append", 1, 0, 10),
        row(2, "append", 2, 20, 30),
        row(3, "read", [2, 1], 40, 50),
    ],
    "counter": [row(1, "incr", 1, 0, 10), row(2, "incr", 2, 0, 10), row(3, "read", 2, 20, 30)],
    "set": [row(1, "add", 1, 0, 10), row(2, "read", [], 20, 30)],
    "queue": [
        row(1, "enqueue", 1, 0, 10),
        row(1, "enqueue", 2, 20, 30),
        row(2, "dequeue", 2, 40, 50),
    ],
}


@pytest.mark.parametrize("model", OBJECTS)
def test_known_bad_histories_are_found_and_stay_so_as_witness(model: str, tmp_path: Path) -> None:
    found = judged(tmp_path, model, KNOWN_BAD[model])
    assert (found["verdict"], found["model"]) == ("invalid", model)
    assert judged(tmp_path, model, list(found["witness"]))["verdict"] == "invalid"


def test_published_examples(tmp_path: Path) -> None:
    # porcupine's test of a register (Athalye), and its test of a set.
    good = [row(1, "write", 100, 0, 100), row(2, "read", 100, 25, 75), row(3, "read", 0, 30, 60)]
    bad = [row(1, "write", 200, 0, 100), row(2, "read", 200, 10, 30), row(3, "read", 0, 40, 90)]
    for model in ("register", "cas-register"):
        assert judged(tmp_path, model, good, initial=0)["verdict"] == "valid"
        assert judged(tmp_path, model, bad, initial=0)["verdict"] == "invalid"
    adds = [row(1, "add", 100, 0, 100), row(2, "add", 110, 0, 100)]
    once = [*adds, row(3, "read", [100, 110], 0, 100)]
    twice = [*adds, row(3, "read", [100, 100, 110], 0, 100)]
    assert judged(tmp_path, "set", once)["verdict"] == "valid"
    assert judged(tmp_path, "set", twice)["verdict"] == "invalid"


def test_a_failed_cas_saw_another_value_unless_it_says_nothing(tmp_path: Path) -> None:
    rows = [row(1, "write", 1, 0, 10), row(2, "cas", 2, 20, 30, expected=1, status="fail")]
    assert judged(tmp_path, "cas-register", rows)["verdict"] == "invalid"
    found = judged(tmp_path, "cas-register", rows, failed_cas_observed=False)
    assert found["verdict"] == "valid"
    # It may have seen what was there before a concurrent write.
    rows[1]["invoked_ns"] = 5
    assert judged(tmp_path, "cas-register", rows)["verdict"] == "valid"


def test_a_budget_that_runs_out_is_unknown(tmp_path: Path) -> None:
    rows = [row(s, "enqueue", s, 0, 100) for s in range(1, 9)]
    rows += [row(s, "dequeue", s + 1, 200, 300) for s in range(1, 8)]
    rows.append(row(8, "dequeue", 2, 200, 300))
    found = judged(tmp_path, "queue", rows, steps_max=3)
    assert (found["verdict"], found["witness"]) == ("unknown", [])
    assert "given up after 3 steps" in found["explanation"]


def test_the_witness_is_small_and_the_explanation_names_it(tmp_path: Path) -> None:
    rows = []
    for number in range(200):
        at = number * 100
        rows.append(row(1, "write", number % 5, at, at + 40))
        rows.append(row(2, "read", number % 5, at + 50, at + 60))
    rows[301]["value"] = 3  # the value there is 0
    found = judged(tmp_path, "register", rows)
    assert found["verdict"] == "invalid"
    assert any(one["invoked_ns"] == rows[301]["invoked_ns"] for one in found["witness"])
    assert "returned 3" in found["explanation"]
    counter = [row(1, "incr", 1, 10 * n, 10 * n + 5) for n in range(30)]
    counter.append(row(2, "read", 7, 400, 410))
    found = judged(tmp_path, "counter", counter)
    assert found["verdict"] == "invalid"
    assert found["witness"][-1]["value"] == 7


# --- specifications ---------------------------------------------------------------------


def test_steps() -> None:
    assert step("register", Call(READ, 1, None, OK))(2) is ILLEGAL
    assert step("register", Call(WRITE, 1, None, UNKNOWN))(2) == 1
    assert step("cas-register", Call(CAS, 2, 1, OK))(1) == 2
    assert step("cas-register", Call(CAS, 2, 1, FAIL))(1) is ILLEGAL
    assert step("queue", Call(DEQUEUE, None, None, OK))(()) == ()
    assert step("queue", Call(DEQUEUE, None, None, OK))((1,)) is ILLEGAL
    assert step("queue", Call(DEQUEUE, None, None, UNKNOWN))((1, 2)) == (2,)
    assert initial_state("set", [1, 2]) == {1, 2}
    assert repr(ILLEGAL) == "ILLEGAL"


def test_an_unknown_model_is_told_with_what_was_meant() -> None:
    with pytest.raises(ConfigError, match="did you mean 'register'"):
        canonical("registre")
