"""Cycles of dependencies told edge by edge, and transactions as a history file has them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from orchestrator.checkers._transaction_graph import PASS, RW, WR, Graph, shown
from orchestrator.checkers._transaction_record import Key, Record
from orchestrator.core.history import PHASE_NAMES
from orchestrator.core.machine import KIND_NAMES, OUTCOME_NAMES

Link = tuple[int, int, int, int]
"""A transaction, the next one of the cycle, the kind of edge, the index of the key."""


def links_of(graph: Graph, cycle: Sequence[int]) -> list[Link]:
    """The cycle's edges between transactions: one that passes on is joined with the one before.

    They start at the earliest transaction of the history.
    """
    edges = [(graph.source[e], graph.target[e], graph.kind[e], graph.key[e]) for e in cycle]
    # A cycle never consists of passing edges only, and none follows another.
    start = next(at for at, edge in enumerate(edges) if edge[2] != PASS)
    links: list[Link] = []
    for source, target, kind, key in edges[start:] + edges[:start]:
        if kind == PASS:
            before, _, kind_before, _ = links.pop()
            links.append((before, target, kind_before, key))
        else:
            links.append((source, target, kind, key))
    first = links.index(min(links))
    return links[first:] + links[:first]


def cycle_text(graph: Graph, links: Sequence[Link]) -> str:
    """``T1 (session 0's txn #2) wrote x = 1, which T2 (session 1's txn #0) read; T2 ...``"""
    names: dict[int, str] = {}

    def name(transaction: int) -> str:
        if transaction in names:
            return names[transaction]
        names[transaction] = f"T{len(names) + 1}"
        return f"{names[transaction]} ({graph.record.name(transaction)})"

    return "; ".join(_edge_text(graph, link, name(link[0]), name(link[1])) for link in links)


def _edge_text(graph: Graph, link: Link, first: str, second: str) -> str:
    source, target, kind, index = link
    key, order = graph.record.keys[index], graph.order[index]
    if kind == WR:
        value = next(
            value for value in _read(key, target) if key.writer.get(_newest(key, value)) == source
        )
        if key.is_list:
            appended = _newest(key, value)
            return f"{first} appended {appended!r} to {key.name}, and {second} read {shown(value)}"
        return f"{first} wrote {key.name} = {shown(value)}, which {second} read"
    if kind == RW:
        value, missed = _missed(key, order, source, target)
        verb = "appended" if key.is_list else "wrote"
        text = (
            f"{first} read {key.name} = {shown(value)}, older than the {missed!r} "
            f"that {second} {verb}"
        )
        path = _reason(graph, link)
        return f"{text}, who comes after {graph.record.name(path[0])}" if path else text
    earlier, later = _successive(key, order, source, target)
    if key.is_list:
        unseen = "" if later in order else ", which is not in the longest read"
        return f"{first} appended {earlier!r} to {key.name} before {second} {later!r}{unseen}"
    path = _reason(graph, link)
    if path:
        return (
            f"{first} wrote {key.name} = {earlier!r} before {second} wrote {later!r}, because "
            f"{graph.record.name(path[-1])} read that and comes after {first.partition(' ')[0]}"
        )
    if earlier in _read(key, target):
        return f"{first} wrote {key.name} = {earlier!r}, which {second} replaced by {later!r}"
    return f"{first} loaded {key.name} = {earlier!r} before {second} wrote {later!r}"


def _reason(graph: Graph, link: Link) -> tuple[int, ...]:
    """The path of dependencies by which a replay learned the edge; else nothing."""
    source, target, _, index = link
    for edge, path in graph.because.items():
        if (graph.source[edge], graph.target[edge], graph.key[edge]) == (source, target, index):
            return path
    return ()


def members(graph: Graph, links: Sequence[Link]) -> tuple[int, ...]:
    """The transactions of the cycle, and those that explain its edges, and so on."""
    learned: dict[tuple[int, int], list[int]] = {}
    for edge in graph.because:
        learned.setdefault((graph.source[edge], graph.target[edge]), []).append(edge)
    todo = [(source, target) for source, target, *_ in links]
    nodes = dict.fromkeys(source for source, _ in todo)
    while todo:
        for edge in learned.pop(todo.pop(), ()):
            path = graph.because[edge]
            nodes |= dict.fromkeys(path)
            todo += pairwise(path)
    return tuple(node for node in nodes if node < len(graph.record.row))


def _newest(key: Key, value: Any) -> Any:
    """The version that a read saw, by the value that made it."""
    if not key.is_list:
        return value
    return value[-1] if value else None


def _read(key: Key, transaction: int) -> list[Any]:
    return [value for reader, value in key.reads if reader == transaction]


def _written(key: Key, transaction: int) -> list[Any]:
    return [value for value, writer in key.writer.items() if writer == transaction]


def _missed(key: Key, order: Sequence[Any], reader: int, writer: int) -> tuple[Any, Any]:
    """What the reader read, and what the writer wrote later."""
    written, read = _written(key, writer), _read(key, reader)
    if not key.is_list:
        return read[0], written[-1]
    for value in read:
        if len(value) < len(order) and order[len(value)] in written:
            return value, order[len(value)]
    return max(read, key=len), next(one for one in written if one not in order)


def _successive(key: Key, order: Sequence[Any], first: int, second: int) -> tuple[Any, Any]:
    """A value of the first writer and a later one of the second."""
    earlier, later = _written(key, first), _written(key, second)
    if not key.is_list:
        return earlier[-1], later[-1]
    for one, other in pairwise(order):
        if one in earlier and other in later:
            return one, other
    return order[-1], next(one for one in later if one not in order)


def witness_of(record: Record, transactions: Sequence[int]) -> tuple[dict[str, Any], ...]:
    """The transactions with the field names of the history file, ordered by invocation."""
    history = record.history
    witness = []
    for row, transaction in sorted(
        {(record.row[transaction], transaction) for transaction in transactions},
        key=lambda pair: (int(history.invoked_ns[pair[0]]), pair),
    ):
        returned_ns = int(history.returned_ns[row])
        witness.append(
            {
                "session": int(history.session[row]),
                "sequence": int(history.sequence[row]),
                "op": KIND_NAMES[int(history.kind[row])],
                "ops": [
                    {"op": op, "key": _text(name), "value": value}
                    for op, name, value in record.operations[transaction]
                ],
                "invoked_ns": int(history.invoked_ns[row]),
                "returned_ns": None if returned_ns < 0 else returned_ns,
                "status": OUTCOME_NAMES[int(history.outcome[row])],
                "node": int(history.node[row]),
                "phase": PHASE_NAMES[int(history.phase[row])],
            }
        )
    return tuple(witness)


def _text(name: Any) -> Any:
    return name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name
