"""What a node says of its own load, for balancers that want the servers' word.

In flight are operations that have arrived and are not answered yet. Latency is a moving average
of what operations took of late that met about as many as there are now, since a latency says
little without the load that it was seen at (Wydrowski et al., "Load is not what you should
balance: Introducing Prequal", NSDI 2024, section 4). What is redirected, refused or fails does
not count: failing fast must not attract load. A few dictionary and list accesses per operation,
and nothing where no balancer asks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from orchestrator.core.load import Word
from orchestrator.core.machine import FAIL, Redirect, Reply
from orchestrator.core.units import NS_PER_S
from orchestrator.core.waiting import Refusal
from orchestrator.runtimes._parts import Parts

LEVELS: Final = 256
"""Operations that met more in flight than that are taken for ones that met this many."""
FRESH_NS: Final = NS_PER_S
"""What no operation has shown for so long is forgotten."""
_SHARE: Final = 1 / 8
"""Of the newest latency in the average."""


class OwnLoad:
    """One node's. ``tells``: whether every answer to an own client brings it along.

    What a machine never answers is forgotten after ``patience_ns``, when nobody waits for it.
    """

    def __init__(self, *, tells: bool, patience_ns: int) -> None:
        self._tells = tells
        self._patience_ns = patience_ns
        # By handle, in order of arrival: (when it came, how many it met).
        self._since: dict[Any, tuple[int, int]] = {}
        self._latency_ns = [0.0] * LEVELS
        self._seen_ns = [-FRESH_NS] * LEVELS
        self._highest = 0

    @staticmethod
    def of(parts: Parts) -> OwnLoad | None:
        """None where the run's balancer does not ask for it."""
        if not parts.told:
            return None
        tells = parts.system.balancer.implementation.reports
        return OwnLoad(tells=tells, patience_ns=parts.config.client.timeout)

    def arrived(self, handle: Any, now_ns: int) -> None:
        """An operation has arrived; the same one twice is one."""
        self._forget(now_ns)
        if handle not in self._since:
            self._since[handle] = (now_ns, min(len(self._since), LEVELS - 1))

    def answered(self, handle: Any, now_ns: int, *, served: bool = True) -> Word:
        """Its answer leaves, and says how much is left."""
        known = self._since.pop(handle, None)
        if known is not None and served:
            came_ns, level = known
            self._note(level, now_ns - came_ns, now_ns)
        return self.word(now_ns)

    def answering(
        self, effect: Reply | Redirect | Refusal, answer: Callable[..., None], now_ns: int
    ) -> Callable[..., None]:
        """``answer`` with the word that rides on it, if one does."""
        served = type(effect) is Reply and effect.outcome != FAIL
        word = self.answered(effect.handle, now_ns, served=served)
        return functools.partial(answer, word=word) if self._tells else answer

    def word(self, now_ns: int) -> Word:
        """How it is now."""
        self._forget(now_ns)
        in_flight = len(self._since)
        return in_flight, self._latency_at(min(in_flight, LEVELS - 1), now_ns)

    def _forget(self, now_ns: int) -> None:
        since = self._since
        while since:
            oldest = next(iter(since))
            if since[oldest][0] > now_ns - self._patience_ns:
                return
            del since[oldest]

    def _note(self, level: int, latency_ns: int, now_ns: int) -> None:
        mean_ns = self._latency_ns[level]
        stale = self._seen_ns[level] <= now_ns - FRESH_NS
        self._latency_ns[level] = latency_ns if stale else mean_ns + _SHARE * (latency_ns - mean_ns)
        self._seen_ns[level] = now_ns
        self._highest = max(self._highest, level)

    def _latency_at(self, level: int, now_ns: int) -> int:
        """Of the nearest level that was seen of late."""
        fresh_ns = now_ns - FRESH_NS
        for apart in range(max(level, self._highest - level) + 1):
            for near in (level - apart, level + apart):
                if 0 <= near < LEVELS and self._seen_ns[near] > fresh_ns:
                    return round(self._latency_ns[near])
        return 0
