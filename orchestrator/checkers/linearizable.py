"""Linearizability (Herlihy and Wing, TOPLAS 1990), of registers in O(n log n).

Linearizability is local, so each key is an object of its own. What is not a register that is
read and written with unique values is searched (``_objects``, ``_search``), unless its versions
show an order by themselves (``_version_order``). Where values are unique, a read names its write,
which is the case with a known reads-from mapping of Gibbons and Korach, "Testing Shared Memories"
(SIAM J. Comput. 26(4), 1997), section 4. What follows is their zone criterion, with a proof that
also covers equal times and writes without an answer.

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

from typing import Any, ClassVar

import numpy
from numpy.typing import NDArray

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
from orchestrator.checkers._objects import counting, judge, objects
from orchestrator.checkers._session_order import contradiction
from orchestrator.checkers._version_order import explained
from orchestrator.core.history import PRELOADED, History
from orchestrator.core.levels import LINEARIZABLE
from orchestrator.core.machine import FAIL, READ, SCAN, WRITE
from orchestrator.core.models import CAS_REGISTER, KV, MODELS, REGISTER, TXN
from orchestrator.core.registry import Family, register
from orchestrator.core.verdict import INVALID, UNDECIDED, VALID, Evidence, Verdict, operation


@register(Family.CHECKER, LINEARIZABLE)
class Linearizable:
    """Each key behaves as one object that is used at single points of time."""

    models: ClassVar[frozenset[str]] = frozenset(MODELS) - {TXN}
    unique_values: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, params: Any) -> None:
        pass

    def check(self, history: History, evidence: Evidence) -> Verdict:
        """Scans are not checked. Above 0, the uncertainty widens every operation both ways.

        Only the order within a session stays exact then: it needs no comparison of clocks.
        """
        if history.values is None and evidence.model == REGISTER:
            return _check_registers(history, evidence)
        if history.values is None and evidence.model != CAS_REGISTER:
            text = (
                f"A run records which write was read, and not the contents of a {evidence.model}."
            )
            return Verdict(UNDECIDED, LINEARIZABLE, len(history), 0, (), text)
        searched = _searched_keys(history, evidence)
        plain = _check_registers(history.select(~searched[history.key]), evidence)
        if plain.verdict == INVALID or not searched.any():
            return plain
        return _check_objects(history, evidence, searched, plain)


def _searched_keys(history: History, evidence: Evidence) -> NDArray[numpy.bool_]:
    """Which keys are more than registers that are read and written with unique values."""
    searched = numpy.zeros(len(history.key_names), dtype=numpy.bool_)
    if evidence.model not in {REGISTER, CAS_REGISTER, KV}:
        searched[:] = True
        return searched
    more = ~numpy.isin(history.kind, (READ, WRITE, SCAN)) & counting(history, evidence)
    searched[history.key[more]] = True
    rows = numpy.flatnonzero((history.kind == WRITE) & (history.outcome != FAIL))
    key, value = history.key[rows], history.value_id[rows]
    searched[key[value == PRELOADED]] = True
    order = numpy.lexsort((value, key))
    key, value = key[order], value[order]
    again = (key[1:] == key[:-1]) & (value[1:] == value[:-1])
    searched[key[1:][again]] = True
    return searched


def _check_objects(
    history: History, evidence: Evidence, searched: NDArray[numpy.bool_], plain: Verdict
) -> Verdict:
    """The keys that have to be searched, with the verdict on the others."""
    rows = numpy.flatnonzero(counting(history, evidence) & searched[history.key])
    steps, operations, keys = evidence.steps_max, plain.operations, plain.keys
    if evidence.model in {REGISTER, CAS_REGISTER}:
        ordered = explained(history, rows, evidence.uncertainty_ns)
        left = ~numpy.isin(history.key[rows], ordered)
        operations, keys = operations + int((~left).sum()), keys + len(ordered)
        rows = rows[left]
    undecided = ""
    for key, items in objects(history, rows, evidence.uncertainty_ns):
        judged = judge(history, key, items, evidence, max(1, steps))
        steps -= judged.steps
        operations, keys = operations + len(items), keys + 1
        if judged.linearizable is False:
            witness = tuple(operation(history, row) for row in judged.witness)
            text = judged.text[0].upper() + judged.text[1:]
            return Verdict(INVALID, LINEARIZABLE, operations, keys, witness, text)
        if judged.linearizable is None:
            undecided = undecided or judged.text
    if undecided:
        return Verdict(UNDECIDED, LINEARIZABLE, operations, keys, (), undecided)
    size = f"{counted(operations, 'operation')} on {counted(keys, 'key')}"
    text = f"The history is linearizable ({size})."
    return Verdict(VALID, LINEARIZABLE, operations, keys, (), text)


def _check_registers(history: History, evidence: Evidence) -> Verdict:
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
