"""What the variants of a sweep do within their objective over what they cost, the efficient ones
joined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from orchestrator.report.figures import _canvas as canvas
from orchestrator.report.figures._canvas import Picture
from orchestrator.report.wording import counted, number, plain

Variant = tuple[str, Mapping[str, Any]]
"""Its name, and what :func:`orchestrator.analysis.efficiency.efficiency` says of it."""


def cost(experiment: str, variants: Sequence[Variant]) -> Picture:
    """All variants (at least one); those that do nothing within the objective are hollow."""
    return canvas.picture(
        "cost",
        _title(variants),
        f"{plain(experiment, 60)}: {counted(len(variants), 'variant')}, upper left is better",
        "The largest load that each variant carried within its objective, over its cost an hour."
        " The line joins those of which no other costs as little and does as much. A triangle did"
        " all that it was asked for, and may do more. Hollow marks met the objective at no load.",
        lambda figure: _draw(figure, variants),
    )


def _title(variants: Sequence[Variant]) -> str:
    doing = [each for _, each in variants if each["capacity_ops"] and each["per_cost"]]
    if not doing:
        return "No variant met the objective"
    most = max(doing, key=lambda each: each["per_cost"])
    name = next(name for name, each in variants if each is most)
    return (
        f"Most for its price: {plain(name, 50)}, {number(most['per_cost'])} ops/s per unit of cost"
    )


def _draw(figure: Figure, variants: Sequence[Variant]) -> None:
    axes = figure.subplots()
    for _, each in variants:
        color = canvas.BEST if each["efficient"] else canvas.MUTED
        axes.scatter(
            [each["cost"]],
            [each["capacity_ops"]],
            s=34,
            marker="^" if each["at_least"] else "o",
            facecolors=color if each["capacity_ops"] else "none",
            edgecolors=color,
            linewidths=1.0,
            zorder=4 if each["efficient"] else 3,
        )
    best = [(name, each) for name, each in variants if each["efficient"]]
    places = [(each["cost"], each["capacity_ops"]) for _, each in best]
    axes.plot([x for x, _ in places], [y for _, y in places], color=canvas.BEST, linewidth=1.4)
    axes.margins(x=0.12, y=0.12)
    axes.set_ylim(bottom=0)
    canvas.number_axis(axes, "x", log=canvas.choose_log([each["cost"] for _, each in variants]))
    canvas.number_axis(axes, "y")
    axes.set_xlabel("Cost per hour")
    axes.set_ylabel("Load within the objective (ops/s)")
    everybody = [(each["cost"], each["capacity_ops"]) for _, each in variants]
    for (name, _), place in zip(best, places, strict=True):
        canvas.label_point(axes, place, name, canvas.BEST, everybody)
