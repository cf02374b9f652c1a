"""Latency by percentile on HDR's scale, of one run or of two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter
from numpy.typing import NDArray

from orchestrator.report.figures import _canvas as canvas
from orchestrator.report.figures import _marks as marks
from orchestrator.report.figures._canvas import Picture
from orchestrator.report.model import Column, RunView, metric, simulated
from orchestrator.report.wording import number, plain

Floats = NDArray[numpy.float64]
Curve = tuple[Floats, Floats]

_FIRST_SHOWN = 1.25
_ALL = "all"
_P99 = "latency_ms.all.p99"
_CAPTION = (
    "Latency by percentile on a scale that gives each further nine the same room. Measured from "
    "the intended start of each operation; operations without an answer count with at least "
    "their timeout."
)
# 1/(1-p) -> p
_TICKS = {
    2.0: "50 %",
    10.0: "90 %",
    100.0: "99 %",
    1e3: "99.9 %",
    1e4: "99.99 %",
    1e5: "99.999 %",
    1e6: "99.9999 %",
}
_COLORS = (canvas.BEST, canvas.ACCENT, canvas.DEFAULT, "#b062a3", canvas.MUTED)


def percentiles(values_ms: Column, counts: Column) -> Curve:
    """A histogram as HDR's curve: x = 1/(1-p) per bucket, and the latency there.

    The last bucket ends at p = 1, which has no place on the scale: it is drawn at the last
    percentile that the number of samples can tell apart, 1 - 1/(2 count).
    """
    values, weights = numpy.asarray(values_ms, float), numpy.asarray(counts, float)
    kept = weights > 0
    values, weights = values[kept], weights[kept]
    if not len(values):
        return numpy.array([]), numpy.array([])
    total = weights.sum()
    above = total - numpy.cumsum(weights)
    x = total / numpy.maximum(above, 0.5)
    # From p = 0 at the smallest value, so that the curve begins at the left edge.
    return numpy.concatenate([[1.0], x]), numpy.concatenate([values[:1], values])


def _curve(view: RunView, kind: str) -> Curve | None:
    """The curve of one kind; ``all`` is merged from the kinds where it is not stored."""
    if not view.latencies:
        return None
    if kind in view.latencies:
        curve = percentiles(*view.latencies[kind])
    else:
        values = numpy.concatenate([numpy.asarray(v, float) for v, _ in view.latencies.values()])
        counts = numpy.concatenate([numpy.asarray(c, float) for _, c in view.latencies.values()])
        order = numpy.argsort(values, kind="stable")
        curve = percentiles(values[order], counts[order])
    return curve if len(curve[0]) else None


def latency(best: RunView | None, default: RunView | None, slo: Mapping[str, float]) -> Picture:
    """Latency by percentile, the best variant's against the default's."""
    name = "latency-distribution"
    runs = [
        (run, curve, label, color)
        for run, label, color in (
            (best, "best", canvas.BEST),
            (default, "default", canvas.DEFAULT),
        )
        if run is not None and (curve := _curve(run, _ALL)) is not None
    ]
    if not runs:
        return canvas.empty_picture(
            name, "Latency by percentile", "No latency histogram of the best variant is stored."
        )
    mine = metric(best.summary if best else None, _P99)
    theirs = metric(default.summary if default else None, _P99)
    title = "Latency by percentile"
    if mine is not None and theirs is not None:
        title = f"p99 latency: best {number(mine)} ms, default {number(theirs)} ms"
    elif mine is not None:
        title = f"p99 latency of the best variant: {number(mine)} ms"
    mark = marks.simulation_mark([run.summary for run, _, _, _ in runs])
    mixed = len({simulated(run.summary) for run, _, _, _ in runs}) > 1
    curves = [
        (curve, label + (" (sim)" if mixed and simulated(run.summary) else ""), color)
        for run, curve, label, color in runs
    ]
    return canvas.picture(
        name,
        title,
        "Latency of all operations by percentile",
        _CAPTION,
        lambda figure: _draw_curves(figure, curves, slo.get(_P99)),
        mark=mark,
    )


def latency_by_kind(view: RunView) -> Picture:
    """Latency by percentile of one run, one curve for each kind of operation."""
    name = "latency-distribution"
    kinds = sorted(kind for kind in view.latencies if kind != _ALL)
    if len(kinds) != 1:
        kinds = [_ALL, *kinds]
    curves = [
        (curve, "all" if kind == _ALL else plain(kind, 20), _COLORS[index % len(_COLORS)])
        for index, kind in enumerate(kinds)
        if (curve := _curve(view, kind)) is not None
    ]
    if not curves:
        return canvas.empty_picture(
            name, "Latency by percentile", "No latency histogram of this run is stored."
        )
    p99 = metric(view.summary, _P99)
    title = "Latency by percentile" if p99 is None else f"p99 latency is {number(p99)} ms"
    return canvas.picture(
        name,
        title,
        "Latency by percentile and kind of operation",
        _CAPTION,
        lambda figure: _draw_curves(figure, curves, None),
        mark=marks.simulation_mark([view.summary]),
    )


def _draw_curves(
    figure: Figure,
    curves: Sequence[tuple[Curve, str, str]],
    bound_p99_ms: float | None,
) -> None:
    axes = figure.subplots()
    right = max(10.0, *(float(x[-1]) for (x, _), _, _ in curves)) * 1.02
    values = [] if bound_p99_ms is None else [bound_p99_ms]
    for index, ((x, y), _, color) in enumerate(curves):
        # The first curve lies on top where curves meet.
        order = 4 - 0.1 * index
        axes.plot(x, y, color=color, linewidth=1.9, drawstyle="steps-pre", zorder=order)
        # The few fastest operations would stretch a logarithmic axis over empty decades.
        values += [float(y[numpy.searchsorted(x, _FIRST_SHOWN)]), float(y[-1])]
    _percentile_axis(axes, right)
    positive = [value for value in values if value > 0]
    log = canvas.choose_log(positive)
    if log:
        axes.set_ylim(min(positive) / 1.3, max(positive) * 1.4)
    else:
        axes.set_ylim(0, max(positive, default=1.0) * 1.12)
    canvas.number_axis(axes, "y", log=log)
    axes.set_ylabel("Latency (ms)" + (", log" if log else ""))
    if bound_p99_ms is not None and right >= 100.0:
        _bound_mark(axes, bound_p99_ms)
    canvas.label_right(axes, [(float(y[-1]), label, color) for (_, y), label, color in curves])


def _percentile_axis(axes: Axes, right: float) -> None:
    axes.set_xscale("log")
    axes.set_xlim(1.0, right)
    axes.xaxis.set_major_locator(FixedLocator([x for x in _TICKS if x <= right]))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _TICKS.get(x, "")))
    axes.set_xlabel("Percentile of operations")


def _bound_mark(axes: Axes, bound_ms: float) -> None:
    """The SLO on p99 binds at one percentile only: a bracket there, not a line across."""
    axes.plot(
        [60.0, 100.0],
        [bound_ms, bound_ms],
        color=canvas.INK,
        linewidth=1.4,
        zorder=5,
        solid_capstyle="butt",
    )
    axes.plot(
        [100.0], [bound_ms], marker="v", color=canvas.INK, markersize=5, linestyle="none", zorder=5
    )
    axes.annotate(
        f"SLO: p99 ≤ {number(bound_ms)} ms",
        xy=(100.0, bound_ms),
        xytext=(-4, 5),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=8.5,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
    )
