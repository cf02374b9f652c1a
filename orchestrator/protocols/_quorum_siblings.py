"""Copies that keep concurrent values as siblings: dotted version vector sets.

Preguica, Baquero, Almeida, Fonte and Goncalves, "Dotted Version Vectors: Logical Clocks for
Optimistic Replication" (arXiv 1011.5808, 2010; PODC 2012), in the form for whole sets of
siblings of Almeida, Baquero, Goncalves, Preguica and Fonte, "Scalable and Accurate Causality
Tracking for Eventually Consistent Stores" (DAIS 2014).

A replica of the key that coordinates a write gives it a dot (its node, a counter of its own).
A state is a vector of the dots it has seen per node and the values that no write it has seen
superseded. Replicas exchange whole states, so a vector needs no gaps. Joining two states keeps
a value unless the other one has seen its dot and dropped it.

A session carries what it has seen of the keys that it touched last, as opaque bytes; a write
supersedes just that. Values written without having seen each other stay side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from zlib import crc32

import msgspec

from orchestrator.core.machine import Entry, Op, Preload
from orchestrator.protocols._quorum_copies import Copies

CONTEXT_KEYS: Final = 16
"""How many keys a session's context remembers; a write to others supersedes nothing unread."""

Clock = dict[int, int]
"""How many dots of each node have been seen, without a gap."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[bytes, Clock]]).decode


class Sibling(msgspec.Struct, array_like=True, gc=False):
    """One value with its dot (node, counter) and the operation that wrote it."""

    node: int
    counter: int
    value: bytes
    session: int
    sequence: int


class State(msgspec.Struct, array_like=True, tag=2, gc=False):
    """All that a replica knows of a key; siblings in order of their dots."""

    key: bytes
    clock: Clock
    siblings: list[Sibling]
    size: int


def join(mine: State | None, other: State | None) -> State | None:
    """What both know together; ``mine`` itself where the other one adds nothing."""
    if mine is None or other is None:
        return other if mine is None else mine
    clock = merged(mine.clock, other.clock)
    kept = {
        (each.node, each.counter): each
        for one, against in ((mine, other), (other, mine))
        for each in one.siblings
        if against.clock.get(each.node, 0) < each.counter or each in against.siblings
    }
    siblings = [kept[dot] for dot in sorted(kept)]
    if clock == mine.clock and siblings == mine.siblings:
        return mine
    return State(mine.key, clock, siblings, max(mine.size, other.size))


def merged(one: Mapping[int, int], other: Mapping[int, int]) -> Clock:
    """The vector of everything that either has seen, in order of the nodes."""
    nodes = sorted({**one, **other})
    return {node: max(one.get(node, 0), other.get(node, 0)) for node in nodes}


def written(op: Op, state: State | None, seen: Clock, node: int) -> State:
    """``state`` of replica ``node`` after a write that supersedes what was ``seen``."""
    before = State(op.key, {}, [], op.size) if state is None else state
    clock = merged(before.clock, seen)
    counter = clock.get(node, 0) + 1
    clock = merged(clock, {node: counter})
    kept = [each for each in before.siblings if seen.get(each.node, 0) < each.counter]
    mine = Sibling(node, counter, op.value or b"", op.session, op.sequence)
    siblings = sorted([*kept, mine], key=lambda each: (each.node, each.counter))
    return State(op.key, clock, siblings, op.size)


def seen_by_writer(state: State, seen: Clock, node: int) -> Clock:
    """What the writer of the newest dot of ``node`` has seen: what it knew, and its own value.

    A vector cannot say "its own, but not the one before". Where it would cover a value that the
    writer has not seen, its own is left out: better one sibling too many than a value lost.
    """
    mine = merged(seen, {node: state.clock[node]})
    covered = [each for each in state.siblings if each.counter <= mine.get(each.node, 0)]
    return mine if len(covered) == 1 else dict(seen)


def seen_in(context: bytes, key: bytes) -> Clock:
    """What a session has seen of a key; nothing where it does not remember."""
    remembered = dict(_decode(context)) if context else {}
    return remembered.get(key, {})


def with_seen(context: bytes, key: bytes, clock: Clock) -> bytes:
    """The session's context with what it has seen of this key now."""
    remembered = dict(_decode(context)) if context else {}
    remembered.pop(key, None)
    newest = [(key, clock), *remembered.items()]
    return _encode(newest[:CONTEXT_KEYS])


class States(Copies):
    """The state of each key on one node; see Copies for what its methods mean."""

    __slots__ = ("_checked",)

    held: dict[bytes, State]  # type: ignore[assignment]

    def __init__(self, preload: Preload) -> None:
        super().__init__(preload)
        self._checked: dict[bytes, State] = {}

    def merge(self, copy: State) -> bool:  # type: ignore[override]
        mine = self.held.get(copy.key)
        joined = join(mine, copy)
        if joined is mine or joined is None:
            return False
        self.held[copy.key] = joined
        for each in copy.siblings:
            last = self.sessions.get(each.session)
            if last is None or last[0] < each.sequence:
                self.sessions[each.session] = (each.sequence, 1)
        return True

    def value(self, key: bytes, copy: State | None) -> bytes | None:  # type: ignore[override]
        """The largest of the siblings: one that every reader of this state would name."""
        if copy is None:
            return self.preload.get(key)
        return max(each.value for each in copy.siblings)

    def check(self) -> None:
        for key, state in self.held.items():
            if self._checked.get(key) is state:
                continue
            self._checked[key] = state
            dots = [(each.node, each.counter) for each in state.siblings]
            assert dots and dots == sorted(dict.fromkeys(dots)), f"{key!r} has the dots {dots}"
            assert all(counter <= state.clock[node] for node, counter in dots)

    def contents(self) -> Mapping[bytes, Entry]:
        """The version is a fingerprint of the whole state, siblings included."""
        return {
            key: Entry(self.value(key, state) or b"", crc32(_encode([state.clock, state.siblings])))
            for key, state in self.held.items()
        }
