"""Which nodes a client leaves out for a while: outlier detection and slow start.

After Envoy's proxies (its documentation, "Outlier detection" and "Slow start mode"): a node is
ejected that failed several times in a row (it did not answer in time, could not be reached, broke
the connection, or refused), or that took much longer than the median of the others over a window.
It stays out for the base time as often over as it has been ejected, and each window that it
stands takes one off. Never are more than a share of the nodes out, and where all candidates of an
operation are, all are asked. Who comes back takes a share of the picks that grows linearly.

What a client knows it learns by its own operations: a node that nobody asks is not judged. A few
additions for each operation; candidates are copied only while somebody is out or slow.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from typing import Final

from orchestrator.config.schema import Health
from orchestrator.core.load import LOST, REFUSED, RETURNED
from orchestrator.core.record import EJECTED, EventRecord
from orchestrator.core.units import format_duration

NEVER_OUT_NS: Final = -(2**63)


class NodeHealth:
    """What one client makes of the nodes. ``events``: its ejections so far."""

    def __init__(self, params: Health, nodes: int, client: int, chance: random.Random) -> None:
        self._params = params
        self._client = client
        self._chance = chance
        self._most_out = params.most_out(nodes)
        self.events: list[EventRecord] = []
        self._failures = [0] * nodes
        self._ejections = [0] * nodes
        # Until when each is out, and from when on all are as good as new.
        self._out_until_ns = [NEVER_OUT_NS] * nodes
        self._clear_ns = NEVER_OUT_NS
        self._window_ends_ns = params.window
        # Of the window: the latencies of each, added up, and how many those are.
        self._latency_ns = [0] * nodes
        self._counts = [0] * nodes

    def fit(self, candidates: Sequence[int], now_ns: int) -> Sequence[int]:
        """The candidates to choose among; never none."""
        if now_ns >= self._window_ends_ns:
            self._end_window(now_ns)
        if now_ns >= self._clear_ns:
            return candidates
        present = [node for node in candidates if self._out_until_ns[node] <= now_ns]
        return [node for node in present if self._admits(node, now_ns)] or present or candidates

    def _admits(self, node: int, now_ns: int) -> bool:
        """Always, but for one that has just come back."""
        back_ns, slow_start_ns = now_ns - self._out_until_ns[node], self._params.slow_start
        if self._out_until_ns[node] == NEVER_OUT_NS or back_ns >= slow_start_ns:
            return True
        return self._chance.random() * slow_start_ns < back_ns

    def observe(self, node: int, what: int, latency_ns: int, now_ns: int) -> None:
        """An operation was sent or ended there."""
        if now_ns - latency_ns < self._out_until_ns[node]:
            # From before it came back: it says nothing of how it is now.
            return
        if what in (RETURNED, LOST):
            self._latency_ns[node] += latency_ns
            self._counts[node] += 1
        if what == RETURNED:
            self._failures[node] = 0
        elif what in (LOST, REFUSED):
            self.failed(node, now_ns)

    def failed(self, node: int, now_ns: int) -> None:
        """It did not do what it was asked to, or could not even be asked."""
        if self._out_until_ns[node] > now_ns:
            return
        self._failures[node] += 1
        limit = self._params.failures
        if limit is not None and self._failures[node] >= limit:
            self._eject(node, f"{self._failures[node]} failures in a row", now_ns)

    def _end_window(self, now_ns: int) -> None:
        """Judge by latency, and forgive who stood."""
        params = self._params
        began_ns = self._window_ends_ns - params.window
        if params.latency_factor is not None:
            self._judge(params.latency_factor, now_ns)
        passed = (now_ns - began_ns) // params.window
        for node, until_ns in enumerate(self._out_until_ns):
            if until_ns <= began_ns:
                self._ejections[node] = max(0, self._ejections[node] - passed)
        self._window_ends_ns = began_ns + (passed + 1) * params.window
        self._latency_ns = [0] * len(self._counts)
        self._counts = [0] * len(self._counts)

    def _judge(self, factor: float, now_ns: int) -> None:
        """Eject who took too long, the slowest first."""
        means_ns = {
            node: self._latency_ns[node] / count
            for node, count in enumerate(self._counts)
            if count >= self._params.operations
        }
        for node in sorted(means_ns, key=lambda node: -means_ns[node]):
            others_ns = [mean_ns for other, mean_ns in means_ns.items() if other != node]
            median_ns = statistics.median(others_ns) if others_ns else math.inf
            if means_ns[node] <= factor * median_ns:
                return  # the median of a faster one's others is no smaller
            ratio = means_ns[node] / max(1.0, median_ns)
            self._eject(node, f"{ratio:.1f} times the latency of the others", now_ns)

    def _eject(self, node: int, why: str, now_ns: int) -> None:
        params = self._params
        out = sum(1 for until_ns in self._out_until_ns if until_ns > now_ns)
        if self._out_until_ns[node] > now_ns or out >= self._most_out:
            return
        self._failures[node] = 0
        self._ejections[node] += 1
        lasts_ns = min(self._ejections[node] * params.ejection, params.ejection_max)
        self._out_until_ns[node] = now_ns + lasts_ns
        self._clear_ns = max(self._clear_ns, now_ns + lasts_ns + params.slow_start)
        detail = f"by client {self._client} for {format_duration(lasts_ns)}: {why}"
        self.events.append(EventRecord(now_ns, node, EJECTED, detail))
