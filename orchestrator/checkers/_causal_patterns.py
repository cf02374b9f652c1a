"""What no causally consistent history may show, whichever the variant.

The bad patterns of Bouajjani, Enea, Guerraoui and Hamza, "On Verifying Causal Consistency"
(POPL 2017), for histories in which every value is written once: CyclicCO (causes in a circle),
WriteCOInitRead (the initial value after a write to the key was known) and WriteCORead (a value
after a newer one was known). A history without them, and without values out of thin air, is
weakly causally consistent (CC); CCv and CM forbid one more pattern each.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy

from orchestrator.checkers._causality import (
    Causality,
    causal_path,
    causality_of,
    newest_known,
    topological,
)
from orchestrator.checkers._operations import INITIAL, Operations, Rows
from orchestrator.core.levels import (
    MONOTONIC_READS,
    MONOTONIC_WRITES,
    READ_YOUR_WRITES,
    WRITES_FOLLOW_READS,
)

# Which guarantee carries knowledge from one operation of a session to a later one.
_CARRIERS = {
    (True, False): READ_YOUR_WRITES,
    (False, False): MONOTONIC_READS,
    (True, True): MONOTONIC_WRITES,
    (False, True): WRITES_FOLLOW_READS,
}


@dataclass(frozen=True)
class Pattern:
    """A bad pattern: why, the operations that show it, the session guarantees that it uses."""

    text: str
    witness: list[int]
    guarantees: tuple[str, ...]


@dataclass(frozen=True)
class Conflicts:
    """Writes that a causal history orders: ``read`` knew ``early``, but returned ``late``.

    ``early`` and ``late`` write one key and neither is known to precede the other. Per ``late``
    and chain only the newest ``early`` is listed.
    """

    early: Rows
    late: Rows
    read: Rows


def weakly_causal(ops: Operations) -> Pattern | tuple[Causality, Conflicts]:
    """The first bad pattern, or the causal order and what it leaves to the variants."""
    order, stuck = topological(ops)
    if stuck:
        return circle(ops, stuck)
    causal = causality_of(ops, order)
    columns = causal.column[ops.chain]
    broken: list[tuple[Rows, Rows]] = []
    open_pairs: list[tuple[Rows, Rows]] = []
    for reads, known in newest_known(
        ops, causal.clock, causal.column, numpy.flatnonzero(ops.is_write)
    ):
        source = ops.source[reads]
        late = numpy.maximum(source, 0)
        bad = (source == INITIAL) | (causal.clock[known, columns[late]] > ops.position[late])
        if bad.any():
            broken.append((reads[bad], known[bad]))
            continue
        free = causal.clock[late, columns[known]] <= ops.position[known]
        kept = numpy.flatnonzero(free)
        kept = kept[_last_of_each(known[kept], source[kept])]
        open_pairs.append((reads[kept], known[kept]))
    if broken:
        reads, known = (numpy.concatenate(part) for part in zip(*broken, strict=True))
        first = int(numpy.argmin(ops.history.invoked_ns[ops.row[reads]]))
        return _hidden(ops, int(known[first]), int(reads[first]))
    nothing = numpy.empty(0, dtype=numpy.int64)
    reads = numpy.concatenate([nothing, *(pair[0] for pair in open_pairs)])
    known = numpy.concatenate([nothing, *(pair[1] for pair in open_pairs)])
    return causal, Conflicts(early=known, late=ops.source[reads], read=reads)


def _last_of_each(known: Rows, source: Rows) -> Rows:
    """Positions of the largest ``known`` for each source."""
    order = numpy.lexsort((known, source))
    last = numpy.ones(len(order), dtype=numpy.bool_)
    last[:-1] = source[order][1:] != source[order][:-1]
    return order[last]


def circle(ops: Operations, stuck: list[int]) -> Pattern:
    """A circle of chains, each waiting for a write that stands behind the next one's wait."""
    waits = {int(ops.chain[index]): index for index in stuck}

    def needed(index: int) -> int:
        source = int(ops.source[index])
        behind = not ops.is_write[index] and source >= 0
        if behind and source >= waits.get(int(ops.chain[source]), len(ops)):
            return source
        return int(ops.before[index])

    at, seen = stuck[0], list[int]()
    while at not in seen:
        seen.append(at)
        at = waits[int(ops.chain[needed(at)])]
    round_trip = seen[seen.index(at) :]
    witness = [one for index in round_trip for one in (index, needed(index))]
    if len(round_trip) == 1:
        text = (
            f"{ops.name(round_trip[0])} returned {ops.value_name(round_trip[0])}, "
            "which the session wrote afterwards."
        )
        return Pattern(text, witness, (WRITES_FOLLOW_READS,))
    parts = [
        f"{ops.name(index)} returned {ops.value_name(index)}"
        for index in round_trip
        if ops.source[index] == needed(index)
    ]
    text = f"Causes run in a circle: {'; '.join(parts)}; each of these writes came after a read."
    return Pattern(text, witness, (WRITES_FOLLOW_READS,))


def _hidden(ops: Operations, known: int, read: int) -> Pattern:
    """A read that returned something older than a write that it causally follows."""
    path = causal_path(ops, known, read)
    witness = list(path)
    guarantees = carriers(ops, path)
    text = (
        f"{ops.name(read)} returned {ops.value_name(read)}, though it follows "
        f"{ops.name(known, with_key=False)} ({steps(ops, path)})"
    )
    source = int(ops.source[read])
    if source != INITIAL:
        before = causal_path(ops, source, known)
        witness += before
        guarantees += carriers(ops, before)
        text += f", and that write is newer ({steps(ops, before)})"
    return Pattern(text + ".", witness, tuple(dict.fromkeys(guarantees)))


def carriers(ops: Operations, path: list[int]) -> tuple[str, ...]:
    """The session guarantees by which a path of causes runs."""
    return tuple(
        _CARRIERS[bool(ops.is_write[one]), bool(ops.is_write[two])]
        for one, two in pairwise(path)
        if not _read_from(ops, one, two)
    )


def steps(ops: Operations, path: list[int]) -> str:
    """``session 1's write #1, then its write #2, which session 2's read #1 returned``."""
    text = ops.name(path[0])
    for one, two in pairwise(path):
        if _read_from(ops, one, two):
            text += f", which {ops.name(two)} returned"
        else:
            text += f", then {ops.name(two)}"
    return text


def _read_from(ops: Operations, one: int, two: int) -> bool:
    return bool(not ops.is_write[two] and ops.source[two] == one and ops.is_write[one])
