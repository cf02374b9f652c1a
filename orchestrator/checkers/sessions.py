"""Session guarantees: read-your-writes and monotonic reads (Terry et al., "Session Guarantees
for Weakly Consistent Replicated Data", PDIS 1994), by the values that reads returned.

A session is sequential, so its own order needs no clock. What a read may return is bounded
from below: by the session's own acknowledged writes (read-your-writes), or by what it has read
(monotonic reads). A read breaks the guarantee when its value is *known* to be older:

* The initial value is older than any written one.
* Where the versions of a key's acknowledged writes can be trusted, they order those writes.
  Versions are claims of the system under test, so they are trusted only where they are all
  there, unique, and never contradict a definite order in time.
* Otherwise, value v is older than w when v's write took effect before w's was invoked. It took
  effect by the time it, or any read of it, returned. This assumes what holds for every
  protocol whose writes go through one order: that order respects time.
* Returning to a value after another one goes back somewhere between, whichever of the two is
  older (monotonic reads only).

Without that knowledge a read is given the benefit of the doubt: valid means that no violation
can be shown. A system whose versions are wrong in a way that time does not reveal may be found
to break a guarantee by them; then its versions are what is broken. An unacknowledged write binds
nobody, and may be read at any time. Everything is sorting and running maxima: O(n log n).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy
from numpy.typing import NDArray

from orchestrator.checkers._clusters import (
    AFTER_ALL_NS,
    BEFORE_ALL_NS,
    NO_ROW,
    Clusters,
    Rows,
    act_name,
    changes,
    clusters_of,
    counted,
    name_of,
    shared_verdict,
    up_to,
    value_name,
    verdict,
)
from orchestrator.core.history import History
from orchestrator.core.levels import MONOTONIC_READS, READ_YOUR_WRITES
from orchestrator.core.machine import OK, READ, WRITE
from orchestrator.core.registry import Family, register
from orchestrator.core.verdict import INVALID, UNDECIDED, VALID, Evidence, Verdict

NO_VERSION: Final = 0


@register(Family.CHECKER, READ_YOUR_WRITES)
class ReadYourWrites:
    """A session's reads see its own acknowledged writes, or newer ones."""

    def __init__(self, params: Any) -> None:
        pass

    def check(self, history: History, evidence: Evidence) -> Verdict:
        """See the module; the uncertainty weakens comparisons of time between sessions."""
        return _check(history, READ_YOUR_WRITES, WRITE, evidence.uncertainty_ns)


@register(Family.CHECKER, MONOTONIC_READS)
class MonotonicReads:
    """A session's reads of a key never go back to an older value."""

    def __init__(self, params: Any) -> None:
        pass

    def check(self, history: History, evidence: Evidence) -> Verdict:
        """See the module; the uncertainty weakens comparisons of time between sessions."""
        return _check(history, MONOTONIC_READS, READ, evidence.uncertainty_ns)


@dataclass(frozen=True)
class _Steps:
    """Acknowledged operations, sorted by (session, key) and in session order within.

    ``segment`` numbers the (session, key) pairs from 0; ``cluster`` is each one's value.
    """

    row: Rows
    segment: Rows
    cluster: Rows
    is_read: NDArray[numpy.bool_]


def _check(history: History, level: str, bound_by: int, uncertainty_ns: int) -> Verdict:
    """``bound_by``: the kind of operation that bounds the session's later reads from below."""
    clusters = clusters_of(history, uncertainty_ns)
    settled = shared_verdict(clusters, level)
    if settled is not None:
        return settled
    steps = _steps(clusters)
    unordered = _unordered(history, steps)
    if unordered is not None:
        return verdict(clusters, level, UNDECIDED, unordered)
    binding = steps.is_read if bound_by == READ else ~steps.is_read
    version = _trusted_versions(clusters)
    newest = numpy.where(version == NO_VERSION, AFTER_ALL_NS, version)
    by_time = _goes_back(steps, binding, clusters.first_return_ns, clusters.written_ns)
    by_version = _goes_back(steps, binding, newest, version)
    by_return = _comes_back(steps) if bound_by == READ else by_time[:0]
    found = numpy.concatenate([by_time, by_version, by_return])
    if len(found):
        best = next(pairs for pairs in (by_time, by_version, by_return) if len(pairs))
        first = best[numpy.argmin(history.invoked_ns[steps.row[best[:, 1]]])]
        bound, read = int(first[0]), int(first[1])
        if best is by_return:
            text, witness = _story_of_return(clusters, steps, bound, read)
        else:
            by = version if best is by_version else None
            text, witness = _story(clusters, steps, bound, read, by)
        guilty = steps.cluster[found[:, 1]]
        return verdict(clusters, level, INVALID, text, witness=witness, guilty=guilty)
    reads = int(numpy.count_nonzero(steps.is_read))
    sessions = int(numpy.count_nonzero(changes(numpy.sort(history.session[steps.row]))))
    size = f"{counted(reads, 'read')}, {counted(sessions, 'session')}"
    text = f"No read is known to break {level}{up_to(clusters)} ({size})."
    return verdict(clusters, level, VALID, text)


def _steps(clusters: Clusters) -> _Steps:
    history = clusters.history
    acknowledged = history.outcome[clusters.row] == OK
    row, cluster = clusters.row[acknowledged], clusters.cluster[acknowledged]
    order = numpy.lexsort((history.sequence[row], history.key[row], history.session[row]))
    row, cluster = row[order], cluster[order]
    segment = numpy.cumsum(changes(history.session[row], history.key[row])) - 1
    return _Steps(row, segment, cluster, history.kind[row] == READ)


def _unordered(history: History, steps: _Steps) -> str | None:
    """Why the operations of some session are not a sequence; None where they are."""
    overlap = (steps.segment[1:] == steps.segment[:-1]) & (
        history.returned_ns[steps.row[:-1]] > history.invoked_ns[steps.row[1:]]
    )
    if not overlap.any():
        return None
    at = int(numpy.argmax(overlap))
    first, second = (name_of(history, int(steps.row[step])) for step in (at, at + 1))
    return f"A session is one sequence of operations, but {second} began before {first} returned."


def _trusted_versions(clusters: Clusters) -> NDArray[numpy.int64]:
    """Versions of the acknowledged writes of keys where they can be trusted, else NO_VERSION."""
    history = clusters.history
    acknowledged = (clusters.write != NO_ROW) & (history.outcome[clusters.write] == OK)
    version = numpy.where(acknowledged, history.version[clusters.write], NO_VERSION)
    order = numpy.flatnonzero(acknowledged)
    order = order[numpy.lexsort((version[order], clusters.key[order]))]
    key, ordered = clusters.key[order], version[order]
    doubtful = ordered <= NO_VERSION
    doubtful[1:] |= ~changes(key, ordered)[1:]
    # A write of a lower version that began when this one had already taken effect.
    written_ns = clusters.written_ns[order]
    latest = _running_maximum(written_ns, numpy.cumsum(changes(key)) - 1)
    doubtful |= (latest >= 0) & (clusters.first_return_ns[order] < written_ns[latest])
    trusted = acknowledged & ~numpy.isin(clusters.key, key[doubtful])
    return numpy.where(trusted, version, NO_VERSION)


def _goes_back(
    steps: _Steps,
    binding: NDArray[numpy.bool_],
    newest: NDArray[numpy.int64],
    bound: NDArray[numpy.int64],
) -> Rows:
    """Pairs (binding step, later read of an older value), shape (p, 2).

    Value v is older than w when ``newest[v] < bound[w]``; both are columns over clusters.
    """
    bounds = numpy.where(binding, bound[steps.cluster], BEFORE_ALL_NS)
    tightest = _running_maximum(bounds, steps.segment)
    older = steps.is_read & (tightest >= 0) & (newest[steps.cluster] < bounds[tightest])
    return numpy.stack([tightest[older], numpy.flatnonzero(older)], axis=1)


def _comes_back(steps: _Steps) -> Rows:
    """Pairs of reads of one value with a read of another one between them, shape (p, 2)."""
    reads = numpy.flatnonzero(steps.is_read)
    turns = reads[changes(steps.segment[reads], steps.cluster[reads])]
    turns = turns[numpy.lexsort((steps.cluster[turns], steps.segment[turns]))]
    again = ~changes(steps.segment[turns], steps.cluster[turns])[1:]
    return numpy.stack([turns[:-1][again], turns[1:][again]], axis=1)


def _running_maximum(column: NDArray[numpy.int64], segment: Rows) -> Rows:
    """Position of the largest element before each one in its segment (the latest of equals).

    ``segment`` rises from 0 by steps of at most 1; -1 where nothing is before.
    """
    count = len(column)
    order = numpy.argsort(column, kind="stable")
    rank = numpy.empty(count, dtype=numpy.int64)
    rank[order] = numpy.arange(count)
    # Ranks start over above those of the segment before, so one pass serves all segments.
    highest = numpy.maximum.accumulate(segment * count + rank) - segment * count
    before = numpy.full(count, -1, dtype=numpy.int64)
    before[1:] = numpy.where(segment[1:] == segment[:-1], order[highest[:-1]], -1)
    return before


# --- stories ----------------------------------------------------------------------------


def _story(
    clusters: Clusters,
    steps: _Steps,
    bound: int,
    read: int,
    version: NDArray[numpy.int64] | None,
) -> tuple[str, list[int]]:
    """Why the read's value is older than the bound's, and the rows that show it."""
    history = clusters.history
    bound_row, read_row = int(steps.row[bound]), int(steps.row[read])
    wanted, got = int(steps.cluster[bound]), int(steps.cluster[read])
    newer_write = int(clusters.write[wanted])
    witness = [bound_row, read_row, newer_write]
    act = act_name(history, bound_row)
    newer = (
        f"{value_name(clusters, wanted)}, returned by the session's {act}"
        if steps.is_read[bound]
        else f"the value of the session's own {act}"
    )
    text = (
        f"{name_of(history, read_row, with_key=True)} returned {value_name(clusters, got)}, "
        f"which is older than {newer}"
    )
    if clusters.write[got] == NO_ROW:
        return text + ".", witness
    witness.append(int(clusters.write[got]))
    if version is not None:
        return f"{text} (versions {version[got]} and {version[wanted]}).", witness
    seen = clusters.first_to_return(got)
    return (
        f"{text}: {name_of(history, seen)} had returned that older value "
        f"before {name_of(history, newer_write)} began.",
        [*witness, seen],
    )


def _story_of_return(
    clusters: Clusters, steps: _Steps, earlier: int, again: int
) -> tuple[str, list[int]]:
    """A value, another one, and the first again."""
    history = clusters.history
    between = int(numpy.flatnonzero(steps.is_read[:again])[-1])
    rows = [int(steps.row[step]) for step in (earlier, between, again)]
    values = [int(steps.cluster[step]) for step in (earlier, between)]
    first, second = (act_name(history, row) for row in rows[:2])
    text = (
        f"{name_of(history, rows[2], with_key=True)} returned {value_name(clusters, values[0])} "
        f"like {first}, though {second} between them had returned "
        f"{value_name(clusters, values[1])}: one of the two steps goes back."
    )
    writes = [int(clusters.write[value]) for value in values]
    return text, [*rows, *(row for row in writes if row != NO_ROW)]
