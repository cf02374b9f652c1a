"""Where latency comes from, and how busy resources were, in words and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from orchestrator.core.spans import PARTS
from orchestrator.report.model import Summary, finite, lookup, metric
from orchestrator.report.wording import NONE, number, percent, plain, quantity

_ALL: Final = "latency_breakdown.all"
_BY_KIND: Final = "latency_breakdown.by_kind"
_TAILS: Final = {"p90": "Slowest 10\u00a0%", "p99": "Slowest 1\u00a0%"}
_NAMES: Final = {part: part.replace("cache_storage", "cache and storage") for part in PARTS}
SLOWEST: Final = "latency_breakdown.p99"
COLUMNS: Final = (
    "Operations", "Sampled", "Mean (ms)",
    "Queue", "CPU", "Cache, storage", "Network", "Replication",
)  # fmt: skip
RESOURCES_MAX: Final = 30


def breakdown_words(summary: Summary | None, path: str = _ALL) -> str:
    """``0.447 ms replication + 0.4 ms network + ... = 1.19 ms``, the largest parts first; parts
    that are nothing are left out.
    """
    found = {part: _figure(summary, f"{path}.{part}") for part in PARTS}
    parts = sorted(((value, part) for part, value in found.items() if value), reverse=True)
    if not parts:
        return NONE
    text = " + ".join(f"{quantity(value, 'ms')} {_NAMES[part]}" for value, part in parts)
    count = metric(summary, f"{path}.operations")
    return f"{text} = {quantity(metric(summary, f'{path}.total'), 'ms')} ({number(count)} sampled)"


def breakdown_rows(summary: Summary | None) -> list[list[str]]:
    """Rows of the table of COLUMNS: all, by kind, and the tails; empty without a sample."""
    kinds = lookup(summary, _BY_KIND)
    kinds = kinds if isinstance(kinds, dict) else {}
    named = {"All": _ALL}
    named |= {f"{plain(kind, 20)}s".capitalize(): f"{_BY_KIND}.{kind}" for kind in kinds}
    named |= {name: f"latency_breakdown.{tail}" for tail, name in _TAILS.items()}
    return [_row(summary, *each) for each in named.items() if lookup(summary, each[1])]


def _row(summary: Summary | None, name: str, path: str) -> list[str]:
    figures = [_figure(summary, f"{path}.{key}") for key in ("operations", "total", *PARTS)]
    return [name, *(number(figure) for figure in figures)]


def _figure(summary: Summary | None, path: str) -> float | None:
    """To a tenth of a microsecond: what a call of a function takes is no part of anything."""
    value = metric(summary, path)
    return None if value is None else round(value, 4)


def utilisation_rows(summary: Summary | None) -> Sequence[tuple[str, str]]:
    """(resource, busy share), the busiest first, RESOURCES_MAX at most."""
    found: Any = lookup(summary, "utilisations")
    if not isinstance(found, dict):
        return []
    rows = sorted((-(finite(share) or 0.0), name) for name, share in found.items())
    return [(plain(name, 60), percent(-share)) for share, name in rows[:RESOURCES_MAX]]


def saturation(summary: Summary | None) -> str:
    """``full at 6,959 ops/s``; empty where that is not known."""
    rate = metric(summary, "bottleneck.saturates_at_ops")
    return "" if rate is None else f"full at {quantity(rate, 'ops/s')}"
