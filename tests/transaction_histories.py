"""Histories of transactions in the making, simulated databases, and slow oracles."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations, pairwise, permutations, product
from typing import Any

import numpy

from orchestrator.core import levels
from orchestrator.core.history import COLUMNS, DTYPES, PHASE_LOAD, PHASE_RUN, History
from orchestrator.core.machine import FAIL, OK, OUTCOME_NAMES, TRANSACTION, UNKNOWN

MicroOperation = tuple[str, str, Any]


def r(key: str, value: Any) -> MicroOperation:
    return ("read", key, value)


def w(key: str, value: Any) -> MicroOperation:
    return ("write", key, value)


def a(key: str, value: Any) -> MicroOperation:
    return ("append", key, value)


@dataclass(frozen=True)
class Txn:
    """One transaction; its place in the history is its session."""

    ops: tuple[MicroOperation, ...]
    outcome: int = OK
    phase: int = PHASE_RUN


def t(*ops: MicroOperation) -> Txn:
    return Txn(ops)


def aborted(*ops: MicroOperation) -> Txn:
    return Txn(ops, FAIL)


def unanswered(*ops: MicroOperation) -> Txn:
    return Txn(ops, UNKNOWN)


def loaded(*ops: MicroOperation) -> Txn:
    return Txn(ops, OK, PHASE_LOAD)


def history(transactions: Sequence[Txn], initial: Any = None) -> History:
    """Transaction i is the only one of session i, and all are concurrent."""
    count = len(transactions)
    columns: dict[str, Any] = {
        "session": range(count),
        "kind": [TRANSACTION] * count,
        "value_id": range(1, count + 1),
        "invoked_ns": range(count),
        "returned_ns": [-1 if one.outcome == UNKNOWN else 10**6 for one in transactions],
        "outcome": [one.outcome for one in transactions],
        "phase": [one.phase for one in transactions],
    }
    zeros = [0] * count
    return History(
        **{name: numpy.array(columns.get(name, zeros), dtype=DTYPES[name]) for name in COLUMNS},
        key_names=(),
        values=(initial, *(one.ops for one in transactions)),
    )


def from_witness(witness: Sequence[Mapping[str, Any]]) -> list[Txn]:
    """A witness is a history of its own."""
    return [
        Txn(
            tuple((micro["op"], micro["key"], micro["value"]) for micro in operation["ops"]),
            OUTCOME_NAMES.index(operation["status"]),
            PHASE_LOAD if operation["phase"] == "load" else PHASE_RUN,
        )
        for operation in witness
    ]


# --- oracles ----------------------------------------------------------------------------


def choices(transactions: Sequence[Txn]) -> Iterator[list[Txn]]:
    """Who may have committed: all that did, and any of those without an answer."""
    certain = [one for one in transactions if one.outcome == OK]
    doubtful = [one for one in transactions if one.outcome == UNKNOWN]
    for some in chain.from_iterable(
        combinations(doubtful, size) for size in range(len(doubtful) + 1)
    ):
        yield certain + list(some)


def applied(one: Txn, store: Mapping[str, Any]) -> dict[str, Any] | None:
    """The store after the transaction; None if a read found something else."""
    now = dict(store)
    for op, key, value in one.ops:
        if op == "write":
            now[key] = value
        elif op == "append":
            now[key] = (*(now.get(key) or ()), value)
        elif one.outcome == UNKNOWN and value is None:
            continue
        elif (now.get(key) or None) != (value or None):
            return None
    return now


def serializable_by_search(transactions: Sequence[Txn]) -> bool:
    """Try every order, leaving it as soon as a read does not fit."""

    def search(todo: Sequence[Txn], store: Mapping[str, Any]) -> bool:
        if not todo:
            return True
        for at, one in enumerate(todo):
            after = applied(one, store)
            if after is not None and search([*todo[:at], *todo[at + 1 :]], after):
                return True
        return False

    return any(
        search([one for one in committed if one.phase != PHASE_LOAD], preloaded(committed))
        for committed in choices(transactions)
    )


def preloaded(transactions: Sequence[Txn]) -> dict[str, Any]:
    store: dict[str, Any] = {}
    for one in transactions:
        if one.phase == PHASE_LOAD:
            store = applied(one, store) or store
    return store


Edges = set[tuple[int, int]]


def allowed_by_definition(transactions: Sequence[Txn], level: str) -> bool:
    """Whether some order of versions, key by key, has none of the level's cycles."""
    for committed in choices(transactions):
        keys = sorted({key for one in committed for _, key, _ in one.ops})
        orders = [
            permutations([i for i, one in enumerate(committed) if written(one, key)])
            for key in keys
        ]
        for order in product(*orders):
            if any(late_preload(committed, writers) for writers in order):
                continue
            edges = dependencies(committed, dict(zip(keys, order, strict=True)))
            if edges is not None and acyclic(edges, level, len(committed)):
                return True
    return False


def late_preload(committed: Sequence[Txn], writers: Sequence[int]) -> bool:
    return any(committed[writer].phase == PHASE_LOAD for writer in writers[1:])


def written(one: Txn, key: str) -> list[Any]:
    return [value for op, name, value in one.ops if name == key and op != "read"]


def dependencies(
    committed: Sequence[Txn], order: Mapping[str, Sequence[int]]
) -> tuple[Edges, Edges] | None:
    """(ww and wr, rw) under these version orders; None where a read fits no version."""
    informing: Edges = set()
    missing: Edges = set()
    versions: dict[str, list[Any]] = {}
    for key, writers in order.items():
        versions[key] = [None]
        for writer in writers:
            new = written(committed[writer], key)
            is_list = any(op == "append" and name == key for op, name, _ in committed[writer].ops)
            before = versions[key][-1] or ()
            versions[key].append((*before, *new) if is_list else new[-1])
        informing |= set(pairwise(writers))
    for reader, one in enumerate(committed):
        own: dict[str, Any] = {}
        for op, key, value in one.ops:
            if op == "write":
                own[key] = value
            elif op == "append":
                before = versions[key][order[key].index(reader)]
                own[key] = (*(own.get(key) or before or ()), value)
            elif one.outcome == UNKNOWN and value is None:
                continue
            elif key in own:
                if own[key] != value:
                    return None
            else:
                if (value or None) not in versions[key]:
                    return None
                at = versions[key].index(value or None)
                if at and order[key][at - 1] == reader:
                    return None
                informing |= {(order[key][at - 1], reader)} if at else set()
                missing |= {(reader, writer) for writer in order[key][at : at + 1]}
    return informing, {(one, other) for one, other in missing if one != other}


def acyclic(edges: tuple[Edges, Edges], level: str, count: int) -> bool:
    informing, missing = edges
    if level == levels.READ_COMMITTED:
        relation = informing
    elif level == levels.SNAPSHOT_ISOLATION:
        relation = informing | {
            (one, last) for one, middle in informing for via, last in missing if via == middle
        }
    else:
        relation = informing | missing
    reached = set(relation)
    for _ in range(count):
        reached |= {(one, last) for one, via in reached for start, last in relation if start == via}
    return all(one != other for one, other in reached)


# --- simulated databases ----------------------------------------------------------------


@dataclass
class Running:
    """A transaction under way in a simulated database."""

    plan: list[tuple[str, str]]
    snapshot: dict[str, Any]
    starts_after: int
    done: list[MicroOperation] = field(default_factory=list)
    buffer: dict[str, list[Any]] = field(default_factory=dict)


class Database:
    """Runs planned transactions interleaved, at one isolation level.

    serializable: one at a time. snapshot_isolation: reads from the state at the start; the
    first to commit wins. read_committed: reads what is committed now, locks what it writes.
    """

    def __init__(self, chance: random.Random, level: str, *, lists: bool) -> None:
        self.chance = chance
        self.level = level
        self.write = "append" if lists else "write"
        self.store: dict[str, Any] = {}
        self.changed: dict[str, int] = {}
        self.locks: dict[str, Running] = {}
        self.commits = 0
        self.values = 0
        self.history: list[Txn] = []

    def run(self, count: int, keys: Sequence[str], longest: int) -> list[Txn]:
        waiting = [
            [
                (self.chance.choice(("read", self.write)), self.chance.choice(keys))
                for _ in range(self.chance.randint(1, longest))
            ]
            for _ in range(count)
        ]
        active: list[Running] = []
        while waiting or active:
            width = 1 if self.level == levels.SERIALIZABLE else 3
            while waiting and len(active) < width:
                active.append(Running(waiting.pop(), dict(self.store), self.commits))
            one = self.chance.choice(active)
            if not one.plan:
                active.remove(one)
                self.finish(one, self.valid(one) and self.chance.random() < 0.95)
            elif not self.step(one, *one.plan.pop(0)):
                active.remove(one)
                self.finish(one, False)
        return self.history

    def step(self, one: Running, op: str, key: str) -> bool:
        if op == "read":
            read_committed = self.level == levels.READ_COMMITTED
            base = (self.store if read_committed else one.snapshot).get(key)
            one.done.append(r(key, self.merged(base, one.buffer.get(key, []))))
            return True
        self.values += 1
        one.done.append((op, key, self.values))
        one.buffer.setdefault(key, []).append(self.values)
        return self.locks.setdefault(key, one) is one or self.level != levels.READ_COMMITTED

    def merged(self, base: Any, own: list[Any]) -> Any:
        if not own:
            return base
        return (*(base or ()), *own) if self.write == "append" else own[-1]

    def valid(self, one: Running) -> bool:
        return self.level != levels.SNAPSHOT_ISOLATION or all(
            self.changed.get(key, 0) <= one.starts_after for key in one.buffer
        )

    def finish(self, one: Running, commits: bool) -> None:
        self.locks = {key: owner for key, owner in self.locks.items() if owner is not one}
        if commits:
            self.commits += 1
            for key, own in one.buffer.items():
                self.store[key] = self.merged(self.store.get(key), own)
                self.changed[key] = self.commits
        ops = tuple(one.done)
        if self.chance.random() < 0.1:
            forgotten = tuple(r(key, None) if op == "read" else (op, key, v) for op, key, v in ops)
            self.history.append(Txn(forgotten, UNKNOWN))
        else:
            self.history.append(Txn(ops, OK if commits else FAIL))


def corrupted(chance: random.Random, transactions: list[Txn]) -> list[Txn]:
    """Some reads return what another read of the key returned, or what somebody wrote."""
    changed = list(transactions)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(changed))
        ops = list(changed[at].ops)
        where = chance.randrange(len(ops))
        op, key, _ = ops[where]
        pool = [
            (value,) if kind == "append" else value
            for one in transactions
            for kind, name, value in one.ops
            if name == key
        ]
        if op == "read":
            ops[where] = r(key, chance.choice([None, *pool]))
            changed[at] = replace(changed[at], ops=tuple(ops))
    return changed


def arbitrary(chance: random.Random) -> list[Txn]:
    """Register transactions whose reads return anything that some transaction writes."""
    planned = [
        [(chance.choice("rw"), chance.choice("xy")) for _ in range(chance.randint(1, 3))]
        for _ in range(chance.randint(2, 5))
    ]
    numbers = iter(range(1, 100))
    writes = [[w(key, next(numbers)) for op, key in plan if op == "w"] for plan in planned]
    values = {key: [v for ops in writes for _, k, v in ops if k == key] for key in "xy"}
    return [
        Txn(
            tuple(
                own.pop(0) if op == "w" else r(key, chance.choice([None, *values[key]]))
                for op, key in plan
            ),
            chance.choice((OK, OK, OK, OK, UNKNOWN)),
        )
        for plan, own in zip(planned, writes, strict=True)
    ]
