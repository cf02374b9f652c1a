"""Operations of plain clients that a node's machine still holds when nobody waits for them any
more: it can forget none of them, so there is a limit beyond which it is given no others.
"""

from __future__ import annotations

import itertools
from typing import Final

OPERATIONS_MAX: Final = 10_000
BYTES_MAX: Final = 64 << 20
"""Of their keys and values."""


class Overdue:
    """How many there are, and whether those are too many."""

    def __init__(self) -> None:
        self.operations = 0
        self.size_bytes = 0
        self.full = False

    def add(self, size_bytes: int) -> None:
        """Nobody waits for an operation any more."""
        self._count(1, size_bytes)

    def settle(self, size_bytes: int) -> None:
        """The machine has let go of one of them."""
        self._count(-1, -size_bytes)

    def _count(self, operations: int, size_bytes: int) -> None:
        self.operations += operations
        self.size_bytes += size_bytes
        self.full = self.operations > OPERATIONS_MAX or self.size_bytes > BYTES_MAX


class Held:
    """Operations that this node has taken from others, which wait for some sweeps at most."""

    def __init__(self, overdue: Overdue, patience: int) -> None:
        self._overdue = overdue
        self._patience = patience
        self._sweeps = 0
        self._numbers = itertools.count()
        # By number, hence in order of arrival: (the sweep before it came, its bytes).
        self._awaited: dict[int, tuple[int, int]] = {}
        self._late: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._awaited) + len(self._late)

    def take(self, size_bytes: int) -> int:
        """The machine is given one; returns its number."""
        number = next(self._numbers)
        self._awaited[number] = (self._sweeps, size_bytes)
        return number

    def settle(self, number: int) -> None:
        """The machine has let go of it."""
        if self._awaited.pop(number, None) is None and number in self._late:
            self._overdue.settle(self._late.pop(number))

    def sweep(self) -> None:
        """The other nodes do not wait any more for those that came long ago."""
        self._sweeps += 1
        for number, (since, size_bytes) in tuple(self._awaited.items()):
            if since > self._sweeps - self._patience:
                break
            del self._awaited[number]
            self._late[number] = size_bytes
            self._overdue.add(size_bytes)
