"""Which variants of a sweep are worth their price: how much each does within its objective, over
what it costs an hour.

A variant is all that a sweep varies but the load (``arrival``, ``clients``). Its **capacity** is
the largest load that it met the objective under, in a valid run; where loads are closed, or there
is no objective, its highest goodput. Where that is all that it was asked for, it may do more. A
variant is **efficient** where no other costs as little and does as much (Pareto).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

LOADS: Final = ("arrival", "clients")
"""Sections of a configuration that say how much is asked for."""

Run = tuple[Mapping[str, Any], Mapping[str, Any]]
"""What a sweep varied, by path, and the result object of the run."""


def efficiency(runs: Sequence[Run]) -> list[dict[str, Any]] | None:
    """One object a variant, the cheapest first; None where nothing has a price.

    ``values``: by path, without the load; ``cost`` an hour; ``capacity_ops`` (0 where no run met
    the objective), ``at_least``: whether that was all that was asked; ``goodput_ops`` and
    ``p99_ms`` of that run (None without one); ``per_cost``: capacity for a unit of cost;
    ``efficient``.
    """
    if not any(found["cost"] for _, found in runs):
        return None
    groups: dict[str, list[Run]] = {}
    for values, found in runs:
        variant = {path: each for path, each in values.items() if not is_load(path)}
        groups.setdefault(repr(variant), []).append((variant, found))
    told = [_variant(group) for group in groups.values()]
    marked = frontier([(each["cost"], each["capacity_ops"]) for each in told])
    for each, efficient in zip(told, marked, strict=True):
        each["efficient"] = efficient
    return sorted(told, key=lambda each: (each["cost"], -each["capacity_ops"]))


def is_load(path: str) -> bool:
    """Whether a path of a configuration says how much is asked for."""
    return path.partition(".")[0] in LOADS


def frontier(places: Sequence[tuple[float, float]]) -> list[bool]:
    """Of each (cost, value), whether no other is as cheap and as good, and better in one."""
    return [
        value > 0
        and not any(
            other <= cost and more >= value and (other, more) != (cost, value)
            for other, more in places
        )
        for cost, value in places
    ]


def _variant(group: Sequence[Run]) -> dict[str, Any]:
    runs = [found for _, found in group]
    met = [found for found in runs if found["valid"] and found["slo"]["met"] is not False]
    best = max(met, key=_carried_ops, default=None)
    asked = [found["offered_ops"] for found in runs if found["offered_ops"] is not None]
    capacity_ops = 0.0 if best is None else _carried_ops(best)
    cost = (best or runs[0])["cost"]
    return {
        "values": dict(group[0][0]),
        "cost": cost,
        "capacity_ops": capacity_ops,
        "at_least": bool(asked) and capacity_ops == max(asked),
        "goodput_ops": None if best is None else best["goodput_ops"],
        "p99_ms": None if best is None else best["latency_ms"]["all"]["p99"],
        "per_cost": capacity_ops / cost if cost else None,
    }


def _carried_ops(found: Mapping[str, Any]) -> float:
    """What was asked for where the objective was met, so that equal loads compare as equal."""
    if found["slo"]["met"] and found["offered_ops"] is not None:
        return float(found["offered_ops"])
    return float(found["goodput_ops"] or 0.0)
