"""Regularity of registers with many writers, in its weak form (MWR1 of Shao, Welch, Pierce and
Lee, "Multiwriter Consistency Conditions for Shared Memory Registers", SIAM J. Comput. 2011).

Each read by itself, together with all writes of its key, has a linearization; reads need not
agree with each other. Decided in O(n log n).

**Setting.** Operation a precedes b, written a < b, iff a returned before b was invoked, or both
are of one session, a was acknowledged and came first (times may tie). A write without an answer
precedes nothing. ``<`` is transitive: a session's operation returned no later than the next one
was invoked, so a chain with one strict step in time is such a step, and one without it stays in
one session. The initial value is a write that precedes everything.

**Criterion.** Read r of the value of write w is regular iff (1) not r < w, and (2) no write u of
the key has w < u < r.

*Necessary.* In a linearization w stands before r, against (1), and u between them, against (2).

*Sufficient.* Let B be w and all writes that precede r, together with every write that precedes
one of these. Order B by ``<`` with w last, then r, then the other writes. w can be last: were
w < x for an x in B, then x = u or x < u for a write u < r (so w < x < r, against (2)), or x < w
(so w < w). B can stand before r: were r < x for an x in B, then r < u < r, or r < w, against (1).
B is closed downwards, so no later write precedes it; and no later write precedes r, as all that
do are in B.

**Passes.** The four ways in which w < u < r can hold, by time (t) or by session (s): tt, the
latest invocation among the writes that returned before r was invoked is after w's return (one
sort, a running maximum, a binary search); st, the session of w wrote again and that write returned
before r was invoked; ts and ss, the last write of r's own session. What is linearizable is
regular, as its linearization serves every read.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy
from numpy.typing import NDArray

from orchestrator.checkers._clusters import AFTER_ALL_NS, BEFORE_ALL_NS, changes, counted
from orchestrator.checkers._operations import (
    INITIAL,
    Operations,
    Rows,
    operations_of,
    thin_air,
    told,
    unusable,
    valid,
)
from orchestrator.core.history import History
from orchestrator.core.levels import REGULAR
from orchestrator.core.machine import OK
from orchestrator.core.models import KV, REGISTER
from orchestrator.core.registry import Family, register
from orchestrator.core.units import format_duration
from orchestrator.core.verdict import INVALID, UNDECIDED, Evidence, Verdict

Times = NDArray[numpy.int64]


@register(Family.CHECKER, REGULAR)
class Regular:
    """Each read returns the last completed write or one that is concurrent with it."""

    models: ClassVar[frozenset[str]] = frozenset({REGISTER, KV})
    unique_values: ClassVar[frozenset[str]] = models

    def __init__(self, params: Any) -> None:
        pass

    def check(self, history: History, evidence: Evidence) -> Verdict:
        """Exact; the uncertainty widens every operation both ways."""
        ops = operations_of(history)
        why = unusable(ops)
        if why is not None:
            return told(ops, REGULAR, UNDECIDED, why)
        invented = thin_air(ops, REGULAR)
        if invented is not None:
            return invented
        uncertainty_ns = evidence.uncertainty_ns
        widened = ""
        if uncertainty_ns > 0:
            widened = f" up to {format_duration(uncertainty_ns)}"
        found = _future(ops, uncertainty_ns) or _superseded(ops, uncertainty_ns)
        if found is None:
            return valid(ops, REGULAR, f"Every read is regular{widened}")
        text, witness, broken = found
        if broken > 1:
            text += (
                f" So do {counted(broken - 1, 'other read')}."
                if broken > 2
                else (" So does 1 other read.")
            )
        if widened:
            text += f" (With every operation widened by{widened.removeprefix(' up to')} both ways.)"
        return told(ops, REGULAR, INVALID, text, witness=witness)


Found = tuple[str, list[int], int]


def _times(ops: Operations, uncertainty_ns: int) -> tuple[Times, Times]:
    history = ops.history
    invoked_ns = history.invoked_ns[ops.row] - uncertainty_ns
    ok = history.outcome[ops.row] == OK
    returned_ns = numpy.where(ok, history.returned_ns[ops.row] + uncertainty_ns, AFTER_ALL_NS)
    return invoked_ns, returned_ns


def _future(ops: Operations, uncertainty_ns: int) -> Found | None:
    """A read that precedes the write of its value."""
    invoked_ns, returned_ns = _times(ops, uncertainty_ns)
    reads = numpy.flatnonzero(~ops.is_write & (ops.source != INITIAL))
    source = ops.source[reads]
    session = ops.history.session[ops.row]
    same = (session[reads] == session[source]) & _in_order(ops, reads, source)
    early = same | (returned_ns[reads] < invoked_ns[source])
    if not early.any():
        return None
    read = int(reads[_first(invoked_ns[reads], early)])
    text = f"{ops.name(read)} returned {ops.value_name(read)} and was over before that write began."
    return text, [read, int(ops.source[read])], int(numpy.count_nonzero(early))


def _in_order(ops: Operations, one: Rows, two: Rows) -> NDArray[numpy.bool_]:
    """Whether ``one`` comes before ``two``, given that they are of one session."""
    sequence, row = ops.history.sequence[ops.row], ops.row
    before: NDArray[numpy.bool_] = (sequence[one] < sequence[two]) | (
        (sequence[one] == sequence[two]) & (row[one] < row[two])
    )
    return before


def _superseded(ops: Operations, uncertainty_ns: int) -> Found | None:
    """A read of a value that another write replaced, wholly before the read."""
    invoked_ns, returned_ns = _times(ops, uncertainty_ns)
    reads = numpy.flatnonzero(~ops.is_write)
    source = ops.source[reads]
    written = source >= 0
    over_ns = numpy.where(written, returned_ns[source], BEFORE_ALL_NS)
    by_time = _latest_before(ops, reads, invoked_ns, returned_ns)
    own = _previous_write(ops)[reads]
    again = numpy.where(written, _next_write(ops)[source], -1)
    tt = (by_time >= 0) & (invoked_ns[by_time] > over_ns)
    ts = (own >= 0) & (own != source) & (invoked_ns[own] > over_ns)
    ss = (own >= 0) & (own > source) & (ops.chain[own] == ops.chain[source]) & written
    st = (again >= 0) & (returned_ns[again] < invoked_ns[reads])
    broken = tt | ts | ss | st
    if not broken.any():
        return None
    at = _first(invoked_ns[reads], broken)
    read = int(reads[at])
    newer = int(by_time[at] if tt[at] else again[at] if st[at] else own[at])
    text = f"{ops.name(read)} returned {ops.value_name(read)}, but {ops.name(newer)} "
    text += "had replaced it: that write " if written[at] else "had been made: that write "
    if written[at]:
        text += "began after the older one had returned, and "
    text += "had returned before the read began."
    witness = [read, newer, *([int(source[at])] if written[at] else [])]
    return text, witness, int(numpy.count_nonzero(broken))


def _latest_before(ops: Operations, reads: Rows, invoked_ns: Times, returned_ns: Times) -> Rows:
    """Of the writes that returned before each read was invoked, the one invoked last (or -1)."""
    answered = numpy.flatnonzero(ops.is_write & (returned_ns < AFTER_ALL_NS))
    answered = answered[numpy.lexsort((returned_ns[answered], ops.key[answered]))]
    rank = numpy.empty(len(answered), dtype=numpy.int64)
    by_invocation = numpy.argsort(invoked_ns[answered], kind="stable")
    rank[by_invocation] = numpy.arange(len(answered))
    first = changes(ops.key[answered])
    base = (numpy.cumsum(first) - 1) * len(answered)
    latest = answered[by_invocation[numpy.maximum.accumulate(base + rank) - base]]
    # Position of each read among the returns of its key: merge, reads before equal times.
    both = numpy.concatenate([reads, answered])
    times = numpy.concatenate([invoked_ns[reads], returned_ns[answered]])
    is_write = numpy.arange(len(both)) >= len(reads)
    order = numpy.lexsort((is_write, times, ops.key[both]))
    before = numpy.empty(len(both), dtype=numpy.int64)
    before[order] = numpy.cumsum(is_write[order]) - 1
    at = before[: len(reads)]
    if len(answered) == 0:
        return numpy.full(len(reads), -1, dtype=numpy.int64)
    same = (at >= 0) & (ops.key[answered[at]] == ops.key[reads])
    return numpy.where(same, latest[at], -1)


def _previous_write(ops: Operations) -> Rows:
    """The last acknowledged write of the same session to the same key before each operation."""
    order = numpy.lexsort((ops.position, ops.key, ops.chain))
    acknowledged = ops.is_write & (ops.history.outcome[ops.row] == OK)
    marked = numpy.where(acknowledged[order], numpy.arange(len(order)), -1)
    latest = numpy.full(len(order), -1, dtype=numpy.int64)
    latest[1:] = numpy.maximum.accumulate(marked)[:-1]
    group = numpy.cumsum(changes(ops.chain[order], ops.key[order]))
    here = (latest >= 0) & (group[latest] == group) if len(order) else latest >= 0
    previous = numpy.full(len(order), -1, dtype=numpy.int64)
    previous[order] = numpy.where(here, order[latest], -1)
    return previous


def _next_write(ops: Operations) -> Rows:
    """The next write of an acknowledged write's session to its key; -1 where there is none."""
    previous = _previous_write(ops)
    late = numpy.flatnonzero(ops.is_write & (previous >= 0))
    following = numpy.full(len(ops), -1, dtype=numpy.int64)
    following[previous[late]] = late
    return following


def _first(invoked_ns: Times, chosen: NDArray[numpy.bool_]) -> int:
    at = numpy.flatnonzero(chosen)
    return int(at[numpy.argmin(invoked_ns[at])])
