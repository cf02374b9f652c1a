"""Random sessions over several keys, and the consistency levels straight from their definitions."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from checker_histories import Act, in_session_order, linearizable_by_search, read, write

from orchestrator.core import levels
from orchestrator.core.history import PRELOADED
from orchestrator.core.machine import OK, READ, UNKNOWN, WRITE


def random_registers(
    chance: random.Random, *, sessions: int = 3, longest: int = 4, keys: int = 2
) -> list[Act]:
    """Sessions of sequential operations; reads return what is plausible, or anything."""
    acts: list[Act] = []
    for session in range(1, chance.randrange(2, sessions + 1) + 1):
        now = chance.randrange(100, 110)
        for sequence in range(1, chance.randrange(1, longest + 1) + 1):
            invoked = now + 1 + chance.randrange(4)
            returned = now = invoked + chance.randrange(9)
            key = chance.randrange(keys)
            if chance.random() < 0.55:
                acts.append(read(session, sequence, invoked, returned, PRELOADED, key=key))
            elif chance.random() < 0.1:
                lost = write(session, sequence, invoked, -1, key=key, outcome=UNKNOWN)
                acts.append(lost)
            else:
                acts.append(write(session, sequence, invoked, returned, key=key))
    careful = chance.random() < 0.6
    return [
        replace(act, value=_plausible(chance, acts, act, careful=careful))
        if act.kind == READ
        else act
        for act in acts
    ]


def _plausible(chance: random.Random, acts: Sequence[Act], late: Act, *, careful: bool) -> int:
    writes = [act for act in acts if act.kind == WRITE and act.key == late.key]
    if careful:
        writes = [act for act in writes if act.invoked <= late.returned]
        recent = max((act.invoked for act in writes if act.returned < late.invoked), default=0)
        writes = [act for act in writes if act.invoked >= recent - 3] or writes
        if not writes:
            return PRELOADED
        return chance.choice(writes).wrote
    return chance.choice([PRELOADED, *(act.wrote for act in writes)])


def shown(acts: Sequence[Act]) -> list[Act]:
    """The operations that matter: lost writes only where somebody read them."""
    seen = {(act.key, act.value) for act in acts if act.kind == READ and act.outcome == OK}
    return [
        act for act in acts if act.counts and (act.outcome == OK or (act.key, act.wrote) in seen)
    ]


def source_of(acts: Sequence[Act], late: Act) -> Act | None:
    """The write that a read saw."""
    for act in acts:
        if act.kind == WRITE and (act.key, act.wrote) == (late.key, late.value):
            return act
    return None


def causes(acts: Sequence[Act]) -> set[tuple[int, int]]:
    """Causal order as pairs of positions, closed."""
    pairs = set()
    for i, one in enumerate(acts):
        for j, two in enumerate(acts):
            reads_from = two.kind == READ and source_of(acts, two) is one
            if in_session_order(one, two) or reads_from:
                pairs.add((i, j))
    return closed(pairs, len(acts))


def closed(pairs: set[tuple[int, int]], count: int) -> set[tuple[int, int]]:
    found = set(pairs)
    for k, i, j in itertools.product(range(count), repeat=3):
        if (i, k) in found and (k, j) in found:
            found.add((i, j))
    return found


def orders(items: Sequence[int], pairs: set[tuple[int, int]]) -> Iterator[list[int]]:
    """All orders of the items that follow the pairs."""
    if not items:
        yield []
    for item in items:
        if any((other, item) in pairs for other in items):
            continue
        for rest in orders([other for other in items if other != item], pairs):
            yield [item, *rest]


# --- levels -----------------------------------------------------------------------------


def regular_by_definition(acts: Sequence[Act]) -> bool:
    """Each read by itself with all writes of its key."""
    counted = shown(acts)
    return all(
        linearizable_by_search(
            [act for act in counted if act.key == late.key and act.kind == WRITE] + [late]
        )
        for late in counted
        if late.kind == READ
    )


def sequential_by_search(acts: Sequence[Act]) -> bool:
    """Any next operation whose session is ready, with the store as state."""
    todo = shown(acts)
    everything = (1 << len(todo)) - 1
    awaited = [
        sum(1 << i for i, before in enumerate(todo) if in_session_order(before, act))
        for act in todo
    ]
    failed: set[tuple[int, tuple[int, ...]]] = set()

    def search(done: int, store: tuple[int, ...]) -> bool:
        if done == everything:
            return True
        if (done, store) in failed:
            return False
        for i, act in enumerate(todo):
            if done >> i & 1 or awaited[i] & ~done:
                continue
            if act.kind == WRITE:
                after = (*store[: act.key], act.wrote, *store[act.key + 1 :])
            elif store[act.key] == max(act.value, PRELOADED):
                after = store
            else:
                continue
            if search(done | 1 << i, after):
                return True
        failed.add((done, store))
        return False

    return search(0, (PRELOADED,) * 3)


def convergent_by_definition(acts: Sequence[Act]) -> bool:
    """CCv: an order of all writes that follows the causes, in which every read returns the last
    write of its key among its causes.
    """
    todo = shown(acts)
    order = causes(todo)
    if any((i, i) in order for i in range(len(todo))):
        return False
    writes = [i for i, act in enumerate(todo) if act.kind == WRITE]

    def returns(arbitrated: list[int], late: int) -> int:
        known = [
            todo[i].wrote
            for i in arbitrated
            if todo[i].key == todo[late].key and (i, late) in order
        ]
        return known[-1] if known else PRELOADED

    reads = [i for i, act in enumerate(todo) if act.kind == READ]
    return any(
        all(returns(arbitrated, late) == max(todo[late].value, PRELOADED) for late in reads)
        for arbitrated in orders(writes, order)
    )


def memory_by_definition(acts: Sequence[Act]) -> bool:
    """CM: for every operation an order of its causes in which the reads of its session before
    it, and it itself, are legal; other sessions' reads need not be.
    """
    todo = shown(acts)
    order = causes(todo)
    if any((i, i) in order for i in range(len(todo))):
        return False
    return all(_has_memory(todo, order, late) for late in range(len(todo)))


def _has_memory(todo: Sequence[Act], order: set[tuple[int, int]], late: int) -> bool:
    session = todo[late].session
    past = [i for i in range(len(todo)) if i == late or (i, late) in order]
    kept = [
        i
        for i in past
        if todo[i].kind == WRITE
        or i == late
        or (todo[i].session == session and in_session_order(todo[i], todo[late]))
    ]
    for candidate in orders(kept, order):
        store = [PRELOADED] * 3
        for i in candidate:
            act = todo[i]
            if act.kind == WRITE:
                store[act.key] = act.wrote
            elif store[act.key] != max(act.value, PRELOADED):
                break
        else:
            return True
    return False


def weakly_causal_by_definition(acts: Sequence[Act]) -> bool:
    """Every read by itself has an order of its causes in which it is legal."""
    todo = shown(acts)
    order = causes(todo)
    if any((i, i) in order for i in range(len(todo))):
        return False
    for late, act in enumerate(todo):
        if act.kind == WRITE:
            continue
        source = source_of(todo, act)
        for i, other in enumerate(todo):
            if other.kind == READ or other.key != act.key or other is source:
                continue
            if (i, late) in order and (source is None or (todo.index(source), i) in order):
                return False
    return True


def guarantee_by_definition(acts: Sequence[Act], level: str) -> bool:
    """The session guarantees without versions, by all pairs and triples of operations."""
    todo = shown(acts)
    if level == levels.WRITES_FOLLOW_READS:
        order = causes(todo)
        if any((i, i) in order for i in range(len(todo))):
            return False

    def had_seen(writer: Act, value: int, key: int, *, reads_only: bool = False) -> bool:
        return any(
            in_session_order(act, writer)
            and act.key == key
            and (act.value == value if act.kind == READ else not reads_only and act.wrote == value)
            for act in todo
        )

    def older(value: int, written: Act) -> bool:
        if value >> 32 == written.session and (written.sequence <= value & 0xFFFFFFFF):
            return False
        return value <= PRELOADED or had_seen(written, value, written.key)

    for late in todo:
        if late.kind != READ:
            continue
        before = [act for act in todo if in_session_order(act, late)]
        mine = [act for act in before if act.key == late.key]
        if level == levels.READ_YOUR_WRITES:
            if any(act.kind == WRITE and older(late.value, act) for act in mine):
                return False
            continue
        values = [max(act.value, PRELOADED) for act in mine if act.kind == READ]
        if level == levels.MONOTONIC_READS:
            seen = [source_of(todo, act) for act in mine if act.kind == READ]
            if any(act is not None and older(late.value, act) for act in seen):
                return False
            now = max(late.value, PRELOADED)
            if now in values[:-1] and values[-1] != now:
                return False
            continue
        if _copy_lacks(todo, late, level):
            return False
    return True


def _copy_lacks(todo: Sequence[Act], late: Act, level: str) -> bool:
    shown_before = [
        act
        for act in todo
        if in_session_order(act, late) and act.kind == READ and act.client == late.client
    ]
    own = [source_of(todo, act) for act in shown_before]
    holds = [act for act in own if act is not None]
    fresh = late.value <= PRELOADED and not any(act.key == late.key for act in holds)
    if level == levels.MONOTONIC_WRITES:
        implied = [
            one
            for one in todo
            for two in holds
            if one.kind == WRITE and (one is two or in_session_order(one, two))
        ]
        same = [one for one in implied if one.key == late.key]
        source = source_of(todo, late)
        return (fresh and bool(same)) or any(
            source is not None and source is not one and in_session_order(source, one)
            for one in same
        )
    implied = list(holds)
    for one in implied:
        for act in todo:
            if act.kind == READ and in_session_order(act, one):
                found = source_of(todo, act)
                if found is not None and found not in implied:
                    implied.append(found)
    for one in implied:
        if one.key != late.key:
            continue
        if fresh:
            return True
        if late.value > PRELOADED and any(
            act.kind == READ
            and act.key == late.key
            and act.value == late.value
            and in_session_order(act, one)
            for act in todo
        ):
            return True
    return False
