"""Columns of ``runs`` about the queueing model."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

MODEL: Final[tuple[tuple[str, pa.DataType, str, str], ...]] = (
    ("model.capacity_ops", pa.float64(), "1/s", "what the busiest resource can serve by the model"),
    ("model.resource", pa.string(), "", "that resource, as the model names nodes: node 0 leads"),
    ("model.utilisation", pa.float64(), "share", "of it at the offered rate by the model"),
    ("model.mean_latency_ms", pa.float64(), "ms", "mean response time by the model"),
    ("model.measured_over_model.capacity", pa.float64(), "", "throughput over that capacity"),
    ("model.measured_over_model.utilisation", pa.float64(), "", "measured over modelled"),
    ("model.measured_over_model.mean_latency", pa.float64(), "", "measured over modelled"),
    (
        "model.contradiction",
        pa.string(),
        "",
        "how the run contradicts the model; null: it does not",
    ),
    ("model.unmodelled", pa.string(), "", "why the model gives no utilisation or no latency"),
)
