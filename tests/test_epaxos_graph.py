"""In which order EPaxos executes, and what interferes."""

from __future__ import annotations

from orchestrator.core.machine import (
    READ,
    SCAN,
    WRITE,
    Op,
)
from orchestrator.protocols._epaxos_graph import Graph
from orchestrator.protocols._epaxos_instances import Instance, Interference, Row, interfere
from orchestrator.protocols._epaxos_messages import (
    COMMITTED,
    EXECUTED,
)

WRITTEN = Op(1, 1, WRITE, b"k", b"v")


def chain_of(length: int) -> tuple[Graph, list[Row]]:
    """In both rows each depends on all before it; besides, the first of row 0 on all of row 1,
    and the last of row 1 on all of row 0.
    """
    rows = [Row(), Row()]
    for number in range(1, length + 1):
        for row in (0, 1):
            made = rows[row].instances[number] = Instance(row, number)
            made.deps = [number - 1, 0] if row == 0 else [0, number - 1]
            made.phase = COMMITTED
            rows[row].top = number
    rows[0].instances[1].deps = [0, length]
    rows[1].instances[length].deps = [length, length - 1]
    return Graph(rows), rows


def test_a_component_of_thousands_needs_no_recursion() -> None:
    graph, rows = chain_of(1200)
    components = list(graph.committed(rows[0].instances[1200]))
    assert [len(component) for component in components] == [1] * 1199 + [1201]
    assert [(each.number, each.row) for each in components[-1][-2:]] == [(1200, 0), (1200, 1)]


def test_components_come_in_the_order_of_their_dependencies() -> None:
    rows = [Row(), Row(), Row()]
    graph = Graph(rows)
    executed: list[list[int]] = []

    def commit(row: int, deps: list[int]) -> None:
        made = rows[row].instances[1] = Instance(row, 1)
        made.deps, made.phase, rows[row].top = deps, COMMITTED, 1
        for component in graph.committed(made):
            executed.append([each.row for each in component])
            for each in component:
                each.phase = EXECUTED
                rows[each.row].advance()

    commit(0, [0, 1, 0])
    commit(1, [1, 0, 1])
    assert executed == []
    graph.check()
    commit(2, [0, 0, 0])
    assert executed == [[2], [0, 1]]


def test_what_interferes() -> None:
    read, scan, other = Op(1, 1, READ, b"k"), Op(1, 1, SCAN, b"a"), Op(1, 1, WRITE, b"z")
    assert interfere([WRITTEN], [WRITTEN])
    assert interfere([WRITTEN], [read])
    assert interfere([read, other], [scan])
    assert not interfere([WRITTEN], [other])
    assert not interfere([read], [scan])
    known = Interference(3)
    known.add([WRITTEN], 0, 4)
    known.add([read], 1, 7)
    known.add([scan], 2, 2)

    def deps(op: Op, own_row: int = -1) -> list[int]:
        found = [0, 0, 0]
        known.widen(found, [op], own_row)
        return found

    assert deps(read) == [4, 0, 0]
    assert deps(scan) == [4, 0, 0]
    assert deps(WRITTEN) == [4, 7, 2]
    assert deps(WRITTEN, own_row=1) == [4, 0, 2]
    assert deps(other) == [0, 0, 2]
