"""Siblings: what a write supersedes, and what it must not, by dotted version vectors."""

from __future__ import annotations

from typing import Any

from machine_bench import Bench

from orchestrator.core.machine import READ, WRITE, Op
from orchestrator.protocols.quorum import Params, Quorum


def bench_of(**choices: Any) -> Bench:
    return Bench(Quorum, Params(**choices), 3)


def asked(bench: Bench, node: int, op: Op) -> Any:
    """The answer of a coordinator that reaches every node."""
    handle = bench.request(node, op)
    bench.deliver()
    return bench.replies[handle]


def siblings(bench: Bench, node: int) -> list[bytes]:
    return [each.value for each in bench.machines[node]._table.held[b"k"].siblings]


def test_a_write_supersedes_what_its_session_has_seen() -> None:
    bench = bench_of(conflicts="siblings", versions="clock")
    asked(bench, 0, Op(1, 1, WRITE, b"k", b"a"))
    asked(bench, 1, Op(2, 1, WRITE, b"k", b"b"))
    assert [siblings(bench, node) for node in range(3)] == [[b"a", b"b"]] * 3
    read = asked(bench, 2, Op(3, 1, READ, b"k"))
    assert read.value == b"b"
    asked(bench, 2, Op(3, 2, WRITE, b"k", b"c", context=read.context))
    assert [siblings(bench, node) for node in range(3)] == [[b"c"]] * 3


def test_a_concurrent_write_of_the_same_node_is_not_lost() -> None:
    """The case that plain version vectors by node get wrong."""
    bench = bench_of(conflicts="siblings", versions="clock")
    asked(bench, 0, Op(1, 1, WRITE, b"k", b"a"))
    read = asked(bench, 0, Op(2, 1, READ, b"k"))
    asked(bench, 0, Op(3, 1, WRITE, b"k", b"b"))
    # It has seen a but not b, which has the newer dot of the same node.
    asked(bench, 0, Op(2, 2, WRITE, b"k", b"c", context=read.context))
    assert siblings(bench, 1) == [b"b", b"c"]


def test_a_session_supersedes_its_own_write_but_none_that_it_has_not_seen() -> None:
    bench = bench_of(conflicts="siblings", versions="clock")
    first = asked(bench, 0, Op(1, 1, WRITE, b"k", b"a"))
    asked(bench, 0, Op(1, 2, WRITE, b"k", b"b", context=first.context))
    assert siblings(bench, 1) == [b"b"]
    other = asked(bench, 0, Op(2, 1, WRITE, b"k", b"x"))
    asked(bench, 0, Op(2, 2, WRITE, b"k", b"y", context=other.context))
    assert b"b" in siblings(bench, 1), "nobody has read it"


def test_a_write_that_asks_first_leaves_no_sibling_behind() -> None:
    bench = bench_of(conflicts="siblings")
    asked(bench, 0, Op(1, 1, WRITE, b"k", b"a"))
    asked(bench, 1, Op(2, 1, WRITE, b"k", b"b"))
    assert siblings(bench, 2) == [b"b"]
