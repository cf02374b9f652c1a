"""A process that has only a part of the time, as on a machine that is busy or failing.

It is stopped and goes on again, many times a second, so it works on, but slowly; what it does
not do in time it does later.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

PERIOD_S: Final = 0.01


class DutyCycle:
    """Lets something go on for one part in ``factor`` of the time.

    ``halt`` and ``go_on`` are called in turns from a thread that ends with the slowness.
    """

    def __init__(self, halt: Callable[[], None], go_on: Callable[[], None]) -> None:
        self._halt = halt
        self._go_on = go_on
        self._factor = 1.0
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None

    def slow_down(self, factor: float) -> None:
        """From now on it takes ``factor`` times as long; 1: it is as it was."""
        self._factor = factor
        self._changed.set()
        if factor > 1 and self._thread is None:
            self._thread = threading.Thread(target=self._turns, daemon=True)
            self._thread.start()
        elif factor <= 1 and self._thread is not None:
            self._thread.join(1.0)
            self._thread = None

    def _turns(self) -> None:
        while self._factor > 1:
            self._changed.clear()
            busy_s = PERIOD_S / self._factor
            self._halt()
            self._changed.wait(PERIOD_S - busy_s)
            self._go_on()
            self._changed.wait(busy_s)
