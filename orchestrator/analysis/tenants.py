"""Figures of single tenants: whose an operation is says the index of its key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.analysis.goodput import goodput_ops
from orchestrator.analysis.latency import (
    LatencyHistogram,
    Window,
    histograms,
    merge_histograms,
)
from orchestrator.analysis.outcomes import error_rate, outcomes_of
from orchestrator.config.schema import Config
from orchestrator.workloads.tenants import tenants_of


@dataclass(frozen=True)
class TenantFigures:
    """One tenant's part of the measured windows. ``outcomes``: counts by name. ``goodput_ops``:
    within the tenant's own latency bound where it has one.
    """

    latencies: Mapping[str, LatencyHistogram]
    outcomes: Mapping[str, int]
    throughput_ops: float | None
    goodput_ops: float | None

    def summary(self) -> dict[str, Any]:
        """As the result object has them."""
        return {
            "throughput_ops": self.throughput_ops,
            "goodput_ops": self.goodput_ops,
            "latency_ms": {name: each.figures_ms() for name, each in self.latencies.items()},
            "outcomes": dict(self.outcomes),
            "error_rate": error_rate(self.outcomes),
        }


def by_tenant(windows: Sequence[Window], config: Config) -> dict[str, TenantFigures]:
    """The figures of each tenant over all windows; none where the workload has no tenants."""
    names = tenants_of(config.workload)
    total_s = math.fsum(window.length_s for window in windows)
    found = {}
    for number, name in enumerate(names):
        mine = [
            window.select(
                window.key % len(names) == number, window.completed_key % len(names) == number
            )
            for window in windows
        ]
        completed = sum(len(window.completed_ns) for window in mine)
        found[name] = TenantFigures(
            merge_histograms([histograms(window) for window in mine]),
            outcomes_of(mine),
            completed / total_s if total_s > 0 else None,
            goodput_ops(mine, config.slo, name),
        )
    return found
