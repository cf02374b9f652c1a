"""The fewest resources that carry a load: over several loads, or of one load the way to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orchestrator.report.figures import _canvas as canvas
from orchestrator.report.figures._canvas import Picture
from orchestrator.report.wording import counted, number, plain


def demand(experiment: str, found: Mapping[str, Any], *, simulated: bool) -> Picture:
    """``found`` is what ``capacity --load --over --json`` prints."""
    demands = found["demands"]
    path = plain(demands[0]["path"], 60)
    several = len(demands) > 1
    carried = [each for each in demands if each["value"] is not None]
    title = "No value carries the load within the objective"
    if carried and several:
        title = f"What each load takes of {path}"
    elif carried:
        load = number(carried[0]["load_ops"])
        title = f"{load} operations/s take {path} = {plain(carried[0]['value'], 20)}"
    told = (
        "At each load the first value that met the objective in most of its runs; crosses are"
        " values that did not. Loads without a dot are carried by no value."
        if several
        else "The p99 from the intended start, by value. Crosses missed the objective, or may not"
        " be believed; the dashed line is the bound of the p99, and the larger dot the first value"
        " that met the objective in most of its runs."
    )
    return canvas.picture(
        "demand",
        title,
        f"{plain(experiment, 60)}: {counted(found['runs'], 'run')}",
        told,
        lambda figure: _draw(figure, found, several=several),
        mark=" (simulated)" if simulated else "",
    )


def _draw(figure: Figure, found: Mapping[str, Any], *, several: bool) -> None:
    axes = figure.subplots()
    demands = found["demands"]
    values = [point["value"] for point in demands[0]["curve"]]
    if several:
        _loads(axes, demands, values)
        return
    _values(axes, demands[0], found["slo"].get("p99"))
    axes.set_xticks(range(len(values)), [plain(value, 12) for value in values])
    axes.set_xlabel(plain(demands[0]["path"], 60))


def _loads(axes: Axes, demands: Sequence[Mapping[str, Any]], values: Sequence[Any]) -> None:
    """A step for each load, over the place of its value in the list."""
    for each in demands:
        missed = [at for at, point in enumerate(each["curve"]) if not point["met"]]
        loads = [each["load_ops"]] * len(missed)
        axes.plot(loads, missed, "x", color=canvas.MUTED, markersize=4.5, zorder=2)
    found = sorted(
        (each["load_ops"], values.index(each["value"]))
        for each in demands
        if each["value"] is not None
    )
    xs, ys = [load for load, _ in found], [at for _, at in found]
    axes.plot(xs, ys, color=canvas.BEST, linewidth=1.3, zorder=3)
    axes.plot(xs, ys, "o", color=canvas.BEST, markersize=7, zorder=4)
    axes.set_yticks(range(len(values)), [plain(value, 12) for value in values])
    axes.set_ylim(-0.5, len(values) - 0.5)
    axes.set_xlim(left=0)
    canvas.number_axis(axes, "x")
    axes.set_xlabel("Offered load (operations/s)")
    axes.set_ylabel(plain(demands[0]["path"], 60))


def _values(axes: Axes, demand: Mapping[str, Any], bound: float | None) -> None:
    """The p99 by the place of the value in the list."""
    points = [
        (at, point["p99_ms"], point["met"] and point["valid"], point["value"] == demand["value"])
        for at, point in enumerate(demand["curve"])
        if point["p99_ms"]
    ]
    axes.plot([at for at, *_ in points], [y for _, y, *_ in points], color=canvas.BEST, linewidth=1)
    for at, latency_ms, met, first in points:
        size = 9.0 if first else 5.0
        axes.plot([at], [latency_ms], "o" if met else "x", color=canvas.BEST, markersize=size)
    if bound is not None:
        axes.axhline(bound, color=canvas.BAD, linewidth=1.0, linestyle=(0, (4, 3)), zorder=2)
    if points:
        axes.set_yscale("log")
        canvas.number_axis(axes, "y", log=True)
    axes.set_xlim(-0.5, len(demand["curve"]) - 0.5)
    axes.set_ylabel("p99 latency (ms)")
