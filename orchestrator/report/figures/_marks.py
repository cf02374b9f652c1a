"""What the figures over trials share: marks, names, and how a value axis is finished."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orchestrator.report.figures import _canvas as canvas
from orchestrator.report.model import (
    FAILED,
    FEASIBLE,
    INFEASIBLE,
    OUTCOMES,
    PRUNED,
    StudyView,
    Summary,
    TrialView,
    metric,
    simulated,
)
from orchestrator.report.wording import metric_name

# outcome -> marker, colour, hollow
MARKERS: Final = {
    FEASIBLE: ("o", canvas.TRIAL, False),
    INFEASIBLE: ("o", canvas.MUTED, True),
    PRUNED: ("X", canvas.MUTED, False),
    FAILED: ("v", canvas.BAD, False),
}

Point = tuple[float, float]


def simulation_mark(summaries: Sequence[Summary | None]) -> str:
    """What a title must say of figures in virtual time: `` (simulated)`` or nothing."""
    marks = {simulated(summary) for summary in summaries if summary is not None}
    if marks == {True}:
        return " (simulated)"
    return " (partly simulated)" if True in marks else ""


def study_mark(view: StudyView) -> str:
    """The mark of simulation over all trials of a study."""
    return simulation_mark([trial.metrics for trial in view.trials])


def value(trial: TrialView, view: StudyView) -> float | None:
    """What the trial reached in the study's objective."""
    return metric(trial.metrics, view.objective_metric)


def objective(view: StudyView) -> tuple[str, str]:
    """Name of the objective, and its axis label with the unit."""
    name = metric_name(view.objective_metric, maximize=view.maximize)
    unit = "share" if name.unit == "%" else name.unit
    return name.label, f"{name.label} ({unit})" if unit else name.label


def points(axes: Axes, outcome: str, places: Sequence[Point], size: float) -> None:
    """The marks of all trials of one outcome."""
    if not places:
        return
    marker, color, hollow = MARKERS[outcome]
    seaborn.scatterplot(
        x=[x for x, _ in places],
        y=[y for _, y in places],
        ax=axes,
        marker=marker,
        s=size,
        legend=False,
        color="white" if hollow else color,
        edgecolor=color if hollow else "white",
        linewidth=1.2 if hollow else 0.5,
        zorder=3,
    )


def best_mark(axes: Axes, place: Point | None) -> None:
    """The star of the best variant."""
    _single(axes, place, "*", 13.0, canvas.BEST, 6)


def default_mark(axes: Axes, place: Point | None) -> None:
    """The diamond of the default variant."""
    _single(axes, place, "D", 6.5, canvas.DEFAULT, 5)


def _single(
    axes: Axes, place: Point | None, marker: str, size: float, color: str, zorder: float
) -> None:
    if place is None:
        return
    axes.plot(
        [place[0]],
        [place[1]],
        marker=marker,
        markersize=size,
        color=color,
        markeredgecolor="white",
        markeredgewidth=0.8,
        linestyle="none",
        zorder=zorder,
    )


def on_lower_edge(axes: Axes, trials: Sequence[TrialView]) -> None:
    """Trials that were refused or broke have no value: they stand on the lower edge."""
    for outcome, (marker, color, hollow) in MARKERS.items():
        numbers = [trial.number for trial in trials if trial.outcome == outcome]
        if numbers:
            axes.plot(
                numbers,
                [0.0] * len(numbers),
                linestyle="none",
                marker=marker,
                color=color,
                markerfacecolor="white" if hollow else color,
                markersize=5,
                transform=axes.get_xaxis_transform(),
                clip_on=False,
                zorder=4,
            )


def key(
    figure: Figure, trials: Sequence[TrialView], *, best: bool = False, default: bool = False
) -> None:
    """A key of the marks that occur; none where there is only one kind."""
    held = {trial.outcome for trial in trials}
    handles = [_key_entry(name, *MARKERS[name]) for name in OUTCOMES if name in held]
    if best:
        handles.append(_key_entry("best", "*", canvas.BEST, False))
    if default:
        handles.append(_key_entry("default", "D", canvas.DEFAULT, False))
    if len(handles) > 1:
        figure.legend(
            handles=handles,
            loc="outside lower left",
            ncols=len(handles),
            handletextpad=0.3,
            columnspacing=1.4,
            borderaxespad=0.2,
        )


def _key_entry(label: str, marker: str, color: str, hollow: bool) -> Line2D:
    return Line2D(
        [],
        [],
        linestyle="none",
        marker=marker,
        color=color,
        markerfacecolor="none" if hollow else color,
        markersize=5.5,
        label=label,
    )


def finish_values(axes: Axes, label: str, values: Sequence[float]) -> None:
    """Scale, ticks and label of the y axis; logarithmic where the values are wide apart."""
    log = canvas.choose_log(values)
    if log:
        axes.set_ylim(min(values) / 1.5, max(values) * 1.5)
    canvas.number_axis(axes, "y", log=log)
    axes.set_ylabel(label + (", log" if log and label else ""))
    axes.set_xlabel("")


def time_label(summary: Summary) -> str:
    """Label of a time axis; virtual seconds are named so."""
    return "Seconds since the load began" + (" (virtual time)" if simulated(summary) else "")
