"""A machine's timers on a clock that can only be asked to call back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Protocol


class Scheduler(Protocol):
    """The clock of a runtime."""

    @abstractmethod
    def now_ns(self) -> int:
        """Time since the start of the load; negative before it."""

    @abstractmethod
    def at(self, when_ns: int, callback: Callable[[Any], None], argument: Any) -> None:
        """Call back at that time, or at once when it has passed."""


class Timers:
    """Timers by name. Setting one again moves it; a cancelled one never fires."""

    __slots__ = ("_alarms", "_at", "_due_ns", "_fired", "_now_ns")

    def __init__(self, scheduler: Scheduler, fired: Callable[[str], None]) -> None:
        self._now_ns = scheduler.now_ns
        self._at = scheduler.at
        self._fired = fired
        self._due_ns: dict[str, int] = {}
        # When the clock calls back next for each.
        self._alarms: dict[str, int] = {}

    def set(self, timer: str, delay_ns: int) -> None:
        """Let it fire after the delay."""
        due_ns = self._now_ns() + delay_ns
        self._due_ns[timer] = due_ns
        # An alarm that rings earlier will find the new time; only a later one is of no use.
        if self._alarms.get(timer, due_ns + 1) > due_ns:
            self._alarms[timer] = due_ns
            self._at(due_ns, self._ring, (timer, due_ns))

    def cancel(self, timer: str) -> None:
        """Let it not fire."""
        self._due_ns.pop(timer, None)

    def _ring(self, alarm: tuple[str, int]) -> None:
        timer, at_ns = alarm
        if self._alarms.get(timer) != at_ns:
            return
        del self._alarms[timer]
        due_ns = self._due_ns.get(timer)
        if due_ns is None:
            return
        if due_ns > at_ns:
            self._alarms[timer] = due_ns
            self._at(due_ns, self._ring, (timer, due_ns))
            return
        del self._due_ns[timer]
        self._fired(timer)
