"""Linearizability of registers (Herlihy and Wing, TOPLAS 1990), decided in O(n log n).

Linearizability is local, so each key is a register of its own. Every written value is unique,
so a read names its write, which is the case with a known reads-from mapping of Gibbons and
Korach, "Testing Shared Memories" (SIAM J. Comput. 26(4), 1997), section 4. What follows is
their zone criterion, with a proof that also covers equal times and writes without an answer.

**Setting.** Operation a precedes b iff return(a) < invocation(b); equal times are concurrent.
A write without an answer that somebody read did take effect, at any time after its invocation:
its return is infinite. One that nobody read may be taken out of any legal order without harm
to a read, and put at the end of one without contradicting time, so it matters to nothing. The
initial value is a write that returned before all time. A cluster C is a write with its reads;
f(C) is its first return, s(C) its last invocation. In a legal order each cluster is one block,
its write first, because no other write may stand between a write and its reads.

**Criterion.** A key is linearizable iff (1) no read returned before its write was invoked, and
(2) no two clusters have f(C) < s(D) and f(D) < s(C).

*Necessary.* (1) is plain: the read would stand before its write. (2) f(C) < s(D) says that an
operation of C precedes one of D, so block C stands before block D; both cannot be.

*Sufficient.* Write C -> D for f(C) < s(D), with C = D allowed. If -> has no cycle through two
or more clusters, any order of the clusters that follows it, each with its write first (by (1))
and its reads by time, respects every precedence and is legal. Suppose a shortest cycle
C1 -> C2 -> ... -> Ck -> C1 had k > 2. From A -> B and C -> D follows A -> D or C -> B (compare
s(B) with s(D)). Applied to C1 -> C2 and C2 -> C3, this gives C1 -> C3, a shorter cycle, or
C2 -> C2. So C2 -> C2. Applied to that and C3 -> C4 (C4 = C1 if k = 3), it gives C2 -> C4, a
shorter cycle, or C3 -> C2, a cycle of two. Each contradicts the choice, so k = 2, which (2)
excludes.

**Zones.** A cluster with f < s is a forward zone [f, s], any other a backward zone [s, f]. In
(2) two backward zones never clash (f(C) < s(D) <= f(D) < s(C) <= f(C) is absurd); two forward
zones clash iff they overlap in more than a point; a forward and a backward zone clash iff the
backward one lies strictly inside. A pending write that nobody read is a backward zone without
end, inside of nothing, so it needs no special case. Sorted by left end, overlapping forward
zones are found between neighbours, and once there are none, only the last forward zone that
starts before a backward zone can contain it.

Where equal or widened times leave the order within a session open, ``_session_order`` adds it.

A witness is the operations that give f and s to the two clashing clusters, and their writes:
by (2) they are not linearizable by themselves.
"""

from __future__ import annotations

from typing import Any

import numpy

from orchestrator.checkers._clusters import (
    Clusters,
    Rows,
    clusters_of,
    counted,
    name_of,
    shared_verdict,
    up_to,
    value_name,
    verdict,
)
from orchestrator.checkers._session_order import contradiction
from orchestrator.core.history import History
from orchestrator.core.levels import LINEARIZABLE
from orchestrator.core.machine import READ
from orchestrator.core.registry import Family, register
from orchestrator.core.verdict import INVALID, VALID, Evidence, Verdict


@register(Family.CHECKER, LINEARIZABLE)
class Linearizable:
    """Each key behaves as one register that is read and written at single points of time."""

    def __init__(self, params: Any) -> None:
        pass

    def check(self, history: History, evidence: Evidence) -> Verdict:
        """Scans are not checked. Above 0, the uncertainty widens every operation both ways.

        Only the order within a session stays exact then: it needs no comparison of clocks.
        """
        clusters = clusters_of(history, evidence.uncertainty_ns)
        settled = shared_verdict(clusters, LINEARIZABLE)
        if settled is not None:
            return settled
        clashes = _clashes(clusters)
        if len(clashes):
            text, witness = _story(clusters, clashes[0])
            guilty = clashes[:, 0]
            return verdict(clusters, LINEARIZABLE, INVALID, text, witness=witness, guilty=guilty)
        cycle = contradiction(clusters)
        if cycle is not None:
            return verdict(
                clusters,
                LINEARIZABLE,
                INVALID,
                cycle.text,
                witness=cycle.witness,
                guilty=cycle.guilty,
            )
        size = f"{counted(len(clusters.row), 'operation')} on {counted(clusters.keys, 'key')}"
        text = f"The history is linearizable{up_to(clusters)} ({size})."
        return verdict(clusters, LINEARIZABLE, VALID, text)


def _clashes(clusters: Clusters) -> Rows:
    """Pairs of clashing clusters, shape (p, 2), the earliest first; at least one a bad key."""
    first, last = clusters.first_return_ns, clusters.last_invocation_ns
    is_forward = first < last
    # At equal left ends a backward zone is not strictly inside, so it is sorted first.
    order = numpy.lexsort((is_forward, numpy.minimum(first, last), clusters.key))
    forward = order[is_forward[order]]
    overlapping = (clusters.key[forward[1:]] == clusters.key[forward[:-1]]) & (
        first[forward[1:]] < last[forward[:-1]]
    )
    overlaps = numpy.stack([forward[:-1][overlapping], forward[1:][overlapping]], axis=1)
    if len(forward) == 0:
        return overlaps
    before = numpy.cumsum(is_forward[order]) - 1
    around = forward[numpy.maximum(before, 0)]
    inside = (
        ~is_forward[order]
        & (before >= 0)
        & (clusters.key[around] == clusters.key[order])
        & (first[order] < last[around])
    )
    containments = numpy.stack([around[inside], order[inside]], axis=1)
    found = numpy.concatenate([overlaps, containments])
    return found[numpy.argsort(first[found].max(axis=1), kind="stable")]


def _story(clusters: Clusters, clash: Rows) -> tuple[str, list[int]]:
    """Why two clusters clash, told from the side of the later read, and the witness's rows."""
    history = clusters.history
    # One of the two was invoked last by a read: were both writes, neither could have returned
    # before the other began. Nothing of the initial value is known to return but its reads.
    stale, fresh = sorted(
        (int(cluster) for cluster in clash),
        key=lambda cluster: (
            clusters.write[cluster] >= 0,
            history.kind[clusters.last_invoked(cluster)] != READ,
            -clusters.last_invocation_ns[cluster],
        ),
    )
    read, shown = clusters.last_invoked(stale), clusters.first_to_return(fresh)
    opening = f"{name_of(history, read, with_key=True)} returned {value_name(clusters, stale)}"
    witness = [read, shown]
    text = f"{opening}, but {_evidence(clusters, fresh, shown)} before that read began"
    if clusters.write[stale] >= 0 and clusters.write[fresh] >= 0:
        earlier, later = clusters.first_to_return(stale), clusters.last_invoked(fresh)
        witness += [earlier, later]
        text += (
            f", and that is the newer value: {_evidence(clusters, stale, earlier)} "
            f"before {name_of(history, later)} began"
        )
    witness += [int(clusters.write[cluster]) for cluster in (stale, fresh)]
    return text + ".", [row for row in witness if row >= 0]


def _evidence(clusters: Clusters, cluster: int, row: int) -> str:
    name = name_of(clusters.history, row)
    if row == clusters.write[cluster]:
        return f"{name} had returned"
    return f"{name} had returned {value_name(clusters, cluster)}"
