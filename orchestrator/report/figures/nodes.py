"""How busy the nodes of one run were."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from orchestrator.report.compare import bottleneck, role_of_bottleneck
from orchestrator.report.figures import _canvas as canvas
from orchestrator.report.figures import _marks as marks
from orchestrator.report.figures._canvas import Picture
from orchestrator.report.model import Columns, RunView, column
from orchestrator.report.wording import NONE, counted, percent, plain

Floats = NDArray[numpy.float64]

_ROWS_MAX = 24
_BINS_MAX = 60


@dataclass(frozen=True)
class _Heat:
    """One resource: shares of capacity, rows of nodes over bins that begin at ``starts``."""

    label: str
    shares: Floats
    starts: Floats
    means: Floats


def utilisation(view: RunView | None, *, of: str = "this run") -> Picture:
    """How busy each node's CPU and storage was, over time."""
    name = "node-utilisation"
    if view is None or not len(view.nodes.get("node", ())):
        return canvas.empty_picture(
            name, "Utilisation of the nodes", f"No node record of {of} is stored."
        )
    labels = _labels(view.nodes)
    names = sorted(set(labels), key=_natural)
    found = [
        _heat(view, key, title, names, labels)
        for key, title in (("cpu_utilisation", "CPU"), ("storage_utilisation", "Storage"))
    ]
    heats = [heat for heat in found if numpy.isfinite(heat.shares).any()]
    if not heats:
        return canvas.empty_picture(
            name, "Utilisation of the nodes", f"No node of {of} has a limited resource."
        )
    busiest = numpy.nanmax([heat.means for heat in heats], axis=0, initial=-1.0)
    chosen = sorted(int(row) for row in numpy.argsort(-busiest, kind="stable")[:_ROWS_MAX])
    bound = bottleneck(view.summary)
    title = f"Utilisation of the nodes of {of}"
    if bound != NONE:
        role = role_of_bottleneck(view.summary)
        title = f"{plain(bound, 40)} is the {role} of {of}"
    dropped = len(names) - len(chosen)
    note = f"; the {len(chosen)} busiest of {len(names)} nodes" if dropped else ""
    return canvas.picture(
        name,
        title,
        f"Share of capacity in use, darker is busier; mean without warm-up at the right{note}",
        f"Each row is one of {counted(len(names), 'node')}, each cell the share of its capacity "
        "in use: white is idle, full colour is saturated. A line ends the warm-up."
        + _evenness(view),
        lambda figure: _draw(figure, view, heats, chosen, names),
        mark=marks.simulation_mark([view.summary]),
        height_inches=1.15 + len(heats) * (0.62 + 0.2 * len(chosen)),
    )


def _evenness(view: RunView) -> str:
    """How evenly operations were shared, in a sentence; empty where nobody knows."""
    starts, jain = column(view.intervals, "start_s"), column(view.intervals, "jain")
    if len(starts) != len(jain):
        return ""
    known = jain[numpy.isfinite(jain) & (starts >= (view.measured_from_s or 0.0))]
    if not len(known):
        return ""
    return (
        " How evenly the nodes shared the operations: Jain's index of the intervals was "
        f"{numpy.median(known):.3f} in the middle and {known.min():.3f} at worst (1: all alike)."
    )


def _draw(
    figure: Figure,
    view: RunView,
    heats: Sequence[_Heat],
    chosen: Sequence[int],
    names: Sequence[str],
) -> None:
    panels = figure.subplots(len(heats), 1, sharex=True, squeeze=False).flatten()
    for axes, heat in zip(panels, heats, strict=True):
        _draw_heat(axes, heat, chosen, names)
        if view.measured_from_s is not None:
            edge = int(numpy.searchsorted(heat.starts, view.measured_from_s))
            axes.axvline(edge, color=canvas.INK, linewidth=1.0, linestyle=(0, (3, 2)))
    starts = heats[-1].starts
    shown = range(0, len(starts), max(1, -(-len(starts) // 6)))
    panels[-1].set_xticks(list(shown), labels=[f"{starts[index]:.3g}" for index in shown])
    panels[-1].set_xlabel(marks.time_label(view.summary))


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """Sorts n2 before n10."""
    return tuple(
        (int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)
    )


def _labels(nodes: Columns) -> list[str]:
    """Each row's node as people name it: ``n0 leader``."""
    names = [node if isinstance(node, str) else f"n{node}" for node in nodes["node"]]
    roles = nodes.get("role", ())
    if len(roles) != len(names):
        return names
    return [f"{name} {role or ''}".rstrip() for name, role in zip(names, roles, strict=True)]


def _heat(
    view: RunView, key: str, label: str, names: Sequence[str], labels: Sequence[str]
) -> _Heat:
    """Means over at most _BINS_MAX bins of time."""
    nodes = view.nodes
    starts, values = column(nodes, "start_s"), column(nodes, key)
    if not len(starts) == len(values) == len(labels):
        nothing = numpy.full((len(names), 1), numpy.nan)
        return _Heat(label, nothing, numpy.zeros(1), nothing[:, 0])
    times = numpy.unique(starts[numpy.isfinite(starts)])
    per_bin = max(1, -(-len(times) // _BINS_MAX))
    row_of = {name: index for index, name in enumerate(names)}
    rows = numpy.array([row_of[own] for own in labels])
    kept = numpy.isfinite(values) & numpy.isfinite(starts)
    bins = numpy.searchsorted(times, starts) // per_bin
    after = kept if view.measured_from_s is None else kept & (starts >= view.measured_from_s)
    shape = (len(names), max(1, len(times[::per_bin])))
    return _Heat(
        label,
        _means(shape, (rows[kept], bins[kept]), values[kept]),
        times[::per_bin],
        _means(shape[:1], (rows[after],), values[after]),
    )


def _means(
    shape: tuple[int, ...], places: tuple[NDArray[numpy.int64], ...], values: Floats
) -> Floats:
    """Mean of the values at each place; NaN where there is none."""
    sums, counts = numpy.zeros(shape), numpy.zeros(shape)
    numpy.add.at(sums, places, values)
    numpy.add.at(counts, places, 1.0)
    means = numpy.full(shape, numpy.nan)
    numpy.divide(sums, counts, out=means, where=counts > 0)
    return means


def _draw_heat(axes: Axes, heat: _Heat, chosen: Sequence[int], names: Sequence[str]) -> None:
    rows = list(chosen)
    seaborn.heatmap(
        heat.shares[rows],
        ax=axes,
        vmin=0.0,
        vmax=1.0,
        cmap=seaborn.light_palette(canvas.BEST, as_cmap=True),
        cbar=False,
        linewidths=0.3,
        linecolor="white",
        xticklabels=False,
        yticklabels=[plain(names[row], 18) for row in rows],
    )
    axes.tick_params(axis="both", length=0, labelrotation=0)
    axes.set_title(heat.label, loc="left", fontsize=9.0, fontweight="bold", pad=3.0)
    top = numpy.nanmax(heat.means[rows], initial=-1.0)
    for place, row in enumerate(rows):
        mean = float(heat.means[row])
        if numpy.isfinite(mean):
            axes.annotate(
                percent(round(mean, 3)),
                xy=(1.0, place + 0.5),
                xycoords=("axes fraction", "data"),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.0,
                fontweight="bold" if mean == top else "normal",
                annotation_clip=False,
            )
