"""What a run would take, without running it: how much, where, for how long, how much disk."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any, Final

from orchestrator.analysis.sample import SAMPLE_OPERATIONS
from orchestrator.config.schema import RAY, SIM
from orchestrator.core.load import VaryingArrival
from orchestrator.core.record import INTERVAL_NS
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.runtimes._parts import Parts
from orchestrator.systems.replicated_store import MODELLED

PILOT_NS: Final = 100 * NS_PER_MS
MEASURED_OPS: Final = 30_000
"""Assumed where the speed of the system is what a run is to find out."""
SIMULATED_OPS: Final = 30_000
"""Simulated operations per second of real time, of one core."""
START_S: Final = 1.0
RAY_START_S: Final = 5.0
BETWEEN_RUNS_S: Final = 0.5
RUN_BYTES: Final = 90_000
"""A row of runs with its summary and config, its latencies and its events."""
INTERVAL_BYTES: Final = 70
NODE_INTERVAL_BYTES: Final = 30
OPERATION_BYTES: Final = 16


def dry_run(parts: Parts, *, repeats: int = 1, address: str | None = None) -> dict[str, Any]:
    """``runs``, ``nodes``, ``seconds``, ``disk_bytes``, ``clients`` and ``placement``.

    ``seconds`` and ``disk_bytes`` are estimates. A closed load's rate comes from simulating
    its first 100 ms (cold caches); under measured costs it is assumed.
    """
    config = parts.config
    rate_ops = _rate_ops(parts)
    if parts.workload.total is None:
        load_s = (parts.lead_ns + config.duration) / NS_PER_S
        operations = rate_ops * load_s
    else:
        operations = float(parts.workload.total)
        load_s = operations / rate_ops
    if config.runtime == SIM:
        seconds = START_S + repeats * (BETWEEN_RUNS_S + operations / SIMULATED_OPS)
    else:
        seconds = START_S + RAY_START_S + repeats * (load_s + BETWEEN_RUNS_S)
    return {
        "runs": repeats,
        "nodes": parts.system.nodes + len(parts.tier_nodes),
        "seconds": round(seconds, 3),
        "disk_bytes": repeats * _disk_bytes(parts, load_s, operations),
        "clients": config.clients,
        "placement": _placement(parts, address),
    }


def _rate_ops(parts: Parts) -> float:
    """Operations per second of the run's own clock."""
    arrival, end_ns = parts.arrival, parts.end_ns
    if isinstance(arrival, VaryingArrival) and end_ns:
        expected = arrival.expected(parts.config.seed, parts.config.clients, 0, end_ns)
        return expected * NS_PER_S / end_ns
    if arrival.rate_per_s is not None:
        return arrival.rate_per_s
    if not arrival.closed:
        return _replayed_ops(parts)
    if not parts.system.emulated or parts.store.node.costs != MODELLED:
        return float(MEASURED_OPS)
    from orchestrator.runtimes import simulated

    record = simulated.run(_pilot(parts))
    answered = record.history.returned_ns[record.history.returned_ns >= 0]
    last_ns = max(int(answered.max(initial=1)), 1)
    return max(1.0, len(answered) * NS_PER_S / last_ns)


def _replayed_ops(parts: Parts) -> float:
    """A replay at its own times: what client 0 would send, over when it would send it."""
    config = parts.config
    total = parts.workload.total or 1
    operations = parts.workload.stream(config.seed, 0, config.clients).block(total)
    table = parts.arrival.timetable(config.seed, 0, config.clients)
    last_ns = int(table.starts_ns(operations)[-1])
    return total * NS_PER_S / max(last_ns, NS_PER_MS)


class _Beginning:
    """A workload that ends after its first operations, if it ever ends."""

    def __init__(self, parts: Parts) -> None:
        self._workload = parts.workload
        self.model = parts.workload.model
        self.payload_bytes = parts.workload.payload_bytes
        self.total: int | None = None
        self.key_names = parts.workload.key_names
        self.preload = parts.workload.preload
        self.stream = parts.workload.stream


def _pilot(parts: Parts) -> Parts:
    """The same run, shortened and with cold caches."""
    store = parts.store
    cache = store.cache
    if cache is not None:
        cold = dataclasses.replace(cache.params, warm=False)
        store = dataclasses.replace(store, cache=dataclasses.replace(cache, params=cold))
    system = dataclasses.replace(parts.config.system, params=store)
    config = dataclasses.replace(parts.config, system=system, warmup=0, duration=PILOT_NS)
    made = system.implementation(store)
    return dataclasses.replace(parts, config=config, system=made, workload=_Beginning(parts))


def _disk_bytes(parts: Parts, load_s: float, operations: float) -> int:
    intervals = math.ceil(load_s * NS_PER_S / INTERVAL_NS)
    kept = {"none": 0.0, "all": operations}.get(
        parts.config.record.operations, min(operations, SAMPLE_OPERATIONS)
    )
    nodes = parts.system.nodes + len(parts.tier_nodes)
    series = intervals * (INTERVAL_BYTES + nodes * NODE_INTERVAL_BYTES)
    return RUN_BYTES + series + int(kept * OPERATION_BYTES)


def _placement(parts: Parts, address: str | None) -> dict[str, Any]:
    """Where it would run; a named cluster is joined to see its shape."""
    if parts.config.runtime == SIM:
        return {"runtime": SIM, "address": None, "machines": 1, "cpus": 1}
    address = address or os.environ.get("RAY_ADDRESS")
    here: dict[str, Any] = {"runtime": RAY, "address": address}
    if not address:
        return here | {"machines": 1, "cpus": os.cpu_count()}
    from orchestrator.runtimes import ray_cluster

    ray_cluster.connect(address)
    try:
        shape = ray_cluster.cluster_shape()
    finally:
        ray_cluster.disconnect()
    return here | {"machines": int(shape["nodes"]), "cpus": shape["cpus"]}
