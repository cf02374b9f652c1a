"""Causal consistency with convergence (CCv) and causal memory (CM).

Both ask that reads respect causal order (``_causal_patterns``) and differ in how concurrent
writes are ordered (Bouajjani, Enea, Guerraoui and Hamza, "On Verifying Causal Consistency",
POPL 2017, sections 3 and 5):

* ``causal`` (CCv): all sessions agree on one order of all writes. A read that knew a write u and
  returned another value v of the same key orders u before v; these orders (conflicts) and
  causal order together must have no cycle (CyclicCF). Conflicts need only be drawn from the
  newest write of each chain, since the order within the chain carries the others, so O(n c) for
  n operations and c chains that write.
* ``causal_memory`` (CM; Ahamad, Neiger, Burns, Kohli and Hutto, "Causal Memory", 1995): each
  session has an order of its own of all that it knows. ``_saturation`` closes it session by
  session; a cycle (CyclicHB) or an initial value read after a write (WriteHBInitRead) is
  invalid. That is dearer, and bounded by ``steps_max``.

For histories in which every value is written once the patterns are exact, so ``valid`` is a
proof as much as ``invalid`` is. Neither level knows a clock. What is sequential is both
(``_write_orders``), and is found to be in O(n log n). ``_transactions_causal`` judges
transactions by ``causal``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import numpy

from orchestrator.checkers._causal_patterns import Conflicts, Pattern, steps, weakly_causal
from orchestrator.checkers._causality import Causality, causal_path, too_big
from orchestrator.checkers._operations import (
    Operations,
    operations_of,
    settled,
    shrunk,
    told,
    valid,
)
from orchestrator.checkers._saturation import Contradiction, OutOfSteps, session_orders
from orchestrator.checkers._transactions_causal import causal_transactions
from orchestrator.checkers._write_orders import is_sequential
from orchestrator.core.history import History
from orchestrator.core.levels import CAUSAL, CAUSAL_MEMORY
from orchestrator.core.models import KV, REGISTER, TXN
from orchestrator.core.registry import Family, register
from orchestrator.core.verdict import INVALID, UNDECIDED, Evidence, Verdict


@register(Family.CHECKER, CAUSAL)
class Causal:
    """Reads respect what caused what, and all sessions agree on one order of the writes (CCv)."""

    models: ClassVar[frozenset[str]] = frozenset({REGISTER, KV, TXN})
    unique_values: ClassVar[frozenset[str]] = models

    def __init__(self, params: Any) -> None:
        pass

    def check(self, history: History, evidence: Evidence) -> Verdict:
        """Exact where it answers; undecided for records that cannot be judged or held."""
        if evidence.model == TXN:
            return causal_transactions(history)
        ops = operations_of(history)
        early = _before_all(ops, CAUSAL, evidence)
        if early is not None:
            return early
        found = convergent(ops)
        if found is None:
            return valid(ops, CAUSAL, "One order of the writes explains every read")
        witness = shrunk(ops, found.witness, lambda less: convergent(less) is not None)
        return told(ops, CAUSAL, INVALID, found.text, witness=witness)


@register(Family.CHECKER, CAUSAL_MEMORY)
class CausalMemory:
    """Each session sees all writes in an order of its own that respects what caused what (CM)."""

    models: ClassVar[frozenset[str]] = frozenset({REGISTER, KV})
    unique_values: ClassVar[frozenset[str]] = models

    def __init__(self, params: Any) -> None:
        pass

    def check(self, history: History, evidence: Evidence) -> Verdict:
        """Exact where it answers; undecided also when the steps run out."""
        ops = operations_of(history)
        early = _before_all(ops, CAUSAL_MEMORY, evidence)
        if early is not None:
            return early
        try:
            found = memory(ops, evidence.steps_max)
        except OutOfSteps:
            text = f"{evidence.steps_max} steps were too few to order what each session knows."
            return told(ops, CAUSAL_MEMORY, UNDECIDED, text)
        if found is None:
            return valid(ops, CAUSAL_MEMORY, "Each session has an order that explains its reads")

        def is_invalid(less: Operations) -> bool:
            try:
                return memory(less, evidence.steps_max) is not None
            except OutOfSteps:
                return False

        witness = shrunk(ops, found.witness, is_invalid)
        return told(ops, CAUSAL_MEMORY, INVALID, found.text, witness=witness)


def _before_all(ops: Operations, level: str, evidence: Evidence) -> Verdict | None:
    """What needs no causal order."""
    early = settled(ops, level)
    if early is not None:
        return early
    if is_sequential(ops, evidence.uncertainty_ns):
        return valid(ops, level, "One order of all operations explains every read")
    why = too_big(ops)
    return None if why is None else told(ops, level, UNDECIDED, why)


def convergent(ops: Operations) -> Pattern | None:
    """A bad pattern of CCv; None where there is none."""
    found = weakly_causal(ops)
    if isinstance(found, Pattern):
        return found
    causal, conflicts = found
    return _cycle(causal, conflicts)


def memory(ops: Operations, steps_max: int) -> Pattern | Contradiction | None:
    """A bad pattern of CM; None where there is none. Raises OutOfSteps."""
    found = weakly_causal(ops)
    if isinstance(found, Pattern):
        return found
    return session_orders(*found, steps_max)


def _cycle(causal: Causality, conflicts: Conflicts) -> Pattern | None:
    """A cycle of conflicts and causal order (CyclicCF)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    ops = causal.ops
    if len(conflicts.early) == 0:
        return None
    late = numpy.flatnonzero(ops.before >= 0)
    reads = numpy.flatnonzero(~ops.is_write & (ops.source >= 0))
    tails = numpy.concatenate([ops.before[late], ops.source[reads], conflicts.early])
    heads = numpy.concatenate([late, reads, conflicts.late])
    ones = numpy.ones(len(tails), dtype=numpy.int8)
    graph = coo_array((ones, (tails, heads)), (len(ops), len(ops))).tocsr()
    _, component = connected_components(graph, directed=True, connection="strong")
    closing = numpy.flatnonzero(component[conflicts.early] == component[conflicts.late])
    if len(closing) == 0:
        return None
    # The earliest read to close a cycle tells the story.
    shown = ops.history.invoked_ns[ops.row[conflicts.read[closing]]]
    closed = int(closing[numpy.argmin(shown)])
    start, node = int(conflicts.late[closed]), int(conflicts.early[closed])
    _, origin = breadth_first_order(graph, start, directed=True, return_predecessors=True)
    path = [node]
    while node != start:
        node = int(origin[node])
        path.append(node)
    return _story(causal, conflicts, path[::-1])


def _story(causal: Causality, conflicts: Conflicts, path: list[int]) -> Pattern:
    """``path`` runs over edges from a write to one that conflicts have before it."""
    ops = causal.ops
    pairs = zip(conflicts.early.tolist(), conflicts.late.tolist(), strict=True)
    reads = dict(zip(pairs, conflicts.read.tolist(), strict=True))
    witness, reasons = list[int](), list[str]()
    legs = [*pairwise(path), (path[-1], path[0])]
    run = list[int]()
    for one, two in legs:
        if (one, two) not in reads:
            run = run or [one]
            run.append(two)
            continue
        if run:
            reasons.append(_told_run(ops, witness, run))
            run = []
        read = reads[one, two]
        known = causal_path(ops, one, read)
        witness += [*known, two]
        reasons.append(
            f"{ops.name(one)} comes before {ops.name(two, with_key=False)}, because "
            f"{ops.name(read, with_key=False)} returned the latter knowing the former "
            f"({steps(ops, known)})"
        )
    text = f"The writes cannot be put in one order: {'; '.join(reasons)}."
    return Pattern(text, witness, ())


def _told_run(ops: Operations, witness: list[int], run: list[int]) -> str:
    path = causal_path(ops, run[0], run[-1])
    witness += path
    return f"{ops.name(run[0])} comes before {ops.name(run[-1])} ({steps(ops, path)})"
