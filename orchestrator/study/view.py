"""A study read back from the results, as the report shows it.

Everything comes from the tables: the trials, the result object of each run, and for the best
and the default variant their series. So a report can be made of any results folder, wherever
the study itself was driven from.
"""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import optuna
from optuna.trial import TrialState

from orchestrator.config.load import ConfigSource, parse_yaml
from orchestrator.config.render import render_yaml
from orchestrator.config.schema import CATEGORICAL, Config
from orchestrator.config.search import Axis, axes
from orchestrator.core.parameters import CAPACITY, PARSERS, SIZE, Capacity
from orchestrator.errors import InputError, suggestion
from orchestrator.report.model import (
    COMPLETE,
    ParameterView,
    RunView,
    StudyView,
    TrialView,
    Value,
)
from orchestrator.report.wording import worded
from orchestrator.store.parquet import Store, result
from orchestrator.stored import run_view
from orchestrator.study.reasons import why
from orchestrator.study.space import distribution, number
from orchestrator.study.verdict import Outcome, best_of, slo_bounds

_IMPORTANT_TRIALS: Final = 5
"""PED-ANOVA compares the best trials with all; its authors advise at least five at the top."""


def studies(store: Store, experiment: str) -> list[str]:
    """Names of the studies that have trials of an experiment, the latest first."""
    latest: dict[str, Any] = {}
    for row in _columns(store, "trials", "experiment", "study", "started_utc"):
        if row["experiment"] == experiment:
            seen = latest.get(row["study"])
            latest[row["study"]] = max(filter(None, (seen, row["started_utc"])), default=None)
    return sorted(latest, key=lambda name: (str(latest[name]), name), reverse=True)


def find_study(store: Store, name: str) -> str | None:
    """The study with that name, else the latest of that experiment; None where there is none."""
    if not store.files("trials"):
        return None
    if any(row["study"] == name for row in _columns(store, "trials", "study")):
        return name
    return next(iter(studies(store, name)), None)


def outcomes(store: Store, study: str) -> list[Outcome]:
    """The stored trials of a study by number; ``params`` as a mapping again."""
    rows = [row for row in store.table("trials").to_pylist() if row["study"] == study]
    rows.sort(key=lambda row: row["number"])
    return [row | {"params": json.loads(row["params"])} for row in rows]


def default_of(found: Sequence[Outcome]) -> Outcome | None:
    """The trial of the variant that the config itself describes."""
    return next((outcome for outcome in found if outcome["is_default"]), None)


def summaries(store: Store, found: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """Run id -> result object, of the trials that ran."""
    wanted = {outcome["run_id"] for outcome in found} - {None}
    rows = _columns(store, "runs", "run_id", "summary") if wanted else ()
    return {row["run_id"]: result(row) for row in rows if row["run_id"] in wanted}


def _columns(store: Store, table: str, *names: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = store.table(table).select(list(names)).to_pylist()
    return rows


def study_view(
    store: Store, study: str, *, config: Config | None = None, command: str = ""
) -> StudyView:
    """The study as the report shows it.

    ``config``: what was searched; None reads it back from a run of the study. Raises InputError
    where there is no such study, or it is unknown what was searched since nothing ever ran.
    """
    found = outcomes(store, study)
    if not found and config is None:
        names = {row["study"] for row in _columns(store, "trials", "study")}
        raise InputError(f"no study {study!r}", path=store.results, hint=suggestion(study, names))
    config = config or _searched_config(store, found)
    objective = config.tune.objectives[0]
    searched = axes(config)
    metrics = summaries(store, found)
    trials = {each["number"]: _trial(each, searched, metrics) for each in found}
    best, default = best_of(found, objective.direction), default_of(found)
    view = StudyView(
        title=config.experiment,
        study=study,
        experiment=config.experiment,
        objective_metric=objective.metric,
        direction=objective.direction,
        parameters=[_parameter(axis) for axis in searched],
        trials=list(trials.values()),
        default=None if default is None else trials[default["number"]],
        best=None if best is None else trials[best["number"]],
        importance=importance(searched, found, objective.direction),
        best_run=_run_of(store, best, metrics),
        default_run=_run_of(store, default, metrics),
        command=command,
        config_yaml=render_yaml(config),
        slo=dict(slo_bounds(config).values()),
    )
    return dataclasses.replace(view, why=why(view, config))


def _searched_config(store: Store, found: Sequence[Outcome]) -> Config:
    """The config of a run of the study, the default's where it ran."""
    for outcome in sorted(found, key=lambda each: not each["is_default"]):
        run = store.run(outcome["run_id"]) if outcome["run_id"] is not None else None
        if run is not None:
            text, place = run["config_yaml"], f"config of {run['run_id']}"
            return ConfigSource(parse_yaml(text, place)).build()
    raise InputError("no trial of this study ever ran", path=str(found[0]["study"]))


def _parameter(axis: Axis) -> ParameterView:
    if axis.type == CATEGORICAL:
        choices = [worded(axis.value(choice)) for choice in axis.sampled]
        text = " or ".join(choices) if len(choices) < 3 else ", ".join(choices)
    else:
        text = f"{axis.value(axis.low)} to {axis.value(axis.high)}"
    quantity = axis.quantity or ""
    if quantity == CAPACITY:
        quantity = SIZE if axis.in_bytes else ""
    return ParameterView(axis.path, text, axis.log, quantity)


def value_of(axis: Axis, written: Any) -> Value:
    """A parameter's value for people and as a number."""
    parsed = written
    if axis.quantity is not None:
        try:
            parsed = PARSERS[axis.quantity](written)
        except ValueError:
            return Value(str(written))
    if isinstance(parsed, Capacity):
        parsed = parsed.amount
    plain = isinstance(parsed, (int, float)) and not isinstance(parsed, bool)
    return Value(worded(written), float(parsed) if plain else None)


def _trial(
    outcome: Outcome, searched: Sequence[Axis], metrics: Mapping[str, Mapping[str, Any]]
) -> TrialView:
    params = outcome["params"]
    return TrialView(
        number=outcome["number"],
        state=outcome["state"],
        params={
            axis.path: value_of(axis, params[axis.path]) for axis in searched if axis.path in params
        },
        metrics=metrics.get(outcome["run_id"] or ""),
        reason=outcome["reason"] or "",
        run_id=outcome["run_id"],
    )


def _run_of(
    store: Store, outcome: Outcome | None, metrics: Mapping[str, Mapping[str, Any]]
) -> RunView | None:
    """The run of a trial; None where it never ran, or the results have lost it."""
    if outcome is None or outcome["run_id"] not in metrics:
        return None
    return run_view(store, outcome["run_id"])


# --- importance -------------------------------------------------------------------------


def importance(
    searched: Sequence[Axis], found: Sequence[Outcome], direction: str
) -> dict[str, float]:
    """Path -> share in what makes a trial one of the best; empty where too little was measured.

    PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023), over the trials that were measured and
    believed.
    """
    held = {axis.path: distribution(axis) for axis in searched}
    study = optuna.create_study(direction="maximize" if direction == "maximize" else "minimize")
    for outcome in found:
        params = {
            axis.path: number(axis, outcome["params"][axis.path])
            for axis in searched
            if axis.path in outcome["params"]
        }
        measured = outcome["state"] == COMPLETE and outcome["value"] is not None
        if not measured or None in params.values():
            continue
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE,
                params=params,
                distributions={path: held[path] for path in params},
                value=outcome["value"],
            )
        )
    count = len(study.trials)
    if count < 2 * _IMPORTANT_TRIALS:
        return {}
    top = max(0.1, _IMPORTANT_TRIALS / count)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=top)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few trials are all that there are
        shares = optuna.importance.get_param_importances(
            study, evaluator=evaluator, normalize=False
        )
    total = math.fsum(shares.values())
    if not (math.isfinite(total) and total > 0):
        return {}
    return {axis.path: shares[axis.path] / total for axis in searched if axis.path in shares}
