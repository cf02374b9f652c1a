"""A thread for what an event loop must not wait for: the disk.

One thread that is there already, a queue without locks of Python's, and one call back into the
loop: an executor makes and locks two futures for each call besides.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

CLOSE_S: Final = 10.0
"""A disk that takes longer than that is not waited for."""

Then = Callable[[Exception | None], None]
_Job = tuple[Callable[[], None], Then]


class BlockingCalls:
    """Calls functions one after another in a thread of their own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        # How many it was given, and what CPU time it has used for them.
        self.calls = self.cpu_ns = 0

    def call(self, function: Callable[[], None], then: Then) -> None:
        """``then`` is called in the loop when it has returned, with what failed, or None."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="disk", daemon=True)
            self._thread.start()
        self.calls += 1
        self._jobs.put((function, then))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, then = job
            failed = None
            try:
                function()
            except Exception as error:
                failed = error
            self._loop.call_soon_threadsafe(then, failed)
            self.cpu_ns = time.thread_time_ns()

    def close(self) -> None:
        """Wait for what is under way."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(CLOSE_S)
            self._thread = None
