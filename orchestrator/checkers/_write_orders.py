"""Whether an order of the writes of each key explains a history: the cheap way to VALID.

A history of registers with unique values is sequentially consistent (Lamport, "How to Make a
Multiprocessor Computer That Correctly Executes Multiprocess Programs", 1979) iff the writes of
each key can be put in an order such that the following edges have no cycle: the order of the
sessions, every write to its reads, every write to the next one of its key, and every read to
the write after the one it saw (the initial value's reads to the first). Any topological order
is then legal; conversely a legal order has all those edges.

So an order of writes that somebody names, trusted or not, is checked in O(n): by recorded
versions (a key's own or those of the whole system, only the order within keys matters), by the
order in which a linearization would have them, by their effects in time. What is sequential is
causal in both forms and keeps all session guarantees, so those levels ask here first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy
from numpy.typing import NDArray

from orchestrator.checkers._clusters import AFTER_ALL_NS, changes
from orchestrator.checkers._operations import INITIAL, Operations, Rows
from orchestrator.core.machine import OK


def is_sequential(ops: Operations, uncertainty_ns: int = 0) -> bool:
    """True where one of the candidate orders proves it; False says nothing."""
    return any(explains(ops, rank) for rank in _candidates(ops, uncertainty_ns))


def explains(ops: Operations, rank: NDArray[numpy.int64]) -> bool:
    """Whether writes in the order of ``rank`` (over operations) make the history sequential."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    tails, heads = edges_of(ops, rank)
    if (tails == heads).any():
        return False
    count = len(ops)
    ones = numpy.ones(len(tails), dtype=numpy.int8)
    graph = coo_array((ones, (tails, heads)), (count, count)).tocsr()
    components, _ = connected_components(graph, directed=True, connection="strong")
    return int(components) == count


def edges_of(ops: Operations, rank: NDArray[numpy.int64]) -> tuple[Rows, Rows]:
    """Tails and heads of the edges that the module describes."""
    writes = numpy.flatnonzero(ops.is_write)
    writes = writes[numpy.lexsort((rank[writes], ops.key[writes]))]
    first_of_key = changes(ops.key[writes])
    following = numpy.full(len(ops), -1, dtype=numpy.int64)
    following[writes[:-1]] = numpy.where(first_of_key[1:], -1, writes[1:])
    first = numpy.full(ops.keys, -1, dtype=numpy.int64)
    first[ops.key[writes[first_of_key]]] = writes[first_of_key]
    late = numpy.flatnonzero(ops.before >= 0)
    reads = numpy.flatnonzero(~ops.is_write)
    source = ops.source[reads]
    seen = source >= 0
    replaced = numpy.where(seen, following[numpy.maximum(source, 0)], first[ops.key[reads]])
    tails = [ops.before[late], source[seen], writes, reads]
    heads = [late, reads[seen], following[writes], replaced]
    tail, head = numpy.concatenate(tails), numpy.concatenate(heads)
    there = head >= 0
    return tail[there], head[there]


def _candidates(ops: Operations, uncertainty_ns: int) -> Iterator[NDArray[numpy.int64]]:
    version = _versions(ops)
    if version is not None:
        yield version
    yield _zones(ops, 0)
    if uncertainty_ns > 0:
        yield _zones(ops, uncertainty_ns)
    yield first_return_ns(ops, 0)


def _versions(ops: Operations) -> NDArray[numpy.int64] | None:
    """Recorded versions; a write without one stands where its first reader was answered."""
    version = ops.history.version[ops.row].copy()
    if not (version[ops.is_write] > 0).any():
        return None
    reads = numpy.flatnonzero(~ops.is_write & (ops.source >= 0) & (version > 0))
    lacking = ops.is_write & (version <= 0)
    seen = numpy.full(len(ops), AFTER_ALL_NS, dtype=numpy.int64)
    numpy.minimum.at(seen, ops.source[reads], version[reads])
    version[lacking] = seen[lacking]
    return version


def first_return_ns(ops: Operations, uncertainty_ns: int) -> NDArray[numpy.int64]:
    """When each write or the first read of it had returned."""
    history = ops.history
    ok = history.outcome[ops.row] == OK
    returned_ns = numpy.where(ok, history.returned_ns[ops.row] + uncertainty_ns, AFTER_ALL_NS)
    first = returned_ns.copy()
    reads = numpy.flatnonzero(~ops.is_write & (ops.source >= 0))
    numpy.minimum.at(first, ops.source[reads], returned_ns[reads])
    return first


def _zones(ops: Operations, uncertainty_ns: int) -> NDArray[numpy.int64]:
    """Points at which the writes stand in a linearization, where there is one.

    In the terms of ``linearizable``: a forward zone at its left end; a backward zone at its left
    end, too, unless that lies inside a forward zone, after which it then stands.
    """
    invoked_ns = ops.history.invoked_ns[ops.row] - uncertainty_ns
    first = first_return_ns(ops, uncertainty_ns)
    last = invoked_ns.copy()
    reads = numpy.flatnonzero(~ops.is_write & (ops.source != INITIAL))
    numpy.maximum.at(last, ops.source[reads], invoked_ns[reads])
    writes = numpy.flatnonzero(ops.is_write)
    forward = first[writes] < last[writes]
    left = numpy.minimum(first[writes], last[writes])
    order = numpy.lexsort((forward, left, ops.key[writes]))
    writes, forward, left = writes[order], forward[order], left[order]
    # The forward zone of the same key that began last; they are disjoint in a legal history.
    latest = numpy.maximum.accumulate(numpy.where(forward, numpy.arange(len(writes)), -1))
    around = writes[numpy.maximum(latest, 0)]
    inside = ~forward & (latest >= 0) & (ops.key[around] == ops.key[writes]) & (left < last[around])
    point = numpy.zeros(len(ops), dtype=numpy.int64)
    point[writes] = numpy.where(inside, last[around], left)
    return point
