"""Miss ratio over cache size: a line a policy, a panel for entries and one for bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median_high
from typing import Any, Final

import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orchestrator.core.parameters import SIZE
from orchestrator.report.figures import _canvas as canvas
from orchestrator.report.figures._canvas import Picture
from orchestrator.report.wording import axis_scale, counted, joined, plain

Curve = Mapping[str, Any]
"""An item of ``curves`` in what ``cache --json`` prints."""

_UNITS: Final = ("entries", "bytes")
_MARKERS: Final = "osD^vPX*<>"
_PANEL_INCHES: Final = 2.7


def miss_ratio(trace: str, found: Mapping[str, Any]) -> Picture:
    """The curves of a trace; ``found`` is what ``cache --json`` prints."""
    curves: Sequence[Curve] = found["curves"]
    panels = [unit for unit in _UNITS if any(curve["unit"] == unit for curve in curves)]
    labels = list(dict.fromkeys(curve["policy"] for curve in curves))
    requests, objects = (counted(found[name], name[:-1]) for name in ("requests", "objects"))
    return canvas.picture(
        "miss-ratio",
        _title(curves, labels),
        f"{plain(trace, 60)}: {requests} to {objects}",
        "Share of requests that a cache of each size misses, over its size. Below the dashed line"
        " no cache can go: the first access of every object misses.",
        lambda figure: _draw(figure, found, panels, labels),
        height_inches=1.0 + _PANEL_INCHES * len(panels),
    )


def best(curves: Sequence[Curve]) -> list[set[str]]:
    """Of each size, in order: the policies with the fewest misses."""
    sizes = dict.fromkeys((curve["unit"], curve["size"]) for curve in curves)
    found = []
    for size in sizes:
        at = [curve for curve in curves if (curve["unit"], curve["size"]) == size]
        fewest = min(curve["misses"] for curve in at)
        found.append({curve["policy"] for curve in at if curve["misses"] == fewest})
    return found


def _title(curves: Sequence[Curve], labels: Sequence[str]) -> str:
    if len(labels) == 1:
        return f"Miss ratio of {labels[0]}"
    winners = best(curves)
    wins = Counter(label for at in winners for label in sorted(at))
    most = max(wins.values())
    leading = [label for label in labels if wins[label] == most]
    if len(leading) > 3:
        return "Miss ratio of each policy"
    verb = "miss" if len(leading) > 1 else "misses"
    of = "every size" if most == len(winners) else f"{most} of {counted(len(winners), 'size')}"
    return f"{joined(leading)} {verb} least at {of}"


def _draw(
    figure: Figure, found: Mapping[str, Any], panels: Sequence[str], labels: Sequence[str]
) -> None:
    drawn = figure.subplots(len(panels), 1, squeeze=False).flatten()
    colors = seaborn.color_palette("colorblind", len(labels))
    for axes, unit in zip(drawn, panels, strict=True):
        curves = [curve for curve in found["curves"] if curve["unit"] == unit]
        divisor, scale = 1.0, unit
        if unit == "bytes":
            divisor, scale = axis_scale(SIZE, [median_high(curve["size"] for curve in curves)])
        for index, label in enumerate(labels):
            mine = [curve for curve in curves if curve["policy"] == label]
            axes.plot(
                [curve["size"] / divisor for curve in mine],
                [curve["miss_ratio"] for curve in mine],
                color=colors[index],
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=4.0,
                markeredgecolor="white",
                markeredgewidth=0.4,
                linewidth=1.4,
                label=plain(label, 30),
            )
        _finish(axes, scale, [curve["size"] / divisor for curve in curves], found)
    if len(labels) > 1:
        drawn[0].legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), handlelength=1.6)


def _finish(axes: Axes, scale: str, sizes: Sequence[float], found: Mapping[str, Any]) -> None:
    least = found["compulsory_miss_ratio"]
    axes.axhline(least, color=canvas.MUTED, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.annotate(
        "first accesses",
        xy=(0.0, least),
        xycoords=("axes fraction", "data"),
        xytext=(4, 3),
        textcoords="offset points",
        va="bottom",
        color=canvas.MUTED,
        fontsize=8.0,
    )
    axes.margins(y=0.08)
    axes.set_xlim(min(sizes) / 1.25, max(sizes) * 1.25)
    canvas.number_axis(axes, "x", log=True)
    canvas.number_axis(axes, "y")
    axes.set_xlabel(f"Cache size ({scale})")
    axes.set_ylabel("Miss ratio")
