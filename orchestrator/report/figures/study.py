"""Figures over all trials of a study: their order, and what they trade."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orchestrator.report.compare import compare
from orchestrator.report.figures import _canvas as canvas
from orchestrator.report.figures import _marks as marks
from orchestrator.report.figures._canvas import Picture
from orchestrator.report.figures._marks import Point
from orchestrator.report.model import OUTCOMES, StudyView, TrialView, metric, summary_of
from orchestrator.report.wording import counted, metric_name, number, quantity, times

_P99 = "latency_ms.all.p99"
_THROUGHPUT = "throughput_ops"


def history(view: StudyView) -> Picture:
    """Each trial's value in order, the best so far, and the default."""
    name, trials = "optimisation-history", sorted(view.trials, key=lambda trial: trial.number)
    if not any(marks.value(trial, view) is not None for trial in trials):
        return canvas.empty_picture(name, "Optimisation history", "No trial has a value.")
    outcomes = [trial.outcome for trial in trials]
    parts = [f"{outcomes.count(kind)} {kind}" for kind in OUTCOMES if kind in outcomes]
    return canvas.picture(
        name,
        _history_title(view),
        f"{counted(len(trials), 'trial')}: {', '.join(parts)}",
        "Value of each trial in the order they ran; the step line is the best feasible one so "
        "far. Marks on the lower edge are trials without a value.",
        lambda figure: _draw_history(figure, view, trials),
        mark=marks.study_mark(view),
    )


def _history_title(view: StudyView) -> str:
    if view.best is None:
        return "No trial was feasible"
    if view.default is not None and view.default.number == view.best.number:
        return "No trial beat the default"
    label = marks.objective(view)[0].lower()
    compared = compare(view.best.metrics, summary_of(view.default), view.objective_metric)
    if compared.ratio is not None:
        return f"Trial {view.best.number} is best: {label} {times(compared.ratio)} the default"
    unit = metric_name(view.objective_metric, maximize=view.maximize).unit
    return f"Trial {view.best.number} is best: {label} {quantity(compared.best, unit)}"


def _draw_history(figure: Figure, view: StudyView, trials: Sequence[TrialView]) -> None:
    axes = figure.subplots()
    valued = [
        (trial, reached) for trial in trials if (reached := marks.value(trial, view)) is not None
    ]
    for outcome in OUTCOMES:
        places = [(trial.number, reached) for trial, reached in valued if trial.outcome == outcome]
        marks.points(axes, outcome, places, 34)
    labels = []
    feasible = [(trial.number, reached) for trial, reached in valued if trial.feasible]
    if feasible:
        numbers, reached_values = zip(*feasible, strict=True)
        better = numpy.maximum if view.maximize else numpy.minimum
        so_far = better.accumulate(numpy.array(reached_values))
        x = [*numbers, trials[-1].number + 0.7]
        axes.step(x, [*so_far, so_far[-1]], where="post", color=canvas.BEST, linewidth=1.8)
        labels.append((float(so_far[-1]), "best so far", canvas.BEST))
    default = metric(summary_of(view.default), view.objective_metric)
    if default is not None:
        axes.axhline(default, color=canvas.DEFAULT, linewidth=1.2, linestyle=(0, (4, 3)))
        labels.append((default, "default", canvas.DEFAULT))
    best = metric(summary_of(view.best), view.objective_metric)
    if view.best is not None and best is not None:
        marks.best_mark(axes, (view.best.number, best))
    marks.finish_values(axes, marks.objective(view)[1], [reached for _, reached in valued])
    canvas.whole_number_axis(axes)
    axes.set_xlim(trials[0].number - 0.7, trials[-1].number + 0.7)
    axes.set_xlabel("Trial")
    marks.on_lower_edge(axes, [trial for trial in trials if marks.value(trial, view) is None])
    canvas.label_right(axes, labels)
    marks.key(figure, trials)


def tradeoff(view: StudyView) -> Picture:
    """Throughput against p99 latency of every trial that ran."""
    name = "throughput-latency"
    places = [(trial, place) for trial in view.trials if (place := _place(trial)) is not None]
    if not places and _place(view.default) is None:
        return canvas.empty_picture(
            name, "Throughput against p99 latency", "No trial has both figures."
        )
    bound, best = view.slo.get(_P99), _place(view.best)
    title = "Throughput against p99 latency"
    if best is not None:
        limit = f" (SLO {number(bound)} ms)" if bound is not None else ""
        title = f"Best: {number(best[0])} ops/s at a p99 of {number(best[1])} ms{limit}"
    missing = len(view.trials) - len(places)
    note = f"; {counted(missing, 'trial')} without figures not shown" if missing else ""
    return canvas.picture(
        name,
        title,
        f"Each mark is one trial, lower right is better{note}",
        "Throughput and 99th percentile latency of every trial that ran. Hollow marks broke a "
        "constraint or are not valid.",
        lambda figure: _draw_tradeoff(figure, view, places),
        mark=marks.study_mark(view),
    )


def _place(trial: TrialView | None) -> Point | None:
    x, y = metric(summary_of(trial), _THROUGHPUT), metric(summary_of(trial), _P99)
    return None if x is None or y is None else (x, y)


def _draw_tradeoff(
    figure: Figure, view: StudyView, places: Sequence[tuple[TrialView, Point]]
) -> None:
    axes = figure.subplots()
    for outcome in OUTCOMES:
        held = [place for trial, place in places if trial.outcome == outcome]
        marks.points(axes, outcome, held, 38)
    best, default, bound = _place(view.best), _place(view.default), view.slo.get(_P99)
    shown = [place for _, place in places] + [place for place in (best, default) if place]
    bounds = [bound] if bound is not None else []
    marks.best_mark(axes, best)
    marks.default_mark(axes, default)
    marks.finish_values(axes, "p99 latency (ms)", [y for _, y in shown] + bounds)
    axes.margins(x=0.08)
    canvas.number_axis(axes, "x")
    axes.set_xlabel("Throughput (ops/s)")
    if bound is not None:
        _bound_line(axes, bound)
    same = best is not None and best == default
    if default is not None and not same:
        canvas.label_point(axes, default, "default", canvas.DEFAULT, shown)
    if best is not None and view.best is not None:
        text = "best = default" if same else f"best (trial {view.best.number})"
        canvas.label_point(axes, best, text, canvas.BEST, shown)
    marks.key(figure, [trial for trial, _ in places])


def _bound_line(axes: Axes, bound: float) -> None:
    low, high = axes.get_ylim()
    high = max(high, bound * 1.12)
    axes.set_ylim(low, high)
    axes.axhspan(bound, high, color="#f3f1ee", zorder=0, linewidth=0)
    axes.axhline(bound, color=canvas.INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=2)
    axes.annotate(
        f"SLO: p99 ≤ {number(bound)} ms",
        xy=(0.0, bound),
        xycoords=("axes fraction", "data"),
        xytext=(4, 3),
        textcoords="offset points",
        va="bottom",
        fontsize=8.5,
    )
