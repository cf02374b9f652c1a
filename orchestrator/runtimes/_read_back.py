"""Reading back what was written, after the load has ended and all faults are healed.

What was acknowledged is durable only if it can still be read. Each client reads the keys that it
has changed itself, all of them, some at a time and as strongly as the system can, in phase
``final``. What no answer came for is asked for again, and what was not read then stays unread: it
is counted (``analysis.durability``), never taken for kept.
"""

from __future__ import annotations

from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.history import PHASE_FINAL, History
from orchestrator.core.levels import UNASKED
from orchestrator.core.load import OperationBlock
from orchestrator.core.machine import FAIL, OK, READ, READING, TRANSACTION
from orchestrator.core.units import NS_PER_S

READERS: Final = 16
"""How many keys a client reads at a time."""
PASSES: Final = 5
"""How often a key is asked for that gave no answer."""
PASS_NS: Final = 60 * NS_PER_S
"""In which a pass begins its reads; those that it does not come to are first in the next."""
FUTILE_PASS_NS: Final = 5 * NS_PER_S
"""The same of a pass after one that brought no answer at all."""


class KeyReads:
    """A stream of one read of each key; none of them begins later than ``lasts_ns``."""

    def __init__(self, keys: NDArray[numpy.int64], lasts_ns: int = PASS_NS) -> None:
        self._keys = keys
        self.lasts_ns = lasts_ns

    def block(self, count: int) -> OperationBlock:
        keys, self._keys = self._keys[:count], self._keys[count:]
        size = len(keys)
        return OperationBlock(
            kind=numpy.full(size, READ, dtype=numpy.uint8),
            key=keys,
            size=numpy.zeros(size, dtype=numpy.int32),
            count=numpy.ones(size, dtype=numpy.int32),
            follow_up=numpy.zeros(size, dtype=numpy.uint8),
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


class FinalReads:
    """One client's passes over what it has written."""

    def __init__(self) -> None:
        self._left = -1

    def next_pass(self, history: History) -> KeyReads | None:
        """The reads of the next pass; None where nothing is left to read."""
        keys = keys_to_read(history)
        lasts_ns = FUTILE_PASS_NS if len(keys) == self._left else PASS_NS
        self._left = len(keys)
        return KeyReads(keys, lasts_ns) if self._left else None


def keys_to_read(history: History) -> NDArray[numpy.int64]:
    """Keys that may have been changed and that no final read has answered yet; those first that
    nobody has asked for.
    """
    changing = ~numpy.isin(history.kind, [*READING, TRANSACTION]) & (history.outcome != FAIL)
    changed = numpy.unique(history.key[changing]).astype(numpy.int64)
    final = history.phase == PHASE_FINAL
    left = changed[~numpy.isin(changed, history.key[final & (history.outcome == OK)])]
    asked = numpy.isin(left, history.key[final])
    return numpy.concatenate([left[~asked], left[asked]])
