"""Orders that must hold: closing causal order under what reads say about writes.

If read r returned write w, and another write u of the same key is before r, then u is before w
(and if w is before u, r is before u). Adding such edges until none is missing is the happens-
before relation of causal memory when the reads are those of one session (HB of Bouajjani,
Enea, Guerraoui and Hamza, POPL 2017), and a necessary part of any sequential order when they
are the reads of all (Gibbons and Korach, "Testing Shared Memories", 1997, section 4). A cycle is
a proof that there is no such order. Each edge remembers the read it came from, so that the proof
can be told.

The closure is kept in vector clocks: a new edge joins the clock of its tail into its head, and
whatever changes is passed on. Rows are copied when they first change, because a session touches
few.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy
from numpy.typing import NDArray

from orchestrator.checkers._causal_patterns import Conflicts, steps
from orchestrator.checkers._causality import Causality, causal_path
from orchestrator.checkers._operations import INITIAL, Operations

Row = NDArray[numpy.int32]


class OutOfSteps(Exception):
    """The bound on the work was reached before an answer."""


@dataclass(frozen=True)
class Contradiction:
    """Why the orders that must hold cannot, and the operations that show it."""

    text: str
    witness: list[int]


@dataclass
class Budget:
    """Steps that are left."""

    steps: int

    def spend(self, steps: int = 1) -> None:
        """Raises OutOfSteps when there are none."""
        self.steps -= steps
        if self.steps < 0:
            raise OutOfSteps


class Closure:
    """Causal order with more edges, over the operations that ``limit`` admits.

    ``limit``: for each chain, how many of its operations take part.
    """

    def __init__(self, causal: Causality, limit: list[int], budget: Budget) -> None:
        self.causal = causal
        self.ops = causal.ops
        self._limit = limit
        self._budget = budget
        self._rows: dict[int, Row] = {}
        self.edges: list[tuple[int, int, int]] = []
        """(tail, head, the read that it comes from)"""
        self._out: dict[int, list[int]] = {}
        self._position = self.ops.position.tolist()
        self._chain = self.ops.chain.tolist()
        self._column = causal.column.tolist()

    def row(self, index: int) -> Row:
        """The clock of an operation."""
        found = self._rows.get(index)
        return self.causal.clock[index] if found is None else found

    def precedes(self, early: int, late: int) -> bool:
        """Whether ``early`` (of a chain with a column) is before or equal to ``late``."""
        column = self._column[self._chain[early]]
        return bool(self.row(late)[column] > self._position[early])

    def add(self, tail: int, head: int, read: int) -> tuple[list[int], bool]:
        """Order ``tail`` before ``head``; the operations that know more now, and whether the
        edge closes a cycle (then nothing is changed but the list of edges).
        """
        self.edges.append((tail, head, read))
        if self.precedes(head, tail):
            return [], True
        self._out.setdefault(tail, []).append(head)
        changed = list[int]()
        work = [(head, self.row(tail))]
        while work:
            index, more = work.pop()
            self._budget.spend()
            mine = self.row(index)
            if not (more > mine).any():
                continue
            joined = numpy.maximum(mine, more)
            self._rows[index] = joined
            changed.append(index)
            work += [(late, joined) for late in self._successors(index)]
        return changed, False

    def _successors(self, index: int) -> Iterator[int]:
        for late in (*self.ops.after.get(index, ()), *self._out.get(index, ())):
            if self._position[late] < self._limit[self._chain[late]]:
                yield late
        if self.ops.is_write[index]:
            for read in self.ops.readers.get(index, ()):
                if self._position[read] < self._limit[self._chain[read]]:
                    yield read


class WritesByKey:
    """The writes of each key by chain and position, to ask which ones a clock counts."""

    def __init__(self, causal: Causality) -> None:
        ops = causal.ops
        writes = numpy.flatnonzero(ops.is_write)
        order = numpy.lexsort((ops.position[writes], ops.chain[writes], ops.key[writes]))
        self._writes = writes[order]
        keys = numpy.arange(ops.keys + 1)
        self._bounds = numpy.searchsorted(ops.key[self._writes], keys).tolist()
        self._column = causal.column[ops.chain[self._writes]]
        self._position = ops.position[self._writes]

    def newest(self, key: int, row: Row) -> list[int]:
        """The newest write of every chain among those of ``key`` that ``row`` counts."""
        part = slice(self._bounds[key], self._bounds[key + 1])
        column = self._column[part]
        counted = numpy.flatnonzero(row[column] > self._position[part])
        last = numpy.ones(len(counted), dtype=numpy.bool_)
        last[:-1] = column[counted[1:]] != column[counted[:-1]]
        found: list[int] = self._writes[part][counted[last]].tolist()
        return found

    def oldest(self, key: int) -> list[int]:
        """The first write of every chain to ``key``."""
        part = slice(self._bounds[key], self._bounds[key + 1])
        column = self._column[part]
        first = numpy.ones(len(column), dtype=numpy.bool_)
        first[1:] = column[1:] != column[:-1]
        found: list[int] = self._writes[part][first].tolist()
        return found


def session_orders(causal: Causality, conflicts: Conflicts, steps_max: int) -> Contradiction | None:
    """Why some session has no order of its own (CM); None where each has one."""
    ops = causal.ops
    budget = Budget(steps_max)
    writes = WritesByKey(causal)
    # Only sessions with a conflict have more than causal order, which is known to be sound.
    involved = numpy.unique(ops.chain[conflicts.read]).tolist()
    for chain in involved:
        last = int(ops.start[chain + 1]) - 1
        known = causal.clock[last]
        limit = [
            int(ops.start[one + 1] - ops.start[one])
            if one == chain
            else int(known[causal.column[one]])
            if causal.column[one] >= 0
            else 0
            for one in range(ops.chains)
        ]
        reads = [
            index for index in range(int(ops.start[chain]), last + 1) if not ops.is_write[index]
        ]
        found = _closed(Closure(causal, limit, budget), writes, reads, budget)
        if found is not None:
            return found
    return None


def _closed(
    closure: Closure, writes: WritesByKey, reads: list[int], budget: Budget
) -> Contradiction | None:
    ops = closure.ops
    own = frozenset(reads)
    todo = dict.fromkeys(reads)
    while todo:
        read = next(iter(todo))
        del todo[read]
        budget.spend()
        source = int(ops.source[read])
        for early in writes.newest(int(ops.key[read]), closure.row(read)):
            if source == INITIAL:
                return told_initial(closure, early, read)
            if early == source or closure.precedes(early, source):
                continue
            changed, cyclic = closure.add(early, source, read)
            if cyclic:
                return told_cycle(closure)
            todo.update(dict.fromkeys(index for index in changed if index in own))
    return None


# --- stories ----------------------------------------------------------------------------


def told_initial(closure: Closure, early: int, read: int) -> Contradiction:
    """An initial value read after a write that must come before."""
    ops = closure.ops
    reasons, witness = _path_told(closure, early, read, len(closure.edges))
    text = (
        f"{ops.name(read)} returned the initial value, though "
        f"{ops.name(early, with_key=False)} must come before it ({'; '.join(reasons)})."
    )
    return Contradiction(text, [*witness, read])


def told_cycle(closure: Closure) -> Contradiction:
    """The last edge closed a cycle."""
    ops = closure.ops
    tail, head, _ = closure.edges[-1]
    there, one = _edge_told(closure, len(closure.edges) - 1)
    back, two = _path_told(closure, head, tail, len(closure.edges) - 1)
    reasons = dict.fromkeys([*there, *back])
    text = (
        f"{ops.name(tail)} would have to come before and after "
        f"{ops.name(head, with_key=False)}: {'; '.join(reasons)}."
    )
    return Contradiction(text, [*one, *two])


def _edge_told(closure: Closure, number: int) -> tuple[list[str], list[int]]:
    """Why edge ``number`` must hold, from edges before it."""
    ops = closure.ops
    tail, head, read = closure.edges[number]
    if tail == read:
        # The write that the read saw is before ``head``, so the read is.
        source = int(ops.source[read])
        if source == INITIAL:
            name = ops.name(read, with_key=False)
            return [f"{name} returned the initial value, so it comes before every write"], [
                read,
                head,
            ]
        reasons, witness = _path_told(closure, source, head, number)
        because = f"{ops.name(read, with_key=False)} returned {ops.value_name(read)}"
        return [*reasons, f"{because}, so it comes before {ops.name(head)}"], [*witness, read]
    reasons, witness = _path_told(closure, tail, read, number)
    because = f"{ops.name(read, with_key=False)} returned {ops.value_name(read)}"
    told = f"{because}, so {ops.name(tail, with_key=False)} comes before that write"
    return [*reasons, told], [*witness, read, head]


def _path_told(closure: Closure, early: int, late: int, number: int) -> tuple[list[str], list[int]]:
    """Why ``early`` precedes ``late`` by causes and edges below ``number``."""
    ops = closure.ops
    extra: dict[int, list[int]] = {}
    numbers: dict[tuple[int, int], int] = {}
    for at, (tail, head, _) in enumerate(closure.edges[:number]):
        extra.setdefault(head, []).append(tail)
        numbers.setdefault((tail, head), at)
    path = causal_path(ops, early, late, extra)
    reasons, witness, run = list[str](), list(path), [early]
    for one, two in pairwise(path):
        direct = ops.chain[one] == ops.chain[two] or ops.source[two] == one
        if direct or (one, two) not in numbers:
            run.append(two)
            continue
        reasons += _run(ops, run)
        run = [two]
        more, rows = _edge_told(closure, numbers[one, two])
        reasons += more
        witness += rows
    return [*reasons, *_run(ops, run)], witness


def _run(ops: Operations, run: Iterable[int]) -> list[str]:
    path = list(run)
    return [steps(ops, path)] if len(path) > 1 else []
