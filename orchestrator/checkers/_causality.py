"""Causal order by vector clocks, and what a read knows of the writes before it.

Causal order (co) is the transitive closure of the sessions' order and of reads-from: every write
before its reads. ``clock[i, a]`` counts the operations of chain a that are operation i or before
it in that order, so one comparison tells whether one operation precedes another: O(n c) for n
operations and c chains, with the columns that matter (chains that wrote something) only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from orchestrator.checkers._operations import Operations, Rows

CELLS_MAX = 200_000_000
"""Clocks hold at most so many counts (of 4 bytes)."""
_COLUMNS_AT_ONCE = 32

Clock = NDArray[numpy.int32]


@dataclass(frozen=True)
class Causality:
    """``clock``: shape (m, columns); ``column`` (chains): each chain's, -1 where it never wrote.

    ``order`` (m): the operations in an order that follows co.
    """

    ops: Operations
    clock: Clock
    column: Rows
    order: list[int]

    def precedes(self, early: int, late: int) -> bool:
        """Whether a write is before (or is) another operation."""
        column = int(self.column[self.ops.chain[early]])
        return bool(self.clock[late, column] > self.ops.position[early])


def too_big(ops: Operations) -> str | None:
    """Why the clocks would not fit, if they would not."""
    writers = len(numpy.unique(ops.chain[ops.is_write]))
    if len(ops) * writers <= CELLS_MAX:
        return None
    return (
        f"{len(ops)} operations with {writers} writing sessions are too many to follow what "
        "caused what."
    )


def topological(ops: Operations) -> tuple[list[int], list[int]]:
    """The operations in causal order, and the first one of every chain that got stuck.

    Stuck chains lie on or behind a cycle; O(m).
    """
    source = numpy.where(ops.is_write, -1, ops.source).tolist()
    before, start = ops.before.tolist(), ops.start.tolist()
    at = list(start[:-1])
    done = [False] * len(ops)
    waiting: dict[int, list[int]] = {}
    order: list[int] = []
    ready = list(range(ops.chains - 1, -1, -1))
    while ready:
        current = ready.pop()
        index, end = at[current], start[current + 1]
        while index < end:
            needed = source[index]
            if needed < 0 or done[needed]:
                needed = before[index]
            if needed >= 0 and not done[needed]:
                waiting.setdefault(needed, []).append(current)
                break
            done[index] = True
            order.append(index)
            if index in waiting:
                ready += waiting.pop(index)
            index += 1
        at[current] = index
    stuck = [at[one] for one in range(ops.chains) if at[one] < start[one + 1]]
    return order, stuck


def causality_of(ops: Operations, order: list[int], *, all_columns: bool = False) -> Causality:
    """Clocks of an acyclic causal order."""
    writers = numpy.unique(ops.chain if all_columns else ops.chain[ops.is_write])
    column = numpy.full(ops.chains, -1, dtype=numpy.int64)
    column[writers] = numpy.arange(len(writers))
    clock = numpy.zeros((len(ops), len(writers)), dtype=numpy.int32)
    source = numpy.where(ops.is_write, -1, ops.source).tolist()
    before = ops.before.tolist()
    own = column[ops.chain].tolist()
    count = (ops.position + 1).tolist()
    maximum = numpy.maximum
    for index in order:
        row = clock[index]
        early, seen = before[index], source[index]
        if early >= 0 and seen >= 0:
            maximum(clock[early], clock[seen], out=row)
        elif early >= 0 or seen >= 0:
            row[:] = clock[max(early, seen)]
        if own[index] >= 0:
            row[own[index]] = count[index]
    return Causality(ops, clock, column, order)


def newest_known(
    ops: Operations, clock: Clock, column: Rows, relevant: Rows
) -> Iterator[tuple[Rows, Rows]]:
    """Chain by chain: reads, and the chain's newest relevant operation on the read's key among
    those that the read's row of ``clock`` counts. Operations with the read's own value, which
    hide nothing, are left out.
    """
    reads = numpy.flatnonzero(~ops.is_write)
    key, source = ops.key[reads], ops.source[reads]
    stride = int(ops.position.max(initial=0)) + 2
    relevant = relevant[column[ops.chain[relevant]] >= 0]
    order = numpy.lexsort((ops.position[relevant], ops.key[relevant], ops.chain[relevant]))
    relevant = relevant[order]
    chains = numpy.flatnonzero(column >= 0)
    bounds = numpy.searchsorted(ops.chain[relevant], [*chains.tolist(), ops.chains])
    for first in range(0, len(chains), _COLUMNS_AT_ONCE):
        known = numpy.ascontiguousarray(clock[reads, first : first + _COLUMNS_AT_ONCE].T)
        for at in range(first, min(first + _COLUMNS_AT_ONCE, len(chains))):
            own = relevant[bounds[at] : bounds[at + 1]]
            # Most reads know nothing of most chains, and most chains little of most keys.
            asked = numpy.flatnonzero(known[at - first])
            if len(own) == 0 or len(asked) == 0:
                continue
            place = ops.key[own] * stride + ops.position[own]
            limit = key[asked] * stride + known[at - first][asked]
            newest = own[numpy.maximum(numpy.searchsorted(place, limit) - 1, 0)]
            found = (
                (ops.key[newest] == key[asked])
                & (ops.position[newest] < known[at - first][asked])
                & (ops.source[newest] != source[asked])
            )
            if found.any():
                yield reads[asked[found]], newest[found]


def causal_path(
    ops: Operations, early: int, late: int, extra: Mapping[int, Sequence[int]] | None = None
) -> list[int]:
    """Operations from ``early`` to ``late``, consecutive ones in one session or write and read.

    ``extra[i]``: operations that precede i for another reason. The path has the fewest changes
    of session. Raises ValueError where there is none.
    """
    goal, wanted = int(ops.chain[early]), int(ops.position[early])
    onward: dict[int, tuple[int, int]] = {}
    ends = {int(ops.chain[late]): late}
    scanned: dict[int, int] = {}
    layer = [late]
    while goal not in ends or ops.position[ends[goal]] < wanted:
        if not layer:
            raise ValueError("no path of causes")
        found: list[int] = []
        for end in layer:
            chain, position = int(ops.chain[end]), int(ops.position[end])
            begin = int(ops.start[chain])
            for index in range(begin + scanned.get(chain, -1) + 1, begin + position + 1):
                for cause in _causes(ops, index, extra or {}):
                    where = int(ops.chain[cause])
                    if where not in ends or ops.position[ends[where]] < ops.position[cause]:
                        onward[cause] = (index, end)
                        ends[where] = cause
                        found.append(cause)
            scanned[chain] = max(scanned.get(chain, -1), position)
        layer = found
    path = [early]
    end = ends[goal]
    while True:
        path.append(end)
        if end == late:
            break
        index, end_of_index = onward[end]
        path.append(index)
        end = end_of_index
    return [index for at, index in enumerate(path) if at == 0 or path[at - 1] != index]


def _causes(ops: Operations, index: int, extra: Mapping[int, Sequence[int]]) -> list[int]:
    """What directly precedes an operation, but for the one before it in its own chain."""
    causes = [*extra.get(index, ())]
    if not ops.is_write[index] and ops.source[index] >= 0:
        causes.append(int(ops.source[index]))
    before = int(ops.before[index])
    if before >= 0 and ops.chain[before] != ops.chain[index]:
        causes.append(before)
    return causes
