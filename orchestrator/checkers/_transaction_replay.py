"""A serial order of transactions on registers, found by replaying them.

Which of two blind writes came first is often not known, and to find out is NP-complete
(Papadimitriou, "The Serializability of Concurrent Database Updates", JACM 1979). What decides
almost every history that a database made: take transactions in the order of their answers, as
far as the known dependencies allow, and let no write replace a value that somebody still has to
read, because values are unique and never come back. An order that takes them all is a proof.

Where that gets stuck, a write W waits for readers R of the value that V wrote. In every serial
order W comes before V or after R. So a path of dependencies from W to R says that W comes before
V, and one from V to W that it comes after R. That is a new edge, and one that closes a cycle is a
proof that there is no order. If no path decides it, W before V is tried, for the W that has waited
longest. To put W before V, the replay goes back to before V and on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Final

from orchestrator.checkers._transaction_graph import RW, WW, Graph

TRIES_MAX: Final = 200
_NOBODY: Final = -1


def has_serial_order(graph: Graph, steps_max: int) -> bool:
    """Whether a serial order was found; if not, the graph may have a cycle now, or not."""
    history, row = graph.record.history, graph.record.row
    answered: list[int] = history.returned_ns[row].tolist()
    latest = max(answered, default=0)
    unanswered = {node for node, returned in enumerate(answered) if returned < 0}
    for node in unanswered:
        answered[node] = latest
    # Whoever did not answer had committed when somebody saw it.
    for key in graph.record.keys if unanswered else ():
        for reader, value in key.reads:
            writer = -1 if key.is_list else key.writer.get(value, -1)
            if writer in unanswered:
                answered[writer] = min(answered[writer], answered[reader])
    steps_max = min(steps_max, 10 * graph.nodes + 10_000)
    attempts = (answered, range(len(row)))
    return any(Replay(graph, rank).succeeds(steps_max) for rank in attempts)


class Replay:
    """One attempt; where it may choose, it takes who has the lowest ``rank``.

    It adds the edges that it learns to the graph.
    A version of a register is a number: it has a ``writer`` (``_NOBODY`` for the initial one),
    ``readers``, and ``pending`` ones, which are still to come. ``waiting`` counts the
    dependencies of a node that are not done; ``blocked`` holds, by key, who waits for readers;
    ``trail`` is what is done, with the versions that it replaced, and ``place`` where in it.
    ``before`` has the dependencies only, ``after`` also what is tried.
    """

    def __init__(self, graph: Graph, rank: Sequence[int]) -> None:
        self._graph = graph
        record = graph.record
        self._rank = [*rank, *[0] * (graph.nodes - len(rank))]
        self._key: list[int] = []
        self._writer: list[int] = []
        self._readers: list[list[int]] = []
        self._current: list[int] = []
        self._reads: list[list[int]] = [[] for _ in range(graph.nodes)]
        self._writes: list[list[tuple[int, int]]] = [[] for _ in range(graph.nodes)]
        for index in range(len(record.keys)):
            self._versions_of(index)
        self._pending = [len(readers) for readers in self._readers]
        self._before: list[list[int]] = [[] for _ in range(graph.nodes)]
        self._after: list[list[int]] = [[] for _ in range(graph.nodes)]
        self._waiting = [0] * graph.nodes
        for source, target in zip(graph.source, graph.target, strict=True):
            self._link(source, target)
        counts = [*record.committed, *[True] * (graph.nodes - len(record.committed))]
        self._done = [not one for one in counts]
        self._left = sum(counts)
        self._ready = [
            (self._rank[node], node)
            for node in range(graph.nodes)
            if not self._done[node] and not self._waiting[node]
        ]
        heapify(self._ready)
        self._blocked: list[list[int]] = [[] for _ in record.keys]
        self._trail: list[tuple[int, list[int]]] = []
        self._place = [0] * graph.nodes
        self._tries = 0

    def _versions_of(self, index: int) -> None:
        key = self._graph.record.keys[index]
        number = {None: self._version(index, _NOBODY)}
        self._current.append(number[None])
        if key.is_list:
            return
        for value, writer in key.writer.items():
            if self._graph.record.committed[writer] and value not in key.replaced:
                number[value] = self._version(index, writer)
                self._writes[writer].append((index, number[value]))
        for reader, value in dict.fromkeys(key.reads):
            self._readers[number[value]].append(reader)
            self._reads[reader].append(number[value])

    def _version(self, index: int, writer: int) -> int:
        self._key.append(index)
        self._writer.append(writer)
        self._readers.append([])
        return len(self._key) - 1

    def _link(self, source: int, target: int) -> None:
        self._after[source].append(target)
        self._before[target].append(source)
        self._waiting[target] += 1

    def succeeds(self, steps_max: int) -> bool:
        """Whether it found a serial order; if not, there may be a cycle now, or not."""
        steps = 0
        while self._left and steps < steps_max:
            if not self._ready and not self._learn():
                return False
            while self._ready:
                steps += 1
                _, node = heappop(self._ready)
                if self._done[node] or self._waiting[node]:
                    continue
                hindered = self._hindered(node)
                if hindered == _NOBODY:
                    self._execute(node)
                else:
                    self._blocked[hindered].append(node)
        return not self._left

    def _hindered(self, node: int) -> int:
        """The key whose value somebody else still has to read."""
        for index, _ in self._writes[node]:
            version = self._current[index]
            if self._pending[version] > (version in self._reads[node]):
                return index
        return _NOBODY

    def _execute(self, node: int) -> None:
        self._done[node] = True
        self._left -= 1
        for version in self._reads[node]:
            self._pending[version] -= 1
            if self._pending[version] <= 1:
                self._wake(self._key[version])
        replaced = []
        for index, version in self._writes[node]:
            replaced.append(self._current[index])
            self._current[index] = version
            self._wake(index)
        self._place[node] = len(self._trail)
        self._trail.append((node, replaced))
        for target in self._after[node]:
            self._waiting[target] -= 1
            if not self._waiting[target]:
                heappush(self._ready, (self._rank[target], target))

    def _wake(self, index: int) -> None:
        for node in self._blocked[index]:
            heappush(self._ready, (self._rank[node], node))
        self._blocked[index] = []

    def _learn(self) -> bool:
        """Decide what the blocked writes imply, else try something; False: there is nothing."""
        learned: list[tuple[int, int, int, int, tuple[int, ...]]] = []
        undecided: list[tuple[int, int, int]] = []
        for index, blocked in enumerate(self._blocked):
            version = self._current[index]
            writer = self._writer[version]
            if writer == _NOBODY:
                continue
            for node in dict.fromkeys(blocked):
                if self._done[node] or self._waiting[node]:
                    continue
                late = [
                    reader
                    for reader in self._readers[version]
                    if reader != node and not self._done[reader]
                ]
                if path := self._path(node, late):
                    learned.append((node, writer, WW, index, path))
                elif path := self._path(writer, [node]):
                    learned += [(reader, node, RW, index, path) for reader in late]
                else:
                    undecided.append((self._rank[node], writer, node))
        if not (learned or undecided) or self._tries > TRIES_MAX:
            return False
        if learned:
            self._rewind({target for _, target, kind, _, _ in learned if kind == WW})
            for source, target, kind, index, path in learned:
                self._graph.because[len(self._graph.source)] = path
                self._graph.add(source, target, kind, index)
                self._link(source, target)
        else:
            self._tries += 1
            _, writer, node = min(undecided)
            self._rewind({writer})
            self._after[node].append(writer)
            self._waiting[writer] += 1
        return True

    def _path(self, start: int, ends: list[int]) -> tuple[int, ...]:
        """A path of dependencies: only of what comes after ``start``, as far as that is done."""
        earliest = self._place[start] if self._done[start] else len(self._trail)
        onwards = {end: end for end in ends}
        todo = list(onwards)
        while todo:
            node = todo.pop()
            for before in self._before[node]:
                if before in onwards or (self._done[before] and self._place[before] < earliest):
                    continue
                onwards[before] = node
                if before == start:
                    path = [start]
                    while onwards[path[-1]] != path[-1]:
                        path.append(onwards[path[-1]])
                    return tuple(path)
                todo.append(before)
        return ()

    def _rewind(self, targets: set[int]) -> None:
        """Undo everything from the first of these on."""
        undone = []
        missing = len(targets)
        while missing:
            node, replaced = self._trail.pop()
            missing -= node in targets
            undone.append(node)
            self._done[node] = False
            for version in self._reads[node]:
                self._pending[version] += 1
            for (index, _), version in zip(self._writes[node], replaced, strict=True):
                self._current[index] = version
            for target in self._after[node]:
                self._waiting[target] += 1
            for index, _ in self._writes[node]:
                self._wake(index)
            for version in self._reads[node]:
                self._wake(self._key[version])
        self._left += len(undone)
        for node in undone:
            heappush(self._ready, (self._rank[node], node))
