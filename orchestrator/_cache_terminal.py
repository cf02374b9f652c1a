"""What people see of ``archbench cache``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from orchestrator import _terminal
from orchestrator.core.units import format_size

if TYPE_CHECKING:
    from rich.console import Console

_EXACT_MAX: Final = 8


@contextmanager
def progress(passes: int, requests: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, one plain line elsewhere; hears how many passes are done."""
    what = f"{passes} pass{'es' if passes != 1 else ''} over {requests:,} requests"
    if not sys.stderr.isatty():
        _terminal.say(what)
        yield lambda done: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Left())
    with Progress(*columns, console=_terminal.console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=passes)
        yield lambda done: bar.update(task, completed=done)


def show(out: Console, data: Mapping[str, Any], left_out: str) -> None:
    """A row a size, a column a policy, the best of each row marked; then what to know of it."""
    from orchestrator.report.wording import percent

    weight = "" if data["bytes"] is None else f" of {_rounded_size(data['bytes'])} together"
    out.print(
        f"{data['requests']:,} requests, reads and writes alike, to {data['objects']:,}"
        f" objects{weight}",
        markup=False,
    )
    if left_out:
        out.print(_terminal.printable(left_out), markup=False, soft_wrap=True)
    _show_curves(out, data["curves"])
    least = f"no cache misses less than {percent(data['compulsory_miss_ratio'])}: first accesses"
    out.print(f"* least of its row; {least}", markup=False)
    out.print(f"{data['figure']}, {data['seconds']:.1f} s", markup=False, soft_wrap=True)


def _show_curves(out: Console, curves: Sequence[Mapping[str, Any]]) -> None:
    policies = list(dict.fromkeys(curve["policy"] for curve in curves))
    rows: dict[tuple[str, int], list[str]] = {}
    for curve in curves:  # by policy, and of each all sizes in one order
        percent = f"{100 * curve['miss_ratio']:.2f}"
        rows.setdefault((curve["unit"], curve["size"]), []).append(percent)
    cells = []
    for (unit, size), row in rows.items():
        least = min(row, key=float)
        marked = [f"{each}{'*' if each == least else ' '}" for each in row]
        cells.append([f"{size:,}" if unit == "entries" else _size(size), *marked])
    header = ["miss ratio (%)", *(f"{name} " for name in policies)]
    out.print(_terminal.table(header, cells, right=1))


def _size(size_bytes: int) -> str:
    """As it was given, but for a share, whose odd bytes nobody reads."""
    exact = format_size(size_bytes)
    return exact if len(exact) <= _EXACT_MAX else _rounded_size(size_bytes)


def _rounded_size(size_bytes: int) -> str:
    """``24.1 MiB``: for reading, not for parsing."""
    from orchestrator.core.parameters import SIZE
    from orchestrator.report.wording import axis_scale, number

    divisor, unit = axis_scale(SIZE, [size_bytes])
    return f"{number(size_bytes / divisor)} {unit}"
