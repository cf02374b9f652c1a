"""Write-around: the tier stores each write before it acknowledges it, and forgets the old value.

Only what is read takes room, and the first read after a write misses (Jouppi, "Cache Write Policies
and Performance", ISCA 1993, for the terms).

A write costs one more request and answer than without the tier; a read that misses, too.
"""

from __future__ import annotations

from orchestrator.core.levels import LINEARIZABLE
from orchestrator.core.machine import Op
from orchestrator.core.registry import Family, register
from orchestrator.patterns._reading import ReadingParams
from orchestrator.patterns._writing import Writing


@register(
    Family.PATTERN,
    "write_around",
    params=ReadingParams,
    claims={LINEARIZABLE: "over a linearizable store, while no tier node crashes"},
)
class WriteAround(Writing):
    """The tier stores a write, forgets the old value, and acknowledges it"""

    def _stored(self, op: Op, version: int, now_ns: int) -> None:
        """It was dropped when the write began."""
