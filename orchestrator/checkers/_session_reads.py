"""Read-your-writes and monotonic reads; ``sessions`` says what a broken guarantee is.

Both ask one question: which reads return a value that is known to be older than another one
that came before them in the session, by a write of its own or by a read?
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from orchestrator.checkers._causal_patterns import Pattern
from orchestrator.checkers._clusters import AFTER_ALL_NS, BEFORE_ALL_NS, act_name, changes
from orchestrator.checkers._operations import INITIAL, Mask, Operations, Rows
from orchestrator.checkers._write_orders import first_return_ns
from orchestrator.core.machine import OK

NO_VERSION = 0


@dataclass(frozen=True)
class _Steps:
    """The operations, sorted by (chain, key) and in the chain's order within.

    ``index`` in the operations; ``segment`` numbers the (chain, key) pairs from 0.
    """

    index: Rows
    segment: Rows
    is_read: Mask


def broken_by_writes(ops: Operations, uncertainty_ns: int) -> Pattern | None:
    """A read of something older than a write that its session had made before."""
    steps = _steps(ops)
    version = _trusted_versions(ops, uncertainty_ns)
    by_seen = _own_past(ops, steps)
    by_version = _goes_back(ops, steps, ~steps.is_read, version)
    return _earliest(ops, steps, by_seen, by_version, version)


def broken_by_reads(ops: Operations, uncertainty_ns: int) -> Pattern | None:
    """A read of something older than what its session had read before."""
    steps = _steps(ops)
    version = _trusted_versions(ops, uncertainty_ns)
    by_seen = _writers_past(ops, steps)
    by_version = _goes_back(ops, steps, steps.is_read, version)
    found = _earliest(ops, steps, by_seen, by_version, version)
    return found or _story_of_return(ops, steps, _comes_back(ops, steps))


def _steps(ops: Operations) -> _Steps:
    # Nothing follows a write without an answer in its chain, so it binds nobody.
    index = numpy.lexsort((ops.position, ops.key, ops.chain))
    segment = numpy.cumsum(changes(ops.chain[index], ops.key[index])) - 1
    return _Steps(index, segment, ~ops.is_write[index])


# --- pairs (step that bounds, later read of something older), shape (p, 2) ---------------


def _own_past(ops: Operations, steps: _Steps) -> Rows:
    """Reads of what the session had seen before it wrote, or of the initial value."""
    at = numpy.arange(len(steps.index))
    first = _first_of_value(ops, steps)
    wrote = _latest(numpy.where(steps.is_read, -1, at), steps.segment)
    source = ops.source[steps.index]
    seen = (first < wrote) & ~_own_future(ops, source, steps.index[wrote])
    older = steps.is_read & (wrote >= 0) & ((source == INITIAL) | seen)
    return numpy.stack([wrote[older], at[older]], axis=1)


def _own_future(ops: Operations, source: Rows, at: Rows) -> Mask:
    """Whether ``source`` is of the session of operation ``at``, and that one or a later one.

    A session that had seen what it wrote only then shows no order.
    """
    session, sequence = (column[ops.row] for column in (ops.history.session, ops.history.sequence))
    same = (source != INITIAL) & (session[source] == session[at])
    future: Mask = same & (sequence[source] >= sequence[at])
    return future


def _first_of_value(ops: Operations, steps: _Steps) -> Rows:
    """The first step of each one's segment that has the same value."""
    source = ops.source[steps.index]
    order = numpy.lexsort((source, steps.segment))
    first = changes(steps.segment[order], source[order])
    group = numpy.cumsum(first) - 1
    found = numpy.empty(len(order), dtype=numpy.int64)
    found[order] = order[first][group] if len(order) else order
    return found


def _writers_past(ops: Operations, steps: _Steps) -> Rows:
    """Reads of a value after one whose writer had seen the former, or of the initial value."""
    at = numpy.arange(len(steps.index))
    source = ops.source[steps.index]
    written = _latest(numpy.where(steps.is_read & (source != INITIAL), at, -1), steps.segment)
    reset = steps.is_read & (source == INITIAL) & (written >= 0)
    initial = numpy.stack([written[reset], at[reset]], axis=1)
    old, new = _replaced(ops, steps)
    if len(old) == 0:
        return initial
    # Reads of each replaced value, with every write that replaced it.
    reads = at[steps.is_read & (source != INITIAL)]
    reads = reads[numpy.argsort(source[reads], kind="stable")]
    begin = numpy.searchsorted(source[reads], old)
    count = numpy.searchsorted(source[reads], old, side="right") - begin
    pair = numpy.repeat(numpy.arange(len(old)), count)
    offset = numpy.arange(len(pair)) - numpy.repeat(numpy.cumsum(count) - count, count)
    late = reads[begin[pair] + offset]
    bound = _read_before(ops, steps, reads, late, new[pair])
    shown = bound >= 0
    seen = numpy.stack([bound[shown], late[shown]], axis=1)
    return numpy.concatenate([initial, seen])


def _replaced(ops: Operations, steps: _Steps) -> tuple[Rows, Rows]:
    """Pairs of operations: a value's write, and the next write of a session that had seen it."""
    at = numpy.arange(len(steps.index))
    first = _first_of_value(ops, steps) == at
    following = _next(numpy.where(steps.is_read, -1, at), steps.segment)
    source = ops.source[steps.index]
    future = _own_future(ops, source, steps.index)
    chosen = (~steps.is_read | (first & ~future)) & (source != INITIAL) & (following >= 0)
    return _with_lost(ops, source[chosen], steps.index[following[chosen]])


def _with_lost(ops: Operations, old: Rows, new: Rows) -> tuple[Rows, Rows]:
    """The pairs, and those of writes without an answer that are chains of their own."""
    more: list[tuple[int, int]] = []
    for write in numpy.flatnonzero((ops.position == 0) & (ops.before >= 0)).tolist():
        before = int(ops.before[write])
        begin = int(ops.start[ops.chain[before]])
        seen = range(begin, before + 1)
        values = {int(ops.source[at]): at for at in reversed(seen) if ops.key[at] == ops.key[write]}
        more += [(value, write) for value in values if value not in (INITIAL, write)]
    if not more:
        return old, new
    pairs = numpy.array(more, dtype=numpy.int64)
    return numpy.concatenate([old, pairs[:, 0]]), numpy.concatenate([new, pairs[:, 1]])


def _read_before(ops: Operations, steps: _Steps, reads: Rows, late: Rows, write: Rows) -> Rows:
    """A step in ``late``'s segment before it that read ``write`` or a later write of the same
    session to the key; -1 where there is none.
    """
    writer = ops.chain[ops.source[steps.index[reads]]]
    order = numpy.lexsort((reads, writer, steps.segment[reads]))
    read, writer = reads[order], writer[order]
    stride = len(steps.index) + 1
    group = steps.segment[read] * (ops.chains + 1) + writer
    newest = _running_maximum(ops.position[ops.source[steps.index[read]]], changes(group))
    names, dense = numpy.unique(group, return_inverse=True)
    wanted = steps.segment[late] * (ops.chains + 1) + ops.chain[write]
    place = numpy.searchsorted(names, wanted)
    known = names[numpy.minimum(place, len(names) - 1)] == wanted
    last = numpy.searchsorted(dense * stride + read, place * stride + late) - 1
    known &= (last >= 0) & (dense[last] == place)
    best = newest[last]
    newer = known & (ops.position[ops.source[steps.index[read[best]]]] >= ops.position[write])
    return numpy.where(newer, read[best], -1)


def _running_maximum(column: NDArray[numpy.int64], first: Mask) -> Rows:
    """Position of the largest element up to and with each one, in its group."""
    count = len(column)
    order = numpy.argsort(column, kind="stable")
    rank = numpy.empty(count, dtype=numpy.int64)
    rank[order] = numpy.arange(count)
    # Ranks start over above those of the group before, so one pass serves all groups.
    above = (numpy.cumsum(first) - 1) * count
    found: Rows = order[numpy.maximum.accumulate(above + rank) - above]
    return found


def _latest(marked: Rows, segment: Rows) -> Rows:
    """The last marked step (its own position; -1: not marked) before each one in its segment."""
    found = numpy.full(len(marked), -1, dtype=numpy.int64)
    found[1:] = numpy.maximum.accumulate(marked)[:-1]
    return numpy.where((found >= 0) & (segment[found] == segment), found, -1)


def _next(marked: Rows, segment: Rows) -> Rows:
    """The first marked step after each one in its segment; -1 where there is none."""
    count = len(marked)
    mirrored = numpy.where(marked >= 0, count - 1 - marked, -1)[::-1]
    found = _latest(mirrored, segment[::-1])[::-1]
    return numpy.where(found >= 0, count - 1 - found, -1)


def _comes_back(ops: Operations, steps: _Steps) -> Rows:
    """Reads of one value with a read of another one between them."""
    reads = numpy.flatnonzero(steps.is_read)
    source = ops.source[steps.index]
    turns = reads[changes(steps.segment[reads], source[reads])]
    turns = turns[numpy.lexsort((source[turns], steps.segment[turns]))]
    again = ~changes(steps.segment[turns], source[turns])[1:]
    return numpy.stack([turns[:-1][again], turns[1:][again]], axis=1)


# --- versions ---------------------------------------------------------------------------


def _trusted_versions(ops: Operations, uncertainty_ns: int) -> NDArray[numpy.int64]:
    """Versions of the acknowledged writes of keys where they can be trusted, else NO_VERSION."""
    history = ops.history
    acknowledged = ops.is_write & (history.outcome[ops.row] == OK)
    version = numpy.where(acknowledged, history.version[ops.row], NO_VERSION)
    order = numpy.flatnonzero(acknowledged)
    order = order[numpy.lexsort((version[order], ops.key[order]))]
    key, ordered = ops.key[order], version[order]
    doubtful = ordered <= NO_VERSION
    doubtful[1:] |= ~changes(key, ordered)[1:]
    # A write of a lower version that began when this one had already taken effect.
    invoked_ns = history.invoked_ns[ops.row[order]] - uncertainty_ns
    latest = _running_maximum(invoked_ns, changes(key))
    effect_ns = first_return_ns(ops, uncertainty_ns)[order]
    doubtful |= effect_ns < invoked_ns[latest]
    trusted = acknowledged & ~numpy.isin(ops.key, key[doubtful])
    return numpy.where(trusted, version, NO_VERSION)


def _goes_back(
    ops: Operations, steps: _Steps, binding: Mask, version: NDArray[numpy.int64]
) -> Rows:
    """Reads of a lower version than that of a binding step before them."""
    source = ops.source[steps.index]
    mine = numpy.where(source >= 0, version[numpy.maximum(source, 0)], NO_VERSION)
    bounds = numpy.where(binding & (mine != NO_VERSION), mine, BEFORE_ALL_NS)
    tightest = _running_maximum(bounds, changes(steps.segment))
    newest = numpy.where(mine == NO_VERSION, AFTER_ALL_NS, mine)
    older = steps.is_read & (newest < bounds[tightest])
    return numpy.stack([tightest[older], numpy.flatnonzero(older)], axis=1)


# --- stories ----------------------------------------------------------------------------


def _earliest(
    ops: Operations,
    steps: _Steps,
    by_seen: Rows,
    by_version: Rows,
    version: NDArray[numpy.int64],
) -> Pattern | None:
    pairs = by_seen if len(by_seen) else by_version
    if len(pairs) == 0:
        return None
    invoked_ns = ops.history.invoked_ns[ops.row[steps.index[pairs[:, 1]]]]
    bound, read = (int(steps.index[step]) for step in pairs[numpy.argmin(invoked_ns)])
    wanted, got = int(ops.source[bound]), int(ops.source[read])
    act = act_name(ops.history, int(ops.row[bound]))
    newer = (
        f"the value of the session's own {act}"
        if ops.is_write[bound]
        else f"{ops.value_name(bound)}, returned by the session's {act}"
    )
    text = f"{ops.name(read)} returned {ops.value_name(read)}, which is older than {newer}"
    witness = [bound, read, wanted]
    if got == INITIAL:
        return Pattern(text + ".", witness, ())
    witness.append(got)
    if pairs is by_version:
        text += f" (versions {version[got]} and {version[wanted]})."
        return Pattern(text, witness, ())
    seen = _seen_by(ops, wanted, got)
    witness.append(seen)
    verb = "written" if ops.is_write[seen] else "read"
    text += f": {ops.name(wanted, with_key=False)} came after its session had {verb} that value."
    return Pattern(text, witness, ())


def _seen_by(ops: Operations, write: int, value: int) -> int:
    """The first operation with ``value`` in the session of ``write``."""
    before = int(ops.before[write])
    begin = int(ops.start[ops.chain[before]])
    return begin + int(numpy.argmax(ops.source[begin : before + 1] == value))


def _story_of_return(ops: Operations, steps: _Steps, pairs: Rows) -> Pattern | None:
    """A value, another one, and the first again."""
    if len(pairs) == 0:
        return None
    invoked_ns = ops.history.invoked_ns[ops.row[steps.index[pairs[:, 1]]]]
    earlier, again = (int(step) for step in pairs[numpy.argmin(invoked_ns)])
    between = int(numpy.flatnonzero(steps.is_read[:again])[-1])
    one, two, three = (int(steps.index[step]) for step in (earlier, between, again))
    first, second = (act_name(ops.history, int(ops.row[index])) for index in (one, two))
    text = (
        f"{ops.name(three)} returned {ops.value_name(one)} like {first}, though {second} between "
        f"them had returned {ops.value_name(two)}: one of the two steps goes back."
    )
    writes = [int(ops.source[index]) for index in (one, two)]
    return Pattern(text, [one, two, three, *(write for write in writes if write >= 0)], ())
