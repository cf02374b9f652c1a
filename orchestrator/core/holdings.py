"""Which cells a group holds: the part of its replicated state that lets data move while it is used.

Each step here is one of a deterministic state machine: every replica of the group takes it at the
same place of the one order that its protocol applies. A cell (:mod:`orchestrator.core.layout`) goes
from one group to another in three steps, each of which may be asked for any number of times:

1. FENCE, in the old group's order. What comes after it there has no effect on the cell. The values
   as they are at the fence are put aside, with what deduplication knows of the sessions.
2. ADOPT, in the new group's order, once for each piece of what was put aside. With the last piece
   the cell is the new group's.
3. RELEASE, in the old group's order: what was put aside is forgotten, and the values are.

**Why the whole stays linearizable.** An operation takes effect on a cell in the old group's order
before the fence, or in the new group's order after the last piece, and the fence comes before the
pieces are sent. Whoever reads the newest state of the old group after that finds the fence.

**Why nothing is applied twice.** A session has one operation under way, so its last sequence number
is all that deduplication needs, and it goes along: what took effect before the fence and is asked
again at the new group is known there. Of sessions, what has changed since the fence of the last
cell that was released on the way to the same group is enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from orchestrator.core.layout import Layouts

DONE: Final = -1
"""Answer to a step that has been taken, or is out of date."""


class Cell(msgspec.Struct, array_like=True, gc=False):
    """Which cell goes over in which epoch."""

    cell: int
    epoch: int


class Piece(msgspec.Struct, array_like=True, gc=False):
    """Part ``number`` of a cell: (``keys[i]``, ``values[i]``), and with the first one that session
    ``sessions[i]`` wrote last with ``sequences[i]``.
    """

    cell: int
    epoch: int
    number: int
    last: bool
    keys: list[bytes]
    values: list[bytes]
    sessions: list[int]
    sequences: list[int]


class Aside(msgspec.Struct, array_like=True, gc=False):
    """What a fence has put aside, for ``epoch``: written values, in order of their keys, and what
    is known of sessions.
    """

    epoch: int
    keys: list[bytes]
    values: list[bytes]
    sessions: list[int]
    sequences: list[int]


class Held(msgspec.Struct, array_like=True, gc=False):
    """All of a group's holdings as plain columns, for a snapshot."""

    came: list[tuple[int, int, int]]
    left: list[tuple[int, int, int]]
    aside: list[tuple[int, Aside]]
    arriving: list[tuple[int, int, int]]
    told: list[tuple[int, int]]


encode = msgspec.msgpack.Encoder().encode
decode_cell = msgspec.msgpack.Decoder(Cell).decode
decode_piece = msgspec.msgpack.Decoder(Piece).decode


class Holdings:
    """The cells of one group. ``came`` and ``left``: by cell (epoch, place in the order) of the
    last time; ``aside``: what has left and is not released; ``arriving``: by cell (epoch, next
    piece).
    """

    def __init__(self, layouts: Layouts, group: int) -> None:
        self.layouts = layouts
        self.group = group
        self.came: dict[int, tuple[int, int]] = {}
        self.left: dict[int, tuple[int, int]] = {}
        self.aside: dict[int, Aside] = {}
        self.arriving: dict[int, tuple[int, int]] = {}
        # By group: the last fence up to which it knows of the sessions.
        self.told: dict[int, int] = {}
        self.steps = 0
        """How many were taken: whether something may have changed."""
        self.arrived: list[int] = []
        """Cells that have come since somebody has looked, who clears it."""
        self.written: dict[int, dict[bytes, bool]] = {}
        """The written keys of the cells that ever move."""
        self.first_written = 0
        """How often a cell without any got one."""

    # --- who holds what -------------------------------------------------------------------

    def arrival(self, cell: int) -> tuple[int, int] | None:
        """Since which (epoch, place) the cell is here, or was the last time; None: it never was."""
        came = self.came.get(cell)
        if came is None and self.layouts.path(cell)[0] == self.group:
            return (0, 0)
        return came

    def holds(self, cell: int) -> bool:
        """Whether the cell is here now."""
        came, left = self.arrival(cell), self.left.get(cell)
        return came is not None and (left is None or came[0] >= left[0])

    def valid(self, cell: int, place: int) -> bool:
        """Whether the cell was here at that place of the order."""
        came, left = self.arrival(cell), self.left.get(cell)
        if came is None or place < came[1]:
            return False
        return left is None or came[0] >= left[0] or place < left[1]

    def next_epoch(self, cell: int) -> int | None:
        """The epoch in which another group is to have a cell that is here; None: never."""
        came = self.arrival(cell)
        if came is None or not self.holds(cell):
            return None
        path = self.layouts.path(cell)
        later = range(came[0] + 1, len(path))
        return next((epoch for epoch in later if path[epoch] != self.group), None)

    # --- steps ----------------------------------------------------------------------------

    def may_fence(self, of: Cell) -> bool:
        """Whether this is the next move of a cell that is here."""
        return self.next_epoch(of.cell) == of.epoch

    def fenced(self, of: Cell, place: int, aside: Aside) -> None:
        """The cell is here no more."""
        self.left[of.cell] = (of.epoch, place)
        self.aside[of.cell] = aside

    def released(self, cell: int) -> None:
        """The cell's new group has taken it in: what was put aside is not needed any more."""
        epoch, place = self.left[cell]
        target = self.layouts.path(cell)[epoch]
        self.told[target] = max(place, self.told.get(target, 0))
        del self.aside[cell]

    def told_through(self, of: Cell) -> int:
        """Up to where the group to which the cell goes knows of the sessions."""
        return self.told.get(self.layouts.path(of.cell)[of.epoch], 0)

    def wants(self, piece: Piece) -> int:
        """Number of the piece that is wanted; DONE where the cell needs none for this epoch."""
        came = self.arrival(piece.cell)
        path = self.layouts.path(piece.cell)
        known = -1 if came is None else came[0]
        if not known < piece.epoch < len(path) or path[piece.epoch] != self.group:
            return DONE
        epoch, number = self.arriving.get(piece.cell, (-1, 0))
        if epoch > piece.epoch:
            return DONE
        return number if epoch == piece.epoch else 0

    def adopted(self, piece: Piece, place: int) -> int:
        """The wanted piece has been taken in; which one is wanted now."""
        if not piece.last:
            self.arriving[piece.cell] = (piece.epoch, piece.number + 1)
            return piece.number + 1
        self.arriving.pop(piece.cell, None)
        self.came[piece.cell] = (piece.epoch, place)
        self.arrived.append(piece.cell)
        return DONE

    # --- as a whole -----------------------------------------------------------------------

    def kept(self) -> Held:
        """A copy of everything."""
        return Held(
            _flat(self.came),
            _flat(self.left),
            list(self.aside.items()),
            _flat(self.arriving),
            list(self.told.items()),
        )

    def restore(self, kept: Held) -> None:
        """Be as ``kept`` says."""
        self.came = _deep(kept.came)
        self.left = _deep(kept.left)
        self.aside = dict(kept.aside)
        self.arriving = _deep(kept.arriving)
        self.told = dict(kept.told)
        self.steps += 1

    def check(self) -> None:
        """Assert the invariants."""
        for cell, aside in self.aside.items():
            assert self.left[cell][0] == aside.epoch, f"cell {cell} is put aside and has not left"
            assert not self.holds(cell), f"cell {cell} is here and put aside"
        for cell, (epoch, number) in self.arriving.items():
            assert number > 0, f"cell {cell} arrives without a piece"
            assert self.layouts.path(cell)[epoch] == self.group, f"cell {cell} does not belong here"


def _flat(table: dict[int, tuple[int, int]]) -> list[tuple[int, int, int]]:
    return [(cell, *both) for cell, both in table.items()]


def _deep(rows: Iterable[tuple[int, int, int]]) -> dict[int, tuple[int, int]]:
    return {cell: (epoch, number) for cell, epoch, number in rows}
