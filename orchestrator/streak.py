"""Failures in a row: what breaks every time in the same way is broken itself."""

from __future__ import annotations

import re
from typing import Final

FAILURES_MAX: Final = 3
"""So many in a row, all for the same reason, are enough."""


class Streak:
    """The failures since the last success."""

    def __init__(self) -> None:
        self._reasons: list[str] = []

    def fail(self, reason: str) -> None:
        """One more; reasons that differ in numbers alone (ports, times) are the same."""
        self._reasons.append(re.sub(r"\d+", "0", reason))

    def succeed(self) -> None:
        """It works after all."""
        self._reasons.clear()

    @property
    def hopeless(self) -> bool:
        """Whether the last FAILURES_MAX were for the same reason."""
        last = self._reasons[-FAILURES_MAX:]
        return len(last) == FAILURES_MAX and len(set(last)) == 1
