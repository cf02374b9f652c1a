"""What people see of ``archbench compare``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from orchestrator import _terminal

if TYPE_CHECKING:
    from rich.console import Console

_WORDS: Final = {
    "better": "the candidate is better",
    "worse": "the candidate is worse",
    "same": "the candidate is the same",
    "inconclusive": "nobody can tell yet",
}
_STYLES: Final = {"better": "green", "worse": "bold red", "inconclusive": "yellow"}


def told(pairs: int) -> Callable[[int, str, dict[str, Any]], None]:
    """A line a run."""
    from orchestrator.report.wording import quantity

    def tell(pair: int, name: str, summary: dict[str, Any]) -> None:
        rate = quantity(summary["throughput_ops"], "ops/s")
        p99 = quantity(summary["latency_ms"]["all"]["p99"], "ms")
        doubt = "" if summary["valid"] else f", not valid: {summary['invalid_reasons'][0]}"
        place = f"{pair + 1}/{pairs}" if pair < pairs else f"made again, {pair + 1 - pairs}"
        _terminal.say(f"[{place}] {name}: {rate}, p99 {p99}{doubt}")

    return tell


def show(out: Console, data: Mapping[str, Any]) -> None:
    """A row a figure, and one word for all."""
    from orchestrator.report.wording import counted, number

    rows = []
    for name, each in data["metrics"].items():
        bounds = each["ratio_ci95"]
        rows.append(
            [
                name,
                number(each["base"]),
                number(each["candidate"]),
                "–" if each["ratio"] is None else f"{100 * (each['ratio'] - 1):+.1f} %",
                "–" if bounds is None else " to ".join(f"{100 * (x - 1):+.1f}" for x in bounds),
                "–" if each["p"] is None else f"{each['p']:.3g}",
                each["verdict"],
            ]
        )
    header = ["", "base", "candidate", "change", "95 % interval", "p", ""]
    out.print(_terminal.table(header, rows))
    counts = [len(data["runs"][name]) for name in ("base", "candidate")]
    how = f"{counted(counts[0], 'pair')} of runs" if data["paired"] else None
    how = how or f"{counts[0]} and {counted(counts[1], 'run')}"
    if data["invalid_runs"]:
        how += f"; {counted(data['invalid_runs'], 'run')} not valid, and left out"
    out.print(f"{how}; below {100 * data['threshold']:g} % a difference is none", markup=False)
    verdict = data["verdict"]
    out.print(_WORDS[verdict], style=_STYLES.get(verdict, ""), markup=False)
