"""The commands on recorded data: ``cache``, the policies' miss ratios on a trace."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator import _terminal
from orchestrator._command import DEFAULT_RESULTS, Address, Answer, Json, Results
from orchestrator.errors import InputError

if TYPE_CHECKING:
    from orchestrator.miss_ratio import Outcome, Pass
    from orchestrator.workloads.trace import Requests


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(cache)


TraceFile = Annotated[str, typer.Argument(metavar="TRACE", help="What was requested: a file.")]
Policies = Annotated[
    list[str],
    typer.Option(
        "--policy",
        metavar="NAME[:KEY=VALUE],...",
        help="Caches of `archbench list cache`, with parameters of their own.",
    ),
]
Sizes = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="N,64MiB,1%,1%B",
        help="Entries, bytes, or shares of the objects or of their bytes.",
    ),
]
NamedColumns = Annotated[
    str | None,
    typer.Option(
        "--columns", metavar="key=NAME,...", help="Columns of the file: key, size, time, op."
    ),
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="csv|parquet|oracle_general|redis_monitor",
        help="Default: by the ending.",
    ),
]
TimeUnit = Annotated[
    str | None, typer.Option("--time-unit", metavar="ns|us|ms|s", help="Of the times. Default: us.")
]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", help="The first N requests alone.")
]
Plot = Annotated[
    str | None,
    typer.Option("--plot", metavar="FILE", help="The picture, .png or .svg. Default: in results."),
]


def cache(
    trace: TraceFile,
    policy: Policies,
    size: Sizes = None,
    columns: NamedColumns = None,
    form: Format = "auto",
    time_unit: TimeUnit = None,
    limit: Limit = None,
    plot: Plot = None,
    results: Results = DEFAULT_RESULTS,
    json: Json = False,
    address: Address = None,
) -> Answer:
    """Draw the miss-ratio curves of cache policies on a recorded trace.

    Every request is one access, reads and writes alike, and each cache begins empty.
    """
    from orchestrator import _cache_question as question
    from orchestrator import _cache_terminal
    from orchestrator.miss_ratio import miss_ratios
    from orchestrator.store.place import check_writable
    from orchestrator.workloads.trace import read_requests

    params = question.trace_params(
        trace, columns=columns, form=form, time_unit=time_unit, limit=limit
    )
    policies = question.policies(policy)
    asked = question.sizes(question.SIZES if size is None else size)
    target = _target(plot, results, trace, (policy, size, columns, form, time_unit, limit))
    check_writable(str(target.parent))
    began_s = time.monotonic()
    with _terminal.progress(f"reading {trace}", None):
        requests = read_requests(params)
    total_bytes = question.object_bytes(requests)
    capacities = question.capacities(asked, requests, total_bytes)
    passes = [each.at(capacity) for each in policies for capacity in capacities]
    with _cache_terminal.progress(len(passes), len(requests)) as told:
        outcomes = miss_ratios(requests, passes, told=told)
    data = _data(requests, total_bytes, passes, outcomes)
    data |= {"figure": str(target), "seconds": round(time.monotonic() - began_s, 6)}
    _draw(target, Path(trace).name, data)
    left_out = requests.left_out_words()
    return Answer(data, lambda out: _cache_terminal.show(out, data, left_out))


def _data(
    requests: Requests,
    object_bytes: int | None,
    passes: Sequence[Pass],
    outcomes: Sequence[Outcome],
) -> dict[str, Any]:
    """The object of ``cache --json``, but for what comes of drawing it."""
    count = len(requests)
    asked_bytes = 0 if requests.size is None else int(requests.size.sum(dtype="int64"))
    curves = [
        {
            "policy": asked.label,
            "size": asked.capacity.amount,
            "unit": "bytes" if asked.capacity.in_bytes else "entries",
            "misses": outcome.misses,
            "miss_ratio": outcome.misses / count,
            "byte_miss_ratio": _share(outcome.missed_bytes, asked_bytes),
            "evictions": outcome.evictions,
        }
        for asked, outcome in zip(passes, outcomes, strict=True)
    ]
    return {
        "requests": count,
        "objects": len(requests.key_names),
        "bytes": object_bytes,
        "compulsory_miss_ratio": len(requests.key_names) / count,
        "left_out": sum(requests.left_out.values()),
        "curves": curves,
    }


def _share(part: int | None, whole: int) -> float | None:
    return None if part is None or whole == 0 else part / whole


def _target(plot: str | None, results: str, trace: str, asked: Sequence[Any]) -> Path:
    """Where the picture goes; one of the same question goes to the same place."""
    from orchestrator.stored import reports_folder

    if plot is None:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(trace).name).strip(".-") or "trace"
        digest = hashlib.sha256(repr((trace, asked)).encode(errors="backslashreplace")).hexdigest()
        return reports_folder(results) / "cache" / f"{stem[:100]}-{digest[:8]}.png"
    if Path(plot).suffix.lower() not in {".png", ".svg"}:
        message = f"{plot!r} does not end as a picture does"
        raise InputError(message, path="--plot", hint="write .png or .svg")
    return Path(plot)


def _draw(target: Path, name: str, data: Mapping[str, Any]) -> None:
    from orchestrator.report.figures.miss_ratio import miss_ratio
    from orchestrator.report.page import write_atomically
    from orchestrator.store.place import room_needed

    drawn = miss_ratio(name, data)
    svg = target.suffix.lower() == ".svg"
    with room_needed(str(target.parent)):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, drawn.svg.encode() if svg else drawn.png)
