"""Orders that every sequential explanation has, and the search among those that are left."""

from __future__ import annotations

import numpy

from orchestrator.checkers._causality import causality_of
from orchestrator.checkers._operations import INITIAL, Operations
from orchestrator.checkers._saturation import (
    Budget,
    Closure,
    Contradiction,
    WritesByKey,
    told_cycle,
)


def must_hold(order: list[int], ops: Operations, budget: Budget) -> Closure | Contradiction:
    """Causal order (``order`` follows it) closed under all reads, or why it cannot be."""
    causal = causality_of(ops, order, all_columns=True)
    limit = numpy.diff(ops.start).tolist()
    closure = Closure(causal, limit, budget)
    writes = WritesByKey(causal)
    initial: dict[int, list[int]] = {}
    for read in ops.readers.get(INITIAL, ()):
        initial.setdefault(int(ops.key[read]), []).append(read)
    todo = dict.fromkeys(range(len(ops)))
    for key, reads in initial.items():
        for head in writes.oldest(key):
            for read in reads:
                if not closure.precedes(read, head) and closure.add(read, head, read)[1]:
                    return told_cycle(closure)
    while todo:
        index = next(iter(todo))
        del todo[index]
        budget.spend()
        for tail, head, read in _demands(closure, writes, index):
            if closure.precedes(tail, head):
                continue
            changed, cyclic = closure.add(tail, head, read)
            if cyclic:
                return told_cycle(closure)
            todo.update(dict.fromkeys(changed))
    return closure


def _demands(closure: Closure, writes: WritesByKey, index: int) -> list[tuple[int, int, int]]:
    """(tail, head, read): edges that the clock of one operation asks for."""
    ops = closure.ops
    key, row = int(ops.key[index]), closure.row(index)
    if not ops.is_write[index]:
        source = int(ops.source[index])
        if source == INITIAL:
            return []
        return [(early, source, index) for early in writes.newest(key, row) if early != source]
    row = row.copy()
    row[closure.causal.column[ops.chain[index]]] -= 1
    return [
        (read, index, read)
        for early in writes.newest(key, row)
        for read in ops.readers.get(early, ())
    ]


def order_exists(closure: Closure, budget: Budget) -> bool:
    """Whether a legal order of all operations exists; see ``sequential``."""
    return _Search(closure, budget).run()


class _Search:
    """Depth first over the positions of the chains; a position that failed is not tried again."""

    def __init__(self, closure: Closure, budget: Budget) -> None:
        ops = closure.ops
        self._ops = ops
        self._budget = budget
        self._start = ops.start.tolist()
        self._chain = ops.chain.tolist()
        self._key = ops.key.tolist()
        self._source = ops.source.tolist()
        self._is_write = ops.is_write.tolist()
        self._needs = [closure.row(index) for index in range(len(ops))]
        self._at = numpy.zeros(ops.chains, dtype=numpy.int64)
        self._holds = [INITIAL] * ops.keys
        self._left: dict[tuple[int, int], int] = {}
        for read in numpy.flatnonzero(~ops.is_write).tolist():
            value = (self._key[read], self._source[read])
            self._left[value] = self._left.get(value, 0) + 1
        history = ops.history
        self._invoked_ns = history.invoked_ns[ops.row].tolist()
        self._done = 0

    def run(self) -> bool:
        """Each stack entry: the writes still to try there, and what to undo to be back there."""
        failed: set[bytes] = set()
        self._take_reads()
        stack = [iter(self._choices())]
        undo: list[list[tuple[int, int]]] = []
        while self._done < len(self._ops):
            write = next(stack[-1], None)
            if write is None:
                failed.add(self._at.tobytes())
                stack.pop()
                if not stack:
                    return False
                self._undo(undo.pop())
                continue
            self._budget.spend()
            taken = [(write, self._holds[self._key[write]])]
            self._holds[self._key[write]] = write
            self._advance(write)
            taken += self._take_reads()
            undo.append(taken)
            if self._at.tobytes() in failed:
                self._undo(undo.pop())
                continue
            stack.append(iter(self._choices()))
        return True

    def _heads(self) -> list[int]:
        return [
            begin + int(at)
            for begin, end, at in zip(self._start, self._start[1:], self._at, strict=False)
            if begin + at < end
        ]

    def _ready(self, index: int) -> bool:
        """Whether all that must precede the head of a chain is done, but for itself."""
        return int((self._needs[index] > self._at).sum()) <= 1

    def _choices(self) -> list[int]:
        found = [
            index
            for index in self._heads()
            if self._is_write[index]
            and not self._left.get((self._key[index], self._holds[self._key[index]]), 0)
            and self._ready(index)
        ]
        return sorted(found, key=lambda index: self._invoked_ns[index])

    def _advance(self, index: int) -> None:
        self._at[self._chain[index]] += 1
        self._done += 1

    def _take_reads(self) -> list[tuple[int, int]]:
        taken = []
        progress = True
        while progress:
            progress = False
            for index in self._heads():
                value = (self._key[index], self._source[index])
                if self._is_write[index] or self._holds[value[0]] != value[1]:
                    continue
                self._left[value] -= 1
                self._advance(index)
                taken.append((index, INITIAL))
                progress = True
        return taken

    def _undo(self, taken: list[tuple[int, int]]) -> None:
        for index, held in reversed(taken):
            self._at[self._chain[index]] -= 1
            self._done -= 1
            if self._is_write[index]:
                self._holds[self._key[index]] = held
            else:
                self._left[self._key[index], self._source[index]] += 1
