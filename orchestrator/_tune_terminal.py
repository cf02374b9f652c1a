"""What people see of a study: its progress on stderr, its outcome on stdout."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from orchestrator import _terminal
from orchestrator.report.compare import bottleneck, consistency, slo_word
from orchestrator.report.model import interval, metric
from orchestrator.report.wording import (
    NONE,
    metric_name,
    number,
    percent,
    plain,
    quantity,
    setting,
    short_names,
    span,
    times,
)
from orchestrator.study.driver import Listener, News
from orchestrator.study.plan import Plan
from orchestrator.study.verdict import Outcome, feasible

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.tune import TuneResult

_P99 = "latency_ms.all.p99"


def command_line(
    config: str, overrides: Sequence[str] | None, runtime: str | None, seed: int | None
) -> str:
    """The command that repeats a study."""
    options = {"--runtime": runtime, "--seed": None if seed is None else str(seed)}
    words = ["archbench", "tune", config, *(overrides or [])]
    words += [
        word for name, value in options.items() if value is not None for word in (name, value)
    ]
    return shlex.join(words)


# --- progress ---------------------------------------------------------------------------


@contextmanager
def progress(planned: Plan) -> Iterator[Listener]:
    """Tells of every finished trial: a bar on a terminal, one line a trial elsewhere."""
    _terminal.say(f"study {planned.name}: {planned.trials} trials on {planned.config.runtime}")
    if not sys.stderr.isatty():
        yield lambda news: _terminal.say(trial_line(news, planned))
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} trials", markup=False),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=_terminal.console(stderr=True), transient=True) as bar:
        task = bar.add_task("the default first", total=planned.trials)

        def tell(news: News) -> None:
            if news.outcome["run_id"] is not None or news.outcome["state"] == "failed":
                bar.console.print(trial_line(news, planned), markup=False, soft_wrap=True)
            bar.update(task, completed=news.finished, description=_standing(news, planned))

        yield tell


def trial_line(news: News, planned: Plan) -> str:
    """``[8/24] trial 7: replicas=4 cache.size=3MiB: 5,120 ops/s, p99 96 ms, feasible; ...``."""
    outcome = news.outcome
    short = short_names([axis.path for axis in planned.space.axes])
    params = " ".join(setting(short[path], value) for path, value in outcome["params"].items())
    figures = ""
    if news.summary is not None:
        figures = f"{_value(outcome, planned)}, p99 {quantity(metric(news.summary, _P99), 'ms')}, "
    verdict = "feasible" if feasible(outcome) else outcome["state"]
    if outcome["state"] == "complete" and not feasible(outcome):
        verdict = "not feasible"
    reason = f" ({plain(outcome['reason'], 120)})" if outcome["reason"] else ""
    head = f"trial {outcome['number']}{' (default)' if outcome['is_default'] else ''}"
    if outcome["run_id"] is None and outcome["state"] == "infeasible":
        return f"{head}: {params}: refused before it ran{reason}"
    if news.lost:
        reason += f" (run again after it lost a part: {plain(news.lost[-1], 120)})"
    done = f"[{news.finished}/{news.trials}]"
    return f"{done} {head}: {params}: {figures}{verdict}{reason}; {_standing(news, planned)}"


def _value(outcome: Outcome, planned: Plan) -> str:
    objective = planned.config.tune.objectives[0]
    name = metric_name(objective.metric, maximize=objective.direction == "maximize")
    return quantity(outcome["value"], name.unit)


def _standing(news: News, planned: Plan) -> str:
    best = news.best
    text = "none feasible yet"
    if best is not None:
        text = f"best {_value(best, planned)} (trial {best['number']})"
    return text if not news.left_s else f"{text}, {_duration(news.left_s)} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


# --- the outcome ------------------------------------------------------------------------


def show_tune(out: Console, result: TuneResult) -> None:
    """Best beside default, why, and the path of the report as the last line."""
    counted = ", ".join(f"{count} {state}" for state, count in result.trials.items() if count)
    out.print(f"study {result.view.study}: {counted or 'no trial'}", markup=False)
    if result.note is not None:
        out.print(f"stopped early: {result.note}", markup=False)
    if result.best is None:
        out.print("no variant is feasible", style="bold red", markup=False)
    else:
        out.print(_comparison(result))
        for sentence in result.view.why:
            out.print(f"- {plain(sentence)}", markup=False)
    out.print(str(result.report), markup=False, soft_wrap=True)


def _comparison(result: TuneResult) -> Any:
    view = result.view
    best = view.best.metrics if view.best is not None else None
    default = view.default.metrics if view.default is not None else None
    rows = []
    short = short_names([parameter.path for parameter in view.parameters])
    for parameter in view.parameters:
        cells = [
            trial.params[parameter.path].text
            if trial is not None and parameter.path in trial.params
            else NONE
            for trial in (view.best, view.default)
        ]
        rows.append([short[parameter.path], *cells, ""])
    paths = [view.objective_metric, "throughput_ops", _P99, "cache.hit_ratio", "cost"]
    for path in dict.fromkeys(paths):
        rows += _figure(path, best, default, maximize=view.maximize)
    rows += [
        ["bottleneck", bottleneck(best), bottleneck(default), ""],
        ["consistency", *(_consistency(each) for each in (best, default)), ""],
        ["SLO met", slo_word(best), slo_word(default), ""],
    ]
    return _terminal.table(["", "best", "default", "ratio"], rows, right=1)


def _consistency(summary: Mapping[str, Any] | None) -> str:
    return consistency(summary).partition(":")[0]


def _figure(
    path: str, best: Mapping[str, Any] | None, default: Mapping[str, Any] | None, *, maximize: bool
) -> list[list[str]]:
    """The row of one metric; none where neither run has it."""
    values = [metric(summary, path) for summary in (best, default)]
    if values == [None, None] or (path == "cost" and not any(values)):
        return []
    name = metric_name(path, maximize=maximize)
    cells = []
    for value, summary in zip(values, (best, default), strict=True):
        bounds = interval(summary, path)
        text = percent(value) if name.unit == "%" else number(value)
        cells.append(f"{text} ({span(bounds)})" if bounds else text)
    mine, theirs = values
    ratio = times(mine / theirs) if mine is not None and theirs else ""
    unit = f" ({name.unit})" if name.unit not in ("", "%") else ""
    return [[f"{name.label}{unit}", *cells, ratio]]
