"""What people see of ``archbench fit`` and ``archbench changes``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator import _terminal

if TYPE_CHECKING:
    from rich.console import Console

_MEANINGS = {
    "sigma": "is serial",
    "kappa": "costs any two to agree",
    "lambda": "throughput of one",
}


def show_fit(
    out: Console, data: Mapping[str, Any], sizes: Sequence[float], measured: Sequence[float]
) -> None:
    """Parameters with their intervals, what the law says beside what was measured, the ends."""
    rows = []
    for name, meaning in _MEANINGS.items():
        if data[name] is not None:
            rows.append([name, f"{data[name]:.6g}", _interval(data["ci95"][name]), meaning])
    out.print(_terminal.table([data["model"], "fitted", "95 % interval", ""], rows))
    points = [
        [f"{n:g}", f"{x:,.6g}", f"{x - residual:,.6g}", f"{residual:+,.3g}"]
        for n, x, residual in zip(sizes, measured, data["residuals"], strict=True)
    ]
    out.print(_terminal.table(["n", "measured", "fitted", "difference"], points))
    if data["extrapolation"]:
        rows = [
            [f"{each['n']:g}", f"{each['throughput']:,.6g}", _interval(each["ci95"])]
            for each in data["extrapolation"]
        ]
        header = ["n", "predicted", "95 % of measurements"]
        out.print(_terminal.table(header, rows))
    for sentence in _sentences(data):
        out.print(sentence, markup=False)


def _interval(bounds: Sequence[float | None] | None) -> str:
    if bounds is None:
        return "–"
    low, high = ("" if end is None else f"{end:.4g}" for end in bounds)
    return f"{low} to {high}" if high else f"{low} or more"


def _sentences(data: Mapping[str, Any]) -> list[str]:
    said = []
    if data["peak_n"] is not None:
        said.append(
            f"The peak is {data['peak_throughput']:,.4g} at n = {data['peak_n']:.1f};"
            " more than that is less."
        )
    elif data["model"] == "usl":
        said.append("There is no peak: nothing says that throughput ever falls.")
    if data["limit_throughput"] is not None:
        said.append(
            f"The serial part alone would hold it below {data['limit_throughput']:,.4g},"
            " however large n is."
        )
    if data["residual_standard_error"] is None:
        said.append(
            "There are no more points than parameters, so nobody can tell how sure that is."
        )
    else:
        said.append(f"Residual standard error: {data['residual_standard_error']:.4g}.")
    return said


def show_changes(out: Console, data: Mapping[str, Any]) -> None:
    """A row a change."""
    from orchestrator.report.wording import number

    if not data["changes"]:
        out.print(f"no change in {data['points']:,} points of {data['column']}", markup=False)
        return
    named = any(change["run_id"] for change in data["changes"])
    rows = []
    for change in data["changes"]:
        relative = change["relative"]
        cells = [f"{change['index']:,}", number(change["before"]), number(change["after"])]
        cells += ["–" if relative is None else f"{100 * relative:+.1f} %", f"{change['p']:.3g}"]
        rows.append([*cells, *([change["run_id"]] if named else [])])
    header = ["first point", "before", "after", "change", "p", *(["run"] if named else [])]
    out.print(f"{data['points']:,} points of {data['column']}", markup=False)
    out.print(_terminal.table(header, rows))
