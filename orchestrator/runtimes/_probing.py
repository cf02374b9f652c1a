"""When a client looks how many operations it has under way, for Little's law.

The times must depend on nothing that happens in the run, or the mean over them is not the mean over
time. One is drawn within each of equal stretches of the load (stratified sampling): evenly spread,
and never in step with arrivals at equal distances.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from orchestrator.core.randomness import block_stream
from orchestrator.core.record import INTERVAL_NS
from orchestrator.core.units import NS_PER_MS
from orchestrator.runtimes._parts import Parts

PROBES: Final = 1000
"""Over a load whose end is known: little to do, and a standard error of a few percent."""
SHORTEST_NS: Final = NS_PER_MS


def probe_times_ns(parts: Parts, name: str) -> Iterator[int]:
    """Times to look at, ascending, until the end of the load (without one: for ever)."""
    end_ns = parts.end_ns
    stretch_ns = INTERVAL_NS if end_ns is None else max(SHORTEST_NS, end_ns // PROBES)
    chance = block_stream(parts.config.seed, f"{name}/probe")
    start_ns = 0
    while True:
        for share in chance.random(PROBES).tolist():
            at_ns = start_ns + int(share * stretch_ns)
            if end_ns is not None and at_ns >= end_ns:
                return
            yield at_ns
            start_ns += stretch_ns
