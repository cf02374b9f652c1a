"""Sequential consistency of all keys together (Lamport, 1979).

One order of all operations, in which every session keeps its own order and every read returns
the last write of its key before it. It is not local, so all keys are decided at once, and it is
NP-complete (Gibbons and Korach, "Testing Shared Memories", 1997), so the answer may be
``unknown``. In the order of cost:

1. **A witness.** Recorded versions, and the order in which a linearization would have the
   writes, name an order of each key's writes; ``_write_orders`` checks it. Valid, or nothing.
2. **What must hold.** Causal order, closed under what the reads say about the writes
   (``_saturation``). A cycle is a proof: invalid.
3. **Search.** Operations are taken one by one from the heads of the sessions, only where
   everything that must precede them is done. A read whose value is there is taken at once, since
   that can hinder nothing. A write is taken only when every read of the value that it replaces is
   done, since no later state could serve them. So what the store holds matters only where reads
   of it are left, and then there is one value it can be: the positions alone identify a state,
   and each is left at most once. All orders failing is a proof: invalid.

Steps 2 and 3 are bounded by ``steps_max`` together.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy

from orchestrator.checkers._causal_patterns import Pattern, weakly_causal
from orchestrator.checkers._causality import CELLS_MAX
from orchestrator.checkers._operations import (
    Operations,
    operations_of,
    settled,
    shrunk,
    told,
    valid,
)
from orchestrator.checkers._saturation import Budget, Contradiction, OutOfSteps
from orchestrator.checkers._sequential_search import must_hold, order_exists
from orchestrator.checkers._write_orders import is_sequential
from orchestrator.core.history import History
from orchestrator.core.levels import SEQUENTIAL
from orchestrator.core.models import KV, REGISTER
from orchestrator.core.registry import Family, register
from orchestrator.core.verdict import INVALID, UNDECIDED, Evidence, Verdict

_SHRINK_STEPS = 20_000


@register(Family.CHECKER, SEQUENTIAL)
class Sequential:
    """One order of all operations explains every read and keeps the order of each session."""

    models: ClassVar[frozenset[str]] = frozenset({REGISTER, KV})
    unique_values: ClassVar[frozenset[str]] = models

    def __init__(self, params: Any) -> None:
        pass

    def check(self, history: History, evidence: Evidence) -> Verdict:
        """Exact where it answers; undecided where the steps run out."""
        ops = operations_of(history)
        early = settled(ops, SEQUENTIAL)
        if early is not None:
            return early
        if is_sequential(ops, evidence.uncertainty_ns):
            return valid(ops, SEQUENTIAL, "One order of all operations explains every read")
        if len(ops) * ops.chains > CELLS_MAX:
            text = f"{len(ops)} operations of {ops.chains} sessions are too many to order."
            return told(ops, SEQUENTIAL, UNDECIDED, text)
        try:
            found = _broken(ops, Budget(evidence.steps_max))
        except OutOfSteps:
            text = f"{evidence.steps_max} steps were too few to find an order or to exclude one."
            return told(ops, SEQUENTIAL, UNDECIDED, text)
        if found is None:
            return valid(ops, SEQUENTIAL, "One order of all operations explains every read")
        witness = shrunk(ops, found.witness, _is_invalid)
        text = found.text
        if not isinstance(found, Pattern) and len(found.witness) == len(ops):
            text = (
                f"No order of {len(witness)} of the operations explains their reads: all were "
                "tried."
            )
        return told(ops, SEQUENTIAL, INVALID, text, witness=witness)


def _broken(ops: Operations, budget: Budget) -> Pattern | Contradiction | None:
    found = weakly_causal(ops)
    if isinstance(found, Pattern):
        return found
    closure = must_hold(found[0].order, ops, budget)
    if isinstance(closure, Contradiction):
        return closure
    if order_exists(closure, budget):
        return None
    return Contradiction("", numpy.arange(len(ops)).tolist())


def _is_invalid(ops: Operations) -> bool:
    try:
        return _broken(ops, Budget(_SHRINK_STEPS)) is not None
    except OutOfSteps:
        return False
