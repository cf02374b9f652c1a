"""Random histories of every model, as lines of a file, and a slow judge of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FOREVER = 10**9
Row = dict[str, Any]


def row(session: int, op: str, value: Any, invoked: int, returned: int | None, **more: Any) -> Row:
    """One line; without a return it is ``unknown``."""
    status = "unknown" if returned is None else "ok"
    return {
        "session": session,
        "op": op,
        "key": "x",
        "value": value,
        "invoked_ns": invoked,
        "returned_ns": returned,
        "status": status,
        **more,
    }


def write_lines(path: Path, rows: Sequence[Row]) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return str(path)


# --- what objects do, spelled out once more ---------------------------------------------


def results(model: str, state: Any, one: Row) -> Iterator[Any]:
    """The states after ``one``, where an object in ``state`` may have behaved like that."""
    op, value, ok = one["op"], one["value"], one["status"] == "ok"
    if op == "read":
        seen = sorted(state) if model == "set" else list(state) if model == "append" else state
        wanted = value
        if model == "set":
            wanted = sorted(value or [])
        elif model == "append":
            wanted = value or []
        elif model == "kv":
            wanted = value or ""
        if seen == wanted:
            yield state
    elif op == "write":
        yield (value or "") if model == "kv" else value
    elif op == "cas":
        if one["status"] == "fail":
            if state != one["expected"]:
                yield state
        elif state == one["expected"]:
            yield value
    elif op == "append":
        yield state + value if model == "kv" else (*state, value)
    elif op == "incr":
        yield state + value
    elif op == "add":
        yield state | {value}
    elif op == "enqueue":
        yield (*state, value)
    elif not ok:
        yield state[1:]
    elif value is None:
        if not state:
            yield state
    elif state[:1] == (value,):
        yield state[1:]


FIRST: dict[str, Any] = {
    "register": None,
    "cas-register": None,
    "kv": "",
    "append": (),
    "counter": 0,
    "set": frozenset(),
    "queue": (),
}


def linearizable_by_trying(model: str, rows: Sequence[Row]) -> bool:
    """Every order of every choice of the unanswered operations (Wing and Gong, JPDC 1993)."""
    todo = [
        one
        for one in rows
        if one["status"] == "ok"
        or (one["status"] == "unknown" and one["op"] != "read")
        or (one["status"] == "fail" and one["op"] == "cas" and one["returned_ns"] is not None)
    ]
    last = [FOREVER if one["status"] == "unknown" else one["returned_ns"] for one in todo]
    failed: set[tuple[int, Any]] = set()

    def before(early: int, late: int) -> bool:
        one, other = todo[early], todo[late]
        if last[early] < other["invoked_ns"]:
            return True
        return bool(
            one["session"] == other["session"]
            and early < late
            and last[early] <= other["invoked_ns"]
        )

    needs = [
        sum(1 << early for early in range(len(todo)) if early != late and before(early, late))
        for late in range(len(todo))
    ]
    owed = sum(1 << at for at in range(len(todo)) if last[at] != FOREVER)

    def search(done: int, state: Any) -> bool:
        if not owed & ~done:
            return True
        if (done, state) in failed:
            return False
        for at, one in enumerate(todo):
            if not done >> at & 1 and not needs[at] & ~done:
                for after in results(model, state, one):
                    if search(done | 1 << at, after):
                        return True
        failed.add((done, state))
        return False

    return search(0, FIRST[model])


# --- random histories -------------------------------------------------------------------


def _drawn(model: str, chance: random.Random, state: Any, number: int) -> tuple[str, Any, Any]:
    """(op, value, expected) of the next operation; few values, so that they repeat."""
    repeats = chance.random() < 0.4
    new = chance.randrange(3) if repeats else number
    reads = chance.random() < 0.45
    match model:
        case "register":
            return ("read", state, None) if reads else ("write", chance.randrange(3), None)
        case "cas-register":
            kind = chance.choice(("read", "write", "cas"))
            if kind == "cas":
                return kind, chance.randrange(3), chance.choice((state, chance.randrange(3)))
            return kind, state if kind == "read" else chance.randrange(3), None
        case "kv":
            text = f"{new}."
            return (
                ("read", state, None) if reads else (chance.choice(("write", "append")), text, None)
            )
        case "append":
            return ("read", list(state), None) if reads else ("append", new, None)
        case "counter":
            return ("read", state, None) if reads else ("incr", chance.choice((1, 1, 2)), None)
        case "set":
            return ("read", sorted(state), None) if reads else ("add", new, None)
    if reads:
        return "dequeue", state[0] if state else None, None
    return "enqueue", new, None


def random_rows(model: str, chance: random.Random) -> list[Row]:
    """Right by construction, then perhaps spoilt; few times, so that many tie."""
    state = FIRST[model]
    sessions = chance.choice((2, 3, 5))
    slack = chance.choice((2, 5, 9))
    free = dict.fromkeys(range(sessions), 0)
    rows: list[Row] = []
    for number, point in enumerate(
        sorted(chance.randrange(10, 40) for _ in range(chance.randrange(3, 10))), 10
    ):
        ready = [session for session, at in free.items() if at <= point]
        if not ready:
            continue
        session = chance.choice(ready)
        invoked = max(free[session], point - chance.randrange(slack))
        returned = point + chance.randrange(slack)
        op, value, expected = _drawn(model, chance, state, number)
        one = row(session, op, value, invoked, returned, expected=expected)
        lost = op != "read" and chance.random() < 0.25
        if lost:
            one |= {"returned_ns": None, "status": "unknown"}
            if op == "dequeue":
                one["value"] = None
        elif op == "cas" and state != expected:
            one["status"] = "fail"
        if not lost or chance.random() < 0.5:
            state = next(results(model, state, one), state)
        free[session] = FOREVER if lost else returned
        rows.append(one)
    if chance.random() < 0.7:
        _spoil(model, chance, rows)
    return sorted(rows, key=lambda one: one["invoked_ns"])


def _spoil(model: str, chance: random.Random, rows: list[Row]) -> None:
    seen = [one for one in rows if one["op"] in {"read", "dequeue"} and one["status"] == "ok"]
    if not seen:
        return
    for _ in range(chance.randrange(1, 3)):
        one = chance.choice(seen)
        if model in {"append", "set"}:
            items = [other["value"] for other in rows if other["op"] in {"append", "add"}]
            one["value"] = chance.sample(items, chance.randrange(len(items) + 1))
        else:
            values = [chance.choice(seen)["value"], *(other["value"] for other in rows)]
            one["value"] = chance.choice([v for v in values if not isinstance(v, list)] or [None])
