"""The report as one HTML page that needs nothing else, and its files.

The page loads nothing: style, script and figures are inside, and a content security policy
lets the browser run the one script whose hash it names. Every text goes through the template's
escaping; only the figures, the style and the script are markup, and those are made here.
"""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from orchestrator.report import compare
from orchestrator.report.breakdown import COLUMNS, breakdown_rows, utilisation_rows
from orchestrator.report.figures import Picture, inline_svg, run_figures, study_figures
from orchestrator.report.model import (
    EventView,
    RunView,
    StudyView,
    TrialView,
    lookup,
    metric,
    simulated,
)
from orchestrator.report.summary import Words, run_words, study_words
from orchestrator.report.trust import trust_rows
from orchestrator.report.wording import (
    NONE,
    metric_name,
    number,
    percent,
    plain,
    short_names,
)

_P99 = "latency_ms.all.p99"


@dataclass(frozen=True)
class _Cell:
    """A table cell: its text, what it sorts by (None: the text), and its classes."""

    text: str
    sort: float | None = None
    style: str = ""


@dataclass(frozen=True)
class _Page:
    """Everything the template shows."""

    kicker: str
    title: str
    facts: Sequence[tuple[str, str]]
    words: Words
    simulation: str
    why: Sequence[str] = ()
    comparison: Sequence[compare.Row] = ()
    has_base: bool = True
    breakdown: Sequence[Sequence[str]] = ()
    utilisations: Sequence[tuple[str, str]] = ()
    trust: Sequence[tuple[str, str]] = ()
    search: Sequence[dict[str, str]] = ()
    trial_columns: Sequence[str] = ()
    trial_rows: Sequence[tuple[str, Sequence[_Cell]]] = ()
    events: Sequence[EventView] = ()
    commands: Sequence[str] = ()
    configs: Sequence[tuple[str, str]] = field(default=())


def study_page(view: StudyView, figures: Sequence[Picture] | None = None) -> str:
    """The page of a study as HTML; ``figures`` (study_figures) are drawn where not given."""
    short = short_names([parameter.path for parameter in view.parameters])
    best, default = view.best, view.default
    metrics = [trial.metrics for trial in view.trials if trial.metrics is not None]
    objective = metric_name(view.objective_metric, maximize=view.maximize)
    configs = [("The study's configuration", view.config_yaml)]
    if view.best_run is not None:
        configs.append(("The best variant, resolved", view.best_run.config_yaml))
    columns, rows = _trials(view, short)
    page = _Page(
        kicker="Study",
        title=plain(view.title),
        facts=[
            ("Experiment", plain(view.experiment)),
            ("Study", plain(view.study)),
            ("Objective", f"{plain(view.direction)} {objective.label.lower()}"),
            ("Trials", str(len(view.trials))),
        ],
        words=study_words(view),
        simulation=_simulation([simulated(summary) for summary in metrics]),
        why=[plain(sentence) for sentence in view.why] if best is not None else [],
        comparison=compare.rows(
            best.metrics,
            default.metrics if default else None,
            view.objective_metric,
            maximize=view.maximize,
        )
        if best is not None
        else [],
        has_base=default is not None,
        breakdown=breakdown_rows(best.metrics) if best is not None else (),
        utilisations=utilisation_rows(best.metrics) if best is not None else (),
        trust=trust_rows(best.metrics) if best is not None else (),
        search=_search(view),
        trial_columns=columns,
        trial_rows=rows,
        events=view.best_run.events if view.best_run is not None else (),
        commands=[plain(view.command)] if view.command else [],
        configs=[(name, plain(text)) for name, text in configs if text.strip()],
    )
    return _render(page, study_figures(view) if figures is None else figures)


def run_page(view: RunView, figures: Sequence[Picture] | None = None) -> str:
    """The page of one run as HTML; ``figures`` (run_figures) are drawn where not given."""
    summary = view.summary
    facts = [
        (label, plain(lookup(summary, key)))
        for label, key in (
            ("Run", "run_id"),
            ("Runtime", "runtime"),
            ("Seed", "seed"),
            ("Configuration", "config_hash"),
        )
        if lookup(summary, key) is not None
    ]
    page = _Page(
        kicker="Run",
        title=plain(lookup(summary, "experiment") or "Run"),
        facts=facts,
        words=run_words(view),
        simulation=_simulation([simulated(summary)]),
        comparison=compare.rows(summary, None, None, maximize=True),
        has_base=False,
        breakdown=breakdown_rows(summary),
        utilisations=utilisation_rows(summary),
        trust=trust_rows(summary),
        events=view.events,
        configs=[("Configuration", plain(view.config_yaml))] if view.config_yaml.strip() else [],
    )
    return _render(page, run_figures(view) if figures is None else figures)


def _search(view: StudyView) -> list[dict[str, str]]:
    """Rows of the table of searched parameters."""
    return [
        {
            "path": plain(item.path),
            "range": plain(item.range_text),
            "best": _parameter(view.best, item.path),
            "default": _parameter(view.default, item.path),
            "importance": percent(round(view.importance[item.path], 3))
            if item.path in view.importance
            else NONE,
        }
        for item in view.parameters
    ]


def _parameter(trial: TrialView | None, path: str) -> str:
    value = trial.params.get(path) if trial is not None else None
    return plain(value.text) if value is not None else NONE


def _simulation(marks: Sequence[bool]) -> str:
    if not any(marks):
        return ""
    return "Simulated, virtual time" if all(marks) else "Some runs are simulated"


def _trials(
    view: StudyView, short: dict[str, str]
) -> tuple[list[str], list[tuple[str, list[_Cell]]]]:
    """Header and rows of the trials table; a row is its class and its cells."""
    objective = metric_name(view.objective_metric, maximize=view.maximize)
    own = view.objective_metric not in ("throughput_ops", _P99)
    columns = ["Trial", *(short[item.path] for item in view.parameters)]
    columns += [objective.label] if own else []
    columns += ["Throughput (ops/s)", "p99 (ms)", "Valid", "SLO met", "State", "Reason", "Run"]
    rows = []
    for trial in view.trials:
        cells = [_Cell(str(trial.number), trial.number)]
        for item in view.parameters:
            value = trial.params.get(item.path)
            text = plain(value.text, 60) if value is not None else NONE
            cells.append(_Cell(text, value.number if value is not None else None))
        paths = [view.objective_metric] if own else []
        for path in [*paths, "throughput_ops", _P99]:
            reached = metric(trial.metrics, path)
            cells.append(_Cell(number(reached), reached, "number"))
        cells += [_yes(trial, "valid"), _yes(trial, "slo.met")]
        style = "state good" if trial.feasible else "state"
        cells.append(_Cell(trial.outcome, None, style))
        cells.append(_Cell(plain(trial.reason, 300), None, "reason"))
        cells.append(_Cell(plain(trial.run_id or NONE), None, "run"))
        rows.append((_rank(view, trial), cells))
    return columns, rows


def _rank(view: StudyView, trial: TrialView) -> str:
    if view.best is not None and trial.number == view.best.number:
        return "best"
    is_default = view.default is not None and trial.number == view.default.number
    return "default" if is_default else ""


def _yes(trial: TrialView, path: str) -> _Cell:
    value = lookup(trial.metrics, path)
    if not isinstance(value, bool):
        return _Cell(NONE, None)
    return _Cell("yes" if value else "no", float(value), "" if value else "bad")


def _asset(name: str) -> str:
    home = resources.files("orchestrator.report")
    return home.joinpath(name).read_text(encoding="utf-8")


def _render(page: _Page, figures: Sequence[Picture]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Whatever text came from outside: nothing that HTML or UTF-8 forbids leaves here.
    return plain(
        environment.get_template("page.html.jinja").render(
            page=page,
            breakdown_columns=COLUMNS,
            figures=[(drawn, Markup(inline_svg(drawn))) for drawn in figures if not drawn.empty],
            missing=[drawn for drawn in figures if drawn.empty],
            style=Markup(_asset("page.css")),
            script=Markup(script),
            script_hash=f"sha256-{digest}",
        )
    )


def write(folder: Path | str, page: str, figures: Sequence[Picture]) -> tuple[Path, list[Path]]:
    """Write report.html and figures/NAME.svg and .png; returns their paths.

    Each file appears whole or not at all (temporary name, then rename), the page last. Raises
    OSError where the folder cannot be written.
    """
    home = Path(folder)
    (home / "figures").mkdir(parents=True, exist_ok=True)
    paths = []
    for drawn in figures:
        for ending, content in (("svg", drawn.svg.encode()), ("png", drawn.png)):
            path = home / "figures" / f"{drawn.name}.{ending}"
            write_atomically(path, content)
            paths.append(path)
    report = home / "report.html"
    write_atomically(report, page.encode())
    return report, paths


def write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
