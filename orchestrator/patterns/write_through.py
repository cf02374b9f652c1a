"""Write-through: the tier stores each write before it acknowledges it, and keeps the new value.

What was written is read from the cache at once, so reads after writes are hits, and what is never
read takes room (Jouppi, "Cache Write Policies and Performance", ISCA 1993, for the terms). Of
writes of one key that overlap none is kept, since the store alone knows their order.

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
    "write_through",
    params=ReadingParams,
    claims={LINEARIZABLE: "over a linearizable store, while no tier node crashes"},
)
class WriteThrough(Writing):
    """The tier stores a write, keeps it, and acknowledges it"""

    def _stored(self, op: Op, version: int, now_ns: int) -> None:
        if op.value is not None:
            self.cached.keep(op.key, op.value, version, op.size, 0, now_ns)
