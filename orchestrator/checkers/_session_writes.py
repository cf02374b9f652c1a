"""Monotonic writes and writes-follow-reads: what a copy must hold once it holds a write.

Terry et al. say: a server whose database holds a write also holds, and orders before it, the
earlier writes of the write's session (monotonic writes), or the writes that its session's earlier
reads had returned (writes follow reads). A read shows one value of one server's database, so a
violation takes two reads: one that shows the write, and a later one of the same session at the
same server that returns something older than what must be there. A database only grows, so the
two reads prove it. Reads that were served by different nodes prove nothing, since the second
copy may simply be behind (that is for monotonic reads to forbid). Where the history names no
nodes a session is taken to read one copy.

What a copy is known to hold is kept as clocks over the chains: for monotonic writes, how far
into each chain a write was seen, which stands for all its earlier writes; for writes follow reads,
the same, which stands for all its earlier reads, and for what these stand for. A read is broken
when the newest write that is known in this way is known to be newer than its value:

* any write, where it returned the initial value (unless the session had itself read a newer
  value of the key at that copy: then the copy shrank, whoever is to blame);
* monotonic writes: a later write of the value's own session;
* writes follow reads: a write of a session that had read the value before.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy
from numpy.typing import NDArray

from orchestrator.checkers._causal_patterns import Pattern, circle, steps
from orchestrator.checkers._causality import causal_path, newest_known, topological
from orchestrator.checkers._clusters import changes
from orchestrator.checkers._operations import INITIAL, Operations, Rows
from orchestrator.core.machine import OK

Clock = NDArray[numpy.int32]


def broken_by_earlier_writes(ops: Operations) -> Pattern | None:
    """A copy that holds a write without the earlier writes of its session."""
    reads = numpy.flatnonzero(~ops.is_write)
    copy = _copies(ops)
    newer = _later_in_session(ops, reads, copy)
    if newer is not None:
        return newer
    return _missing_earlier(ops, reads, copy)


def _copies(ops: Operations) -> Rows:
    """Which copy served an operation to its session: a number for each (chain, node)."""
    node = ops.history.node[ops.row].astype(numpy.int64)
    return ops.chain * (int(node.max(initial=0)) + 2) + node + 1


def _later_in_session(ops: Operations, reads: Rows, copy: Rows) -> Pattern | None:
    """Reads of a value whose session had written the key again before what the copy showed."""
    following = _next_write_of_key(ops)
    session, place = _sessions(ops)
    seen = reads[ops.source[reads] >= 0]
    source = ops.source[seen]
    writer = session[source]
    order = numpy.lexsort((seen, writer, copy[seen]))
    seen, source, writer = seen[order], source[order], writer[order]
    if len(seen) == 0:
        return None
    group = numpy.cumsum(changes(copy[seen], writer)) - 1
    far = place[source]
    stride = int(far.max()) + 2
    shown = numpy.maximum.accumulate(group * stride + far) - group * stride
    after = following[source]
    broken = (after >= 0) & (shown >= place[numpy.maximum(after, 0)])
    if not broken.any():
        return _later_lost(ops, reads, copy)
    at = _first(ops, seen, broken)
    read, write = int(seen[at]), int(after[at])
    same = (group == group[at]) & (numpy.arange(len(seen)) < at)
    showing = int(seen[numpy.argmax(same & (far >= place[write]))])
    return _told_writes(ops, read, showing, write)


def _sessions(ops: Operations) -> tuple[Rows, Rows]:
    """The session of each operation, and its place there: chains of lost writes belong to it."""
    history = ops.history
    _, session = numpy.unique(history.session[ops.row], return_inverse=True)
    place = numpy.empty(len(ops), dtype=numpy.int64)
    place[numpy.lexsort((ops.row, history.sequence[ops.row], session))] = numpy.arange(len(ops))
    return session, place


def _later_lost(ops: Operations, reads: Rows, copy: Rows) -> Pattern | None:
    """Reads of a value after a later write of its session that never got its answer."""
    session, place = _sessions(ops)
    lost = numpy.isin(ops.source[reads], numpy.flatnonzero(_apart(ops)))
    for showing in reads[lost].tolist():
        write = int(ops.source[showing])
        late = slice(showing, int(ops.start[ops.chain[showing] + 1]))
        value = ops.source[late]
        older = (copy[late] == copy[showing]) & ~ops.is_write[late] & (value >= 0)
        older &= (ops.key[late] == ops.key[write]) & (session[value] == session[write])
        older &= place[value] < place[write]
        older &= ops.history.outcome[ops.row[value]] == OK
        if older.any():
            return _told_writes(ops, showing + int(numpy.argmax(older)), showing, write)
    return None


def _apart(ops: Operations) -> NDArray[numpy.bool_]:
    """Writes without an answer that are chains of their own, apart from their session's."""
    apart: NDArray[numpy.bool_] = (ops.position == 0) & (ops.before >= 0)
    return apart


def _next_write_of_key(ops: Operations) -> Rows:
    """The next acknowledged-or-seen write of the same chain to the same key, -1 where none."""
    writes = numpy.flatnonzero(ops.is_write)
    writes = writes[numpy.lexsort((ops.position[writes], ops.key[writes], ops.chain[writes]))]
    following = numpy.full(len(ops), -1, dtype=numpy.int64)
    last = changes(ops.chain[writes], ops.key[writes])[1:]
    following[writes[:-1]] = numpy.where(last, -1, writes[1:])
    return following


def _missing_earlier(ops: Operations, reads: Rows, copy: Rows) -> Pattern | None:
    """Initial values where the copy had shown a write whose session wrote the key before."""
    initial = _unread_initial(ops, reads, copy)
    if len(initial) == 0:
        return None
    writes = numpy.flatnonzero(ops.is_write)
    writes = writes[ops.history.outcome[ops.row[writes]] == OK]
    session, place = _sessions(ops)
    writes = writes[numpy.lexsort((place[writes], session[writes], ops.key[writes]))]
    first = writes[changes(ops.key[writes], session[writes])]
    state: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for read in reads[ops.source[reads] >= 0].tolist():
        source = int(ops.source[read])
        seen = state.setdefault((int(copy[read]), int(session[source])), [])
        if not seen or place[source] > seen[-1][1]:
            seen.append((read, int(place[source])))
    begin = numpy.searchsorted(ops.key[first], ops.key[initial]).tolist()
    end = numpy.searchsorted(ops.key[first], ops.key[initial], side="right").tolist()
    for read, low, high in zip(initial.tolist(), begin, end, strict=True):
        for write in first[low:high].tolist():
            seen = state.get((int(copy[read]), int(session[write])), [])
            at = bisect_left(seen, int(place[write]), key=lambda step: step[1])
            if at < len(seen) and seen[at][0] < read:
                return _told_writes(ops, read, seen[at][0], write)
    return None


def _unread_initial(ops: Operations, reads: Rows, copy: Rows) -> Rows:
    """Reads of the initial value at copies that had not shown a written value of that key."""
    order = reads[numpy.lexsort((reads, ops.key[reads], copy[reads]))]
    group = numpy.cumsum(changes(copy[order], ops.key[order])) - 1
    written = ops.source[order] >= 0
    count = numpy.cumsum(written)
    base = (count - written)[changes(group)][group] if len(group) else count
    fresh: Rows = order[~written & (count == base)]
    return fresh


def broken_by_earlier_reads(ops: Operations) -> Pattern | None:
    """A copy that holds a write without what its session had read before."""
    order, stuck = topological(ops)
    if stuck:
        # Every session on the circle wrote after it had read, so no order follows all of them.
        return circle(ops, stuck)
    copy = _copies(ops)
    clock, column = _known(ops, order, copy)
    seen = numpy.flatnonzero(~ops.is_write & (ops.source >= 0))
    reads = numpy.flatnonzero(~ops.is_write)
    fresh = numpy.zeros(len(ops), dtype=numpy.bool_)
    fresh[_unread_initial(ops, reads, copy)] = True
    first = _first_reads(ops)
    candidates = [*newest_known(ops, clock, column, seen), _shown_before(ops, reads, copy)]
    for late, known in candidates:
        write = ops.source[known]
        newer = fresh[late] | _had_read(ops, first, write, ops.source[late])
        if newer.any():
            at = _first(ops, late, newer)
            return _told_reads(ops, int(late[at]), int(known[at]), copy)
    return None


def _known(ops: Operations, order: list[int], copy: Rows) -> tuple[Clock, Rows]:
    """What each read's copy is known to hold: per chain, a bound on the reads that it implies."""
    writers = numpy.unique(ops.chain[ops.is_write])
    column = numpy.full(ops.chains, -1, dtype=numpy.int64)
    column[writers] = numpy.arange(len(writers))
    clock = numpy.zeros((len(ops), len(writers)), dtype=numpy.int32)
    of_session: dict[int, Clock] = {}
    of_copy: dict[int, Clock] = {}
    nothing = numpy.zeros(len(writers), dtype=numpy.int32)
    chain, position, source = ops.chain.tolist(), ops.position.tolist(), ops.source.tolist()
    is_write, copies, own = ops.is_write.tolist(), copy.tolist(), column[ops.chain].tolist()
    for index in order:
        mine = chain[index]
        if is_write[index]:
            if position[index] == 0 and ops.before[index] >= 0:
                _lost_clock(ops, clock, column, index)
                continue
            clock[index] = of_session.get(mine, nothing)
            clock[index, own[index]] = position[index]
            continue
        held = of_copy.get(copies[index], nothing)
        clock[index] = held
        if source[index] >= 0:
            shown = clock[source[index]]
            of_copy[copies[index]] = numpy.maximum(held, shown)
            of_session[mine] = numpy.maximum(of_session.get(mine, nothing), shown)
    return clock, column


def _lost_clock(ops: Operations, clock: Clock, column: Rows, write: int) -> None:
    """The clock of a write that is a chain of its own: what its session had read before it."""
    before = int(ops.before[write])
    chain = int(ops.chain[before])
    early = numpy.arange(int(ops.start[chain]), before + 1)
    source = ops.source[early[~ops.is_write[early] & (ops.source[early] >= 0)]]
    clock[write] = clock[source].max(axis=0, initial=0)
    if column[chain] >= 0:
        mine = int(column[chain])
        clock[write, mine] = max(int(clock[write, mine]), int(ops.position[before]) + 1)


def _first_reads(ops: Operations) -> tuple[Rows, Rows]:
    """(chain, value) pairs as sorted numbers, and the first read of each."""
    reads = numpy.flatnonzero(~ops.is_write & (ops.source >= 0))
    pair = ops.chain[reads] * len(ops) + ops.source[reads]
    names, first = numpy.unique(pair, return_index=True)
    return names, reads[first]


def _had_read(
    ops: Operations, first: tuple[Rows, Rows], write: Rows, value: Rows
) -> NDArray[numpy.bool_]:
    """Whether the session of ``write`` had read ``value`` of the same key before it."""
    names, reads = first
    if len(names) == 0:
        return numpy.zeros(len(write), dtype=numpy.bool_)
    wanted = ops.chain[write] * len(ops) + value
    at = numpy.minimum(numpy.searchsorted(names, wanted), len(names) - 1)
    had: NDArray[numpy.bool_] = (value >= 0) & (names[at] == wanted) & (reads[at] < write)
    return had


def _shown_before(ops: Operations, reads: Rows, copy: Rows) -> tuple[Rows, Rows]:
    """Reads, and the one before it of the same key at the same copy, where it had a value."""
    order = reads[numpy.lexsort((reads, ops.key[reads], copy[reads]))]
    same = ~changes(copy[order], ops.key[order])[1:]
    same &= ops.source[order[:-1]] >= 0
    return order[1:][same], order[:-1][same]


def _first(ops: Operations, index: Rows, chosen: NDArray[numpy.bool_]) -> int:
    """The chosen position whose operation was invoked first."""
    at = numpy.flatnonzero(chosen)
    return int(at[numpy.argmin(ops.history.invoked_ns[ops.row[index[at]]])])


# --- stories ----------------------------------------------------------------------------


def _told_writes(ops: Operations, read: int, showing: int, write: int) -> Pattern:
    shown = int(ops.source[showing])
    text = _opening(ops, read, showing)
    if write == shown:
        text += " came after the older one in its session."
    else:
        text += f" came after {ops.name(write)} in its session."
    sources = [index for index in (shown, int(ops.source[read])) if index >= 0]
    return Pattern(text, [read, showing, write, *sources], ())


def _told_reads(ops: Operations, read: int, known: int, copy: Rows) -> Pattern:
    """``known``: the read whose value must be there, by what the copy had shown before."""
    written, value = int(ops.source[known]), int(ops.source[read])
    text = _opening(ops, read, known) if copy[known] == copy[read] else ""
    witness = [read, known, written]
    if not text:
        showing, path = _reason(ops, read, known, copy)
        witness += [showing, *path]
        text = (
            f"{_opening(ops, read, showing)} followed what its session had read "
            f"({steps(ops, [written, *path, showing])})"
        )
    if value == INITIAL:
        return Pattern(text + ".", witness, ())
    begin = int(ops.start[ops.chain[written]])
    had = begin + int(numpy.argmax(ops.source[begin:written] == value))
    joint = " came" if len(witness) == 3 else f", and {ops.name(written)} came"
    text += f"{joint} after {ops.name(had, with_key=False)} had returned that older value."
    return Pattern(text, [*witness, value, had], ())


def _reason(ops: Operations, read: int, known: int, copy: Rows) -> tuple[int, list[int]]:
    """A read that showed a write which follows ``known``, and the path to that write."""
    for showing in range(int(ops.start[ops.chain[read]]), read):
        shown = int(ops.source[showing])
        if copy[showing] != copy[read] or ops.is_write[showing] or shown == INITIAL:
            continue
        try:
            return showing, causal_path(ops, known, shown)
        except ValueError:
            continue
    raise AssertionError("what a copy is known to hold was shown by one of its reads")


def _opening(ops: Operations, read: int, showing: int) -> str:
    return (
        f"{ops.name(read)} returned {ops.value_name(read)} after {ops.name(showing)} had shown "
        f"{ops.value_name(showing)}: that write"
    )
