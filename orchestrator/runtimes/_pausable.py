"""A node's clock that can stand still, for nodes that are paused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.runtimes._timers import Scheduler


class PausableClock:
    """One node's clock: while the node is paused its callbacks wait."""

    def __init__(self, clock: Scheduler) -> None:
        self._clock = clock
        self.now_ns, self.moment_ns = clock.now_ns, clock.moment_ns
        self.paused = False
        self._waiting: list[tuple[Callable[[Any], None], Any]] = []

    def at(self, when_ns: int, callback: Callable[[Any], None], argument: Any) -> None:
        self._clock.at(when_ns, self.ring, (callback, argument))

    def ring(self, call: tuple[Callable[[Any], None], Any]) -> None:
        """Call it, now or once the node goes on."""
        if self.paused:
            self._waiting.append(call)
        else:
            call[0](call[1])

    def resume(self) -> int:
        """Everything that waited happens now, in order; returns how much that was."""
        self.paused = False
        waiting, self._waiting = self._waiting, []
        for callback, argument in waiting:
            self._clock.at(self._clock.now_ns(), callback, argument)
        return len(waiting)
