"""What people see of ``archbench fuzz``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from orchestrator import _terminal
from orchestrator.core.units import NS_PER_MS

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.fuzz import Findings


@contextmanager
def progress(protocol: str, seeds: int) -> Iterator[Callable[[Findings], None]]:
    """A bar on a terminal, one plain line elsewhere; hears of what has been found so far."""
    what = f"fuzzing {protocol}, {seeds} seed{'s' if seeds != 1 else ''}"
    if not sys.stderr.isatty():
        _terminal.say(what)
        yield lambda findings: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Left())
    console = _terminal.console(stderr=True)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=seeds)

        def told(findings: Findings) -> None:
            failed = len(findings.failures)
            text = what if not failed else f"{what}: {failed} failed"
            bar.update(task, completed=findings.seeds, description=text)

        yield told


def show(out: Console, data: Mapping[str, Any]) -> None:
    """What was simulated, what it reached, and each violation with its command."""
    rate = data["seeds_per_minute"]
    pace = f", {rate:,.0f} seeds a minute" if rate and data["seeds"] > 1 else ""
    out.print(
        f"{data['protocol']}: {data['seeds']} simulation{'s' if data['seeds'] != 1 else ''},"
        f" {data['operations']:,} operations, {data['effective_faults']:,} faults with an"
        f" effect{pace}",
        markup=False,
    )
    if data["coverage"]:
        reached = ", ".join(f"{name} {count:,}" for name, count in data["coverage"].items())
        out.print(f"reached: {reached}", markup=False, soft_wrap=True)
    if data["weak_seeds"]:
        out.print(f"{data['weak_seeds']} had fewer than 3 faults with an effect", markup=False)
    if not data["violations"]:
        out.print("no violation of what it claims")
    for found in data["violations"]:
        _show_violation(out, found)


def _show_violation(out: Console, found: Mapping[str, Any]) -> None:
    small = found["minimised"]
    out.print(f"\nseed {found['seed']} breaks {found['property']}", markup=False)
    out.print(f"  {_terminal.printable(found['explanation'])}", markup=False, soft_wrap=True)
    for operation in found["witness"]:
        ended_ns = operation["returned_ns"]
        ended = "..." if ended_ns is None else f"{ended_ns / NS_PER_MS:.3f}"
        ms = f"{operation['invoked_ns'] / NS_PER_MS:.3f} to {ended}"
        out.print(
            f"    session {operation['session']} #{operation['sequence']}: {operation['op']}"
            f" {operation['key']} = {operation['value']} ({operation['status']}, {ms} ms,"
            f" node {operation['node']})",
            markup=False,
            soft_wrap=True,
        )
    out.print(f"  again: {found['command']}", markup=False, soft_wrap=True)
    if found["scenario"]:
        out.print(
            f"  smallest: {found['scenario']} ({small['operations']} operations,"
            f" {small['faults']} faults, {small['nodes']} nodes)",
            markup=False,
            soft_wrap=True,
        )
