"""How stale reads were: in time and in versions.

A read is stale when the value that it returned had been superseded before it began: some write
of the key began after the value's own write had returned (so it is newer beyond doubt) and had
itself returned before the read was invoked. ``staleness_ns`` is the time since the first such
write returned (the Delta of Golab, Li and Shah, "Analyzing Consistency Properties for Fun and
Profit", PODC 2011, as seen from one read), ``versions`` the number of such writes. Both are lower
bounds, as is right for a measurement that accuses: writes that ran side by side count for nothing,
and neither does one without an answer. Where no operations of one session tie in time, both are
0 for every read exactly where the history is regular.

Everything is sorting and binary search, and a wavelet matrix for the counts (Claude, Navarro and
Ordóñez, "The Wavelet Matrix", Information Systems 2015): O(n log n), vectorised.
"""

from __future__ import annotations

from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.history import PRELOADED, History
from orchestrator.core.machine import CAS, OK, READ, WRITE

NOT_A_READ: Final = -1
_WRITING: Final = (WRITE, CAS)
_LATEST: Final = int(numpy.iinfo(numpy.int64).max)

Column = NDArray[numpy.int64]


def staleness(history: History, uncertainty_ns: int = 0) -> tuple[Column, Column]:
    """(staleness_ns, versions), both of length n; NOT_A_READ for all but acknowledged reads.

    ``uncertainty_ns`` bounds how far a time may be off; it makes the figures smaller. A read
    of a value that nobody is known to have written counts as fresh. Where several writes of a key
    wrote the value, the one that returned last counts.
    """
    count = len(history)
    age_ns = numpy.full(count, NOT_A_READ, dtype=numpy.int64)
    versions = age_ns.copy()
    reads = numpy.flatnonzero((history.kind == READ) & (history.outcome == OK))
    age_ns[reads] = versions[reads] = 0
    written = numpy.isin(history.kind, _WRITING) & (history.outcome == OK)
    written &= history.returned_ns >= 0
    writes = numpy.flatnonzero(written)
    if len(writes) == 0 or len(reads) == 0:
        return age_ns, versions
    writes = writes[numpy.lexsort((history.invoked_ns[writes], history.key[writes]))]
    since_ns = _written_ns(history, reads)
    invoked_ns = history.invoked_ns[reads] - 2 * uncertainty_ns
    key = history.key[reads]
    # Newer writes of the key stand in writes[begin:end].
    begin = _position(history, writes, key, since_ns + 2 * uncertainty_ns)
    end = numpy.searchsorted(history.key[writes], key, side="right")
    begin = numpy.where(since_ns == _LATEST, end, begin)
    returned_ns = history.returned_ns[writes]
    superseded_ns = _earliest_after(returned_ns, history.key[writes])
    superseded_ns = numpy.append(superseded_ns, _LATEST)[begin]
    stale = (begin < end) & (superseded_ns < invoked_ns)
    age_ns[reads[stale]] = (invoked_ns - superseded_ns)[stale]
    behind = _count_below(returned_ns, begin[stale], end[stale], invoked_ns[stale])
    versions[reads[stale]] = behind
    return age_ns, versions


def _written_ns(history: History, reads: Column) -> Column:
    """When the write of each read's value had returned: the least of int64 for the initial value,
    the greatest where it never did.
    """
    wrote = numpy.flatnonzero(numpy.isin(history.kind, _WRITING))
    value = history.value_id
    both = numpy.concatenate([wrote, reads])
    is_read = numpy.arange(len(both)) >= len(wrote)
    returned_ns = numpy.where(
        (history.outcome[wrote] == OK) & (history.returned_ns[wrote] >= 0),
        history.returned_ns[wrote],
        _LATEST,
    )
    order = numpy.lexsort(
        (
            numpy.concatenate([returned_ns, numpy.zeros(len(reads), dtype=numpy.int64)]),
            is_read,
            value[both],
            history.key[both],
        )
    )
    both = both[order]
    last = numpy.maximum.accumulate(numpy.where(is_read[order], -1, numpy.arange(len(both))))
    source = both[numpy.maximum(last, 0)]
    same = (last >= 0) & (value[source] == value[both])
    same &= history.key[source] == history.key[both]
    found = numpy.full(len(history), _LATEST, dtype=numpy.int64)
    times = numpy.full(len(history), _LATEST, dtype=numpy.int64)
    times[wrote] = returned_ns
    found[both] = numpy.where(same, times[source], _LATEST)
    initial = value[reads] <= PRELOADED
    return numpy.where(initial, numpy.iinfo(numpy.int64).min // 2, found[reads])


def _position(history: History, writes: Column, key: Column, after_ns: Column) -> Column:
    """The first of ``writes`` (sorted by key, invocation) of a key invoked after a time."""
    both_key = numpy.concatenate([history.key[writes], key])
    both_ns = numpy.concatenate([history.invoked_ns[writes], after_ns])
    asks = numpy.arange(len(both_key)) >= len(writes)
    order = numpy.lexsort((asks, both_ns, both_key))
    before = numpy.empty(len(order), dtype=numpy.int64)
    before[order] = numpy.cumsum(~asks[order])
    return before[len(writes) :]


def _earliest_after(returned_ns: Column, key: Column) -> Column:
    """The earliest return among each write and those behind it of the same key."""
    order = numpy.argsort(returned_ns, kind="stable")
    rank = numpy.empty(len(order), dtype=numpy.int64)
    rank[order] = numpy.arange(len(order))
    # Mirrored: ranks of later keys lie above, so one running minimum serves all keys.
    dense = numpy.cumsum(numpy.append(0, key[1:] != key[:-1]))
    lifted = (rank + dense * len(order))[::-1]
    lowest = numpy.minimum.accumulate(lifted)[::-1] - dense * len(order)
    earliest: Column = returned_ns[order[lowest]]
    return earliest


def _count_below(values: Column, begin: Column, end: Column, limit: Column) -> Column:
    """How many of ``values[begin:end]`` are below ``limit``, for arrays of ranges."""
    ordered = numpy.sort(values)
    codes = numpy.searchsorted(ordered, values)
    wanted = numpy.searchsorted(ordered, limit)
    count = numpy.zeros(len(begin), dtype=numpy.int64)
    low, high = begin.astype(numpy.int64), end.astype(numpy.int64)
    for bit in range(len(values).bit_length(), -1, -1):
        ones = codes >> bit & 1
        zeros_before = numpy.append(0, numpy.cumsum(1 - ones))
        zero_low, zero_high = zeros_before[low], zeros_before[high]
        up = (wanted >> bit & 1).astype(numpy.bool_)
        count += numpy.where(up, zero_high - zero_low, 0)
        zeros = int(zeros_before[-1])
        low = numpy.where(up, zeros + low - zero_low, zero_low)
        high = numpy.where(up, zeros + high - zero_high, zero_high)
        codes = codes[numpy.argsort(ones, kind="stable")]
    return count
