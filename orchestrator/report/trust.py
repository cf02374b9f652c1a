"""How far a run's figures may be trusted: what was found out about the measurement itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from orchestrator.report.compare import harness, links, modelled
from orchestrator.report.model import Summary, finite, lookup, metric
from orchestrator.report.wording import NONE, in_use, number, percent, plain, quantity


def steadiness(summary: Summary | None) -> str:
    """``after 1.2 s of warm-up (mser5); latency comes and goes every 0.5 s``, or that it drifts."""
    method = lookup(summary, "steady_state.method")
    warmup_s = metric(summary, "steady_state.warmup_s")
    period_s = metric(summary, "steady_state.period_s")
    words = []
    if method not in (None, "given"):
        words.append(f"after {quantity(warmup_s, 's')} ({plain(method, 20)})")
    if period_s is not None:
        words.append(f"latency comes and goes every {quantity(period_s, 's')}")
    if lookup(summary, "steady_state.steady") is False:
        words.append("no: it drifts")
    return "; ".join(words) or NONE


def precision(summary: Summary | None) -> str:
    """``within 2.3 %; 5 % asked``; NONE where nothing was asked."""
    asked, reached = metric(summary, "precision.asked"), metric(summary, "precision.reached")
    if asked is None:
        return NONE
    worst = "not every figure has an interval" if reached is None else f"within {percent(reached)}"
    return f"{worst}; {percent(asked)} asked"


def samples(summary: Summary | None) -> str:
    """How many independent operations are behind the p99."""
    behind = metric(summary, "latency_effective_samples.p99")
    return NONE if behind is None else f"{number(round(behind))} independent operations beyond it"


def generator(summary: Summary | None) -> str:
    """``0.05 ms late at p99, CPU 40 % in use``."""
    late, busy = metric(summary, "generator.lag_p99_ms"), metric(summary, "generator.cpu")
    parts = []
    if late is not None:
        parts.append(f"{quantity(late, 'ms')} late at p99")
    if busy is not None:
        parts.append(f"CPU {percent(busy)} in use")
    return ", ".join(parts) or NONE


def concurrency(summary: Summary | None) -> str:
    """Little's law: what was seen under way, and what throughput and latency say."""
    seen = metric(summary, "generator.outstanding")
    said = metric(summary, "generator.outstanding_by_latency")
    if seen is None or said is None:
        return NONE
    return f"{number(seen)} operations under way; rate times latency gives {number(said)}"


def _drift(summary: Summary | None) -> str:
    parts = []
    for what in ("throughput", "latency"):
        change = metric(summary, f"steady_state.drift.{what}.change")
        if change is not None:
            parts.append(f"{what} {100 * change:+.1f}\u00a0%")
    return f"{', '.join(parts)} from the first to the last part" if parts else NONE


def _steady(summary: Summary | None) -> str:
    said = [text for text in (steadiness(summary), _drift(summary)) if text != NONE]
    return "; ".join(said) or NONE


_ROWS: Final[Sequence[tuple[str, Callable[[Summary | None], str]]]] = (
    ("Steady", _steady),
    ("Behind the p99", samples),
    ("Precision", precision),
    ("Load generator", generator),
    ("Little's law", concurrency),
    ("Harness floor", lambda summary: harness(summary) if lookup(summary, "harness") else NONE),
    ("Links", lambda summary: links(summary) if lookup(summary, "links") else NONE),
    ("Queueing model", modelled),
)


def trust_rows(summary: Summary | None) -> list[tuple[str, str]]:
    """(what, finding); what was not looked at is left out."""
    rows = [(name, said(summary)) for name, said in _ROWS]
    hosts: Any = lookup(summary, "hosts")
    known = [host for host in hosts if isinstance(host, dict)] if isinstance(hosts, list) else []
    rows += [(f"Host {plain(host.get('host'), 40)}", _host(host)) for host in known]
    return [(name, text) for name, text in rows if text != NONE]


def _host(host: dict[str, Any]) -> str:
    parts = [
        f"{in_use(share)} {what}"
        for name, what in (
            ("busy", "of its CPUs in use"),
            ("steal", "stolen"),
            ("throttled", "throttled"),
        )
        if (share := metric(host, name)) is not None
    ]
    waiting, loops = metric(host, "run_queue"), host.get("loops_us")
    if waiting is not None:
        parts.append(f"{number(waiting)} tasks waiting")
    found = [finite(each) for each in loops] if isinstance(loops, list) else []
    if found and None not in found:
        parts.append(f"a fixed loop took {number(found[0])} to {quantity(found[-1], 'us')}")
    return ", ".join(parts) or NONE
