"""Histories in the making, random ones, and slow oracles for the consistency checkers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy

from orchestrator.core import levels
from orchestrator.core.history import COLUMNS, DTYPES, NOTHING, PRELOADED, History, value_id
from orchestrator.core.machine import (
    FAIL,
    KIND_NAMES,
    OK,
    OUTCOME_NAMES,
    READ,
    UNKNOWN,
    WRITE,
)
from orchestrator.core.verdict import Verdict

KEY_NAMES = (b"x", b"y", b"z")
FOREVER = 10**9


@dataclass(frozen=True)
class Act:
    """An operation in the making; a write's value follows from its session and sequence."""

    session: int
    sequence: int
    kind: int
    invoked: int
    returned: int
    value: int = PRELOADED
    key: int = 0
    outcome: int = OK
    version: int = 0
    client: int = 0

    @property
    def wrote(self) -> int:
        return value_id(self.session, self.sequence)

    @property
    def counts(self) -> bool:
        return self.outcome == OK or (self.kind == WRITE and self.outcome == UNKNOWN)

    @property
    def last(self) -> int:
        """The latest time at which it can take effect."""
        return self.returned if self.outcome == OK else FOREVER


def write(session: int, sequence: int, invoked: int, returned: int, **more: int) -> Act:
    value = value_id(session, sequence)
    return replace(Act(session, sequence, WRITE, invoked, returned, value), **more)


def read(session: int, sequence: int, invoked: int, returned: int, value: int, **more: int) -> Act:
    return replace(Act(session, sequence, READ, invoked, returned, value), **more)


def history(acts: Sequence[Act]) -> History:
    """Columns of the acts, ordered by invocation as clients record them."""
    rows = sorted(acts, key=lambda act: act.invoked)
    columns: dict[str, list[int]] = {
        "session": [act.session for act in rows],
        "sequence": [act.sequence for act in rows],
        "client": [act.client for act in rows],
        "kind": [act.kind for act in rows],
        "key": [act.key for act in rows],
        "value_id": [act.value for act in rows],
        "version": [act.version for act in rows],
        "intended_ns": [act.invoked for act in rows],
        "invoked_ns": [act.invoked for act in rows],
        "returned_ns": [act.returned for act in rows],
        "outcome": [act.outcome for act in rows],
    }
    zeros = [0] * len(rows)
    made: dict[str, Any] = {
        name: numpy.array(columns.get(name, zeros), dtype=DTYPES[name]) for name in COLUMNS
    }
    return History(**made, key_names=KEY_NAMES)


def from_witness(witness: Sequence[Mapping[str, Any]]) -> list[Act]:
    """A witness is a history of its own."""
    return [
        Act(
            session=operation["session"],
            sequence=operation["sequence"],
            kind=KIND_NAMES.index(operation["op"]),
            invoked=operation["invoked_ns"],
            returned=-1 if operation["returned_ns"] is None else operation["returned_ns"],
            value=NOTHING if operation["value"] is None else operation["value"],
            key=[name.decode() for name in KEY_NAMES].index(operation["key"]),
            outcome=OUTCOME_NAMES.index(operation["status"]),
            version=operation["version"],
        )
        for operation in witness
    ]


def told(verdict: Verdict) -> list[str]:
    """The witness in short: ``1w0`` is write 0 of session 1."""
    return [
        f"{operation['session']}{operation['op'][0]}{operation['sequence']}"
        for operation in verdict.witness
    ]


# --- exhaustive searches ----------------------------------------------------------------


def in_session_order(before: Act, after: Act) -> bool:
    return (
        before.session == after.session
        and before.sequence < after.sequence
        and before.outcome == OK
    )


def linearizable_by_search(acts: Sequence[Act]) -> bool:
    """Wing and Gong's search ("Testing and Verifying Concurrent Objects", 1993), all keys at
    once: try every operation that nothing unfinished precedes, in time or in its session, and
    remember failed states.
    """
    todo = [act for act in acts if act.counts]
    everything = (1 << len(todo)) - 1
    optional = sum(1 << index for index, act in enumerate(todo) if act.outcome == UNKNOWN)
    awaited = [
        sum(1 << index for index, before in enumerate(todo) if in_session_order(before, act))
        for act in todo
    ]
    failed: set[tuple[int, tuple[int, ...]]] = set()

    def search(done: int, store: tuple[int, ...]) -> bool:
        if done | optional == everything:
            return True
        if (done, store) in failed:
            return False
        deadline = min(act.last for index, act in enumerate(todo) if not done >> index & 1)
        for index, act in enumerate(todo):
            if done >> index & 1 or act.invoked > deadline or awaited[index] & ~done:
                continue
            if act.kind == READ:
                after = store if store[act.key] == max(act.value, PRELOADED) else None
            else:
                after = (*store[: act.key], act.wrote, *store[act.key + 1 :])
            if after is not None and search(done | 1 << index, after):
                return True
        failed.add((done, store))
        return False

    return search(0, (PRELOADED,) * len(KEY_NAMES))


def took_effect_by(acts: Sequence[Act], written: Act) -> int:
    """When a write or a read of its value first returned."""
    return min(
        act.last
        for act in acts
        if act.counts and (act is written or (act.kind == READ and act.value == written.wrote))
    )


def session_holds_by_definition(acts: Sequence[Act], level: str) -> bool:
    """All pairs and triples of a session's operations, straight from the definitions."""
    writes = {act.wrote: act for act in acts if act.kind == WRITE and act.outcome != FAIL}
    took_effect = {value: took_effect_by(acts, written) for value, written in writes.items()}

    def trusted(key: int) -> bool:
        acknowledged = [act for act in writes.values() if act.key == key and act.outcome == OK]
        versions = [act.version for act in acknowledged]
        return (
            min(versions, default=1) > 0
            and len({*versions}) == len(versions)
            and not any(
                one.version < other.version and took_effect[other.wrote] < one.invoked
                for one in acknowledged
                for other in acknowledged
            )
        )

    def older(value: int, other: int) -> bool:
        if other <= PRELOADED:
            return False
        if value <= PRELOADED:
            return True
        one, two = writes[value], writes[other]
        if one.outcome == two.outcome == OK and trusted(one.key) and one.version < two.version:
            return True
        if (one.session, one.key) == (two.session, two.key) and one.sequence >= two.sequence:
            return False
        return any(
            in_session_order(act, two) and act.key == two.key and act.value == value for act in acts
        )

    done = sorted((act for act in acts if act.outcome == OK), key=lambda act: act.sequence)
    bound_by = WRITE if level == levels.READ_YOUR_WRITES else READ
    for at, late in enumerate(done):
        if late.kind != READ:
            continue
        bounds = [
            act
            for act in done[:at]
            if (act.session, act.key, act.kind) == (late.session, late.key, bound_by)
        ]
        if any(older(late.value, act.value) for act in bounds):
            return False
        values = [max(act.value, PRELOADED) for act in bounds]
        mine = max(late.value, PRELOADED)
        if bound_by == READ and mine in values[:-1] and values[-1] != mine:
            return False
    return True


# --- random histories -------------------------------------------------------------------


def simulated(chance: random.Random, keys: int) -> list[Act]:
    """A register's history that is right by construction; few times, so that many tie.

    Each operation is a session of its own.
    """
    store = [PRELOADED] * keys
    slack = chance.choice((2, 4, 9))
    points = sorted(chance.randrange(100, 124) for _ in range(chance.randrange(3, 10)))
    sequence = 0
    acts = []
    for point in points:
        sequence += 1
        session = sequence
        key = chance.randrange(keys)
        version = point * 100 + sequence
        invoked, returned = point - chance.randrange(slack), point + chance.randrange(slack)
        lost = chance.random()
        if chance.random() < 0.5:
            value = store[key] or chance.choice((PRELOADED, NOTHING))
            outcome = UNKNOWN if lost < 0.1 else OK
            seen = read(session, sequence, invoked, returned, value, key=key, outcome=outcome)
            acts.append(replace(seen, returned=-1) if outcome == UNKNOWN else seen)
            continue
        outcome = UNKNOWN if lost < 0.25 else FAIL if lost < 0.35 else OK
        new = write(session, sequence, invoked, returned, key=key, outcome=outcome, version=version)
        if outcome == OK or (outcome == UNKNOWN and chance.random() < 0.6):
            store[key] = new.value
        acts.append(replace(new, returned=-1) if outcome == UNKNOWN else new)
    return acts


def corrupted(chance: random.Random, acts: list[Act]) -> list[Act]:
    """Some reads return something else, some operations move in time."""
    values = [PRELOADED, *(act.wrote for act in acts if act.kind == WRITE)]
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(acts))
        act = acts[at]
        if act.kind == READ and chance.random() < 0.8:
            acts[at] = replace(act, value=chance.choice(values))
        else:
            by = chance.randrange(-6, 7)
            returned = act.returned + by if act.returned >= 0 else -1
            acts[at] = replace(act, invoked=act.invoked + by, returned=returned)
    return acts


def random_history(chance: random.Random) -> list[Act]:
    acts = simulated(chance, keys=chance.choice((1, 1, 1, 2)))
    return acts if chance.random() < 0.2 else corrupted(chance, acts)


def random_sessions(chance: random.Random) -> list[Act]:
    """Sessions of sequential operations on one key; reads return anything that is written."""
    acts: list[Act] = []
    for session in range(1, chance.randrange(3, 5)):
        now = chance.randrange(100, 110)
        for sequence in range(1, chance.randrange(2, 6)):
            invoked = now + chance.randrange(3)
            returned = now = invoked + chance.randrange(8)
            if chance.random() < 0.6:
                acts.append(read(session, sequence, invoked, returned, PRELOADED))
                continue
            new = write(session, sequence, invoked, returned, version=invoked * 10 + session)
            lost = chance.random() < 0.15
            acts.append(replace(new, returned=-1, outcome=UNKNOWN) if lost else new)
            if lost:
                break
    return [
        replace(act, value=chance.choice(readable(acts, act))) if act.kind == READ else act
        for act in acts
    ]


def readable(acts: Sequence[Act], late: Act) -> list[int]:
    """The initial value, and those whose writes began before the read was over."""
    begun = [act for act in acts if act.kind == WRITE and act.invoked <= late.returned]
    return [NOTHING, *(act.wrote for act in begun)]


def widened(acts: Sequence[Act], by: int) -> list[Act]:
    """What an uncertainty of clocks leaves of the times."""
    return [
        replace(
            act,
            invoked=act.invoked - by,
            returned=act.returned + by if act.outcome == OK else act.returned,
        )
        for act in acts
    ]


def with_versions(chance: random.Random, acts: list[Act]) -> list[Act]:
    """Claimed versions that are plausible, missing or nonsense."""
    mode = chance.randrange(3)
    if mode == 0:
        return acts
    return [replace(act, version=0 if mode == 1 else chance.randrange(1, 9)) for act in acts]


def replicated(chance: random.Random, *, sticky: bool, versions: bool) -> tuple[list[Act], bool]:
    """One primary, stale replicas; also whether some session's reads went back in truth."""
    values, acts, went_back = [PRELOADED], [], False
    applied = [0, 0, 0]
    newest_read = dict.fromkeys(range(1, 4), 0)
    for sequence in range(1, 30):
        now = sequence * 10
        session = chance.randrange(1, 4)
        replica = session % 3 if sticky else chance.randrange(3)
        applied[replica] = chance.randrange(applied[replica], len(values))
        if chance.random() < 0.4:
            values.append(value_id(session, sequence))
            version = len(values) - 1 if versions else 0
            acts.append(write(session, sequence, now, now + chance.randrange(10), version=version))
            continue
        went_back |= applied[replica] < newest_read[session]
        newest_read[session] = max(newest_read[session], applied[replica])
        acts.append(read(session, sequence, now, now + 5, values[applied[replica]]))
    return acts, went_back
