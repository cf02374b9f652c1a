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
    def moment_ns(self) -> int:
        """What time it should be: that for which the running callback was asked, where it is a
        little late; else :meth:`now_ns`. What a model makes wait next is counted from here.
        """

    @abstractmethod
    def at(self, when_ns: int, callback: Callable[[Any], None], argument: Any) -> None:
        """Call back at that time, or at once when it has passed."""


class LocalClock:
    """What a node takes for the time: a clock that can be set, and made to run fast or slow.

    A callback that is under way when the clock changes comes when the old clock would have called
    it, as a timer of a kernel that is set does not ring earlier or later.
    """

    def __init__(self, clock: Scheduler) -> None:
        self._true_ns = clock.now_ns
        self._at = clock.at
        # Local time is that of the last change plus what has passed since at this rate.
        self._changed_ns = 0
        self._shown_ns = 0
        self._offset_ns = 0
        self._rate = 1.0

    def now_ns(self) -> int:
        """Local time."""
        return self._shown_ns + round((self._true_ns() - self._changed_ns) * self._rate)

    def at(self, when_ns: int, callback: Callable[[Any], None], argument: Any) -> None:
        """Call back at that local time."""
        left_ns = round((when_ns - self.now_ns()) / self._rate)
        self._at(self._true_ns() + left_ns, callback, argument)

    def change(self, offset_ns: int, drift: float) -> None:
        """Show ``offset_ns`` more than without a fault, and run faster by ``drift``.

        What a drift has added stays when the drift ends, until the clock is set.
        """
        self._shown_ns = self.now_ns() + offset_ns - self._offset_ns
        self._changed_ns = self._true_ns()
        self._offset_ns = offset_ns
        self._rate = 1.0 + drift


class Timers:
    """Timers by name. Setting one again moves it; a cancelled one never fires."""

    __slots__ = ("_alarms", "_at", "_due_ns", "_fired", "_now_ns")

    def __init__(self, scheduler: Scheduler | LocalClock, fired: Callable[[str], None]) -> None:
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
