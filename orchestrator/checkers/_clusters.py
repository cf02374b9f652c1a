"""Clusters: every value of a register with the write that stored it and the reads that saw it.

The term and the use of each cluster's first return and last invocation are from Gibbons and
Korach, "Testing Shared Memories" (SIAM J. Comput. 26(4), 1997). Values identify their writes,
so the clusters of all keys come from one sort, and everything else is a pass over columns.

What counts: writes that may have happened (OK or UNKNOWN) and reads that are OK. The initial
state of a key, preloaded or absent, is one value, written before all time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from orchestrator.core.history import PRELOADED, History
from orchestrator.core.machine import FAIL, KIND_NAMES, OK, READ, WRITE
from orchestrator.core.units import format_duration
from orchestrator.core.verdict import INVALID, UNDECIDED, Verdict, key_text, operation, value_of

BEFORE_ALL_NS = int(numpy.iinfo(numpy.int64).min)
AFTER_ALL_NS = int(numpy.iinfo(numpy.int64).max)
NO_ROW = -1

Rows = NDArray[numpy.int64]


@dataclass(frozen=True)
class Clusters:
    """The m operations that count, and their c clusters, sorted by key and then value.

    ``row`` (m): rows of ``history`` grouped by cluster; ``cluster`` (m): the cluster of each;
    ``start`` (c + 1): where each cluster's rows begin. ``invoked_ns`` and ``returned_ns`` (m)
    are widened by the uncertainty. Per cluster: ``key``, ``value`` (0: initial), ``write``
    (row, NO_ROW where nobody wrote the value), ``written_ns`` (when the write was invoked;
    BEFORE_ALL_NS for the initial value), ``first_return_ns`` and ``last_invocation_ns`` over
    the write and its reads.
    """

    history: History
    uncertainty_ns: int
    row: Rows
    cluster: Rows
    start: Rows
    invoked_ns: NDArray[numpy.int64]
    returned_ns: NDArray[numpy.int64]
    key: NDArray[numpy.int64]
    value: NDArray[numpy.int64]
    write: Rows
    writes: NDArray[numpy.int64]
    written_ns: NDArray[numpy.int64]
    first_return_ns: NDArray[numpy.int64]
    last_invocation_ns: NDArray[numpy.int64]

    @property
    def keys(self) -> int:
        """How many keys have an operation that counts."""
        return int(numpy.count_nonzero(changes(self.key)))

    def rows_of(self, cluster: int) -> slice:
        """Where the cluster stands in the columns of length m."""
        return slice(int(self.start[cluster]), int(self.start[cluster + 1]))

    def first_to_return(self, cluster: int) -> int:
        """The row whose return is ``first_return_ns`` (the write, where it ties)."""
        rows = self.rows_of(cluster)
        return self._write_or(
            cluster, rows, self.returned_ns[rows] == self.first_return_ns[cluster]
        )

    def last_invoked(self, cluster: int) -> int:
        """The row whose invocation is ``last_invocation_ns`` (the write, where it ties)."""
        rows = self.rows_of(cluster)
        return self._write_or(
            cluster, rows, self.invoked_ns[rows] == self.last_invocation_ns[cluster]
        )

    def _write_or(self, cluster: int, rows: slice, matching: NDArray[numpy.bool_]) -> int:
        found = self.row[rows][matching]
        write = int(self.write[cluster])
        return write if write in found else int(found[0])


def changes(*columns: NDArray[numpy.int64]) -> NDArray[numpy.bool_]:
    """True where a row differs from the one before it in any column, and at the first."""
    first = numpy.zeros(len(columns[0]), dtype=numpy.bool_)
    first[:1] = True
    for column in columns:
        first[1:] |= column[1:] != column[:-1]
    return first


def clusters_of(history: History, uncertainty_ns: int) -> Clusters:
    """Group the operations that count; O(m log m)."""
    ok = history.outcome == OK
    wrote = (history.kind == WRITE) & (history.outcome != FAIL)
    row = numpy.flatnonzero(wrote | (ok & (history.kind == READ)))
    key, value = history.key[row], numpy.maximum(history.value_id[row], PRELOADED)
    order = numpy.lexsort((value, key))
    row, key, value = row[order], key[order], value[order]
    first = changes(key, value)
    start = numpy.flatnonzero(first)
    is_write = wrote[row]
    invoked_ns = history.invoked_ns[row] - uncertainty_ns
    # A write without an answer may take effect at any time after its invocation.
    answered = ok[row] & (history.returned_ns[row] >= 0)
    returned_ns = numpy.where(answered, history.returned_ns[row] + uncertainty_ns, AFTER_ALL_NS)
    write_of = numpy.full(len(start), NO_ROW, dtype=numpy.int64)
    written_ns = numpy.full(len(start), BEFORE_ALL_NS, dtype=numpy.int64)
    cluster = numpy.cumsum(first) - 1
    write_of[cluster[is_write]] = row[is_write]
    written_ns[cluster[is_write]] = invoked_ns[is_write]
    first_return_ns = _reduce(numpy.minimum, returned_ns, start)
    first_return_ns[value[start] == PRELOADED] = BEFORE_ALL_NS
    return Clusters(
        history=history,
        uncertainty_ns=uncertainty_ns,
        row=row,
        cluster=cluster,
        start=numpy.append(start, len(row)),
        invoked_ns=invoked_ns,
        returned_ns=returned_ns,
        key=key[start],
        value=value[start],
        write=write_of,
        writes=_reduce(numpy.add, is_write.astype(numpy.int64), start),
        written_ns=written_ns,
        first_return_ns=first_return_ns,
        last_invocation_ns=_reduce(numpy.maximum, invoked_ns, start),
    )


def _reduce(
    function: numpy.ufunc, column: NDArray[numpy.int64], start: Rows
) -> NDArray[numpy.int64]:
    if len(start) == 0:
        return numpy.empty(0, dtype=numpy.int64)
    reduced: NDArray[numpy.int64] = function.reduceat(column, start)
    return reduced


# --- verdicts that every level shares ---------------------------------------------------


def shared_verdict(clusters: Clusters, level: str) -> Verdict | None:
    """What settles the matter whatever the level: an unusable record, or an impossible value."""
    found = _unusable(clusters)
    if found is not None:
        return verdict(clusters, level, UNDECIDED, found)
    return _never_written(clusters, level) or _read_too_early(clusters, level)


def _unusable(clusters: Clusters) -> str | None:
    """Why nothing can be concluded from this history; None where it is sound."""
    written = clusters.writes > 0
    ambiguous = (clusters.writes > 1) | (written & (clusters.value == PRELOADED))
    if ambiguous.any():
        row = int(clusters.write[numpy.argmax(ambiguous)])
        return (
            f"Written values are not unique (session {int(clusters.history.session[row])}'s "
            f"write #{int(clusters.history.sequence[row])}), so reads cannot be told apart."
        )
    backwards = clusters.returned_ns < clusters.invoked_ns
    if backwards.any():
        name = name_of(clusters.history, int(clusters.row[numpy.argmax(backwards)]))
        return f"The record is broken: {name} returned before it was invoked."
    return None


def _never_written(clusters: Clusters, level: str) -> Verdict | None:
    invented = (clusters.writes == 0) & (clusters.value != PRELOADED)
    if not invented.any():
        return None
    history = clusters.history
    cluster = _earliest(clusters, invented)
    read = clusters.first_to_return(cluster)
    witness = [read]
    because = "nobody wrote"
    value = int(clusters.value[cluster])
    others = numpy.flatnonzero((history.kind == WRITE) & (history.value_id == value))
    if len(others):
        write = int(others[0])
        witness.append(write)
        failed = history.key[write] == clusters.key[cluster]
        where = f"wrote to key {key_text(history, int(history.key[write]))}"
        because = f"{name_of(history, write)} {'certainly failed to write' if failed else where}"
    shown = value_of(history, value)
    text = f"{name_of(history, read, with_key=True)} returned value {shown!r}, which {because}."
    return verdict(clusters, level, INVALID, text, witness=witness, guilty=invented)


def _read_too_early(clusters: Clusters, level: str) -> Verdict | None:
    early = (clusters.write >= 0) & (clusters.first_return_ns < clusters.written_ns)
    if not early.any():
        return None
    cluster = _earliest(clusters, early)
    read, write = clusters.first_to_return(cluster), int(clusters.write[cluster])
    text = (
        f"{name_of(clusters.history, read, with_key=True)} returned "
        f"{value_name(clusters, cluster)} and was over before that write began."
    )
    return verdict(clusters, level, INVALID, text, witness=[read, write], guilty=early)


def _earliest(clusters: Clusters, chosen: NDArray[numpy.bool_]) -> int:
    candidates = numpy.flatnonzero(chosen)
    return int(candidates[numpy.argmin(clusters.first_return_ns[candidates])])


# --- words ------------------------------------------------------------------------------


def verdict(
    clusters: Clusters,
    level: str,
    found: str,
    text: str,
    *,
    witness: Sequence[int] = (),
    guilty: NDArray[numpy.bool_] | Rows | None = None,
) -> Verdict:
    """A verdict over these clusters; ``guilty`` selects the clusters that break the level."""
    history = clusters.history
    if guilty is not None:
        keys = int(numpy.count_nonzero(changes(numpy.sort(clusters.key[guilty]))))
        if keys > 1:
            text += f" Of {clusters.keys} keys, {keys} break the level; this is one of them."
    if found == INVALID and clusters.uncertainty_ns > 0:
        widened = format_duration(clusters.uncertainty_ns)
        text += f" (With every operation widened by {widened} both ways, for unequal clocks.)"
    rows = sorted(dict.fromkeys(witness), key=lambda row: (int(history.invoked_ns[row]), row))
    operations = tuple(operation(history, row) for row in rows)
    text = text[0].upper() + text[1:]
    return Verdict(found, level, len(clusters.row), clusters.keys, operations, text)


def name_of(history: History, row: int, *, with_key: bool = False) -> str:
    """``session 3's read #4`` or, with the key, ``session 3's read #4 of key x``."""
    name = f"session {int(history.session[row])}'s {act_name(history, row)}"
    key = key_text(history, int(history.key[row]))
    # A history file may have one object without a name.
    if not with_key or not key:
        return name
    preposition = "of" if history.kind[row] == READ else "to"
    return f"{name} {preposition} key {key}"


def counted(count: int, noun: str) -> str:
    """``1 key``, ``2 keys``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def act_name(history: History, row: int) -> str:
    """``read #4``: the operation within its session."""
    return f"{KIND_NAMES[int(history.kind[row])]} #{int(history.sequence[row])}"


def up_to(clusters: Clusters) -> str:
    """`` up to 200us`` where clocks of several hosts were compared, else nothing."""
    widened_ns = clusters.uncertainty_ns
    return f" up to {format_duration(widened_ns)}" if widened_ns > 0 else ""


def value_name(clusters: Clusters, cluster: int) -> str:
    """``the value of session 1's write #4``, or ``the initial value``."""
    history = clusters.history
    write = int(clusters.write[cluster])
    value = "" if history.values is None else f" {history.values[int(clusters.value[cluster])]!r}"
    if write == NO_ROW:
        return f"the initial value{value}"
    return f"the value{value} of {name_of(history, write)}"
