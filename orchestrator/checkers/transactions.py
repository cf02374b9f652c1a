"""Isolation levels of transactions, by the anomalies that they forbid.

The definitions are those of Adya, Liskov and O'Neil, "Generalized Isolation Level Definitions"
(ICDE 2000) and Adya's thesis (MIT, 1999); finding them in what clients saw is after Kingsbury
and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations" (VLDB 2020).
Version orders and dependencies: ``_transaction_graph``; cycles: ``_transaction_cycles``.

==================  ======================================================================
level               forbids
==================  ======================================================================
read_committed      values that nobody wrote, that an aborted transaction wrote (G1a), that
(PL-2)              their writer replaced (G1b), own writes that are not seen (internal),
                    orders that contradict each other; cycles of ww (G0), of ww and wr (G1c)
snapshot_isolation  also reads of one key that differ, lost updates, and every cycle in which
                    no two rw edges are adjacent, one rw edge (G-single) included
repeatable_read     also every cycle with rw edges, write skew included (G2-item)
(PL-2.99)
serializable        the same: it differs from PL-2.99 by reads of predicates, and a history
(PL-3)              has none
==================  ======================================================================

Snapshot isolation is what Cerone and Gotsman, "Analysing Snapshot Isolation" (JACM 2018),
characterise by dependencies, without an order of sessions or of real time: transactions may
read from any snapshot that contains what they depend on. No level here asks for real time.

**What an answer means.** Invalid: no order of versions and commits explains the history. Valid
is proven, with one exception:

* ``read_committed``: an order that follows ``ww`` and ``wr`` exists, and versions whose order is
  not known close no cycle in that order.
* ``serializable`` and ``repeatable_read``, lists: any order that follows the dependencies is a
  serial execution with the same reads, because before a reader come exactly the elements that
  it saw.
* The same, with registers: a serial order was found by ``_transaction_replay``; where neither
  that nor a contradiction is found, the answer is unknown.
* ``snapshot_isolation``: blind writes (values that nobody read before replacing them) may have
  come in any order, and are given the benefit of the doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from orchestrator.checkers._clusters import counted
from orchestrator.checkers._transaction_cycles import (
    ANY,
    CYCLES,
    INFORMATION,
    NO_ADJACENT_RW,
    WRITES_ONLY,
    cycle_of,
)
from orchestrator.checkers._transaction_graph import (
    ABORTED_READ,
    DUPLICATE,
    INCOMPATIBLE,
    INTERMEDIATE_READ,
    INTERNAL,
    LOST_UPDATE,
    REREAD,
    RW,
    UNWRITTEN,
    Anomaly,
    Graph,
    graph_of,
)
from orchestrator.checkers._transaction_record import record_of
from orchestrator.checkers._transaction_replay import has_serial_order
from orchestrator.checkers._transaction_words import cycle_text, links_of, members, witness_of
from orchestrator.core.history import History
from orchestrator.core.levels import (
    READ_COMMITTED,
    REPEATABLE_READ,
    SERIALIZABLE,
    SNAPSHOT_ISOLATION,
)
from orchestrator.core.models import TXN
from orchestrator.core.registry import Family, register
from orchestrator.core.verdict import INVALID, UNDECIDED, VALID, Evidence, Verdict

MODELS: Final = frozenset({TXN})

_NEVER: Final = (INTERNAL, UNWRITTEN, DUPLICATE, ABORTED_READ, INCOMPATIBLE, INTERMEDIATE_READ)
_READ_COMMITTED: Final = (*_NEVER, WRITES_ONLY, INFORMATION)
_SNAPSHOT: Final = (*_READ_COMMITTED, REREAD, LOST_UPDATE, NO_ADJACENT_RW)
_SERIAL: Final = (*_SNAPSHOT, ANY)
# Most basic first: the first one found is the one that is told.
FORBIDDEN: Final = {
    READ_COMMITTED: _READ_COMMITTED,
    SNAPSHOT_ISOLATION: _SNAPSHOT,
    REPEATABLE_READ: _SERIAL,
    SERIALIZABLE: _SERIAL,
}


@register(Family.CHECKER, READ_COMMITTED)
class ReadCommitted:
    """No dirty writes or reads: no G0, G1a, G1b, G1c."""

    models: ClassVar[frozenset[str]] = MODELS
    unique_values: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, params: Any) -> None:
        pass

    def check(self, history: History, evidence: Evidence) -> Verdict:
        """See the module."""
        return _check(history, READ_COMMITTED, evidence)


@register(Family.CHECKER, SNAPSHOT_ISOLATION)
class SnapshotIsolation:
    """Reads from one snapshot, and no lost updates: every cycle has two adjacent rw edges."""

    models: ClassVar[frozenset[str]] = MODELS
    unique_values: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, params: Any) -> None:
        pass

    def check(self, history: History, evidence: Evidence) -> Verdict:
        """See the module."""
        return _check(history, SNAPSHOT_ISOLATION, evidence)


@register(Family.CHECKER, REPEATABLE_READ)
class RepeatableRead:
    """No cycle of dependencies between reads and writes of items (G2-item)."""

    models: ClassVar[frozenset[str]] = MODELS
    unique_values: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, params: Any) -> None:
        pass

    def check(self, history: History, evidence: Evidence) -> Verdict:
        """See the module."""
        return _check(history, REPEATABLE_READ, evidence)


@register(Family.CHECKER, SERIALIZABLE)
class Serializable:
    """As if committed transactions had run one after another."""

    models: ClassVar[frozenset[str]] = MODELS
    unique_values: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, params: Any) -> None:
        pass

    def check(self, history: History, evidence: Evidence) -> Verdict:
        """See the module."""
        return _check(history, SERIALIZABLE, evidence)


def _check(history: History, level: str, evidence: Evidence) -> Verdict:
    record = record_of(history)
    graph = graph_of(record)

    def verdict(answer: str, text: str, witness: tuple[dict[str, Any], ...] = ()) -> Verdict:
        committed = sum(record.committed)
        return Verdict(answer, level, committed, len(record.keys), witness, text)

    names = FORBIDDEN[level]
    found = _first(graph, names, evidence)
    proven = True
    if found is None and ANY in names and not all(key.is_list for key in record.keys):
        proven = has_serial_order(graph, evidence.steps_max)
        found = None if proven else _first(graph, (ANY,), evidence)
    if found is not None:
        more = graph.counts.get(found.name, 1) - 1
        text = f"{found.name}: {found.text}."
        text += f" There {'is' if more == 1 else 'are'} {more} more of these." if more else ""
        return verdict(INVALID, text, witness_of(record, found.transactions))
    if not proven:
        return verdict(UNDECIDED, "Neither an anomaly nor a serial order was found.")
    size = f"{counted(sum(record.committed), 'transaction')}, {counted(len(record.keys), 'key')}"
    return verdict(VALID, f"There is no anomaly that {level} forbids ({size}).")


def _first(graph: Graph, names: Sequence[str], evidence: Evidence) -> Anomaly | None:
    for name in names:
        if name in graph.anomalies:
            return graph.anomalies[name]
        if name in CYCLES:
            cycle = cycle_of(graph, name, evidence.steps_max)
            if cycle is not None:
                return _told(graph, name, cycle)
    return None


def _told(graph: Graph, name: str, cycle: Sequence[int]) -> Anomaly:
    links = links_of(graph, cycle)
    if name == NO_ADJACENT_RW and sum(kind == RW for _, _, kind, _ in links) > 1:
        name = "G-nonadjacent (no two rw edges are adjacent)"
    return Anomaly(name, cycle_text(graph, links), members(graph, links))
