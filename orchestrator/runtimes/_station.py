"""A queueing station: c servers, first come first served. CPUs and storages are stations.

Completion times of a FIFO station are known on arrival, so a job costs one event and not two.
"""

from __future__ import annotations

import heapq

from orchestrator.runtimes._network import BEFORE_ALL_NS


class Station:
    """``servers`` None: no limit, a pure delay. ``busy_ns`` sums finished service."""

    __slots__ = ("_free_ns", "_servers", "busy_ns")

    def __init__(self, servers: int | None) -> None:
        self._servers = servers
        self._free_ns = [BEFORE_ALL_NS] * (servers or 0)
        self.busy_ns = 0

    def completion_ns(self, now_ns: int, service_ns: int) -> int:
        """When a job that arrives now is done."""
        free = self._free_ns
        if self._servers is None:
            return now_ns + service_ns
        if self._servers == 1:
            done_ns = (free[0] if free[0] > now_ns else now_ns) + service_ns
            free[0] = done_ns
            return done_ns
        done_ns = max(now_ns, free[0]) + service_ns
        heapq.heapreplace(free, done_ns)
        return done_ns
