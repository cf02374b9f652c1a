"""What a read needs of the node that serves it, where all nodes show beginnings of one order.

``STRONG``: the newest committed write. ``ORDERED``: everything that its session has seen, which
makes a history sequentially consistent: each session reads ever longer beginnings of the order,
its own writes among them. ``ANY``: nothing but convergence.
"""

from __future__ import annotations

from typing import Final

from orchestrator.core import levels
from orchestrator.core.machine import Op

STRONG, ORDERED, ANY = "strong", "ordered", "any"
OFFERED: Final = levels.implied(levels.LINEARIZABLE) - {levels.NONE}
_NEEDS: Final = {
    levels.CODES[level]: {
        levels.LINEARIZABLE: STRONG,
        levels.REGULAR: STRONG,
        levels.EVENTUAL: ANY,
    }.get(level, ORDERED)
    for level in OFFERED
}


def need_at(level: str, unasked: str) -> str:
    """What a read at a level needs; empty: one that asks for none of its own."""
    return _NEEDS.get(levels.CODES.get(level, 0), unasked)


def need_of(op: Op, unasked: str) -> str:
    """What a read needs; ``unasked``: where it asks for no level of its own."""
    return _NEEDS.get(op.level, unasked)
