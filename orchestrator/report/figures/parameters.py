"""Figures over the searched parameters: which of them matters, and how."""

from __future__ import annotations

import math
from collections.abc import Sequence

import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orchestrator.report.figures import _canvas as canvas
from orchestrator.report.figures import _marks as marks
from orchestrator.report.figures._canvas import Picture
from orchestrator.report.figures._marks import Point
from orchestrator.report.model import OUTCOMES, ParameterView, StudyView, TrialView
from orchestrator.report.wording import axis_scale, percent, plain, short_names

_PANELS_MAX = 8
_BARS_MAX = 12
_WORDS_MAX = 12
_GOLDEN = 0.6180339887498949


def importance(view: StudyView) -> Picture:
    """How much of the objective's variance each parameter explains."""
    name, label = "parameter-importance", marks.objective(view)[0].lower()
    shares = sorted(view.importance.items(), key=lambda item: (-item[1], item[0]))[:_BARS_MAX]
    if not shares:
        return canvas.empty_picture(
            name, "Parameter importance", "Not enough trials to tell which parameter matters."
        )
    short = short_names([path for path, _ in shares])
    top, share = shares[0]
    return canvas.picture(
        name,
        f"{plain(short[top], 26)} decides most about {label}",
        f"Share of the variance of {label} that each parameter explains",
        f"Over all trials with a value, {plain(top)} explains {percent(round(share, 3))} of the "
        f"differences in {label}. Estimated from few trials: read the order, not the decimals.",
        lambda figure: _draw_importance(
            figure, [(plain(short[path], 26), share) for path, share in shares]
        ),
        mark=marks.study_mark(view),
        height_inches=1.2 + 0.34 * len(shares),
    )


def _draw_importance(figure: Figure, shares: Sequence[tuple[str, float]]) -> None:
    axes = figure.subplots()
    values = [share for _, share in shares]
    # Positions, not names: two names may look equal when shortened.
    seaborn.barplot(
        x=values,
        y=list(range(len(values))),
        orient="h",
        ax=axes,
        color=canvas.BEST,
        width=0.55,
        saturation=1.0,
        errorbar=None,
    )
    axes.set_yticks(range(len(values)), labels=[name for name, _ in shares])
    for position, share in enumerate(values):
        axes.annotate(
            percent(round(share, 3)),
            (share, position),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axes.set_xlim(0, max(1e-9, *values) * 1.18)
    axes.grid(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set(xlabel="", ylabel="")


def slices(view: StudyView) -> Picture:
    """The objective over each searched parameter, one panel each."""
    name, label = "parameter-slices", marks.objective(view)[0]
    valued = [trial for trial in view.trials if marks.value(trial, view) is not None]
    if not valued or not view.parameters:
        return canvas.empty_picture(name, f"{label} by parameter", "No trial has a value.")
    order = sorted(view.parameters, key=lambda item: -view.importance.get(item.path, 0.0))
    shown = order[:_PANELS_MAX]
    short = short_names([parameter.path for parameter in view.parameters])
    title = f"{label} over each parameter"
    if view.best is not None:
        at = [
            f"{short[item.path]} {view.best.params[item.path].text}"
            for item in shown[:3]
            if item.path in view.best.params
        ]
        title = f"Best at {', '.join(at)}" if at else title
    more = f" ({len(shown)} of {len(order)} parameters)" if len(order) > len(shown) else ""
    return canvas.picture(
        name,
        title,
        f"{label} of each trial over what was searched{more}",
        "The same trials once per searched parameter; the other parameters vary too, so a "
        "column of marks shows their influence.",
        lambda figure: _draw_slices(figure, view, shown, valued, short),
        mark=marks.study_mark(view),
        height_inches=1.1 + 2.2 * math.ceil(len(shown) / 2),
    )


def _draw_slices(
    figure: Figure,
    view: StudyView,
    shown: Sequence[ParameterView],
    trials: Sequence[TrialView],
    short: dict[str, str],
) -> None:
    columns = min(2, len(shown))
    panels = figure.subplots(
        math.ceil(len(shown) / columns), columns, sharey=True, squeeze=False
    ).flatten()
    values = [reached for trial in trials if (reached := marks.value(trial, view)) is not None]
    for index, axes in enumerate(panels):
        if index >= len(shown):
            axes.set_visible(False)
            continue
        unit = _slice(axes, view, shown[index], trials)
        marks.finish_values(axes, marks.objective(view)[1] if index % columns == 0 else "", values)
        axes.set_xlabel(plain(short[shown[index].path], 30) + (f" ({unit})" if unit else ""))
    marks.key(figure, trials, best=view.best is not None, default=view.default is not None)


def _slice(
    axes: Axes, view: StudyView, parameter: ParameterView, trials: Sequence[TrialView]
) -> str:
    """Draw one panel; returns the unit of its x axis."""
    everyone = [*trials, *(trial for trial in (view.default, view.best) if trial is not None)]
    held = [trial.params[parameter.path] for trial in everyone if parameter.path in trial.params]
    numbers = [item.number for item in held if item.number is not None]
    words: list[str] = []
    divisor, unit = axis_scale(parameter.quantity, numbers)
    if len(numbers) < len(held):
        words, unit = sorted({item.text for item in held})[:_WORDS_MAX], ""

    def place(trial: TrialView | None, nudge: float = 0.0) -> Point | None:
        item = trial.params.get(parameter.path) if trial is not None else None
        y = marks.value(trial, view) if trial is not None else None
        if item is None or y is None:
            return None
        if words:
            return (words.index(item.text) + nudge, y) if item.text in words else None
        return None if item.number is None else (item.number / divisor, y)

    for outcome in OUTCOMES:
        # Marks over a word are spread a little (golden ratio steps), so that they do not hide
        # each other; numbers stay where they are.
        places = [
            place(trial, 0.3 * (trial.number * _GOLDEN % 1 - 0.5))
            for trial in trials
            if trial.outcome == outcome
        ]
        marks.points(axes, outcome, [at for at in places if at is not None], 26)
    marks.default_mark(axes, place(view.default))
    marks.best_mark(axes, place(view.best))
    if words:
        _word_axis(axes, words)
    elif numbers:
        _number_axis(axes, parameter, [item / divisor for item in numbers])
    return unit


def _word_axis(axes: Axes, words: Sequence[str]) -> None:
    axes.set_xticks(range(len(words)), labels=[plain(word, 16) for word in words])
    axes.set_xlim(-0.5, len(words) - 0.5)
    if sum(len(word) for word in words) > 30:
        axes.tick_params(axis="x", labelrotation=25)


def _number_axis(axes: Axes, parameter: ParameterView, values: Sequence[float]) -> None:
    log = parameter.log and min(values) > 0 and max(values) > min(values)
    axes.margins(x=0.1)
    if log:
        axes.set_xlim(min(values) / 1.25, max(values) * 1.25)
    canvas.number_axis(axes, "x", log=log)
    if not log and all(item == round(item) for item in values) and max(values) < 1000:
        canvas.whole_number_axis(axes)
