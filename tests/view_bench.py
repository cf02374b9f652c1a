"""Protocols with an authority on the bench: time that passes, and nodes that are away."""

from __future__ import annotations

from typing import Any

from machine_bench import Bench, Wanted, everything

from orchestrator.core.machine import READ, WRITE, Op
from orchestrator.core.units import NS_PER_MS

QUICK = {"heartbeat": "10ms", "lease": "60ms", "resend": "40ms", "keep": 8}
HEARTBEAT_NS, LEASE_NS, RESEND_NS = 10 * NS_PER_MS, 60 * NS_PER_MS, 40 * NS_PER_MS


def cluster_of(machine: type[Any], params: type[Any], nodes: int, **choices: Any) -> Bench:
    """Nodes and their authority with short times, all started."""
    times = {"heartbeat": HEARTBEAT_NS, "lease": LEASE_NS, "resend": RESEND_NS}
    bench = Bench(machine, params(**times | {"keep": 8} | choices), nodes)
    bench.deliver()
    return bench


def without(*away: int) -> Wanted:
    """Nothing gets from or to these nodes."""
    return lambda source, target, message: source not in away and target not in away


def pass_time(bench: Bench, duration_ns: int, wanted: Wanted = everything) -> None:
    """Let timers fire in order, and messages arrive at once, for so long."""
    end_ns = bench.now_ns + duration_ns
    while min(bench.timers.values(), default=end_ns + 1) <= end_ns:
        node, timer = min(bench.timers, key=lambda each: (bench.timers[each], each))
        bench.fire(node, timer)
        bench.deliver(wanted)
    bench.now_ns = end_ns


def write(bench: Bench, node: int, number: int, wanted: Wanted = everything) -> Any:
    """Session ``number`` writes its number to key k; returns the handle."""
    handle = bench.request(node, Op(number, 1, WRITE, b"k", b"%d" % number))
    bench.deliver(wanted)
    return handle


def read(bench: Bench, node: int, wanted: Wanted = everything, **op: Any) -> Any:
    """Read key k; returns the handle."""
    handle = bench.request(node, Op(99, 1, READ, b"k", **op))
    bench.deliver(wanted)
    return handle


def members(bench: Bench) -> list[int]:
    """The view as the authority has it."""
    found: list[int] = bench.machines[-1].view.members
    return found
