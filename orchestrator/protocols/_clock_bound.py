"""Leases are durations: they exclude others as long as clocks run apart by no more than a bound.

Where clocks may run faster than that, or are set, a reader may still trust a lease that has run out
for everybody else. Writes stay safe, for no lease decides them; strong reads may be stale.
"""

from __future__ import annotations

import math
from typing import Final

from orchestrator.core.levels import EVENTUAL, LINEARIZABLE, REGULAR
from orchestrator.core.machine import ClaimContext

STALE: Final = frozenset({LINEARIZABLE, REGULAR})
"""Levels of a read that a lease must hold for."""
UNSURE: Final = frozenset({EVENTUAL})
"""What is left of the claims."""


def outrun(bound: float, context: ClaimContext) -> bool:
    """Whether clocks may run further apart than a protocol reckons with."""
    return context.clock_error > bound


def why(bound: float, context: ClaimContext) -> str:
    """The reason, with its figures."""
    if math.isinf(context.clock_error):
        how = "clocks are set"
    else:
        how = f"one clock may run {context.clock_error:.1%} faster than another"
    return f"{how}, and a lease bears {bound:.1%}: a stale reader may think that it still holds"
