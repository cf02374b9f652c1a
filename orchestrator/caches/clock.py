"""CLOCK: first in, first out, but what was hit since the hand last passed gets another round.

The queue is the clock's face and its head is where the hand stands. Each entry counts its hits
up to ``2^bits - 1``; the hand lowers a count above 0 and passes on, which is to move the entry
to the tail, and evicts at 0. A hit moves nothing, which is why it is used where LRU would need
a lock. One bit is the second chance of Corbato ("A Paging Experiment with the Multics System",
1968); more bits are the generalised CLOCK of Smith (ACM TODS 3(3), 1978). O(1) an access: a
pass of the hand is paid by the hit that raised the count.
Rules of size: :mod:`orchestrator.caches._room`.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.caches._queue import QueueCache
from orchestrator.core.load import CacheParams
from orchestrator.core.parameters import number
from orchestrator.core.registry import Family, register


@dataclass(frozen=True)
class ClockParams(CacheParams):
    bits: int = number(1, low=1, high=8, help="of the count of hits of each entry")


@register(Family.CACHE, "clock", params=ClockParams)
class Clock(QueueCache):
    """Evicts in order of arrival, but what was hit meanwhile gets another round"""

    __slots__ = ("_counts", "_most")

    def __init__(self, params: ClockParams) -> None:
        super().__init__(params)
        self._most = (1 << params.bits) - 1
        self._counts: dict[bytes, int] = {}
        """Hits since the hand last passed, of the entries that have any."""

    def access(self, key: bytes, size: int, now_ns: int) -> bool:
        """Whether it was there; a missing one is put in. ``size`` in bytes, 0 or more."""
        weight = size if self._in_bytes else 1
        held = self._entries.get(key)
        if held is None:
            self._put(key, weight)
            return False
        count = self._counts.get(key, 0)
        if count < self._most:
            self._counts[key] = count + 1
        return held == weight or self._resize(key, weight)

    def forget(self, key: bytes) -> None:
        """Drop an entry if it is there."""
        super().forget(key)
        self._counts.pop(key, None)

    def _shrink(self, amount: int) -> None:
        entries, counts = self._entries, self._counts
        while self._used > amount:
            key, weight = entries.popitem(last=False)
            count = counts.pop(key, 0)
            if count:
                entries[key] = weight
                if count > 1:
                    counts[key] = count - 1
            else:
                self._used -= weight
                self._leaves(key)
