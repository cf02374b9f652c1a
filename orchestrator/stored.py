"""Runs that are stored, found by name and turned into what the report draws."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.giving import FENCED, MOVED
from orchestrator.errors import InputError, suggestion
from orchestrator.report.model import EventView, RunView
from orchestrator.store.parquet import Store, result
from orchestrator.store.place import room_needed

if TYPE_CHECKING:
    from orchestrator.report.figures._canvas import Picture
    from orchestrator.report.figures.cost import Variant

REPORTS: Final = "reports"


def newest_run(store: Store, experiment: str | None = None) -> str:
    """The run that was started last, of one experiment where it is given.

    Raises InputError where there is none.
    """
    rows = [
        row
        for row in store.table("runs").select(["experiment", "run_id", "started_utc"]).to_pylist()
        if experiment in {None, row["experiment"]}
    ]
    if not rows:
        raise InputError("no run is stored here", path=store.results, hint="run one first")
    found: str = max(rows, key=lambda row: (str(row["started_utc"]), row["run_id"]))["run_id"]
    return found


def find_run(store: Store, name: str | None) -> str:
    """The run with that id, else the newest of the experiment with that name, else the newest.

    Raises InputError, with what is there, for a name of neither.
    """
    if not store.exists():
        raise InputError("no results here", path=store.results, hint="run an experiment first")
    if name is None:
        return newest_run(store)
    if store.files("runs", name):
        return name
    experiments = store.experiments()
    if name in experiments:
        return newest_run(store, name)
    known = [*experiments, *(file.name for file in store.files("runs"))]
    raise InputError(
        f"neither a run nor an experiment is called {name!r}",
        path=store.results,
        hint=suggestion(name, known[:20]),
    )


def run_view(store: Store, run_id: str) -> RunView:
    """One stored run for the report. Raises InputError where there is none."""
    row = store.run(run_id)
    if row is None:
        raise InputError(f"there is no run {run_id!r}", path=store.results)
    latencies = store.table("latencies", run_id).to_pylist()
    nodes = store.table("nodes", run_id).to_pydict()
    nodes["node"] = [f"n{number}" for number in nodes["node"]]
    return RunView(
        summary=result(row),
        intervals=store.table("intervals", run_id).to_pydict(),
        latencies={each["kind"]: (each["values_ms"], each["counts"]) for each in latencies},
        nodes=nodes,
        # Portions that move are told together, as what their command moved.
        events=[
            _event(each)
            for each in store.table("events", run_id).to_pylist()
            if each["kind"] not in (FENCED, MOVED)
        ],
        config_yaml=row["config_yaml"],
    )


def _event(row: Mapping[str, Any]) -> EventView:
    node = "" if row["node"] is None or row["node"] < 0 else f"n{row['node']}"
    return EventView(row["at_s"], row["kind"], node, row["detail"] or "")


def experiment_of(store: Store, run_id: str) -> str:
    """The experiment that a run belongs to."""
    return store.files("runs", run_id)[0].experiment


def reports_folder(results: str) -> Path:
    """Where reports go: beside the results, here where those are remote."""
    return (Path("results") if "://" in results else Path(results)) / REPORTS


def write_cost_figure(results: str, experiment: str, variants: Sequence[Variant]) -> Path:
    """The picture of what the variants of a sweep do for their price; of the same ones again at the
    same place.
    """
    from orchestrator.report.figures.cost import cost

    named = repr([name for name, _ in variants]).encode(errors="backslashreplace")
    digest = hashlib.sha256(named).hexdigest()[:8]
    target = reports_folder(results) / "sweep" / f"{experiment}-{digest}-cost.png"
    return _written(target, lambda: cost(experiment, variants))


def write_capacity_figure(
    results: str, experiment: str, found: Mapping[str, Any], hashed: str, *, simulated: bool
) -> Path:
    """The picture of a capacity and the curve on the way; of the same config at the same place."""
    from orchestrator.report.figures.capacity import capacity

    target = reports_folder(results) / "capacity" / f"{experiment}-{hashed[:8]}.png"
    return _written(target, lambda: capacity(experiment, found, simulated=simulated))


def write_demand_figure(
    results: str, experiment: str, found: Mapping[str, Any], hashed: str, *, simulated: bool
) -> Path:
    """The picture of what loads take; of the same config at the same place."""
    from orchestrator.report.figures.demand import demand

    target = reports_folder(results) / "capacity" / f"{experiment}-{hashed[:8]}-demand.png"
    return _written(target, lambda: demand(experiment, found, simulated=simulated))


def _written(target: Path, drawn: Callable[[], Picture]) -> Path:
    """The picture at its place, at once or not at all."""
    from orchestrator.report.page import write_atomically

    with room_needed(str(target.parent)):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, drawn().png)
    return target


def write_run_report(store: Store, run_id: str) -> tuple[Path, list[Path]]:
    """The report of one run: the paths of its page and of its figures."""
    from orchestrator.report import page
    from orchestrator.report.figures import run_figures

    view = run_view(store, run_id)
    figures = run_figures(view)
    folder = reports_folder(store.results) / run_id
    return page.write(folder, page.run_page(view, figures), figures)
