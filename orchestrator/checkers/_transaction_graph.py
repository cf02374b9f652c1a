"""Version orders of keys, what contradicts itself in them, and the dependencies they imply.

After Adya, Liskov and O'Neil, "Generalized Isolation Level Definitions" (ICDE 2000): between
committed transactions, ``ww`` leads from the writer of a version to that of a later one, ``wr``
from a writer to its reader, and ``rw`` (an anti-dependency) from the reader of a version to the
writer of a later one. Only what every possible version order has in common is added, so
whatever is found is there.

* **Lists.** A read shows the whole order up to the version it saw, so all reads of a key are
  prefixes of the longest. Appends that committed but are in no read come after all of it, in an
  order of their own that is not known.
* **Registers.** The initial value comes before all others (the value of the preload after
  that), and the value that a transaction read before the one that it wrote: the other way round
  would be a cycle of ``ww`` and ``wr``, which no level allows (G1c).

A later version need not be the next one. Then a ``ww`` or ``rw`` stands for that edge to the
next version's writer and ``ww`` edges from there on, and so never hides or adds an ``rw``.

Where many transactions precede the same many ones, a node of no transaction stands between
them (``PASS`` leads on from it and takes over the kind of the edge before).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from orchestrator.checkers._transaction_record import Key, Record
from orchestrator.core.machine import FAIL

WW: Final = 0
WR: Final = 1
RW: Final = 2
PASS: Final = 3

# Names of anomalies, the phenomena of Adya where they have one.
INTERNAL: Final = "internal"
UNWRITTEN: Final = "unwritten read"
DUPLICATE: Final = "duplicate element"
ABORTED_READ: Final = "G1a (aborted read)"
INTERMEDIATE_READ: Final = "G1b (intermediate read)"
INCOMPATIBLE: Final = "incompatible order"
REREAD: Final = "G-single (non-repeatable read)"
LOST_UPDATE: Final = "G-single (lost update)"


@dataclass(frozen=True)
class Anomaly:
    """The first one of its name, and how many there are."""

    name: str
    text: str
    transactions: tuple[int, ...]


@dataclass
class Graph:
    """Dependencies as parallel lists; nodes from ``len(record.row)`` on are no transactions.

    ``key`` indexes ``record.keys``. ``order`` holds the known version order of each list.
    ``because`` explains edges that a replay learned: the nodes of a path of dependencies from
    the edge's source to a reader of the version that its target wrote.
    """

    record: Record
    nodes: int
    source: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    key: list[int] = field(default_factory=list)
    order: list[tuple[Any, ...]] = field(default_factory=list)
    because: dict[int, tuple[int, ...]] = field(default_factory=dict)
    anomalies: dict[str, Anomaly] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, source: int, target: int, kind: int, key: int) -> None:
        """One edge; a transaction does not depend on itself."""
        if source != target:
            self.source.append(source)
            self.target.append(target)
            self.kind.append(kind)
            self.key.append(key)

    def found(self, name: str, transactions: Sequence[int], text: str) -> None:
        """Note an anomaly that is no cycle; the first of each name is kept."""
        self.counts[name] = self.counts.get(name, 0) + 1
        if name not in self.anomalies:
            self.anomalies[name] = Anomaly(name, text, tuple(dict.fromkeys(transactions)))


def graph_of(record: Record) -> Graph:
    """Everything that is certain of the committed transactions."""
    graph = Graph(record, len(record.row))
    for index, key in enumerate(record.keys):
        _own_values(graph, key)
        order = _order_of(graph, key) if key.is_list else ()
        graph.order.append(order)
        if key.is_list:
            _list_edges(graph, index, key, order)
        else:
            _register_edges(graph, index, key)
    return graph


def shown(value: Any) -> str:
    """A value in words, long lists by their end."""
    if value is None or value == ():
        return "nothing"
    if isinstance(value, tuple):
        ellipsis = ["..."] if len(value) > 5 else []
        return "[" + ", ".join([*ellipsis, *(repr(one) for one in value[-5:])]) + "]"
    return repr(value)


# --- what needs no cycle ----------------------------------------------------------------


def _own_values(graph: Graph, key: Key) -> None:
    """Own writes must be seen, and reads must not change without one."""
    name = graph.record.name
    for reader, value, own in key.own_reads:
        kept = value[-len(own) :] == own if key.is_list else value == own[-1]
        if not kept:
            wanted = f"a list that ends with {shown(own)}" if key.is_list else shown(own[-1])
            graph.found(
                INTERNAL,
                (reader,),
                f"{name(reader)} read {key.name} = {shown(value)} after its own "
                f"{key.writes_by}, which makes it {wanted}",
            )
    for reader, value, later in key.rereads:
        graph.found(
            REREAD,
            (reader,),
            f"{name(reader)} read {key.name} = {shown(value)}, then {shown(later)}, though it "
            "did not write in between",
        )


def _known(graph: Graph, key: Key, reader: int, value: Any, read: Any) -> bool:
    """Whether a committed transaction wrote ``value``; what it was read in is ``read``."""
    name = graph.record.name
    saw = f"{name(reader)} read {key.name} = {shown(read)}"
    what = "it" if value == read else shown(value)
    writer = key.writer.get(value)
    if writer is None:
        graph.found(UNWRITTEN, (reader,), f"{saw}, but nobody wrote {what}")
        return False
    if graph.record.outcome[writer] == FAIL:
        text = f"{saw}, but {name(writer)}, which wrote {what}, aborted"
        if isinstance(read, tuple) and read[-1] != value:
            text += f"; {name(key.writer.get(read[-1], writer))}'s update rests on it"
        graph.found(ABORTED_READ, (writer, reader), text)
        return False
    return True


def _final(graph: Graph, key: Key, reader: int, value: Any, read: Any) -> None:
    """``value``, the newest part of ``read``, must be the last that its writer wrote."""
    writer = key.writer[value]
    name = graph.record.name
    saw = f"{name(reader)} read {key.name} = {shown(read)}"
    if writer == reader:
        text = f"{saw} before it wrote {shown(value)} itself"
        graph.found(INTERNAL, (reader,), text)
    elif value in key.replaced:
        text = f"{saw}, but {name(writer)} wrote {shown(key.replaced[value])} after that"
        graph.found(INTERMEDIATE_READ, (writer, reader), text)


def _order_of(graph: Graph, key: Key) -> tuple[Any, ...]:
    """The longest read of a list; what others read otherwise is an anomaly."""
    reads = list(key.all_reads())
    longest_reader, longest = max(reads, key=lambda read: len(read[1]), default=(-1, ()))
    strays = [(reader, value) for reader, value in reads if longest[: len(value)] != value]
    name = graph.record.name
    for reader, value in [(longest_reader, longest), *strays]:
        known = [_known(graph, key, reader, element, value) for element in value]
        if len(set(value)) < len(value):
            twice = next(one for at, one in enumerate(value) if one in value[:at])
            text = f"{name(reader)} read {key.name} = {shown(value)}, with {shown(twice)} twice"
            graph.found(DUPLICATE, (reader, key.writer.get(twice, reader)), text)
        elif value is not longest and all(known):
            text = (
                f"{name(longest_reader)} read {key.name} = {shown(longest)}, {name(reader)} "
                f"{shown(value)}, and neither is the beginning of the other"
            )
            graph.found(INCOMPATIBLE, (longest_reader, reader), text)
    place = {element: at for at, element in enumerate(longest)}
    for first, second in key.replaced.items():
        if second in place and place.get(first, len(longest)) > place[second]:
            writer = key.writer[first]
            text = (
                f"{name(longest_reader)} read {key.name} = {shown(longest)}, but "
                f"{name(writer)} appended {shown(first)} before {shown(second)}"
            )
            graph.found(INCOMPATIBLE, (longest_reader, writer), text)
    for reader, value in key.reads:
        if value and value[-1] in key.writer:
            _final(graph, key, reader, value[-1], value)
    return longest


# --- edges ------------------------------------------------------------------------------


def _list_edges(graph: Graph, index: int, key: Key, order: tuple[Any, ...]) -> None:
    writers = [key.writer.get(element, -1) for element in order]
    if -1 in writers:
        return
    for earlier, later in pairwise(writers):
        graph.add(earlier, later, WW, index)
    committed = graph.record.committed
    observed = set(order)
    unseen = [
        writer
        for value, writer in key.writer.items()
        if committed[writer] and value not in observed
    ]
    updates: dict[int, list[int]] = {}
    appended = {writer for writer in key.writer.values() if committed[writer]}
    newest = []
    for reader, value in key.reads:
        length = len(value)
        if length:
            graph.add(writers[length - 1], reader, WR, index)
        if length < len(order):
            graph.add(reader, writers[length], RW, index)
        else:
            newest.append(reader)
        if reader in appended:
            updates.setdefault(length, []).append(reader)
    for length, updaters in updates.items():
        _lost_updates(graph, key, order[:length], updaters)
    _precede(graph, index, writers[-1:], newest, unseen)


def _register_edges(graph: Graph, index: int, key: Key) -> None:
    record = graph.record
    final = {
        writer: value
        for value, writer in key.writer.items()
        if record.committed[writer] and value not in key.replaced
    }
    preloads = [writer for writer in final if record.load[writer]]
    base = final[preloads[0]] if len(preloads) == 1 else None
    later = [writer for writer in final if base is None or writer != preloads[0]]
    readers: dict[Any, list[int]] = {}
    for reader, value in key.reads:
        if value is None:
            readers.setdefault(None, []).append(reader)
        elif _known(graph, key, reader, value, value):
            _final(graph, key, reader, value, value)
            graph.add(key.writer[value], reader, WR, index)
            readers.setdefault(value, []).append(reader)
    for value, saw in readers.items():
        updaters = [reader for reader in saw if reader in final]
        _lost_updates(graph, key, value, updaters)
        for updater in updaters if value is not None else ():
            graph.add(key.writer[value], updater, WW, index)
        # More than one is a lost update, found already wherever an rw matters.
        for reader in saw if updaters else ():
            graph.add(reader, updaters[0], RW, index)
        if value is None and base is not None:
            for reader in saw:
                graph.add(reader, preloads[0], RW, index)
    _precede(graph, index, preloads[:1] if base is not None else (), readers.get(base, []), later)


def _lost_updates(graph: Graph, key: Key, version: Any, updaters: Iterable[int]) -> None:
    """Of two that read one version and replaced it, the later missed the earlier."""
    distinct = list(dict.fromkeys(updaters))
    if len(distinct) < 2:
        return
    names = " and ".join(graph.record.name(updater) for updater in distinct[:2])
    text = f"{names} both read {key.name} = {shown(version)}, and both replaced it"
    graph.found(LOST_UPDATE, distinct[:2], text)


def _precede(
    graph: Graph, index: int, writers: Sequence[int], readers: Sequence[int], later: Sequence[int]
) -> None:
    """The writer (none or one) and the readers of a version before all writers of later ones."""
    if not later:
        return
    targets = dict.fromkeys(later)
    middle = graph.nodes
    graph.nodes += 1
    for target in targets:
        graph.add(middle, target, PASS, index)
    # Through the middle, a writer of a later version would come before itself.
    inside = [(writer, WW) for writer in writers if writer in targets]
    inside += [(reader, RW) for reader in readers if reader in targets][:1]
    for source, kind in inside:
        for target in targets:
            graph.add(source, target, kind, index)
    for source, kind in [*((writer, WW) for writer in writers), *((one, RW) for one in readers)]:
        if source not in targets:
            graph.add(source, middle, kind, index)
