"""Copies of keys on the nodes of a quorum, ordered by version, and copies that wait for nodes.

A copy never changes once it is made, so that messages, records and nodes share one object. Of
two copies of a key the one with the higher version stays (equal ones: that of the higher session,
then the larger value, as in Cassandra), so that merging is commutative, associative and
idempotent, and neither the order of messages nor their repetition matters.

Every copy names the operation that wrote it. A node remembers the last write of each session
with its version, so that a repeated write is found to be done; the table grows with the
sessions, not with the operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import msgspec

from orchestrator.core.machine import Entry, Op, Preload

NEW: Final = 0
"""Of a write that nobody knows."""
OVERTAKEN: Final = -1
"""Of a write whose session has gone on to a later one: a repetition that came late."""
_SEQUENCE_BITS: Final = 32
_SESSION_BITS: Final = 32
_SEQUENCES: Final = (1 << _SEQUENCE_BITS) - 1
_SESSIONS: Final = (1 << _SESSION_BITS) - 1
_WORD_BITS: Final = 63

Identity = int | tuple[int, int]
"""Session and sequence of an operation: as one integer above 0 where a signed word holds it, as
it does for a run's own clients; sessions of plain Redis clients are wider.
"""


def identity_of(op: Op) -> Identity:
    """What names an operation in messages."""
    session, sequence = op.session, op.sequence
    if session >> _WORD_BITS - _SEQUENCE_BITS or sequence > _SEQUENCES:
        return session, sequence
    return session << _SEQUENCE_BITS | sequence


def session_and_sequence(identity: Identity) -> tuple[int, int]:
    """What :func:`identity_of` put together."""
    if isinstance(identity, int):
        return identity >> _SEQUENCE_BITS, identity & _SEQUENCES
    return identity


def next_version(newest: int, session: int) -> int:
    """The tag (number, session) one above ``newest``, as one integer that orders as the tags do.

    A session has one operation outstanding at most, and its next one meets a higher number, so
    no two writes share a tag, whichever nodes coordinate them and however often those restart.
    A version has room for the lower half of a session: where only the upper ones differ, as they
    may between those of plain Redis clients, versions can be equal, and :func:`tag_of` tells
    copies apart.
    """
    return ((newest >> _SESSION_BITS) + 1) << _SESSION_BITS | session & _SESSIONS


class Copy(msgspec.Struct, array_like=True, tag=1, gc=False):
    """A value of a key and the operation that wrote it; ``size`` is the entry's weight."""

    key: bytes
    value: bytes
    version: int
    session: int
    sequence: int
    size: int


def copy_of(op: Op, version: int) -> Copy:
    """What a write stores under this version."""
    return Copy(op.key, op.value or b"", version, op.session, op.sequence, op.size)


def tag_of(copy: Copy | None) -> tuple[int, int]:
    """What orders a copy among those that other writes made."""
    return (0, 0) if copy is None else (copy.version, copy.session)


def newer(mine: Copy | None, other: Copy | None) -> Copy | None:
    """The copy that stays; ``mine`` where they are the same."""
    if mine is None or other is None:
        return other if mine is None else mine
    if other.version != mine.version:
        return other if other.version > mine.version else mine
    if other.session != mine.session:
        return other if other.session > mine.session else mine
    return other if other.value > mine.value else mine


class Copies:
    """The newest copy of each key on one node, and the last write of each session."""

    __slots__ = ("held", "preload", "sessions")

    def __init__(self, preload: Preload) -> None:
        self.held: dict[bytes, Copy] = {}
        self.sessions: dict[int, tuple[int, int]] = {}
        self.preload = preload

    def merge(self, copy: Copy) -> bool:
        """Take a copy in; False where nothing about it was new."""
        session = copy.session
        last = self.sessions.get(session)
        noted = last is None or last[0] < copy.sequence
        if noted:
            self.sessions[session] = (copy.sequence, copy.version)
        mine = self.held.get(copy.key)
        if mine is not None and newer(mine, copy) is mine:
            return noted
        self.held[copy.key] = copy
        return True

    def known(self, session: int, sequence: int) -> int:
        """The version that this write has already; else NEW, or OVERTAKEN."""
        last = self.sessions.get(session)
        if last is None or last[0] < sequence:
            return NEW
        return last[1] if last[0] == sequence else OVERTAKEN

    def value(self, key: bytes, copy: Copy | None) -> bytes | None:
        """What a read that found this copy returns."""
        return self.preload.get(key) if copy is None else copy.value

    def check(self) -> None:
        """Assert what always holds."""
        assert all(copy.version > 0 and copy.key == key for key, copy in self.held.items())

    def contents(self) -> Mapping[bytes, Entry]:
        """Value and version by key."""
        return {key: Entry(copy.value, copy.version) for key, copy in self.held.items()}


class Hints:
    """Copies that nodes have not acknowledged, kept until they do: the newest one a key.

    Each has a number below 0, by which it is acknowledged. Their count is bounded by nodes
    times keys, whatever is written while a node is away.
    """

    __slots__ = ("_join", "_keys", "_number", "_waiting", "count")

    def __init__(self, join: Callable[[Any, Any], Any]) -> None:
        self._join = join
        self._waiting: dict[int, dict[int, Any]] = {}
        self._keys: dict[int, dict[bytes, int]] = {}
        self._number = 0
        self.count = 0

    def add(self, target: int, copy: Any) -> None:
        """Keep a copy for a node."""
        waiting = self._waiting.setdefault(target, {})
        numbers = self._keys.setdefault(target, {})
        number = numbers.get(copy.key)
        if number is not None:
            mine = waiting[number]
            copy = self._join(mine, copy)
            if copy is mine:
                return
            del waiting[number]
        else:
            self.count += 1
        self._number -= 1
        numbers[copy.key] = self._number
        waiting[self._number] = copy

    def acknowledged(self, target: int, number: int) -> bool:
        """The node holds it; False where it was known, or a newer one waits by now."""
        copy = self._waiting.get(target, {}).pop(number, None)
        if copy is None:
            return False
        del self._keys[target][copy.key]
        self.count -= 1
        return True

    def of_key(self, key: bytes) -> Any:
        """All copies of a key that wait for some node, joined; None without any."""
        found = None
        for target, numbers in self._keys.items():
            number = numbers.get(key)
            if number is not None:
                found = self._join(found, self._waiting[target][number])
        return found

    def oldest(self, count: int) -> Iterator[tuple[int, int, Any]]:
        """Up to ``count`` copies of each node, those first that wait longest: (node, number,
        copy).
        """
        for target, waiting in self._waiting.items():
            for number, copy in islice(waiting.items(), count):
                yield target, number, copy
