"""Small simulated runs in which a balancer has something to choose."""

from __future__ import annotations

from typing import Any

import numpy
from numpy.typing import NDArray

from orchestrator.config.load import load_mapping
from orchestrator.core.machine import OK
from orchestrator.core.record import RunRecord
from orchestrator.plan import plan
from orchestrator.runtimes._parts import Parts

SLOW = ("faults=[{name: slow, target: 3, factor: 20, at: 0s}]",)
"""A node that can do 50 of 5,000 operations per second."""
EXPONENTIAL = {"name": "exponential", "mean": "1ms"}


def parts(balancer: dict[str, Any], *overrides: str, nodes: int = 10, **system: Any) -> Parts:
    """Reads that any node may serve, for 1 ms on the average, at half of what all can do."""
    config = {
        "experiment": "balanced",
        "runtime": "sim",
        "system": {
            "protocol": {"name": "primary_backup", "mode": "async", "read_from": "any"},
            "replicas": nodes,
            "node": {"cpu": {"read": EXPONENTIAL}},
            "balancer": balancer,
        }
        | system,
        "workload": {"name": "ycsb", "mix": "c", "keys": 1000, "distribution": "uniform"},
        "arrival": {"name": "poisson", "rate": f"{500 * nodes}/s"},
        "warmup": "500ms",
        "duration": "1500ms",
    }
    return plan(load_mapping(config, *overrides))


def shares(record: RunRecord, nodes: int = 10) -> NDArray[numpy.float64]:
    """Of each node in the operations of the measured window."""
    measured = record.history.intended_ns >= record.warmup_ns
    counts = numpy.bincount(record.history.node[measured], minlength=nodes)
    return numpy.asarray(counts / counts.sum())


def mean_ms(record: RunRecord) -> float:
    """Mean latency over the measured window."""
    history = record.history
    assert (history.outcome == OK).all()
    measured = history.intended_ns >= record.warmup_ns
    return float((history.returned_ns - history.intended_ns)[measured].mean() / 1e6)
