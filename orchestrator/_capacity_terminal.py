"""What people see of ``archbench capacity``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator import _terminal
from orchestrator.analysis.crossing import Crossing, Estimate

if TYPE_CHECKING:
    from rich.console import Console


def told(point: dict[str, Any], search: Crossing) -> None:
    """A line a run, with what is known after it."""
    from orchestrator.report.wording import quantity

    verdict = "met" if point["met"] else "missed" if point["valid"] else "not valid"
    rate = quantity(point["offered_ops"], "ops/s")
    line = f"[{len(search.probes)}] {rate}: p99 {quantity(point['p99_ms'], 'ms')}, {verdict}"
    _terminal.say(f"{line}; {_standing(search.estimate())}")


def _standing(found: Estimate | None) -> str:
    from orchestrator.report.wording import number

    if found is None:
        return "not bracketed yet"
    if found.high == float("inf"):
        return f"capacity about {number(found.rate)}"
    return f"capacity {number(found.rate)}, between {number(found.low)} and {number(found.high)}"


def show(out: Console, data: Mapping[str, Any], experiment: str) -> None:
    """The curve, the capacity with its interval, and what casts doubt on it."""
    from orchestrator.report.wording import counted, joined, number, quantity

    rows = [
        [
            *(
                number(point[name])
                for name in ("offered_ops", "throughput_ops", "p50_ms", "p99_ms")
            ),
            "yes" if point["met"] else "no",
            "yes" if point["valid"] else "no",
            str(point["runs"]),
        ]
        for point in data["curve"]
    ]
    header = ["offered/s", "ops/s", "p50 ms", "p99 ms", "SLO", "valid", "runs"]
    out.print(_terminal.table(header, rows))
    if data["capacity_ops"] is None:
        out.print(f"no capacity: {data['reason']}", style="bold red", markup=False)
    else:
        interval = data["capacity_ci95_ops"]
        between = ""
        if interval is not None:
            between = f", 95 % interval {number(interval[0])} to {number(interval[1])}"
        text = f"capacity of {experiment}: {quantity(data['capacity_ops'], 'ops/s')}{between}"
        out.print(text, markup=False)
        out.print(f"knee: {quantity(data['knee_ops'], 'ops/s')}", markup=False)
        for doubt in _doubts(data):
            out.print(doubt, style="yellow", markup=False)
    if data["contradictions_ops"]:
        rates = joined([number(rate) for rate in data["contradictions_ops"]])
        text = f"less load was worse: the objective was missed at {rates}/s, and met above"
        out.print(text, style="bold red", markup=False)
    out.print(f"{counted(data['runs'], 'run')}; {data['figure']}", markup=False, soft_wrap=True)


def _doubts(data: Mapping[str, Any]) -> list[str]:
    said = []
    if not data["precise"]:
        said.append(
            "that is less precise than was asked for: longer runs, or more of them (--runs)"
        )
    if not data["confirmed"]:
        said.append("runs just below it did not confirm it")
    return said
