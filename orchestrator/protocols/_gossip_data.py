"""Data types whose copies are joined: what the cells of gossip mean.

State-based convergent types of Shapiro, Preguica, Baquero and Zawirski, "Conflict-Free
Replicated Data Types" (SSS 2011) and their "comprehensive study" (INRIA RR-7506, 2011): a
last-writer-wins register, a counter of positive and negative amounts, and a grow-only set. All
are maps of cells in which a higher version replaces a lower one, so any order and any number of
joins gives the same.

An operation takes effect once, whoever is asked again. For the set that is in its nature. The
register keeps each session's last write in a cell of its own. The counter's cells belong to
sessions and not to nodes: whichever node takes a session's i-th increment, it makes the same
cell of it. A node that knows all increments of a session, 1 to i, folds them into one cell a
key (the i-th of a session that moved may be there before the others), so that what is kept
grows with sessions and keys and not with increments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import insort
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

import msgspec

from orchestrator.core.machine import (
    ADD,
    INCREMENT,
    READ,
    SCAN,
    WRITE,
    Effect,
    Entry,
    Op,
    Preload,
)
from orchestrator.core.state import KeyValueState
from orchestrator.protocols._gossip_tree import Cell, Store
from orchestrator.protocols._last_writer_wins import LastWriterWins

REGISTER, COUNTER, SET = "register", "counter", "set"
NODE_BITS: Final = 10
_NOBODYS: Final = b""
_WORD: Final = 8
_WORD_MASK: Final = (1 << 64) - 1
_AMOUNT_MAX_BYTES: Final = 19  # an amount fits into 64 bits

_encode = msgspec.msgpack.Encoder().encode


def _word(number: int) -> bytes:
    return (number & _WORD_MASK).to_bytes(_WORD, "big")


class Data(ABC):
    """All cells of a node and what clients see of them.

    ``time``: above that of every version seen, where versions hold one.
    """

    kinds: ClassVar[frozenset[int]]
    store_type: ClassVar[type[Store]] = Store

    def __init__(self, node: int, preload: Preload, *, accesses: bool) -> None:
        self.store = self.store_type()
        self.view = KeyValueState(preload, accesses=accesses)
        self.time = 0
        self._node = node

    @abstractmethod
    def update(self, op: Op) -> tuple[int, bytes]:
        """Let an operation take effect, once; returns its version and the session's context."""

    @abstractmethod
    def join(self, cell: Cell) -> None:
        """Take in a cell of another copy."""

    def join_all(self, cells: Iterable[Cell]) -> None:
        """Take in cells of another copy."""
        for cell in cells:
            self.join(cell)

    def serve(self, handle: Any, op: Op, effects: list[Effect]) -> None:
        """Answer a read from what is here now."""
        entry = self.view.values.get(op.key)
        self.view.serve(handle, op, 0 if entry is None else entry.version, effects)

    def contents(self) -> Mapping[bytes, Entry]:
        """What was ever changed, by key."""
        return self.view.contents()

    @abstractmethod
    def check(self) -> None:
        """Assert that what clients see is what the cells say."""


class Register(Data):
    """The last write wins. A version is (time, node)."""

    kinds = frozenset({READ, WRITE, SCAN})

    def __init__(self, node: int, preload: Preload, *, accesses: bool) -> None:
        super().__init__(node, preload, accesses=accesses)
        self._newest = self.view = LastWriterWins(preload, accesses=accesses)

    def update(self, op: Op) -> tuple[int, bytes]:
        session = _word(op.session)
        last = self.store.get(_NOBODYS, session)
        if last is not None and last.version >= op.sequence:
            return int.from_bytes(last.value, "big"), b""
        self.time += 1
        version = self.time << NODE_BITS | self._node
        self.join(Cell(op.key, b"", version, op.value or b""))
        self.join(Cell(_NOBODYS, session, op.sequence, _word(version)))
        return version, b""

    def join(self, cell: Cell) -> None:
        mine = self.store.get(cell.key, cell.part)
        if mine is not None and (mine.version, mine.value) >= (cell.version, cell.value):
            return
        self.store.put(cell)
        if not cell.part:
            self.time = max(self.time, cell.version >> NODE_BITS)
            self._newest.join(cell.key, cell.value, cell.version)

    def check(self) -> None:
        for key, entry in self.view.values.items():
            assert self.store.cells[key, b""].cell == Cell(key, b"", entry.version, entry.value)


class _Zero(KeyValueState):
    """Counters that nobody has touched are at zero, whatever was preloaded."""

    def read(self, key: bytes) -> bytes | None:
        found = self.values.get(key)
        return b"0" if found is None else found.value


class _Session:
    """What a node knows of one session's increments: how many, the last one's index and sequence
    number, and those that are not folded by index.
    """

    __slots__ = ("known", "last", "open", "sequence")

    def __init__(self) -> None:
        self.known = 0
        self.last = 0
        self.sequence = 0
        self.open: dict[int, Cell] = {}


class Counter(Data):
    """The sum of all increments of all sessions.

    Cells: (key, session) holds "count total sequence" of all increments of that session to that
    key up to index ``version``; (key, session and index) one later increment, "amount sequence".
    """

    kinds = frozenset({READ, INCREMENT})

    def __init__(self, node: int, preload: Preload, *, accesses: bool) -> None:
        super().__init__(node, preload, accesses=accesses)
        self.view = _Zero(preload, accesses=accesses)
        self._sessions: dict[bytes, _Session] = {}

    def update(self, op: Op) -> tuple[int, bytes]:
        session = self._session(_word(op.session))
        before = int.from_bytes(op.context, "big")
        if session.sequence < op.sequence:
            # A session without context stays at this node.
            index = (before if op.context else session.last) + 1
            self._take(op, session, index)
        else:
            index = before + 1 if op.context else session.last
        return self._version(op.key), _word(index)

    def _take(self, op: Op, session: _Session, index: int) -> None:
        name, amount = _word(op.session), _amount(op.value)
        if session.known == session.last == index - 1:
            self._fold_one(name, session, op.key, index, amount, op.sequence)
        else:
            value = b"%d %d" % (amount, op.sequence)
            self.join(Cell(op.key, name + _word(index), 1, value))

    def _version(self, key: bytes) -> int:
        entry = self.view.values.get(key)
        return 0 if entry is None else entry.version

    def _session(self, name: bytes) -> _Session:
        found = self._sessions.get(name)
        if found is None:
            found = self._sessions[name] = _Session()
        return found

    def join(self, cell: Cell) -> None:
        name = cell.part[:_WORD]
        session = self._session(name)
        folded = self.store.get(cell.key, name)
        if len(cell.part) > _WORD:
            index = int.from_bytes(cell.part[_WORD:], "big")
            known = index in session.open or (folded is not None and folded.version >= index)
            if not known:
                self._add_open(session, index, cell)
        elif folded is None or folded.version < cell.version:
            self._replace_folded(session, folded, cell)
        if session.open and session.known == session.last:
            self._fold(name, session)

    def _add_open(self, session: _Session, index: int, cell: Cell) -> None:
        amount, sequence = map(int, cell.value.split())
        session.open[index] = cell
        self.store.put(cell)
        self._learn(session, index, sequence, 1)
        self._count(cell.key, 1, amount)

    def _replace_folded(self, session: _Session, folded: Cell | None, cell: Cell) -> None:
        count, total, sequence = map(int, cell.value.split())
        if folded is not None:
            old_count, old_total, _ = map(int, folded.value.split())
            count, total = count - old_count, total - old_total
        self.store.put(cell)
        self._learn(session, cell.version, sequence, count)
        self._count(cell.key, count, total)
        for index in [i for i, each in session.open.items() if each.key == cell.key]:
            if index <= cell.version:
                self._drop_open(session, index)

    def _drop_open(self, session: _Session, index: int) -> None:
        cell = session.open.pop(index)
        self.store.drop(cell.key, cell.part)
        session.known -= 1
        self._count(cell.key, -1, -int(cell.value.split()[0]))

    def _learn(self, session: _Session, index: int, sequence: int, count: int) -> None:
        session.known += count
        session.last = max(session.last, index)
        session.sequence = max(session.sequence, sequence)

    def _count(self, key: bytes, count: int, amount: int) -> None:
        entry = self.view.values.get(key)
        if entry is None:
            entry = self.view.values[key] = Entry(b"0", 0)
        entry.value = b"%d" % (int(entry.value) + amount)
        entry.version += count

    def _fold(self, name: bytes, session: _Session) -> None:
        """All of them are here: one cell a key will do."""
        for index in sorted(session.open):
            cell = session.open[index]
            amount, sequence = map(int, cell.value.split())
            self._drop_open(session, index)
            self._fold_one(name, session, cell.key, index, amount, sequence)

    def _fold_one(
        self, name: bytes, session: _Session, key: bytes, index: int, amount: int, sequence: int
    ) -> None:
        folded = self.store.get(key, name)
        count, total = (0, 0) if folded is None else map(int, folded.value.split()[:2])
        value = b"%d %d %d" % (count + 1, total + amount, sequence)
        self._replace_folded(session, folded, Cell(key, name, index, value))

    def check(self) -> None:
        sums: dict[bytes, tuple[int, int]] = {}
        for stored in self.store.cells.values():
            cell = stored.cell
            words = [int(word) for word in cell.value.split()]
            folded = len(cell.part) == _WORD
            count, total = words[:2] if folded else (1, words[0])
            before = sums.get(cell.key, (0, 0))
            sums[cell.key] = before[0] + count, before[1] + total
        shown = {key: (entry.version, int(entry.value)) for key, entry in self.view.values.items()}
        assert sums == shown, "a counter is the sum of its cells"
        for session in self._sessions.values():
            assert session.known <= session.last
            assert not session.open or session.known < session.last, "what is whole is folded"


def _amount(value: bytes | None) -> int:
    """A signed integer as text, or 1."""
    if value is None or len(value) > _AMOUNT_MAX_BYTES:
        return 1
    digits = value[1:] if value[:1] in (b"-", b"+") else value
    return int(value) if digits.isdigit() else 1


class GrowOnlySet(Data):
    """The union of all that was added; nothing is ever taken out. A cell an element."""

    kinds = frozenset({READ, ADD})

    def __init__(self, node: int, preload: Preload, *, accesses: bool) -> None:
        super().__init__(node, preload, accesses=accesses)
        self._elements: dict[bytes, list[bytes]] = {}
        self.view = _Elements(preload, self._elements, accesses=accesses)

    def update(self, op: Op) -> tuple[int, bytes]:
        self.join(Cell(op.key, op.value or b"", 1, b""))
        return len(self._elements[op.key]), b""

    def join(self, cell: Cell) -> None:
        if self.store.get(cell.key, cell.part) is None:
            self.store.put(cell)
            insort(self._elements.setdefault(cell.key, []), cell.part)

    def serve(self, handle: Any, op: Op, effects: list[Effect]) -> None:
        self.view.serve(handle, op, len(self._elements.get(op.key, ())), effects)

    def contents(self) -> Mapping[bytes, Entry]:
        return {
            key: Entry(_encode(elements), len(elements)) for key, elements in self._elements.items()
        }

    def check(self) -> None:
        names = {(key, part) for key, parts in self._elements.items() for part in parts}
        assert names == self.store.cells.keys()


class _Elements(KeyValueState):
    """Sets are packed when they are read. None is preloaded."""

    def __init__(
        self, preload: Preload, elements: Mapping[bytes, list[bytes]], *, accesses: bool
    ) -> None:
        super().__init__(preload, accesses=accesses)
        self._elements = elements

    def read(self, key: bytes) -> bytes | None:
        return _encode(self._elements.get(key, []))


DATA: Final[Mapping[str, type[Data]]] = {REGISTER: Register, COUNTER: Counter, SET: GrowOnlySet}
