"""Cycles of dependencies: which kind there is, and a short one of it.

A kind of cycle is a graph to look in. G0: ``ww`` only. G1c: ``ww`` and ``wr``. G2: all edges.
Cycles without two adjacent ``rw`` edges are those of the doubled graph where a transaction
reached by ``rw`` is another node than the same one reached otherwise, and only the latter has
``rw`` edges to leave by. A shortest one of these visits no transaction twice: a closed walk
that does falls into two, of which at most one has adjacent ``rw`` edges at the place where it
was cut.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.checkers._transaction_graph import PASS, RW, WR, WW, Graph

Ids = NDArray[numpy.int64]

WRITES_ONLY: Final = "G0"
INFORMATION: Final = "G1c"
NO_ADJACENT_RW: Final = "G-single"
ANY: Final = "G2-item"
CYCLES: Final = (WRITES_ONLY, INFORMATION, NO_ADJACENT_RW, ANY)
_KINDS: Final = {
    WRITES_ONLY: (WW, PASS),
    INFORMATION: (WW, WR, PASS),
    NO_ADJACENT_RW: (WW, WR, RW, PASS),
    ANY: (WW, WR, RW, PASS),
}


def cycle_of(graph: Graph, what: str, steps_max: int) -> list[int] | None:
    """A shortest cycle of the smallest strongly connected component, as indices of edges.

    ``what`` is one of the names above. None: there is no such cycle, which is certain.
    ``steps_max`` bounds the search for the shortest; then it is the shortest seen.
    """
    if not graph.source:
        return None
    source = numpy.array(graph.source, dtype=numpy.int64)
    target = numpy.array(graph.target, dtype=numpy.int64)
    kind = numpy.array(graph.kind, dtype=numpy.int64)
    edge = numpy.flatnonzero(numpy.isin(kind, _KINDS[what]))
    source, target, kind = source[edge], target[edge], kind[edge]
    nodes = graph.nodes
    if what == NO_ADJACENT_RW:
        reached = numpy.where(kind == RW, target + nodes, target)
        doubled = numpy.flatnonzero(kind != RW)
        onwards = numpy.where(kind == PASS, target + nodes, target)
        source = numpy.concatenate([source, source[doubled] + nodes])
        target = numpy.concatenate([reached, onwards[doubled]])
        edge = numpy.concatenate([edge, edge[doubled]])
        nodes *= 2
    inside = _smallest_component(nodes, source, target)
    if inside is None:
        return None
    return _shortest(source[inside], target[inside], edge[inside], steps_max)


def _smallest_component(nodes: int, source: Ids, target: Ids) -> Ids | None:
    """Positions of the edges within the smallest component of two or more nodes."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = numpy.ones(len(source))
    matrix = coo_array((ones, (source, target)), shape=(nodes, nodes))
    _, component = connected_components(matrix, directed=True, connection="strong")
    sizes = numpy.bincount(component)
    if sizes.max() < 2:
        return None
    smallest = numpy.argmin(numpy.where(sizes > 1, sizes, nodes + 1))
    return numpy.flatnonzero((component[source] == smallest) & (component[target] == smallest))


def _shortest(source: Ids, target: Ids, edge: Ids, steps_max: int) -> list[int]:
    """Breadth first from one node after another, as long as it may find a shorter one."""
    leaving: dict[int, list[tuple[int, int]]] = {}
    for start, end, which in zip(source.tolist(), target.tolist(), edge.tolist(), strict=True):
        leaving.setdefault(start, []).append((end, which))
    best: list[int] = []
    steps = 0
    for start in leaving:
        found, more = _around(leaving, start, len(best))
        best = found or best
        steps += more
        if len(best) == 2 or steps > steps_max:
            break
    return best


def _around(
    leaving: dict[int, list[tuple[int, int]]], start: int, limit: int
) -> tuple[list[int], int]:
    """A shortest cycle through ``start`` with fewer than ``limit`` edges (0: no limit)."""
    came: dict[int, tuple[int, int]] = {}
    queue = deque([(start, 0)])
    steps = 0
    while queue:
        node, depth = queue.popleft()
        if limit and depth + 1 >= limit:
            break
        for end, which in leaving[node]:
            steps += 1
            if end == start:
                path = [which]
                while node != start:
                    node, entered_by = came[node]
                    path.append(entered_by)
                return path[::-1], steps
            if end not in came:
                came[end] = (node, which)
                queue.append((end, depth + 1))
    return [], steps
