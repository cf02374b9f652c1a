"""Registers whose recorded versions name an order of their operations: a witness that is looked at
before anything is searched.

A version says how much of the common order an answer is from. Sorted by it, changes before what
only looks, the operations of a key are linearized if each finds the value that it needs and none
stands behind one that began after its end. Nothing is believed: an order that fails in either way
says nothing, and neither do versions that are missing. O(n log n), vectorised.

A change without an answer has no version. Where nobody needs its value it may be left out, as it
may never have happened; where somebody does, the key is left to the search.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from orchestrator.core.history import PRELOADED, History
from orchestrator.core.machine import CAS, FAIL, READ, UNKNOWN

Rows = NDArray[numpy.int64]
Mask = NDArray[numpy.bool_]


def explained(history: History, rows: Rows, uncertainty_ns: int) -> Rows:
    """The keys, in order, whose operations among ``rows`` are linearized by their versions."""
    keys = numpy.unique(history.key[rows])
    calls, doubtful = _answered(history, rows)
    order = numpy.lexsort(
        (history.invoked_ns[calls.row], ~calls.changes, history.version[calls.row], calls.key)
    )
    calls = calls.select(order)
    bad = ~calls.finds_what_it_needs() | _too_late(history, calls, uncertainty_ns)
    bad |= _before_its_session(history, calls) | (history.version[calls.row] < 0)
    excluded = numpy.concatenate([calls.key[bad], doubtful])
    return keys[~numpy.isin(keys, excluded)]


@dataclass(frozen=True)
class _Calls:
    """Operations as columns: ``row`` of the history, ``key``, ``changes`` (it stores ``stored``),
    ``needs`` (the value there must be ``wanted``) and ``refuses`` (it must be another one).
    """

    row: Rows
    key: Rows
    changes: Mask
    needs: Mask
    refuses: Mask
    wanted: Rows
    stored: Rows

    def select(self, chosen: Rows | Mask) -> _Calls:
        return _Calls(*(column[chosen] for column in vars(self).values()))

    def finds_what_it_needs(self) -> Mask:
        """Of operations sorted by key and then in order, which see what they need to see."""
        count = len(self.row)
        place = numpy.arange(count)
        last = numpy.maximum.accumulate(numpy.where(self.changes, place, -1))
        before = numpy.append(-1, last[:-1])[:count]
        known = (before >= 0) & (self.key[before] == self.key)
        there = numpy.where(known, self.stored[before], PRELOADED)
        same = there == self.wanted
        found: Mask = ~(self.needs & ~same | self.refuses & same)
        return found


def _answered(history: History, rows: Rows) -> tuple[_Calls, Rows]:
    """What has an answer, and the keys on which somebody needs what may have happened."""
    value, expected = history.value_id[rows], numpy.zeros(len(rows), dtype=numpy.int64)
    if history.expected_id is not None:
        expected = history.expected_id[rows]
    if history.values is None:
        value, expected = numpy.maximum(value, PRELOADED), numpy.maximum(expected, PRELOADED)
    kind, failed = history.kind[rows], history.outcome[rows] == FAIL
    reads = kind == READ
    calls = _Calls(
        row=rows,
        key=history.key[rows],
        changes=~reads & ~failed,
        needs=reads | ((kind == CAS) & ~failed),
        refuses=failed,
        wanted=numpy.where(reads, value, expected),
        stored=value,
    )
    open_ended = (history.outcome[rows] == UNKNOWN) | (history.returned_ns[rows] < 0)
    answered, doubtful = calls.select(~open_ended), calls.select(open_ended)
    needed = numpy.stack([answered.key, answered.wanted], axis=1)[answered.needs]
    offered = numpy.stack([doubtful.key, doubtful.stored], axis=1)
    _, code = numpy.unique(numpy.concatenate([needed, offered]), axis=0, return_inverse=True)
    code = code.reshape(-1)
    taken = numpy.isin(code[len(needed) :], code[: len(needed)])
    return answered, doubtful.key[taken]


def _too_late(history: History, calls: _Calls, uncertainty_ns: int) -> Mask:
    """Which stand behind an operation of their key that began after their end, beyond doubt."""
    invoked_ns, returned_ns = history.invoked_ns[calls.row], history.returned_ns[calls.row]
    count = len(calls.row)
    rank = numpy.empty(count, dtype=numpy.int64)
    order = numpy.argsort(invoked_ns, kind="stable")
    rank[order] = numpy.arange(count)
    # Ranks of later keys lie above, so one running maximum serves all keys.
    dense = numpy.cumsum(numpy.append(0, calls.key[1:] != calls.key[:-1]))[:count]
    latest = numpy.maximum.accumulate(rank + dense * count) - dense * count
    found: Mask = invoked_ns[order[latest]] - 2 * uncertainty_ns > returned_ns
    return found


def _before_its_session(history: History, calls: _Calls) -> Mask:
    """Which stand before an earlier operation of their own session, whatever the clocks say."""
    session, sequence = history.session[calls.row], history.sequence[calls.row]
    place = numpy.arange(len(calls.row))
    order = numpy.lexsort((place, session, calls.key))
    key, session, sequence = calls.key[order], session[order], sequence[order]
    found = numpy.zeros(len(order), dtype=numpy.bool_)
    found[order[1:]] = (
        (key[1:] == key[:-1]) & (session[1:] == session[:-1]) & (sequence[1:] < sequence[:-1])
    )
    return found
