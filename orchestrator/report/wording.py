"""Numbers, units and names as people read them, and text that is safe in HTML and XML."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.core.parameters import BANDWIDTH, DURATION, RATE, SIZE

NONE: Final = "–"

# XML 1.0, section 2.2: what a document may hold at all.
_FORBIDDEN = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def plain(text: object, limit: int | None = None) -> str:
    """``text`` without what XML forbids, shortened in the middle to ``limit`` characters."""
    clean = _FORBIDDEN.sub("\ufffd", str(text))
    if limit is None or len(clean) <= limit:
        return clean
    head = (limit - 1) // 2
    return clean[: limit - 1 - head] + "…" + clean[len(clean) - head :]


def number(value: float | None) -> str:
    """18204.3 -> ``18,204``; 14.234 -> ``14.2``; 0.01234 -> ``0.0123``; None -> a dash."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    if abs(value) >= 999.5:
        return f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.3g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    if digits > 6:
        return f"{value:.3g}"
    text = f"{value:.{digits}f}"
    # Whole numbers (bounds, counts) stay whole; a measured 39.04 is 39.0.
    return f"{value:.0f}" if value == round(value) else text


def compact(value: float, digits: int = 4) -> str:
    """Axis labels: 18200 -> ``18.2k``."""
    for bound, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= bound:
            return f"{value / bound:.{digits}g}{letter}"
    return f"{value:.{digits}g}"


def percent(share: float | None) -> str:
    """0.973 -> ``97.3 %``, with a space that does not break."""
    if share is None:
        return NONE
    value = 100 * share
    if 99.5 < value < 100:
        # Never round an almost perfect share up to a perfect one.
        texts = (f"{value:.{digits}f}" for digits in range(2, 7))
        return next((text for text in texts if float(text) < 100), "> 99.999999") + "\u00a0%"
    return f"{value:.3g}\u00a0%"


def in_use(share: float) -> str:
    """``97.3 %`` of a resource; unlike availability it may be rounded up to 100."""
    return f"{100 * share:.3g}\u00a0%"


@dataclass(frozen=True)
class MetricName:
    """How a metric is called, its unit ("" for none, "%" for a share), and which way is good."""

    label: str
    unit: str
    higher_is_better: bool


_NAMES: Final = {
    "throughput_ops": MetricName("Throughput", "ops/s", True),
    "goodput_ops": MetricName("Goodput", "ops/s", True),
    "offered_ops": MetricName("Offered load", "ops/s", True),
    "error_rate": MetricName("Errors", "%", False),
    "cache.hit_ratio": MetricName("Cache hit ratio", "%", True),
    "cache.client_hit_ratio": MetricName("Hit ratio of clients' caches", "%", True),
    "compare_and_set.unmatched_share": MetricName("Compare-and-sets not matched", "%", False),
    "cache.evictions": MetricName("Evictions", "", False),
    "availability": MetricName("Availability", "%", True),
    "bottleneck.utilisation": MetricName("Utilisation of the binding resource", "%", True),
    "cost": MetricName("Cost", "per hour", False),
    "uncorrected_p99_ms": MetricName("Uncorrected p99 latency", "ms", False),
    "consistency.staleness_ms.p99": MetricName("p99 staleness", "ms", False),
    "balance.jain": MetricName("Balance (Jain)", "", True),
}
_QUANTILES: Final = {"mean": "Mean", "max": "Longest", "p999": "p99.9", "p9999": "p99.99"}


def metric_name(path: str, *, maximize: bool = True) -> MetricName:
    """The name of any dotted path; ``maximize`` decides where the path is not a known one."""
    if path in _NAMES:
        return _NAMES[path]
    parts = path.split(".")
    if parts[0] == "latency_ms" and len(parts) == 3:
        kind = "" if parts[1] == "all" else f"{parts[1]} "
        return MetricName(f"{_QUANTILES.get(parts[2], parts[2])} {kind}latency", "ms", False)
    if parts[0] == "tenants" and len(parts) > 2:
        own = metric_name(".".join(parts[2:]), maximize=maximize)
        return MetricName(f"{own.label} of tenant {parts[1]}", own.unit, own.higher_is_better)
    if parts[:2] == ["slo", "windows"] and len(parts) == 3:
        which = _QUANTILES.get(parts[2], parts[2])
        return MetricName(f"Share of windows above the bound of {which} latency", "%", False)
    unit = "ms" if parts[-1].endswith("_ms") or parts[0].endswith("_ms") else ""
    return MetricName(plain(path, 40), "s" if path.endswith("_s") else unit, maximize)


def quantity(value: float | None, unit: str) -> str:
    """A value with its unit, on one line."""
    if value is None:
        return NONE
    if unit == "%":
        return percent(value)
    return f"{number(value)}\u00a0{unit}" if unit else number(value)


def span(bounds: tuple[float, float], unit: str = "") -> str:
    """An interval: ``1.39 to 1.45``."""
    if unit == "%":
        return f"{percent(bounds[0])} to {percent(bounds[1])}"
    # Bounds that look equal when rounded would hide that there is an interval at all.
    low, high = number(bounds[0]), number(bounds[1])
    if low == high and bounds[0] != bounds[1]:
        low, high = f"{bounds[0]:.5g}", f"{bounds[1]:.5g}"
    return f"{low} to {high} {unit}".rstrip()


def times(ratio: float | None) -> str:
    """A ratio: 1.424 as ``1.42`` and a multiplication sign."""
    return NONE if ratio is None else f"{number(ratio)}×"


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Config paths without what all readers know: ``system.cache.size`` -> ``cache.size``.

    A name that would stand for two paths stays whole.
    """

    def shorten(path: str) -> str:
        parts = path.split(".")
        if len(parts) > 1:
            parts = parts[1:]
        if len(parts) > 1 and parts[-1] == "name":
            parts = parts[:-1]
        return ".".join(parts)

    short = [shorten(path) for path in paths]
    return {
        path: plain(name if short.count(name) == 1 else path)
        for path, name in zip(paths, short, strict=True)
    }


_SCALES: Final = {
    DURATION: ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")),
    SIZE: ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
    BANDWIDTH: ((2.0**30, "GiB/s"), (2.0**20, "MiB/s"), (2.0**10, "KiB/s"), (1.0, "B/s")),
    RATE: ((1.0, "per s"),),
}


def axis_scale(kind: str, values: Sequence[float]) -> tuple[float, str]:
    """Divisor and unit in which the values of a quantity read best on one axis."""
    largest = max((abs(value) for value in values), default=0.0)
    for divisor, unit in _SCALES.get(kind, ()):
        if largest >= divisor or divisor == 1.0:
            return divisor, unit
    return 1.0, ""


def joined(items: Sequence[str]) -> str:
    """``a, b and c``."""
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + " and " + items[-1]


def worded(value: object) -> str:
    """A value of a config in words: ``lru size=100``, ``pattern=write_back``, ``none``."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case Mapping():
            words = [str(value["name"])] if "name" in value else []
            words += [setting(str(key), each) for key, each in value.items() if key != "name"]
            return " ".join(words) or "none"
        case list() | tuple():
            return " + ".join(map(worded, value)) or "none"
        case _:
            return str(value)


def setting(name: str, value: object) -> str:
    """``cores=2``, ``cache=(lru size=100)``."""
    text = worded(value)
    return f"{name}=({text})" if " " in text else f"{name}={text}"


def counted(count: int, noun: str) -> str:
    """``1 trial``, ``3 trials``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
