"""Which connections one port of a node keeps: how many, and how long it waits for each.

Clients and peers have a watch each, so that those of one port take no room from the other. Where
too many have proven nothing, the oldest of them makes room: who means well proves itself within
milliseconds, so that strangers who stay silent lock nobody out.

One sweep a second looks at all of them. Waiting is counted in sweeps and not in time, so that
a process that was stopped for long, or starved, does not hold the pause against those who
could do nothing about it.
"""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Final

CONNECTIONS_MAX: Final = 10_000
"""To one port of a node; Redis's default for clients."""
UNPROVEN_MAX: Final = 256
"""Of these, connections that have proven nothing yet."""
SWEEP_S: Final = 1.0
PROOF_SWEEPS: Final = 5
REST_SWEEPS: Final = 10
READER_SWEEPS: Final = 30

# What is awaited of a connection; the limits stand in this order.
_NOTHING, _PROOF, _READER, _REST = range(4)
_SWEEPS: Final = (0, PROOF_SWEEPS, READER_SWEEPS, REST_SWEEPS)


def sweeps_in(seconds: float) -> int:
    """How many sweeps take at least so long, wherever between two of them it begins."""
    return math.ceil(seconds / SWEEP_S) + 1


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

    def expire(self) -> None:
        """A sweep comes by: give up what this side has owed the other for too long."""


def _nothing() -> None:
    """What else most watches do at a sweep."""


class Watch:
    """The connections to one port. ``also``: what else a sweep does."""

    def __init__(self, also: Callable[[], None] = _nothing) -> None:
        # In order of arrival.
        self._connections: dict[Watched, None] = {}
        self._unproven: dict[Watched, None] = {}
        self._also = also
        self._timer: asyncio.TimerHandle | None = None

    def admit(self, connection: Watched) -> bool:
        """Take it under watch; False where there are too many already."""
        if len(self._connections) >= CONNECTIONS_MAX:
            return False
        if not connection.proven:
            while len(self._unproven) >= UNPROVEN_MAX:
                oldest = next(iter(self._unproven))
                self.leave(oldest)
                oldest.cut()
            self._unproven[connection] = None
        self._connections[connection] = None
        return True

    def prove(self, connection: Watched) -> None:
        """It has proven who it is."""
        connection.proven = True
        self._unproven.pop(connection, None)

    def leave(self, connection: Watched) -> None:
        """It has ended."""
        self._connections.pop(connection, None)
        self._unproven.pop(connection, None)

    def __len__(self) -> int:
        return len(self._connections)

    def sweep(self) -> None:
        """Look at all of them; cut those that were waited for long enough."""
        self._also()
        for each in tuple(self._connections):
            each.expire()
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
