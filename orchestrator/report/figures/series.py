"""Throughput and latency of one run over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from orchestrator.core.faults import leads
from orchestrator.core.record import ASKED, SCALED
from orchestrator.report.figures import _canvas as canvas
from orchestrator.report.figures import _marks as marks
from orchestrator.report.figures._canvas import Picture
from orchestrator.report.model import EventView, RunView, column, finite, lookup, metric
from orchestrator.report.wording import counted, number, percent, plain

Floats = NDArray[numpy.float64]

_CORES = " Dotted lines are when cores were asked for."
_EVENT_LABELS_MAX = 8
_LETTER_SHARE = 0.011
"""How much of the width a letter of a label takes, nearly."""


def series(view: RunView | None, *, of: str = "this run") -> Picture:
    """Throughput and latency over time, with warm-up shaded and events as lines; where nodes' cores
    come and go, how many there are.
    """
    name = "time-series"
    start = column(view.intervals, "start_s") if view is not None else numpy.zeros(0)
    if view is None or not len(start) or not numpy.isfinite(start).all():
        return canvas.empty_picture(
            name, "Throughput and latency over time", f"No interval of {of} is stored."
        )
    note = "Per interval"
    if view.measured_from_s is not None:
        note += "; the shaded warm-up is part of no statistic"
    lost = int(_lost(view, len(start)).sum())
    if lost:
        note += f"; {counted(lost, 'operation')} lost (red)"
    return canvas.picture(
        name,
        _title(view, start, of),
        note,
        "Completed operations per second and latency percentiles of each interval. Vertical "
        "lines are events; red marks on the axis are intervals in which operations failed or "
        "got no answer." + (_CORES if _scales(view) else ""),
        lambda figure: _draw(figure, view, start),
        mark=marks.simulation_mark([view.summary]),
        height_inches=5.4 if _scales(view) else 4.1,
    )


def _title(view: RunView, start: Floats, of: str) -> str:
    throughput = column(view.intervals, "throughput_ops")
    if len(throughput) == len(start):
        edge = view.measured_from_s
        held = throughput[start >= edge] if edge is not None else throughput
        held = held[numpy.isfinite(held)]
        if len(held) > 2 and held.mean() > 0:
            spread = float(held.std(ddof=1) / held.mean())
            word = "steady" if spread < 0.1 else "varying"
            return f"Throughput of {of} was {word}: ±{percent(round(spread, 3))}"
    return f"Throughput and latency of {of} over time"


def _draw(figure: Figure, view: RunView, start: Floats) -> None:
    panels = figure.subplots(2 + _scales(view), 1, sharex=True)
    upper, lower = panels[:2]
    _draw_throughput(upper, view, start)
    _draw_latency(lower, view, start)
    if _scales(view):
        _draw_cores(panels[2], view)
    step = float(numpy.median(numpy.diff(start))) if len(start) > 1 else 1.0
    first, end = float(start[0]), float(start[-1]) + step
    edge = view.measured_from_s
    for axes in panels:
        axes.set_xlim(first, end)
        if edge is not None:
            axes.axvspan(first, edge, color="#f3f1ee", zorder=0, linewidth=0)
    if edge is not None:
        upper.annotate(
            "warm-up",
            xy=(0.0, 1.0),
            xycoords="axes fraction",
            xytext=(4, -3),
            textcoords="offset points",
            va="top",
            fontsize=8.0,
            color="#6f6a62",
        )
    faults = _faults(view, end)
    _draw_faults((upper, lower), faults)
    _draw_moves((upper, lower), view, first, end)
    canvas.number_axis(panels[-1], "x")
    panels[-1].set_xlabel(marks.time_label(view.summary))
    if faults:
        # They are told already; who came to lead is not.
        roles = [event for event in view.events if event.kind == "role" and leads(event.detail)]
        _draw_lines((upper, lower), roles, first, end)
        _label(upper, [(fault.at_s, fault.name) for fault in faults], first, end)
    else:
        # Cores have a panel of their own.
        other = [event for event in view.events if event.kind not in (SCALED, ASKED)]
        _draw_events(upper, lower, other, first, end)
    _label_ends(upper, lower, view)


@dataclass(frozen=True)
class _Fault:
    """A strike: when, until when it held, and when goodput was back, as far as is known."""

    name: str
    at_s: float
    held_s: float
    back_s: float


def _faults(view: RunView, end: float) -> list[_Fault]:
    """All strikes. What was never recovered from lasts until a later one was, or to the end."""
    found: list[_Fault] = []
    faults = lookup(view.summary, "faults")
    back_later = end
    for fault in reversed(faults if isinstance(faults, (list, tuple)) else ()):
        at, until, took = (finite(fault.get(key)) for key in ("at_s", "until_s", "recovered_s"))
        if at is None:
            continue
        held = end if until is None else min(until, end)
        back = at if fault.get("recovered", False) is None else back_later
        if took is not None:
            back = back_later = min(at + took, end)
        found.append(_Fault(plain(fault.get("name"), 18), at, held, back))
    return found[::-1]


def _draw_faults(panels: Sequence[Axes], faults: Sequence[_Fault]) -> None:
    """Each fault shaded while it held, and more lightly until goodput was back, where known."""
    for fault, axes in product(faults, panels):
        shade: dict[str, Any] = {"color": canvas.BAD, "zorder": 1, "linewidth": 0}
        axes.axvspan(fault.at_s, fault.held_s, alpha=0.10, **shade)
        if fault.back_s > fault.held_s:
            axes.axvspan(fault.held_s, fault.back_s, alpha=0.05, **shade)


def _draw_moves(panels: Sequence[Axes], view: RunView, first: float, end: float) -> None:
    """Each move of data shaded from its first portion to its last, and named."""
    moves = lookup(view.summary, "moves")
    labels = []
    for move in moves if isinstance(moves, (list, tuple)) else ():
        began, ended = finite(move.get("began_s")), finite(move.get("ended_s"))
        if began is None:
            continue
        for axes in panels:
            axes.axvspan(began, end if ended is None else ended, color=canvas.BEST, alpha=0.12)
        labels.append((began, plain(move.get("command"), 18).replace("_", " ")))
    if labels:
        _label(panels[0], labels, first, end)


def _draw_throughput(axes: Axes, view: RunView, start: Floats) -> None:
    throughput = column(view.intervals, "throughput_ops")
    if len(throughput) == len(start):
        axes.plot(start, throughput, color=canvas.BEST, linewidth=1.6, zorder=4)
        top = float(numpy.nanmax(throughput)) if numpy.isfinite(throughput).any() else 1.0
        axes.set_ylim(0, max(top, 1e-9) * 1.18)
    lost = start[_lost(view, len(start)) > 0]
    if len(lost):
        axes.plot(
            lost,
            numpy.zeros(len(lost)),
            linestyle="none",
            marker="^",
            markersize=4.5,
            color=canvas.BAD,
            clip_on=False,
            zorder=5,
        )
    canvas.number_axis(axes, "y")
    axes.set_ylabel("Throughput (ops/s)")


def _lost(view: RunView, length: int) -> Floats:
    """Operations of each interval that failed or got no answer."""
    lost = numpy.zeros(length)
    for name in ("fail", "unknown"):
        values = column(view.intervals, name)
        if len(values) == length:
            lost += numpy.nan_to_num(values)
    return lost


def _draw_latency(axes: Axes, view: RunView, start: Floats) -> None:
    values: list[float] = []
    for name, color, width in (("p50_ms", canvas.MUTED, 1.3), ("p99_ms", canvas.BEST, 1.6)):
        line = column(view.intervals, name)
        if len(line) == len(start):
            axes.plot(start, line, color=color, linewidth=width, zorder=4)
            values += [float(value) for value in line[numpy.isfinite(line)]]
    log = canvas.choose_log(values)
    if log:
        axes.set_ylim(min(values) / 1.5, max(values) * 1.5)
    else:
        axes.set_ylim(0, max(values, default=0.0) * 1.18 or 1.0)
    canvas.number_axis(axes, "y", log=log)
    axes.set_ylabel("Latency (ms)" + (", log" if log else ""))


def _scales(view: RunView) -> bool:
    """Whether its nodes' cores have changed."""
    return any(event.kind == SCALED for event in view.events) and "cores" in view.nodes


def _draw_cores(axes: Axes, view: RunView) -> None:
    """Cores in service, of all nodes together."""
    starts, cores = column(view.nodes, "start_s"), column(view.nodes, "cores")
    times, place = numpy.unique(starts, return_inverse=True)
    total = numpy.bincount(place, weights=numpy.nan_to_num(cores), minlength=len(times))
    axes.step(times, total, where="post", color=canvas.ACCENT, linewidth=1.6, zorder=4)
    asked = [event.at_s for event in view.events if event.kind == ASKED]
    for at_s in asked:
        axes.axvline(at_s, color=canvas.ACCENT, linewidth=0.9, linestyle=(0, (2, 3)), zorder=3)
    axes.set_ylim(0, max(float(total.max()), 1.0) * 1.18)
    canvas.number_axis(axes, "y")
    axes.set_ylabel("Cores in service")


def _label_ends(upper: Axes, lower: Axes, view: RunView) -> None:
    mean = metric(view.summary, "throughput_ops")
    if mean is not None and mean <= upper.get_ylim()[1]:
        upper.axhline(mean, color=canvas.BEST, linewidth=0.9, linestyle=(0, (2, 3)), zorder=3)
        canvas.label_right(upper, [(mean, f"mean {number(mean)}", canvas.BEST)])
    ends = []
    for name, label, color in (
        ("p50_ms", "p50", "#5f6570"),
        ("p99_ms", "p99", canvas.BEST),
    ):
        line = column(view.intervals, name)
        line = line[numpy.isfinite(line)]
        if len(line):
            ends.append((float(line[-1]), label, color))
    canvas.label_right(lower, ends)


def _draw_events(
    upper: Axes, lower: Axes, events: Sequence[EventView], start: float, end: float
) -> None:
    """Lines at the events; texts only while they have room, neighbours share one."""
    inside = _draw_lines((upper, lower), events, start, end)
    groups: list[list[EventView]] = []
    for event in inside:
        if groups and event.at_s - groups[-1][0].at_s < 0.06 * (end - start):
            groups[-1].append(event)
        else:
            groups.append([event])
    texts = []
    for group in groups:
        more = f" +{len(group) - 1}" if len(group) > 1 else ""
        texts.append((group[0].at_s, f"{group[0].kind} {group[0].node}".strip() + more))
    _label(upper, texts, start, end)


def _draw_lines(
    panels: Sequence[Axes], events: Sequence[EventView], start: float, end: float
) -> list[EventView]:
    """A line at each event; returns those that are shown, in order."""
    inside = [event for event in events if start <= event.at_s <= end]
    for event, axes in product(inside, panels):
        axes.axvline(event.at_s, color=canvas.BAD, linewidth=0.9, alpha=0.7, zorder=3)
    return sorted(inside, key=lambda event: event.at_s)


def _label(axes: Axes, texts: Sequence[tuple[float, str]], start: float, end: float) -> None:
    """Texts at times, as long as there are few enough to be read."""
    if len(texts) > _EVENT_LABELS_MAX:
        return
    for at_s, text in texts:
        left = (at_s - start) / (end - start) + _LETTER_SHARE * len(text) > 1
        axes.annotate(
            plain(text, 18),
            xy=(at_s, 0.06),
            xycoords=("data", "axes fraction"),
            xytext=(-3 if left else 3, 0),
            textcoords="offset points",
            fontsize=7.5,
            ha="right" if left else "left",
            va="bottom",
            color=canvas.BAD,
            zorder=6,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.4},
        )
