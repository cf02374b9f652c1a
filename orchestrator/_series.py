"""The commands on series of figures: ``fit``, a law of scalability, and ``changes``, where a series
begins to follow another law.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from orchestrator import _series_terminal
from orchestrator._command import DEFAULT_RESULTS, Address, Answer, Json, Results
from orchestrator.errors import DataError, InputError, suggestion

if TYPE_CHECKING:
    from orchestrator.analysis.scalability import Fit

SIZE: Final = "n"
THROUGHPUT: Final = "throughput"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(fit)
    app.command()(changes)


def fit(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE.csv|EXPERIMENT",
            help="With the columns n and throughput; or an experiment whose runs are stored.",
        ),
    ],
    model: Annotated[str, typer.Option("--model", metavar="usl|amdahl|gustafson")] = "usl",
    over: Annotated[
        str | None,
        typer.Option("--over", metavar="PATH", help="Of an experiment: what n is, a config path."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where", metavar="SQL", help="Which of the stored runs; default: the valid."
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="N,...", help="Sizes whose throughput is to be predicted."),
    ] = None,
    results: Results = DEFAULT_RESULTS,
    json: Json = False,
    address: Address = None,
) -> Answer:
    """Fit a law of scalability to throughputs by size, with its peak where it has one.

    Of an experiment, such as a sweep over system.node.cores under closed load, n is the value at
    the path that --over names.
    """
    from orchestrator.analysis.scalability import LAWS
    from orchestrator.analysis.scalability import fit as fitted

    if model not in LAWS:
        raise InputError(f"unknown law {model!r}", path="--model", hint=suggestion(model, LAWS))
    wanted = _asked_sizes(at)
    sizes, measured = _throughputs(source, over, where, results)
    for name, values, least in ((SIZE, sizes, "above 0"), (THROUGHPUT, measured, "0 or more")):
        wrong = [each for each in values if each < 0 or (each == 0 and name == SIZE)]
        if wrong:
            raise DataError(f"{name} {wrong[0]:g} must be {least}", path=source)
    if not any(measured):
        raise DataError("every throughput is 0", path=source)
    try:
        found = fitted(model, sizes, measured, wanted)
    except ValueError as error:
        raise DataError(str(error), path=source) from None
    data = fit_data(found) | {"over": over, "sizes": sizes, "measured": measured}
    return Answer(data, lambda out: _series_terminal.show_fit(out, data, sizes, measured))


def _asked_sizes(text: str | None) -> list[float]:
    """The sizes of ``--at``."""
    try:
        sizes = [float(each) for each in text.split(",")] if text is not None else []
    except ValueError:
        sizes = [math.nan]
    if not all(0 < size < math.inf for size in sizes):
        hint = "numbers above 0 with commas between them, such as 16,32"
        raise InputError(f"{text!r} is no list of sizes", path="--at", hint=hint)
    return sizes


def _throughputs(
    source: str, over: str | None, where: str | None, results: str
) -> tuple[list[float], list[float]]:
    """(sizes, throughputs) of a file, or of an experiment where ``over`` says what its size is."""
    if over is not None:
        from orchestrator._scaling_series import scaling_series

        return scaling_series(results, source, over, where)
    if not Path(source).exists() and not source.lower().endswith(".csv"):
        raise InputError(
            f"there is no file {source!r}, and of an experiment nobody knows what n is",
            path="--over",
            hint="name the config path, as in --over system.node.cores",
        )
    from orchestrator.store.columns import read_columns

    if where is not None:
        raise InputError("is about stored runs, and this is a file", path="--where")
    sizes, measured = read_columns(source, [SIZE, THROUGHPUT])
    return sizes, measured


def fit_data(found: Fit) -> dict[str, Any]:
    """The object of ``fit --json``."""
    return {
        "model": found.law,
        "points": len(found.residuals),
        "sigma": found.sigma,
        "kappa": found.kappa,
        "lambda": found.one,
        "peak_n": found.peak_n,
        "peak_throughput": found.peak_throughput,
        "limit_throughput": found.limit_throughput,
        "ci95": {
            name: _finite(found.intervals[name]) if name in found.intervals else None
            for name in ("sigma", "kappa", "lambda")
        },
        "extrapolation": [
            {
                "n": each.size,
                "throughput": each.throughput,
                "ci95": None if each.interval is None else _finite(each.interval),
            }
            for each in found.extrapolated
        ],
        "residuals": list(found.residuals),
        "residual_standard_error": found.residual_standard_error,
    }


def _finite(interval: tuple[float, float]) -> list[float | None]:
    return [end if math.isfinite(end) else None for end in interval]


def changes(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE.csv|EXPERIMENT", help="A file, or an experiment whose runs are stored."
        ),
    ],
    column: Annotated[
        str, typer.Option("--column", metavar="C", help="Of the file, or of the view runs.")
    ],
    where: Annotated[
        str | None,
        typer.Option(
            "--where", metavar="SQL", help="Which of the stored runs; default: the valid."
        ),
    ] = None,
    significance: Annotated[
        float, typer.Option("--significance", metavar="P", help="How rare by chance.")
    ] = 0.05,
    results: Results = DEFAULT_RESULTS,
    json: Json = False,
    address: Address = None,
) -> Answer:
    """Find the points of a series at which its level changes (E-divisive)."""
    from orchestrator.analysis.changes import changes as found_in

    if not 0 < significance < 1:
        hint = "a probability between 0 and 1"
        raise InputError(f"{significance:g} is none", path="--significance", hint=hint)
    runs, series = _series(source, column, where, results)
    found = found_in(series, significance=significance)
    data = {
        "column": column,
        "points": len(series),
        "changes": [
            {
                "index": change.index,
                "before": change.before,
                "after": change.after,
                "relative": change.relative,
                "p": change.p,
                "run_id": runs[change.index] if runs else None,
            }
            for change in found
        ],
    }
    return Answer(data, lambda out: _series_terminal.show_changes(out, data))


def _series(
    source: str, column: str, where: str | None, results: str
) -> tuple[list[str], list[float]]:
    """(runs, figures); of a file there are no runs."""
    if not Path(source).exists() and not source.lower().endswith(".csv"):
        return _stored(results, source, column, where)
    from orchestrator.store.columns import read_columns

    if where is not None:
        raise InputError("is about stored runs, and this is a file", path="--where")
    [series] = read_columns(source, [column])
    return [], series


def _stored(
    results: str, experiment: str, column: str, where: str | None
) -> tuple[list[str], list[float]]:
    """(runs, figures) of an experiment in the order of their starts."""
    from orchestrator.store.query import query
    from orchestrator.store.tables import NUMBER, RUNS, WHOLE

    known = [name for name in RUNS.schema.names if RUNS.schema.field(name).type in (NUMBER, WHOLE)]
    if column not in known:
        hint = suggestion(column, known)
        raise InputError(f"{column!r} is no figure of a run", path="--column", hint=hint)
    quoted = experiment.replace("'", "''")
    _, rows = query(
        results,
        f"SELECT run_id, {column}, clock FROM runs WHERE experiment = '{quoted}'"
        f" AND {column} IS NOT NULL AND ({'valid' if where is None else where})"
        " ORDER BY started_utc, run_id",
    )
    if not rows:
        raise InputError(
            f"there is no file and no such run of an experiment {experiment!r} in {results}",
            hint="archbench query 'SELECT DISTINCT experiment FROM runs' names them",
        )
    if len({clock for _, _, clock in rows}) > 1:
        raise InputError(
            "some of these runs are simulated and some are not, which are two series",
            path="--where",
            hint="""--where "valid AND clock = 'real'\"""",
        )
    return [run_id for run_id, _, _ in rows], [float(value) for _, value, _ in rows]
