"""How many messages a leader has under way to a follower.

Operations that find no place gather, and leave in one message: that is what a small number is
good for. A message that is full gains nothing by waiting, and over a long way would keep the
follower idle. So where no number is given, only what is not full waits.
"""

from __future__ import annotations

from typing import Final

IN_FLIGHT: Final = 4
IN_FLIGHT_FULL: Final = 1024
IN_FLIGHT_HELP: Final = (
    f"messages sent to a follower before it answers; null: {IN_FLIGHT}, and more that are full"
)
_NEVER_FULL: Final = 2**62


class Pipeline:
    """``in_flight``: as many messages, full or not (None: see above). ``batch_max``: operations
    that fill one (0: they have no bound).
    """

    __slots__ = ("_full", "_most", "in_flight")

    def __init__(self, in_flight: int | None, batch_max: int) -> None:
        self.in_flight = in_flight or IN_FLIGHT
        self._most = in_flight or IN_FLIGHT_FULL
        self._full = batch_max or _NEVER_FULL

    def depth(self, waiting: int) -> int:
        """Messages that may be under way, the next one included, if so many operations wait."""
        return self._most if waiting >= self._full else self.in_flight
