"""Objects other than registers with unique values, one after the other: linearizability is local.

An answer is valid, invalid with a witness, or unknown where the steps of the search ran out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from orchestrator.checkers._clusters import Rows, counted, name_of
from orchestrator.checkers._moments import NEVER_NS, NO_ROW, Item
from orchestrator.checkers._register_moves import needed
from orchestrator.checkers._search import search
from orchestrator.checkers._shrink import shrink
from orchestrator.core.history import PRELOADED, History
from orchestrator.core.machine import CAS, DEQUEUE, FAIL, OK, READ, SCAN, UNKNOWN
from orchestrator.core.models import CAS_REGISTER, REGISTER, Call
from orchestrator.core.verdict import Evidence, key_text, value_of


@dataclass(frozen=True)
class Judged:
    """``linearizable`` is None where the steps ran out; a witness is rows of the history."""

    linearizable: bool | None
    steps: int
    text: str = ""
    witness: tuple[int, ...] = ()


def counting(history: History, evidence: Evidence) -> numpy.typing.NDArray[numpy.bool_]:
    """Which rows say anything: what did not happen does not, but for a failed cas that saw."""
    lost_read = numpy.isin(history.kind, (READ, SCAN)) & (history.outcome != OK)
    failed = history.outcome == FAIL
    if evidence.failed_cas_observed:
        failed &= (history.kind != CAS) | (history.returned_ns < 0)
    counted_: numpy.typing.NDArray[numpy.bool_] = ~lost_read & ~failed & (history.kind != SCAN)
    return counted_


def objects(history: History, rows: Rows, uncertainty_ns: int) -> Iterator[tuple[int, list[Item]]]:
    """(key, its operations) of each key among the rows."""
    order = rows[numpy.lexsort((history.invoked_ns[rows], history.key[rows]))]
    starts = numpy.flatnonzero(numpy.diff(history.key[order], prepend=-1))
    for chunk in numpy.split(order, starts[1:]) if len(order) else []:
        yield int(history.key[chunk[0]]), _items(history, chunk, uncertainty_ns)


def _items(history: History, rows: Rows, uncertainty_ns: int) -> list[Item]:
    made = []
    previous: dict[int, tuple[int, int]] = {}
    value_ids, expected_id = history.value_id[rows], history.expected_id
    if history.values is None:
        # Of a run's keys nothing and what was preloaded are one initial value.
        value_ids = numpy.maximum(value_ids, PRELOADED)
        expected_id = None if expected_id is None else numpy.maximum(expected_id, PRELOADED)
    for row, session, kind, value_id, invoked_ns, returned_ns, outcome in zip(
        rows.tolist(),
        history.session[rows].tolist(),
        history.kind[rows].tolist(),
        value_ids.tolist(),
        history.invoked_ns[rows].tolist(),
        history.returned_ns[rows].tolist(),
        history.outcome[rows].tolist(),
        strict=True,
    ):
        expected = None
        if kind == CAS and expected_id is not None:
            expected = value_of(history, int(expected_id[row]))
        call = Call(kind, value_of(history, value_id), expected, outcome)
        after, ended_ns = previous.get(session, (NO_ROW, 0))
        began_ns = invoked_ns - uncertainty_ns
        if after != NO_ROW and ended_ns < began_ns:
            after = NO_ROW
        answered = outcome != UNKNOWN and returned_ns >= 0
        finished_ns = returned_ns + uncertainty_ns if answered else NEVER_NS
        if answered:
            previous[session] = row, finished_ns
            made.append(Item(row, began_ns, finished_ns, call, after))
        elif not call.reads_only:
            made.append(Item(row, began_ns, NEVER_NS, call, after))
    return made


def judge(
    history: History, key: int, items: Sequence[Item], evidence: Evidence, steps_max: int
) -> Judged:
    """Whether the operations of one key are linearizable."""
    initial = PRELOADED if history.values is None else history.values[PRELOADED]
    if evidence.model in {REGISTER, CAS_REGISTER}:
        impossible = _never_there(history, items, initial)
        if impossible is not None:
            return Judged(False, 0, *impossible)
    found = search(items, evidence.model, initial, steps_max)
    if found.linearizable is None:
        text = (
            f"The search for an order of the {counted(len(items), 'operation')} of key "
            f"{key_text(history, key)} was given up after {counted(steps_max, 'step')}."
        )
        return Judged(None, found.steps, text)
    if found.linearizable:
        return Judged(True, found.steps)
    witness = shrink(items, evidence.model, initial, found.stuck_ns)
    stuck_ns = search(witness, evidence.model, initial, steps_max).stuck_ns
    stuck = next((item for item in witness if item.returned_ns == stuck_ns), witness[-1])
    text = (
        f"No order of {counted(len(witness), 'operation')} of key {key_text(history, key)} "
        "respects both their times and what they returned. Whatever comes first, "
        f"{told(history, stuck)} does not fit in."
    )
    return Judged(False, found.steps, text, tuple(item.row for item in witness))


# --- words ------------------------------------------------------------------------------


def _never_there(
    history: History, items: Sequence[Item], initial: Any
) -> tuple[str, tuple[int, ...]] | None:
    """A value that a register cannot have held when an operation needed it, where that is plain.

    Either nobody had begun to write it, or something that shows another value stands in time
    between all that wrote it and the operation.
    """
    writers = _Writers(items)
    others = _Others(items)
    for item in sorted(items, key=lambda item: item.returned_ns):
        for value in needed(item.call) if item.returned_ns != NEVER_NS else ():
            over_ns = writers.over_ns(value, item.returned_ns)
            unwritten = over_ns is None and value != initial
            between = others.between(value, -1 if over_ns is None else over_ns, item.invoked_ns)
            if unwritten or between is not None:
                what = f"{told(history, item, with_key=True)} needs the value {value!r}, which"
            if unwritten:
                return f"{what} nobody had begun to write.", (item.row,)
            if between is not None:
                begun = writers.begun(value, item.returned_ns)
                source = "was the initial value"
                if begun:
                    source = f"was written by {_listed(history, begun)}"
                text = (
                    f"{what} {source}; but {told(history, between)} came after that, "
                    "and was over before it began."
                )
                return text, tuple(sorted(one.row for one in (*begun, between, item)))
    return None


class _Writers:
    """Who writes each value, in the order of their invocations."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._writers: dict[Any, list[Item]] = {}
        self._invocations: dict[Any, list[int]] = {}
        self._over_ns: dict[Any, list[int]] = {}
        for item in sorted(items, key=lambda item: item.invoked_ns):
            if not item.call.reads_only:
                value = item.call.value
                self._writers.setdefault(value, []).append(item)
                self._invocations.setdefault(value, []).append(item.invoked_ns)
                over = self._over_ns.setdefault(value, [])
                over.append(max(item.returned_ns, over[-1]) if over else item.returned_ns)

    def begun(self, value: Any, by_ns: int) -> list[Item]:
        """Those that were invoked by then."""
        count = bisect_right(self._invocations.get(value, []), by_ns)
        return self._writers[value][:count] if count else []

    def over_ns(self, value: Any, by_ns: int) -> int | None:
        """When the last of those returns; None where there are none."""
        count = bisect_right(self._invocations.get(value, []), by_ns)
        return self._over_ns[value][count - 1] if count else None


class _Others:
    """Finds what shows that a register held another value, among what was over by some time.

    Of all that was over, the one invoked last decides; beside it, the last one of another value.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self._returns: list[int] = []
        self._latest: list[tuple[Item, Item | None]] = []
        self._failed: dict[Any, list[Item]] = {}
        for item in sorted(items, key=lambda item: item.returned_ns):
            if item.returned_ns == NEVER_NS:
                break
            if item.call.outcome == FAIL:
                self._failed.setdefault(item.call.expected, []).append(item)
                continue
            best, other = self._latest[-1] if self._latest else (item, None)
            if item.invoked_ns >= best.invoked_ns:
                if item.call.value != best.call.value:
                    other = best
                best = item
            elif item.call.value != best.call.value and (
                other is None or item.invoked_ns > other.invoked_ns
            ):
                other = item
            self._returns.append(item.returned_ns)
            self._latest.append((best, other))

    def between(self, value: Any, after_ns: int, before_ns: int) -> Item | None:
        """One that began after ``after_ns``, was over before ``before_ns``, and excludes it."""
        over = bisect_left(self._returns, before_ns)
        last: tuple[Item | None, ...] = self._latest[over - 1] if over else ()
        for item in (*last, *self._failed.get(value, [])):
            if item is None or item.invoked_ns <= after_ns or item.returned_ns >= before_ns:
                continue
            if item.call.outcome == FAIL or bool(item.call.value != value):
                return item
        return None


def _listed(history: History, items: Sequence[Item]) -> str:
    names = [told(history, item) for item in items]
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def told(history: History, item: Item, *, with_key: bool = False) -> str:
    """``session 3's read #4 of key x (returned 5)``."""
    call = item.call
    name = name_of(history, item.row, with_key=with_key)
    if call.kind == CAS:
        failed = "failed " if call.outcome == FAIL else ""
        return f"{name} ({failed}{call.expected!r} to {call.value!r})"
    if call.kind in {READ, DEQUEUE}:
        return f"{name} (returned {call.value!r})" if call.outcome == OK else f"{name} (lost)"
    return f"{name} ({call.value!r})"
