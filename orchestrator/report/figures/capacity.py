"""Latency over throughput up to and beyond what a configuration carries within its objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orchestrator.report.figures import _canvas as canvas
from orchestrator.report.figures._canvas import Picture
from orchestrator.report.wording import counted, number, plain

_FARTHEST: Final = 1.5
"""Of the capacity: beyond, points are left out."""
_LINES: Final = (("p50_ms", "p50", canvas.MUTED), ("p99_ms", "p99", canvas.BEST))


def capacity(experiment: str, found: Mapping[str, Any], *, simulated: bool) -> Picture:
    """``found`` is what ``capacity --json`` prints."""
    rate, interval = found["capacity_ops"], found["capacity_ci95_ops"]
    title = "No capacity was found"
    if rate is not None:
        title = f"It carries {number(rate)} operations/s within its objective"
    between = ""
    if interval is not None:
        between = f", 95 % interval {number(interval[0])} to {number(interval[1])}"
    return canvas.picture(
        "capacity",
        title,
        f"{plain(experiment, 60)}: {counted(found['runs'], 'run')}{between}",
        "Latency from the intended start, by the rate that was offered. Crosses missed the"
        " objective, or may not be believed; the band is the interval of the capacity, and the"
        " dashed line the bound of the p99. The diamond is the knee: the most throughput for its"
        " mean latency.",
        lambda figure: _draw(figure, found),
        mark=" (simulated)" if simulated else "",
    )


def _draw(figure: Figure, found: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    curve = [point for point in found["curve"] if point["p99_ms"] is not None]
    rate = found["capacity_ops"]
    if rate is not None:
        # What is far beyond says no more, and would leave the rest no room.
        curve = [point for point in curve if point["offered_ops"] <= _FARTHEST * rate]
    for key, label, color in _LINES:
        places = [(point["offered_ops"], point[key]) for point in curve]
        axes.plot([x for x, _ in places], [y for _, y in places], color=color, linewidth=1.3)
        _points(axes, curve, key, color)
        if places:
            axes.annotate(
                label,
                xy=places[0],
                xytext=(-4, 5),
                textcoords="offset points",
                color=color,
                fontsize=8.5,
            )
    interval = found["capacity_ci95_ops"]
    if interval is not None:
        axes.axvspan(*interval, color=canvas.BEST, alpha=0.15, linewidth=0, zorder=1)
    if rate is not None:
        axes.axvline(rate, color=canvas.BEST, linewidth=1.0, zorder=2)
    bound = found["slo"].get("p99")
    if bound is not None:
        axes.axhline(bound, color=canvas.BAD, linewidth=1.0, linestyle=(0, (4, 3)), zorder=2)
    knee = next((point for point in curve if point["offered_ops"] == found["knee_ops"]), None)
    if knee is not None:
        axes.plot([knee["offered_ops"]], [knee["p99_ms"]], "D", color=canvas.INK, markersize=6)
    axes.set_yscale("log")
    canvas.number_axis(axes, "y", log=True)
    canvas.number_axis(axes, "x")
    axes.set_xlim(left=0)
    axes.set_xlabel("Offered load (operations/s)")
    axes.set_ylabel("Latency (ms)")


def _points(axes: Axes, curve: Sequence[Mapping[str, Any]], key: str, color: str) -> None:
    for met, marker in ((True, "o"), (False, "x")):
        there = [point for point in curve if (point["met"] and point["valid"]) == met]
        axes.plot(
            [point["offered_ops"] for point in there],
            [point[key] for point in there],
            marker,
            color=color,
            markersize=4.5,
            zorder=3,
        )
