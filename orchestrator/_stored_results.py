"""The commands about what is stored: ``query`` by SQL, ``report`` as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import _terminal
from orchestrator._command import DEFAULT_RESULTS, Address, Answer, Json, Results

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(query)
    app.command()(report)


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL")],
    results: Results = DEFAULT_RESULTS,
    json: Json = False,
    address: Address = None,
) -> Answer:
    """Ask the results by SQL (DuckDB).

    Views: runs, intervals, latencies, operations, spans, nodes, events, trials.
    """
    from orchestrator.store.query import query as ask

    columns, rows = ask(results, sql)

    def print_rows(out: Console) -> None:
        cells = [[_terminal.cell(value) for value in row] for row in rows]
        out.print(_terminal.table(columns, cells))

    return Answer({"columns": columns, "rows": rows}, print_rows)


def report(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[RUN_OR_EXPERIMENT]", help="Default: the newest run."),
    ] = None,
    results: Results = DEFAULT_RESULTS,
    json: Json = False,
    address: Address = None,
) -> Answer:
    """Write one self-contained HTML page and its figures."""
    from orchestrator.store.parquet import Store
    from orchestrator.stored import find_run, write_run_report

    store = Store(results)
    study = None
    if name is not None and not store.files("runs", name):
        from orchestrator.study.view import find_study

        study = find_study(store, name)
    if study is None:
        page, figures = write_run_report(store, find_run(store, name))
    else:
        from orchestrator.tune import write_study_report

        page, figures = write_study_report(store, study)
    return Answer(
        {"report": str(page), "figures": [str(path) for path in figures]},
        lambda out: out.print(str(page), markup=False, soft_wrap=True),
    )
