"""What a quorum does with concurrent writes: the last one wins, or all stay as siblings."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Final, Protocol

from orchestrator.core.machine import Entry, MachineContext, Op
from orchestrator.protocols import _quorum_siblings
from orchestrator.protocols._quorum_copies import Copies, Copy, copy_of, newer, next_version
from orchestrator.protocols._quorum_siblings import State, States

LAST_WRITER_WINS: Final = "last_writer_wins"
SIBLINGS: Final = "siblings"
_NODE_BITS: Final = 10  # below the time in a version from a clock; leaves 104 days


class Table(Protocol):
    """A node's own copies by key, and what it knows of writes; see Copies."""

    held: dict[bytes, Any]

    @abstractmethod
    def merge(self, copy: Any) -> bool: ...
    @abstractmethod
    def known(self, session: int, sequence: int) -> int: ...
    @abstractmethod
    def value(self, key: bytes, copy: Any) -> bytes | None: ...
    @abstractmethod
    def check(self) -> None: ...
    @abstractmethod
    def contents(self) -> Mapping[bytes, Entry]: ...


class Rule(Protocol):
    """How copies of a key are made and joined; ``table`` holds the node's own."""

    table: Table

    @abstractmethod
    def join(self, mine: Any, other: Any) -> Any:
        """What stays of two copies; ``mine`` itself where the other one adds nothing."""

    @abstractmethod
    def make(self, op: Op, found: Any, now_ns: int) -> tuple[Any, bytes]:
        """What a write stores, after it found that, and its session's context then."""

    @abstractmethod
    def repeat(self, op: Op, version: int, copy: Any) -> Any:
        """What a write stored that has this version already; ``copy``: of a node that knows it."""

    @abstractmethod
    def bare(self, copy: Any) -> Any:
        """As much of a copy as a write needs that asks for the newest version."""

    @abstractmethod
    def read(self, op: Op, found: Any) -> tuple[int, bytes, int]:
        """Version, the session's context, and how many values there are side by side."""

    @abstractmethod
    def version(self, copy: Any) -> int:
        """The version that clients are told; 0 where there is no order."""


class LastWriterWins(Rule):
    """One value a key, that of the highest version.

    Versions are tags above what the write found (``asks_first``), or times of the coordinator
    that never go back behind what it or the session has seen.
    """

    def __init__(self, context: MachineContext, asks_first: bool) -> None:
        self.table = Copies(context.preload)
        self._asks_first = asks_first
        self._node = context.node
        self._latest = 0

    def join(self, mine: Copy | None, other: Copy | None) -> Copy | None:
        return newer(mine, other)

    def make(self, op: Op, found: Copy | None, now_ns: int) -> tuple[Copy, bytes]:
        if self._asks_first:
            return copy_of(op, next_version(found.version if found else 0, op.session)), b""
        held = self.table.held.get(op.key)
        behind = max(op.seen, held.version if held else 0) >> _NODE_BITS
        self._latest = max(now_ns, self._latest + 1, behind + 1)
        return copy_of(op, self._latest << _NODE_BITS | self._node), b""

    def repeat(self, op: Op, version: int, copy: Copy | None) -> Copy:
        return copy_of(op, version)

    def bare(self, copy: Copy | None) -> Copy | None:
        return None if copy is None else Copy(copy.key, b"", copy.version, 0, 0, 0)

    def read(self, op: Op, found: Copy | None) -> tuple[int, bytes, int]:
        return (found.version if found else 0), b"", 1

    def version(self, copy: Copy) -> int:
        return copy.version


class Siblings(Rule):
    """Values that were written without having seen each other stay side by side.

    A write supersedes what its session has seen of the key, and what it found itself.
    """

    def __init__(self, context: MachineContext, asks_first: bool) -> None:
        self.table = States(context.preload)
        self._node = context.node

    def join(self, mine: State | None, other: State | None) -> State | None:
        return _quorum_siblings.join(mine, other)

    def make(self, op: Op, found: State | None, now_ns: int) -> tuple[State, bytes]:
        seen = _quorum_siblings.seen_in(op.context, op.key)
        if found is not None:
            seen = _quorum_siblings.merged(seen, found.clock)
        before = _quorum_siblings.join(self.table.held.get(op.key), found)
        state = _quorum_siblings.written(op, before, seen, self._node)
        seen = _quorum_siblings.seen_by_writer(state, seen, self._node)
        return state, _quorum_siblings.with_seen(op.context, op.key, seen)

    def repeat(self, op: Op, version: int, copy: State | None) -> State | None:
        return _quorum_siblings.join(self.table.held.get(op.key), copy)

    def bare(self, copy: State | None) -> State | None:
        return copy

    def read(self, op: Op, found: State | None) -> tuple[int, bytes, int]:
        if found is None:
            return 0, b"", 1
        return 0, _quorum_siblings.with_seen(op.context, op.key, found.clock), len(found.siblings)

    def version(self, copy: State) -> int:
        return 0
