"""What people see on a terminal: tables, progress, errors. Results go to stdout, the rest to
stderr.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.units import NS_PER_S
from orchestrator.errors import ArchbenchError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from orchestrator.doctor import Check
    from orchestrator.run import RunResult
    from orchestrator.runtimes._parts import Parts

_LATENCY_COLUMNS: Final = ("count", "mean", "p50", "p90", "p99", "p999", "max")


# --- JSON -------------------------------------------------------------------------------


def json_ready(value: Any) -> Any:
    """``value`` in JSON's own types; numbers that are not finite become null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): json_ready(item) for key, item in value.items()}
        case list() | tuple():
            return [json_ready(item) for item in value]
        case None | bool() | int() | str():
            return value
        case _:
            return str(value)


def json_line(value: Any) -> str:
    """One JSON object on one line, in ASCII so that no terminal or pipe can garble it."""
    return json.dumps(json_ready(value), allow_nan=False)


def error_json(error: BaseException) -> dict[str, Any]:
    """``{"error": {"kind", "message", "path", "hint"}}``."""
    return {
        "error": {
            "kind": type(error).__name__,
            "message": error.message if isinstance(error, ArchbenchError) else str(error),
            "path": getattr(error, "path", None),
            "hint": getattr(error, "hint", None),
        }
    }


# --- consoles ---------------------------------------------------------------------------


def console(*, stderr: bool = False) -> Console:
    """A console that never wraps what goes into a pipe."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 4096, highlight=False)


def printable(text: str) -> str:
    """``text`` with escapes for what would garble a terminal; lines stay lines."""
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
        for each in text
    )


def say(text: str) -> None:
    """A line of progress or advice."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def say_lost(reason: str) -> None:
    """A run lost a part and is made again."""
    say(f"run again: {reason}")


def say_precision(runs: int, found: Mapping[str, Any]) -> None:
    """How precisely figures are known after so many runs."""
    reached = found["reached"]
    known = "not every figure has an interval yet" if reached is None else f"within {reached:.1%}"
    say(f"[{runs}] {known}; {found['asked']:.1%} is asked")


def expected_s(planned: Parts, repeats: int) -> float | None:
    """How long a real run takes; a simulation, and a load with an end of its own, take as long
    as they take.
    """
    if planned.config.runtime == "sim" or planned.end_ns is None:
        return None
    return repeats * planned.end_ns / NS_PER_S


@contextmanager
def progress(what: str, expected_s: float | None) -> Iterator[None]:
    """While the block runs: a moving line on a terminal, one plain line elsewhere.

    ``expected_s`` is about how long it takes; None where nobody knows.
    """
    about = "" if expected_s is None else f", about {expected_s:.0f} s"
    if not sys.stderr.isatty():
        say(f"{what}{about}")
        yield
        return
    from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task
    from rich.text import Text

    class Elapsed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{what}: {task.elapsed or 0:.0f} s{about}")

    with Progress(SpinnerColumn(), Elapsed(), console=console(stderr=True), transient=True) as bar:
        bar.add_task(what, total=None)
        yield


# --- tables -----------------------------------------------------------------------------


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: int = 0) -> Any:
    """A plain table; the columns from ``right`` on are aligned to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, name in enumerate(header):
        justify: Any = "right" if right and index >= right else "left"
        made.add_column(Text(name), justify=justify, overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def _facts(pairs: Sequence[tuple[str, str, str]]) -> RenderableType:
    """Label, value and style of a line each."""
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for label, value, style in pairs:
        if value:
            made.add_row(label, Text(value, style=style))
    return made


def cell(value: Any) -> str:
    """A value of a query as text."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return json_line(value) if isinstance(value, (list, dict)) else str(value)


# --- a run ------------------------------------------------------------------------------


def show_run(out: Console, result: RunResult) -> None:
    """One run, or the pool of several, in about fifteen lines."""
    summary = result.summary
    virtual = " (virtual time)" if summary["clock"] == "virtual" else ""
    repeats = f", {len(result.repeats)} repeats" if result.repeats else ""
    title = f"{summary['experiment']} on {summary['runtime']}{virtual}, seed {summary['seed']}"
    out.print(title + repeats, style="bold", markup=False)
    tenants = (summary.get("tenants") or {}).items()
    own = {f"tenant {name}": found["latency_ms"]["all"] for name, found in tenants}
    out.print(_latency_table(summary["latency_ms"] | own))
    kept = f", with operations: {result.kept}" if result.kept != "none" else ""
    where = f"{summary['results']}, run {summary['run_id']}{kept}"
    facts = [*_figures(summary), *_verdicts(summary), *_places(result), ("stored", where, "")]
    out.print(_facts(facts))


def _places(result: RunResult) -> list[tuple[str, str, str]]:
    """Which host carried what, in each repeat; nothing where there is one host."""
    runs = [each.summary.get("placement") for each in result.repeats or (result,)]
    if len({host for places in runs for host in (places or {}).values()}) < 2:
        return []
    said = [
        ", ".join(f"{part} on {host}" for part, host in (places or {}).items()) for places in runs
    ]
    if len(said) == 1:
        return [("hosts", said[0], "")]
    return [("hosts", f"repeat {number}: {text}", "") for number, text in enumerate(said, start=1)]


def _figures(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    from orchestrator.report.breakdown import SLOWEST, breakdown_words, saturation
    from orchestrator.report.compare import bottleneck
    from orchestrator.report.model import interval, metric
    from orchestrator.report.wording import NONE, number, percent, quantity, span

    def with_interval(path: str, unit: str) -> str:
        bounds = interval(summary, path)
        text = quantity(metric(summary, path), unit)
        return f"{text} (95 %: {span(bounds)})" if bounds else text

    offered, cache = summary["offered_ops"], summary["cache"]
    ratio, own = cache["hit_ratio"], cache.get("client_hit_ratio")
    evicted = number(cache.get("evictions"))
    bound = bottleneck(summary).replace(NONE, "")
    outcomes = summary["outcomes"].items()
    tenants = ", ".join(
        f"{name} {quantity(found['goodput_ops'], 'ops/s')}"
        for name, found in (summary.get("tenants") or {}).items()
    )
    return [
        ("throughput", with_interval("throughput_ops", "ops/s"), ""),
        ("goodput", tenants, ""),
        ("offered", quantity(offered, "ops/s") if offered else "", ""),
        ("p99", with_interval("latency_ms.all.p99", "ms"), ""),
        ("outcomes", ", ".join(f"{count:,} {name}" for name, count in outcomes), ""),
        ("compared", _comparisons(summary), ""),
        ("cache hits", "" if ratio is None else f"{percent(ratio)}, {evicted} evictions", ""),
        ("client hits", "" if own is None else percent(own), ""),
        ("bottleneck", ", ".join(filter(None, (bound, saturation(summary)))), ""),
        ("latency from", breakdown_words(summary).replace(NONE, ""), ""),
        ("slowest 1 %", breakdown_words(summary, SLOWEST).replace(NONE, ""), ""),
    ]


def _comparisons(summary: Mapping[str, Any]) -> str:
    """Of compare-and-sets how many did not match; empty without any."""
    from orchestrator.report.wording import percent

    found = summary.get("compare_and_set")
    if not found:
        return ""
    return f"{found['compared']:,} compare-and-sets, {percent(found['unmatched_share'])} unmatched"


def _verdicts(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    from orchestrator.report.compare import (
        consistency,
        contradicts,
        harness,
        hot_shards,
        links,
        lost_writes,
        modelled,
        moves,
        overload,
        recovery,
        slo_word,
    )
    from orchestrator.report.trust import precision, steadiness
    from orchestrator.report.wording import NONE

    bad = "bold red"
    unsafe = (summary["resilience"] or {}).get("durability", "valid") != "valid"
    as_asked = (summary["links"] or {"as_asked": True})["as_asked"]
    valid, met = bool(summary["valid"]), summary["slo"]["met"]
    kept = summary["consistency"]["verdict"] == "valid"
    collapsed = summary["overload"]["metastable"] is not None
    hot = bool((summary["shards"] or {}).get("hot"))
    steady = summary["steady_state"]["steady"]
    precise = (summary["precision"] or {"met": True})["met"]
    limited = "the host itself was saturated: these are its limits"
    return [
        ("overload", overload(summary).replace(NONE, ""), bad if collapsed else ""),
        ("shards", hot_shards(summary).replace(NONE, ""), "yellow" if hot else ""),
        ("moves", moves(summary).replace(NONE, ""), ""),
        ("links", links(summary).replace(NONE, ""), "" if as_asked else "yellow"),
        ("harness", harness(summary).replace(NONE, ""), ""),
        ("faults", recovery(summary).replace(NONE, ""), ""),
        ("durability", lost_writes(summary).replace(NONE, ""), bad if unsafe else ""),
        ("consistency", consistency(summary), "" if kept else bad),
        ("SLO", "" if met is None else slo_word(summary), bad if met is False else ""),
        ("steady", steadiness(summary).replace(NONE, ""), "" if steady is not False else bad),
        ("precision", precision(summary).replace(NONE, ""), "" if precise else bad),
        ("valid", "yes" if valid else "no", "green" if valid else bad),
        *(("", f"- {reason}", "red") for reason in summary["invalid_reasons"]),
        ("model", modelled(summary).replace(NONE, ""), "yellow" if contradicts(summary) else ""),
        ("", limited if summary["host_limited"] else "", "yellow"),
    ]


def _latency_table(latencies: Mapping[str, Mapping[str, Any]]) -> Any:
    from orchestrator.report.wording import number

    rows = [
        [kind, f"{figures['count']:,}", *(number(figures[name]) for name in _LATENCY_COLUMNS[1:])]
        for kind, figures in latencies.items()
        if figures["count"]
    ]
    header = ["latency (ms)", *(name.replace("p999", "p99.9") for name in _LATENCY_COLUMNS)]
    return table(header, rows, right=1)


# --- the rest ---------------------------------------------------------------------------


def show_dry_run(out: Console, found: Mapping[str, Any]) -> None:
    """What would run, where, for how long, and its disk."""
    from orchestrator.core.units import format_size

    place = found["placement"]
    where = "this process, in virtual time"
    if place["runtime"] != "sim":
        cluster = f"the cluster at {place['address']}" if place["address"] else "an embedded Ray"
        where = f"{cluster}: {place['machines']} machine(s), {place['cpus']:g} CPUs"
    kib = math.ceil(found["disk_bytes"] / 1024)
    pairs = [
        ("runs", str(found["runs"]), ""),
        ("nodes", f"{found['nodes']}, and {found['clients']} client(s)", ""),
        ("where", where, ""),
        ("time", f"about {found['seconds']:.1f} s", ""),
        ("disk", f"about {format_size(kib * 1024)}", ""),
    ]
    out.print(_facts(pairs))


def show_catalogue(out: Console, catalogue: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Every plug-in with its claims and parameters."""
    from rich.padding import Padding

    for family, listed in catalogue.items():
        out.print(f"{family}", style="bold", markup=False)
        for found in listed:
            out.print(f"  {found['name']}: {found['summary']}", markup=False)
            for level, condition in found["claims"].items():
                out.print(f"      claims {level} {condition}", markup=False)
            rows = [
                [each["name"], each["type"], _default(each), each["help"]]
                for each in found["params"]
            ]
            if rows:
                out.print(
                    Padding(
                        table(["parameter", "type", "default", ""], rows),
                        (0, 0, 1, 6),
                        expand=False,
                    )
                )


def _default(parameter: Mapping[str, Any]) -> str:
    return "(required)" if parameter["required"] else json.dumps(parameter["default"])


def show_checks(out: Console, found: Sequence[Check]) -> None:
    """One line a check."""
    marks = {
        (True, True): "ok",
        (True, False): "ok",
        (False, True): "FAILED",
        (False, False): "note",
    }
    rows = [[marks[check.ok, check.needed], check.name, check.detail] for check in found]
    out.print(table(["", "check", ""], rows))
