"""The order within sessions, where times alone do not show it.

A session's operations are a sequence even where the clock gives one's return and the next
one's invocation the same time (which is usual in virtual time), and even where intervals were
widened for the error of clocks. So a linearization has to respect that order too. It is no
longer an order of intervals, and two clusters that clash are no longer the only obstacle: the
clusters, with an edge wherever an operation of one precedes an operation of the other, must
have no cycle.

The edges that time gives, C -> D for f(C) < s(D), are too many to write down. They are carried
by a chain of nodes, one for each s in rising order, key after key: C points to the first node
above f(C), and each node points to its cluster and to the next node. Within a key, a path over
the chain from one cluster to the next is an edge and the reverse, so clusters lie on a cycle
exactly where a strongly connected component holds two of them. That takes O(n log n) to build
and O(n) to solve (Tarjan, "Depth-First Search and Linear Graph Algorithms", 1972).

Each key is decided by itself. Locality rests on intervals, so an order between keys that only
a session shows is not followed; that would be the problem of sequential consistency.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy

from orchestrator.checkers._clusters import (
    NO_ROW,
    Clusters,
    Rows,
    changes,
    name_of,
    value_name,
)
from orchestrator.core.machine import OK
from orchestrator.core.verdict import key_text


@dataclass(frozen=True)
class Cycle:
    """Clusters whose order contradicts itself; ``guilty`` holds clusters of all bad keys."""

    text: str
    witness: list[int]
    guilty: Rows


@dataclass(frozen=True)
class _Edges:
    """Consecutive operations of one session on one key, of the clusters ``tail`` and ``head``."""

    tail: Rows
    head: Rows
    tail_row: Rows
    head_row: Rows

    def select(self, chosen: numpy.typing.NDArray[numpy.bool_]) -> _Edges:
        return _Edges(
            self.tail[chosen], self.head[chosen], self.tail_row[chosen], self.head_row[chosen]
        )

    def rows(self, tail: int, head: int) -> tuple[int, int]:
        """The operations behind one edge."""
        at = int(numpy.flatnonzero((self.tail == tail) & (self.head == head))[0])
        return int(self.tail_row[at]), int(self.head_row[at])


def contradiction(clusters: Clusters) -> Cycle | None:
    """What breaks linearizability once sessions keep their order, given that times do not."""
    edges = _session_edges(clusters)
    return _own_future(clusters, edges) or _cycle(clusters, edges)


def _session_edges(clusters: Clusters) -> _Edges:
    history = clusters.history
    row = clusters.row
    order = numpy.lexsort((history.sequence[row], history.key[row], history.session[row]))
    row, cluster = row[order], clusters.cluster[order]
    together = ~changes(history.session[row], history.key[row])[1:]
    tail_row, head_row = row[:-1][together], row[1:][together]
    returned_ns = history.returned_ns[tail_row]
    ordered = (
        (history.outcome[tail_row] == OK)
        & (returned_ns >= 0)
        & (returned_ns <= history.invoked_ns[head_row])
    )
    return _Edges(cluster[:-1][together], cluster[1:][together], tail_row, head_row).select(ordered)


def _own_future(clusters: Clusters, edges: _Edges) -> Cycle | None:
    """A session that read a value and wrote it afterwards."""
    early = (edges.tail == edges.head) & (edges.head_row == clusters.write[edges.head])
    if not early.any():
        return None
    at = int(numpy.argmax(early))
    rows = [int(edges.tail_row[at]), int(edges.head_row[at])]
    text = (
        f"{name_of(clusters.history, rows[0], with_key=True)} returned "
        f"{value_name(clusters, int(edges.head[at]))}, which the session wrote afterwards."
    )
    return Cycle(text, rows, edges.head[early])


def _cycle(clusters: Clusters, edges: _Edges) -> Cycle | None:
    first, last = clusters.first_return_ns, clusters.last_invocation_ns
    edges = edges.select((edges.tail != edges.head) & (first[edges.tail] >= last[edges.head]))
    if len(edges.tail) == 0:
        return None
    opposed = first[edges.head] < last[edges.tail]
    if opposed.any():
        at = int(numpy.argmax(opposed))
        path, guilty = [int(edges.head[at]), int(edges.tail[at])], edges.head[opposed]
    else:
        path, guilty = _component(clusters, edges)
    return _told(clusters, edges, path, guilty) if path else None


def _component(clusters: Clusters, edges: _Edges) -> tuple[list[int], Rows]:
    """A cycle of clusters that ends with a session edge, and all clusters that lie on one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    chosen = numpy.flatnonzero(numpy.isin(clusters.key, clusters.key[edges.tail]))
    tail = numpy.searchsorted(chosen, edges.tail)
    head = numpy.searchsorted(chosen, edges.head)
    tails, heads = _time_edges(clusters, chosen)
    tails, heads = numpy.append(tails, tail), numpy.append(heads, head)
    shape = (2 * len(chosen), 2 * len(chosen))
    graph = coo_array((numpy.ones(len(tails), dtype=numpy.int8), (tails, heads)), shape).tocsr()
    _, component = connected_components(graph, directed=True, connection="strong")
    component = component[: len(chosen)]
    cyclic = numpy.bincount(component)[component] > 1
    closing = numpy.flatnonzero(component[tail] == component[head])
    if len(closing) == 0:
        return [], chosen[cyclic]
    start, node = int(head[closing[0]]), int(tail[closing[0]])
    _, before = breadth_first_order(graph, start, directed=True, return_predecessors=True)
    path = [node]
    while node != start:
        node = int(before[node])
        path.append(node)
    return [int(chosen[node]) for node in reversed(path) if node < len(chosen)], chosen[cyclic]


def _time_edges(clusters: Clusters, chosen: Rows) -> tuple[Rows, Rows]:
    """Edges over the chain; nodes below c are the chosen clusters, c + i the i-th chain node."""
    count = len(chosen)
    key, first = clusters.key[chosen], clusters.first_return_ns[chosen]
    last = clusters.last_invocation_ns[chosen]
    chain = numpy.lexsort((last, key))
    nodes = numpy.arange(count, 2 * count)
    # Merge both kinds of times; a chain node at the time of f itself stands before it.
    order = numpy.lexsort(
        (
            numpy.repeat([0, 1], count),
            numpy.concatenate([last[chain], first]),
            numpy.concatenate([key[chain], key]),
        )
    )
    is_chain = order < count
    position = numpy.cumsum(is_chain)[~is_chain]
    origin = order[~is_chain] - count
    reached = position < count
    # Edges on to the chain of a later key do no harm: none leads back.
    tails = numpy.concatenate([origin[reached], nodes[:-1], nodes])
    heads = numpy.concatenate([nodes[position[reached]], nodes[1:], chain])
    return tails, heads


def _told(clusters: Clusters, edges: _Edges, path: list[int], guilty: Rows) -> Cycle:
    history = clusters.history
    reasons, witness = [], [int(clusters.write[cluster]) for cluster in path]
    for tail, head in zip(path, [*path[1:], path[0]], strict=True):
        reason = f"{value_name(clusters, tail)} comes before {value_name(clusters, head)}"
        if clusters.write[tail] == NO_ROW:
            witness.append(clusters.last_invoked(tail))
            reasons.append(reason)
            continue
        if clusters.first_return_ns[tail] < clusters.last_invocation_ns[head]:
            before, after = clusters.first_to_return(tail), clusters.last_invoked(head)
        else:
            before, after = edges.rows(tail, head)
        witness += [before, after]
        because = f"{name_of(history, before)} was over before {name_of(history, after)} began"
        reasons.append(f"{reason}, because {because}")
    key = key_text(history, int(clusters.key[path[0]]))
    text = f"The values of key {key} cannot be put in an order: {'; '.join(reasons)}."
    return Cycle(text, [row for row in witness if row != NO_ROW], guilty)
