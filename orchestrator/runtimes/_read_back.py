"""Reading back what was written, after the load has ended and all faults are healed.

What was acknowledged is durable only if it can still be read. Each client reads the keys that it
has changed itself, some at a time and as strongly as the system can, in phase ``final``.
"""

from __future__ import annotations

from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.history import PHASE_FINAL, History
from orchestrator.core.levels import UNASKED
from orchestrator.core.load import OperationBlock
from orchestrator.core.machine import FAIL, OK, READ, READING, TRANSACTION

READERS: Final = 16
"""How many keys a client reads at a time."""
KEYS_MAX: Final = 20_000
"""How many keys a client reads back; of more it takes so many, spread over all of them."""
PASSES: Final = 5
"""How often a key is asked for that gave no answer."""


class KeyReads:
    """A stream of one read of each key."""

    def __init__(self, keys: NDArray[numpy.int64]) -> None:
        self._keys = keys

    def block(self, count: int) -> OperationBlock:
        keys, self._keys = self._keys[:count], self._keys[count:]
        size = len(keys)
        return OperationBlock(
            kind=numpy.full(size, READ, dtype=numpy.uint8),
            key=keys,
            size=numpy.zeros(size, dtype=numpy.int32),
            count=numpy.ones(size, dtype=numpy.int32),
            follow_up=numpy.zeros(size, dtype=numpy.bool_),
            level=numpy.full(size, UNASKED, dtype=numpy.uint8),
        )


class BackToBack:
    """As many sessions as that, none of which ever thinks."""

    def __init__(self, sessions: int) -> None:
        self.sessions = sessions

    def starts_ns(self, operations: OperationBlock) -> NDArray[numpy.int64]:
        """Nothing: each begins when its session is free."""
        return numpy.zeros(len(operations), dtype=numpy.int64)

    def think_ns(self) -> int:
        return 0


def keys_to_read(history: History) -> NDArray[numpy.int64]:
    """Keys that may have been changed and that no final read has answered yet."""
    changing = ~numpy.isin(history.kind, [*READING, TRANSACTION]) & (history.outcome != FAIL)
    changed = numpy.unique(history.key[changing]).astype(numpy.int64)
    if len(changed) > KEYS_MAX:
        changed = changed[numpy.linspace(0, len(changed) - 1, KEYS_MAX).astype(numpy.int64)]
    answered = (history.phase == PHASE_FINAL) & (history.outcome == OK)
    return changed[~numpy.isin(changed, history.key[answered])]
