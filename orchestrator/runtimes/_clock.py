"""Real time for one process: a heap of callbacks behind one timerfd.

An event loop's own timers are too coarse for emulated waits of 200 microseconds (asyncio's
fire almost a millisecond late, uvloop's round to whole milliseconds). A timerfd wakes the
loop some tens of microseconds after the time.

Where costs are modelled that lateness need not add up over the waits of an operation: what a
callback makes wait next is counted from the time for which the callback was asked
(:meth:`RealClock.moment_ns`). So as long as a host is behind by less than is made up, what it
emulates keeps time. Measured costs are what the host takes, lateness and all.
"""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import os
import time
from collections.abc import Callable
from typing import Any, Final

_CLOCK_MONOTONIC: Final = 1
_NONBLOCK: Final = 0o4000
_CLOSE_ON_EXEC: Final = 0o2000000
_ABSOLUTE: Final = 1
_FAR_NS: Final = 2**62


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Itimerspec(ctypes.Structure):
    _fields_ = [("interval", _Timespec), ("value", _Timespec)]


_libc = ctypes.CDLL(None, use_errno=True)


class RealClock:
    """Nanoseconds since ``origin_ns`` of CLOCK_MONOTONIC, and callbacks at such times.

    ``made_up_ns``: what is later by no more is made up for.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, origin_ns: int, made_up_ns: int = 0
    ) -> None:
        self._loop = loop
        self.origin_ns = origin_ns
        self._made_up_ns = made_up_ns
        self._heap: list[tuple[int, int, Callable[[Any], None], Any]] = []
        self._order = 0
        self._armed_ns = _FAR_NS
        # What time it should be in the callback that is running; None outside of callbacks.
        self._due_ns: int | None = None
        self.rung = 0
        """How many callbacks there were."""
        self.late_ns = 0
        """By how much waits ended late, all in all, where lateness is made up but was too much."""
        self._setting = _Itimerspec()
        self._file = _libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK | _CLOSE_ON_EXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        loop.add_reader(self._file, self._rang)

    def now_ns(self) -> int:
        return time.monotonic_ns() - self.origin_ns

    def moment_ns(self) -> int:
        """What time it should be: in a callback that is no later than is made up, its own."""
        now_ns = time.monotonic_ns() - self.origin_ns
        due_ns = self._due_ns
        return now_ns if due_ns is None or now_ns - due_ns > self._made_up_ns else due_ns

    def at(self, when_ns: int, callback: Callable[[Any], None], argument: Any) -> None:
        """Call back at ``when_ns``; in order of time, ties in order of asking."""
        self._order += 1
        heapq.heappush(self._heap, (when_ns, self._order, callback, argument))
        if when_ns < self._armed_ns:
            self._arm(when_ns)

    def arrive(self, when_ns: int, callback: Callable[[Any], None], argument: Any) -> None:
        """The same for what has been told to come at ``when_ns``, which may have passed: then at
        once, unless something earlier is still to come.
        """
        heap, now_ns = self._heap, self.now_ns()
        if when_ns > now_ns or (heap and heap[0][0] <= when_ns):
            self.at(when_ns, callback, argument)
            return
        if now_ns - when_ns > self._made_up_ns > 0:
            self.late_ns += now_ns - when_ns
        before_ns, self._due_ns = self._due_ns, when_ns
        callback(argument)
        self._due_ns = before_ns

    def not_made_up(self, usual_ns: int) -> None:
        """Whoever waited for this callback goes by its real time, usually so much later."""
        if self._made_up_ns:
            self.late_ns += self.now_ns() - self.moment_ns() - usual_ns

    def _arm(self, when_ns: int) -> None:
        self._armed_ns = when_ns
        # A value of zero would disarm the timer; a time that has passed rings at once.
        due_ns = max(1, when_ns + self.origin_ns)
        self._setting.value.seconds, self._setting.value.nanoseconds = divmod(due_ns, 10**9)
        _libc.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(self._setting), None)

    def _rang(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:
            return
        heap = self._heap
        # While callbacks run, what they ask for need not arm the timer.
        self._armed_ns = -_FAR_NS
        now_ns = self.now_ns()
        while heap and heap[0][0] <= now_ns:
            self._due_ns, _, callback, argument = heapq.heappop(heap)
            if now_ns - self._due_ns > self._made_up_ns > 0:
                self.late_ns += now_ns - self._due_ns
            callback(argument)
            self.rung += 1
            if not heap or heap[0][0] > now_ns:
                now_ns = self.now_ns()
        self._due_ns = None
        self._armed_ns = _FAR_NS
        if heap:
            self._arm(heap[0][0])

    def close(self) -> None:
        """Forget all callbacks."""
        self._heap.clear()
        self._loop.remove_reader(self._file)
        os.close(self._file)
