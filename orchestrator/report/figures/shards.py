"""How the operations of one run fell on its shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from orchestrator.report.compare import hot_shards
from orchestrator.report.figures import _canvas as canvas
from orchestrator.report.figures import _marks as marks
from orchestrator.report.figures._canvas import Picture
from orchestrator.report.model import RunView, lookup
from orchestrator.report.wording import counted, number

_BARS_MAX = 40


def shards(view: RunView) -> Picture | None:
    """Each shard's share of the operations beside its fair share; None where there are none."""
    found = lookup(view.summary, "shards.by_shard")
    if not isinstance(found, (list, tuple)) or not found:
        return None
    # The busiest where there are too many, in their order.
    busiest = sorted(found, key=lambda each: -each["share"])[:_BARS_MAX]
    shown = [each for each in found if each in busiest]
    text = hot_shards(view.summary)
    dropped = f"; the {len(shown)} busiest of {len(found)}" if len(shown) < len(found) else ""
    hot = [each for each in found if each["hot"]]
    title = text[0].upper() + text[1:] if len(hot) == 1 else f"{len(hot)} of {len(found)} are hot"
    if not hot:
        title = "No shard takes far more than its fair share"
    return canvas.picture(
        "shards",
        title,
        f"Share of the operations; the line is the fair share, red is hot{dropped}",
        f"One bar for each of {counted(len(shown), 'shard')}: its share of the operations of the "
        "measured window. The line across it is the share that the sharding means it to have.",
        lambda figure: _draw(figure, shown),
        mark=marks.simulation_mark([view.summary]),
        height_inches=1.1 + 0.22 * len(shown),
    )


def _draw(figure: Figure, shown: Sequence[Mapping[str, Any]]) -> None:
    axes = figure.subplots()
    places = range(len(shown))
    colours = [canvas.BAD if each["hot"] else canvas.BEST for each in shown]
    axes.barh(places, [100 * each["share"] for each in shown], color=colours, height=0.62, zorder=3)
    for place, each in zip(places, shown, strict=True):
        fair = 100 * each["fair_share"]
        axes.plot([fair, fair], [place - 0.42, place + 0.42], color=canvas.INK, zorder=4)
        if each["p99_ms"] is not None:
            axes.annotate(
                f"p99 {number(each['p99_ms'])} ms",
                xy=(1.0, place),
                xycoords=("axes fraction", "data"),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.0,
                annotation_clip=False,
            )
    axes.set_yticks(list(places), labels=[f"shard {each['shard']}" for each in shown])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("Share of the operations (%)")
