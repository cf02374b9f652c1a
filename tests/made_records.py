"""Records of runs made by hand: good ones, and what a test changes in them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy
from numpy.typing import NDArray

from orchestrator.analysis.summary import summarise
from orchestrator.arrivals.constant import ConstantParams
from orchestrator.config.schema import Config
from orchestrator.core.history import COLUMNS, DTYPES, NEVER, History
from orchestrator.core.load import CacheParams
from orchestrator.core.machine import READ
from orchestrator.core.parameters import parse_capacity
from orchestrator.core.randomness import block_stream
from orchestrator.core.record import (
    INTERVAL_NS,
    ClientRecord,
    HostRecord,
    NodeRecord,
    RunRecord,
)
from orchestrator.core.registry import Family, Slot
from orchestrator.core.spans import Span, Spans
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.core.verdict import INVALID, VALID, ClaimsVerdict, Verdict
from orchestrator.systems.replicated_store import MODELLED, Node, ReplicatedStoreParams

TIMEOUT_NS = NS_PER_S


def history(count: int, **columns: Any) -> History:
    """``count`` OK reads of no duration, but for the columns given."""
    whole = {name: numpy.zeros(count, dtype=DTYPES[name]) for name in COLUMNS}
    whole["sequence"] = numpy.arange(count)
    whole["previous_return_ns"] = numpy.full(count, NEVER)
    for name, column in columns.items():
        whole[name] = numpy.broadcast_to(numpy.asarray(column), count)
    if "invoked_ns" not in columns:
        whole["invoked_ns"] = whole["intended_ns"]
    typed: dict[str, Any] = {name: column.astype(DTYPES[name]) for name, column in whole.items()}
    return History(**typed, key_names=[b"k"])


def steady(count: int, length_ns: int, latency_ns: Any = NS_PER_MS, **columns: Any) -> History:
    """``count`` operations evenly over ``length_ns``."""
    intended_ns = numpy.arange(count) * length_ns // count
    columns = {"returned_ns": intended_ns + latency_ns} | columns
    return history(count, intended_ns=intended_ns, **columns)


def node(number: int, role: str, seconds: int, **columns: Any) -> NodeRecord:
    """A node with one core, constant counters per interval."""
    count = seconds * NS_PER_S // INTERVAL_NS
    names = ("operations", "messages", "refused", "cancelled", "cpu_busy_ns", "storage_busy_ns")
    series: dict[str, Any] = {
        name: numpy.full(count, columns.pop(name, 0), dtype=numpy.int64)
        for name in (*names, "cache_hits", "cache_misses", "cache_evictions")
    }
    cores = columns.get("cores", 1)
    series["provided_ns"] = numpy.full(count, cores * INTERVAL_NS, dtype=numpy.int64)
    given = {"cores": 1, "storage_parallel": None, "process_cpu_ns": 0, "contents_digest": "d"}
    return NodeRecord(node=number, host="h", role=role, **series, **(given | columns))


def generator(**changes: Any) -> ClientRecord:
    lag_ns = numpy.full(1000, 50_000, dtype=numpy.int64)
    good = ClientRecord(0, "h", process_cpu_ns=4 * NS_PER_S, wall_ns=8 * NS_PER_S, lag_ns=lag_ns)
    return dataclasses.replace(good, **changes)


def sampling_generator() -> ClientRecord:
    """One of whose operations one was sampled."""
    return generator(spans=Spans.of([Span(1, 1, READ, 0, 1, 2, 3, 4, 5)]))


def record(whole: History | None = None, **changes: Any) -> RunRecord:
    """A good run in real time: 2 s of warm-up, 8 s measured, 1,000 operations/s of 1 ms."""
    good = RunRecord(
        runtime="ray",
        clock="real",
        history=steady(10_000, 10 * NS_PER_S) if whole is None else whole,
        nodes=(node(0, "leader", 10, operations=100, cpu_busy_ns=30 * NS_PER_MS),),
        clients=(generator(),),
        events=(),
        warmup_ns=2 * NS_PER_S,
        end_ns=10 * NS_PER_S,
        offered_ops=1000.0,
        host_loads=(HostRecord("h", busy=0.5),),
    )
    return dataclasses.replace(good, **changes)


def config(
    costs: str = MODELLED, *, memory: int | None = None, cache: str | int | None = None, **root: Any
) -> Config:
    slot = None
    if cache is not None:
        slot = Slot(Family.CACHE, "lru", CacheParams(size=parse_capacity(cache)))
    params = ReplicatedStoreParams(node=Node(costs=costs), memory=memory, cache=slot)
    steady_load = Slot(Family.ARRIVAL, "constant", ConstantParams(rate=1000.0))
    whole = {"system": Slot(Family.SYSTEM, "replicated_store", params), "arrival": steady_load}
    return Config(**whole | root)


def claims(verdict: str, level: str = "linearizable") -> ClaimsVerdict:
    witness = ({"session": 1, "op": "read"},) if verdict == INVALID else ()
    strongest = (level,) if verdict == VALID else ("none",)
    return ClaimsVerdict(verdict, strongest, (Verdict(verdict, level, 9000, 5, witness, "So."),))


def summary_of(whole: RunRecord, settings: Config | None = None, **named: Any) -> dict[str, Any]:
    naming = {"run_id": "r1", "config_hash": "c", "results": "results/r1"} | named
    return summarise(whole, settings or config(), claims(VALID), **naming)


def skewed(count: int, name: str = "latency") -> NDArray[numpy.int64]:
    """Latencies in ns over many decades."""
    draws = block_stream(7, name).lognormal(mean=14, sigma=2, size=count)
    return draws.astype(numpy.int64)
