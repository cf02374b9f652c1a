"""The count of operations that choices go by which change with it: shared by several plug-ins."""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

from orchestrator.core.keys import KeySpace


class Turns:
    """Numbers of one client's operations among those of all clients, which take turns.

    Clients share no counter: client c of C takes its own operations for number c, c + C, c + 2C,
    ..., which is right as long as all are equally fast.
    """

    def __init__(self, space: KeySpace) -> None:
        self._next = space.client
        self._step = space.clients

    def take(self, count: int) -> NDArray[numpy.int64]:
        """The numbers of the next ``count`` operations, shape (count,)."""
        taken = self._next + self._step * numpy.arange(count, dtype=numpy.int64)
        self._next += self._step * count
        return taken
