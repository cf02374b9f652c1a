"""What people see of ``archbench calibrate`` and ``archbench predict``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from orchestrator import _terminal

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.calibrate import Calibration

_BUSY: Final = 0.1
_SHORT: Final = {
    "throughput_ops": "throughput, ops/s",
    "latency_ms.all.mean": "mean, ms",
    "latency_ms.all.p50": "p50, ms",
    "latency_ms.all.p90": "p90, ms",
    "latency_ms.all.p99": "p99, ms",
}


def told(point: str, runtime: str, summary: dict[str, Any]) -> None:
    """A line a run."""
    from orchestrator.report.wording import quantity

    rate = quantity(summary["throughput_ops"], "ops/s")
    p99 = quantity(summary["latency_ms"]["all"]["p99"], "ms")
    doubt = "" if summary["valid"] else f", not valid: {summary['invalid_reasons'][0]}"
    _terminal.say(f"{point}, {runtime}: {rate}, p99 {p99}{doubt}")


def show_prediction(out: Console, data: Mapping[str, Any]) -> None:
    """A row a load and figure."""
    from orchestrator.report.wording import number

    rows = []
    for point in data["points"]:
        for index, (name, each) in enumerate(point["ratios"].items()):
            bounds = each["ci95"]
            rows.append(
                [
                    "" if index else point["name"],
                    _SHORT[name],
                    number(point["sim"][name]),
                    number(point["ray"][name]),
                    "–" if each["ratio"] is None else f"{each['ratio']:.3f}",
                    "–" if bounds is None else " to ".join(f"{x:.3f}" for x in bounds),
                ]
            )
    header = ["load", "", "simulated", "real", "ratio", "95 % interval"]
    out.print(_terminal.table(header, rows))
    profile = data["profile"]
    text = f"simulated with the host profile {profile}" if profile else "simulated without a"
    out.print(text if profile else f"{text} host profile", markup=False)
    reasons = dict.fromkeys(each for point in data["points"] for each in point["invalid_reasons"])
    for reason in reasons:
        out.print(f"not valid: {reason}", style="bold red", markup=False)
    for point in data["points"]:
        if point["left_out"]:
            reasons = dict.fromkeys(point["left_out"])
            text = f"{point['name']}: left out what was not valid: {'; '.join(reasons)}"
            out.print(text, style="yellow", markup=False)


def show_calibration(out: Console, found: Sequence[tuple[Calibration, str]]) -> None:
    """A table a host, and where its profile is."""
    for each, path in found:
        profile = each.profile
        rows = [
            [name, what, _us(cost)]
            for name, costs in profile.protocols.items()
            for what, cost in vars(costs).items()
        ]
        rows.append(["every process", "timer", _us(profile.timer)])
        for name in ("wake", "wake_deep", "fsync", "stall"):
            rows.append(["the host", f"{name}, median", _us(median(getattr(profile, name)))])
        out.print(_terminal.table(["", "", "us"], rows))
        out.print(
            f"{profile.host}: {profile.cores} cores, each interrupted {profile.stalls:.3g} times a"
            " second when all are busy;"
            f" {each.observations} processes explained to {each.residual:.0%}",
            markup=False,
        )
        if profile.background > _BUSY:
            out.print(
                f"others used {profile.background:.0%} of its cores: measure again when it is idle",
                style="yellow",
                markup=False,
            )
        out.print(f"profile: {path}", markup=False)


def _us(cost_ns: float) -> str:
    return f"{cost_ns / 1000:.1f}"
