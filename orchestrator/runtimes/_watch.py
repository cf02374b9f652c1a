"""Which connections a node keeps: how many, and how long it waits for each.

One sweep a second looks at all of them. Waiting is counted in sweeps and not in time, so that
a process that was stopped for long, or starved, does not hold the pause against those who
could do nothing about it.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Final

CONNECTIONS_MAX: Final = 10_000
"""Of one node, from clients and peers; Redis's default for clients."""
UNPROVEN_MAX: Final = 256
"""Of these, connections that have proven nothing yet."""
SWEEP_S: Final = 1.0
PROOF_SWEEPS: Final = 5
REST_SWEEPS: Final = 10
READER_SWEEPS: Final = 30

# What is awaited of a connection; the limits stand in this order.
_NOTHING, _PROOF, _READER, _REST = range(4)
_SWEEPS: Final = (0, PROOF_SWEEPS, READER_SWEEPS, REST_SWEEPS)


class Watched:
    """A connection under watch."""

    proven = False
    """Whether it may stay and be silent."""
    blocked = False
    """Whether the other side does not take what it is sent."""
    sweeps = 0
    """How many sweeps have found it awaiting the same; whoever makes progress sets it to 0."""
    awaited = _NOTHING

    @property
    @abstractmethod
    def begun(self) -> bool:
        """Whether the first part of something is here whose rest is not."""

    @abstractmethod
    def cut(self) -> None:
        """End it at once."""


class Watch:
    """The connections of one node."""

    def __init__(self) -> None:
        # In order of arrival.
        self._connections: dict[Watched, None] = {}
        self._unproven = 0
        self._timer: asyncio.TimerHandle | None = None

    def admit(self, connection: Watched) -> bool:
        """Take it under watch; False where there are too many already."""
        if len(self._connections) >= CONNECTIONS_MAX:
            return False
        if not connection.proven:
            if self._unproven >= UNPROVEN_MAX:
                return False
            self._unproven += 1
        self._connections[connection] = None
        return True

    def prove(self, connection: Watched) -> None:
        """It has proven who it is."""
        if not connection.proven:
            connection.proven = True
            self._unproven -= connection in self._connections

    def leave(self, connection: Watched) -> None:
        """It has ended."""
        if connection in self._connections:
            del self._connections[connection]
            self._unproven -= not connection.proven

    def __len__(self) -> int:
        return len(self._connections)

    def sweep(self) -> None:
        """Look at all of them; cut those that were waited for long enough."""
        for each in tuple(self._connections):
            if not each.proven:
                awaited = _PROOF
            elif each.blocked:
                awaited = _READER
            else:
                awaited = _REST if each.begun else _NOTHING
            if awaited != each.awaited:
                each.awaited, each.sweeps = awaited, 0
            elif awaited:
                each.sweeps += 1
                if each.sweeps >= _SWEEPS[awaited]:
                    each.cut()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sweep from now on."""

        def again() -> None:
            self.sweep()
            self._timer = loop.call_later(SWEEP_S, again)

        self._timer = loop.call_later(SWEEP_S, again)

    def close(self) -> None:
        """Sweep no more, and end all connections."""
        if self._timer is not None:
            self._timer.cancel()
        for each in tuple(self._connections):
            each.cut()
