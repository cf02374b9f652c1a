"""Columns of ``runs`` that say how far a run may be believed: paths into its result object, types,
units and meanings.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

_NUMBER: Final = pa.float64()
_TEXT: Final = pa.string()
_NUMBERS: Final = pa.list_(pa.field("element", pa.float64()))

STEADY_STATE: Final = (
    ("steady_state.warmup_s", _NUMBER, "s", "where the measured window begins"),
    ("steady_state.method", _TEXT, "", "given, or mser-5: found from the data"),
    ("steady_state.steady", pa.bool_(), "", "no drift; null where nothing steady is expected"),
    ("steady_state.drift", _TEXT, "", "JSON: change over the window relative to the level, and p"),
    ("steady_state.period_s", _NUMBER, "s", "with which latency comes and goes; null: with none"),
)
_PERCENTILES: Final = ("p50", "p90", "p99", "p999")
LATENCY_INTERVALS: Final = tuple(
    (f"latency_ci95_ms.{name}", _NUMBERS, "ms", f"95 % confidence interval of the {name}")
    for name in _PERCENTILES
)
EFFECTIVE_SAMPLES: Final = tuple(
    (f"latency_effective_samples.{name}", _NUMBER, "", f"independent operations beyond the {name}")
    for name in _PERCENTILES
)
GENERATOR: Final = (
    ("generator.outstanding", _NUMBER, "", "mean of operations under way, as clients counted them"),
    ("generator.outstanding_by_latency", _NUMBER, "", "the same by Little's law"),
    ("generator.arrival_distance", _NUMBER, "", "of the sending times from the process asked for"),
)
HARNESS: Final = (
    (
        "harness.floor_ms",
        _NUMBER,
        "ms",
        "by how much the median null operation is off; null in sim",
    ),
    ("harness.floor_p99_ms", _NUMBER, "ms", "its 99th percentile"),
    ("harness.share", _NUMBER, "share", "of the median latency, what that median is"),
    ("harness.late_ms", _NUMBER, "ms", "by how much waits ended late in the mean of an operation"),
)
PRECISION: Final = (
    ("precision.asked", _NUMBER, "share", "half of the 95 % interval over its figure, at most"),
    ("precision.reached", _NUMBER, "share", "of the figure that is known worst"),
    ("precision.met", pa.bool_(), "", "whether that is within what was asked"),
    ("precision.by_figure", _TEXT, "", "JSON: of each figure"),
)
