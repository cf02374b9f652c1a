"""What a sweep shows on the terminal: its points, and how faults and variants got on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator._terminal import cell, table

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.sweep import Point, SweepResult


def labels(values: Sequence[Any]) -> dict[str, str]:
    """A short name for each value of an axis, by its text: that of its plug-ins, with their
    parameters where that alone does not tell them apart.
    """
    from orchestrator.report.wording import worded

    texts = [cell(value) for value in values]
    short = [_name(value) for value in values]
    told = []
    for value, text, name in zip(values, texts, short, strict=True):
        if name and short.count(name) == 1:
            told.append(name)
        else:
            told.append(worded(value) if isinstance(value, Mapping) else text)
    return dict(zip(texts, told, strict=True))


def _name(value: Any) -> str:
    """``raft``; ``partition halves leader``; empty where the value has no name."""
    if isinstance(value, Mapping) and value.get("name"):
        told = [value["name"], value.get("shape"), value.get("target")]
        return " ".join(str(word) for word in told if word is not None)
    if isinstance(value, (list, tuple)) and value:
        names = [_name(each) for each in value]
        return " + ".join(names) if all(names) else ""
    return ""


def point_line(number: int, of: int, point: Point) -> str:
    """What became of one variant, on one line."""
    from orchestrator.report.wording import quantity

    named = {path: _name(value) or cell(value) for path, value in point.values.items()}
    values = " ".join(f"{path}={text}" for path, text in named.items())
    if point.summary is None:
        return f"[{number}/{of}] {values}: {point.state}: {point.reason}"
    rate = quantity(point.summary["throughput_ops"], "ops/s")
    p99 = quantity(point.summary["latency_ms"]["all"]["p99"], "ms")
    return f"[{number}/{of}] {values}: {point.state}, {rate}, p99 {p99}"


def draw_costs(result: SweepResult, experiment: str) -> str | None:
    """The picture of what variants do for their price, where it is; None where nothing has one."""
    from orchestrator.stored import write_cost_figure

    found = result.efficiency
    if found is None:
        return None
    names = [", ".join(_variant(result, each["values"])) for each in found]
    drawn = list(zip(names, found, strict=True))
    return str(write_cost_figure(result.results, experiment, drawn))


def _variant(result: SweepResult, values: Mapping[str, Any]) -> list[str]:
    """``nodes 2``, ``cores 8``."""
    from orchestrator.report.wording import short_names

    last = [path.rpartition(".")[2] for path in result.axes]
    names = short_names(list(result.axes))
    if len(set(last)) == len(last):
        names = dict(zip(result.axes, last, strict=True))
    told = {path: labels(result.axes[path])[cell(value)] for path, value in values.items()}
    return [f"{names[path]} {text}" for path, text in told.items()]


def show_sweep(out: Console, result: SweepResult, figure: str | None = None) -> None:
    """A row a variant, then those that cannot run and why; how faults and variants got on, and
    what variants do for their price, of which ``figure`` is the picture.
    """
    from orchestrator.report.wording import short_names

    names = short_names(list(result.axes))
    told = {path: labels(values) for path, values in result.axes.items()}
    faulty = any(point.summary and point.summary["resilience"] for point in result.points)
    bounded = any(point.summary and _bounded(point.summary) for point in result.points)
    priced = result.efficiency is not None
    rows = []
    for point in result.points:
        if point.summary is not None:
            axes = [told[path][cell(point.values[path])] for path in result.axes]
            figures = _figures(point.summary, bounded=bounded, faulty=faulty, priced=priced)
            rows.append([*axes, *figures, point.state])
    resilience = ["recovery s", "longest s", "lost"] if faulty else []
    goodput, cost = ["good/s"] if bounded else [], ["cost/h"] if priced else []
    header = [*names.values(), "ops/s", *goodput, "p50 ms", "p99 ms", *cost, "bottleneck"]
    header += resilience
    out.print(table([*header, "SLO", "valid", ""], rows))
    for point in result.points:
        if point.reason is not None:
            named = [f"{path}={told[path][cell(point.values[path])]}" for path in result.axes]
            out.print(f"{point.state}: {' '.join(named)}: {point.reason}", markup=False)
    if faulty and len(result.axes) == 2 and "faults" in result.axes:
        _show_matrix(out, result, told)
    if figure is not None:
        _show_costs(out, result)
        out.print(figure, markup=False, soft_wrap=True)
    out.print(f"stored in {result.results}", markup=False)


def _show_costs(out: Console, result: SweepResult) -> None:
    """The cheapest variant first; the efficient ones marked."""
    from orchestrator.report.wording import number, short_names

    found = result.efficiency or []
    if not any(each["capacity_ops"] for each in found):
        out.print("no variant met its objective under any load", markup=False)
        return
    paths = [path for path in result.axes if found and path in found[0]["values"]]
    names = short_names(paths)
    told = {path: labels(result.axes[path]) for path in paths}
    rows = [
        [
            *(told[path][cell(each["values"][path])] for path in paths),
            number(each["cost"]),
            ("≥ " if each["at_least"] else "") + number(each["capacity_ops"]),
            number(each["p99_ms"]),
            number(each["per_cost"]),
            "efficient" if each["efficient"] else "",
        ]
        for each in found
    ]
    out.print(
        "the most that each variant carries within its objective, for its price", markup=False
    )
    header = [*names.values(), "cost/h", "ops/s", "p99 ms", "ops/s per cost", ""]
    out.print(table(header, rows))
    if any(each["at_least"] for each in found):
        out.print("≥: all that it was asked for; it may do more", markup=False)


def _bounded(found: Mapping[str, Any]) -> bool:
    """Whether more was asked of operations than an answer: fewer were good than succeeded."""
    return bool(found["slo"]["met"] is not None and found["goodput_ops"] != found["throughput_ops"])


def _figures(found: Mapping[str, Any], *, bounded: bool, faulty: bool, priced: bool) -> list[str]:
    from orchestrator.report.compare import bottleneck
    from orchestrator.report.wording import number

    met = {True: "yes", False: "no", None: "–"}[found["slo"]["met"]]
    return [
        number(found["throughput_ops"]),
        *([number(found["goodput_ops"])] if bounded else ()),
        number(found["latency_ms"]["all"]["p50"]),
        number(found["latency_ms"]["all"]["p99"]),
        *([number(found["cost"])] if priced else ()),
        bottleneck(found),
        *(_resilience(found["resilience"]) if faulty else ()),
        met,
        "yes" if found["valid"] else "no",
    ]


def _resilience(found: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """The median and the longest recovery, and the acknowledged writes that are gone."""
    from orchestrator.report.wording import number

    if found is None:
        return "–", "–", "–"
    missing = found["strikes"] - found["recovered"]
    longest = number(found["recovered_s"]["max"])
    if missing:
        longest = "never" if missing > found.get("recovery_unknown", 0) else "unknown"
    lost = cell(found["lost_acknowledged_writes"])
    if found.get("lost_is_least"):
        lost = f"≥{lost}"
    return number(found["recovered_s"]["p50"]), longest, lost


def _show_matrix(out: Console, result: SweepResult, told: Mapping[str, Mapping[str, str]]) -> None:
    """Faults by variants: the longest recovery in seconds, and what was lost or broken."""
    other = next(path for path in result.axes if path != "faults")
    cells: dict[tuple[str, str], str] = {}
    for point in result.points:
        fault, variant = (told[path][cell(point.values[path])] for path in ("faults", other))
        cells[fault, variant] = _outcome(point)
    columns = list(told[other].values())
    rows = [
        [fault, *(cells.get((fault, column), "") for column in columns)]
        for fault in told["faults"].values()
    ]
    out.print("longest recovery in seconds; what was lost or broken", markup=False)
    out.print(table(["fault", *columns], rows, right=1))


def _outcome(point: Point) -> str:
    if point.summary is None:
        return "–"
    found = point.summary["resilience"] or {}
    _, text, lost = _resilience(point.summary["resilience"])
    if lost not in ("0", "–"):
        text += f", {lost} lost"
    elif found.get("durability") == "invalid":
        text += ", writes lost"
    if unread := found.get("unread_keys"):
        text += f", {unread} unread"
    if point.summary["consistency"]["verdict"] == "invalid":
        text += ", claim broken"
    return text
