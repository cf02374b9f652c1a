"""`archbench check`: a history file, judged."""

from __future__ import annotations

import functools
import gc
import time
from typing import Any, Final

import numpy

from orchestrator.analysis.durability import DURABILITY, durability
from orchestrator.core import levels, models
from orchestrator.core.history import PRELOADED
from orchestrator.core.machine import FAIL, SCAN, WRITE
from orchestrator.core.models import STEPS_MAX
from orchestrator.core.registry import Family, plugins
from orchestrator.core.verdict import (
    Checker,
    Evidence,
    Verdict,
    check,
    check_served,
    key_text,
    value_of,
)
from orchestrator.errors import DataError
from orchestrator.store._raw_history import Columns
from orchestrator.store.history_files import read_history

ALIASES: Final = {"converged": levels.EVENTUAL}
"""Words for levels beside those of ``levels.ALIASES``."""


def check_file(
    path: str,
    *,
    model: str,
    level: str,
    initial: Any = None,
    form: str | None = None,
    failed_cas_observed: bool = True,
    steps_max: int = STEPS_MAX,
) -> dict[str, Any]:
    """The object of ``check --json``: the verdict on a history file, with its witness.

    ``form``: its format; by default, the ending of its name tells. Raises ConfigError for a
    level or model that is none, and DataError, with the line, for a file that is wrong.
    """
    models.canonical(model, path="--model")
    if level == DURABILITY:
        name, judge = DURABILITY, durability
    else:
        name = levels.canonical(ALIASES.get(level, level), path="--level")
        judge = functools.partial(check, level=name)
        check_served(name, model, path="--model")
    evidence = Evidence(model=model, steps_max=steps_max, failed_cas_observed=failed_cas_observed)
    started_s = time.perf_counter()
    gc_was_on = gc.isenabled()
    gc.disable()  # a million rows are live objects, and none of them is in a cycle
    try:
        columns = read_history(path, model, initial=initial, form=form)
        _check_unique(path, columns, name, model)
        verdict = judge(columns.history, evidence=evidence)
    finally:
        if gc_was_on:
            gc.enable()
    return _result(columns, verdict, model, time.perf_counter() - started_s)


def _check_unique(path: str, columns: Columns, level: str, model: str) -> None:
    if model not in _unique_in(level):
        return
    history = columns.history
    rows = numpy.flatnonzero((history.kind == WRITE) & (history.outcome != FAIL))
    key, value = history.key[rows], history.value_id[rows]
    order = numpy.lexsort((rows, value, key))
    again = numpy.zeros(len(rows), dtype=numpy.bool_)
    again[1:] = (key[order][1:] == key[order][:-1]) & (value[order][1:] == value[order][:-1])
    wrong = numpy.flatnonzero(again | (value[order] == PRELOADED))
    if len(wrong) == 0:
        return
    at = min(wrong.tolist(), key=lambda one: int(rows[order[one]]))
    row = int(rows[order[at]])
    shown = value_of(history, int(history.value_id[row]))
    what = f"{shown!r} is written to key {key_text(history, int(history.key[row]))}"
    if again[at]:
        first = int(columns.line[rows[order[at - 1]]])
        what += f" again (before: line {first})"
    else:
        what += ", which is its initial value (--initial)"
    raise DataError(
        what,
        path=f"{path}:{int(columns.line[row])}",
        hint=f"level {level} needs values that tell which write a read saw",
    )


def _unique_in(level: str) -> frozenset[str]:
    """Models in whose histories no value may be written twice."""
    if level == DURABILITY:
        return frozenset({models.REGISTER, models.KV})
    found = plugins(Family.CHECKER).get(level)
    if found is None:
        return frozenset()
    return getattr(found.implementation, "unique_values", Checker.unique_values)


def _result(columns: Columns, verdict: Verdict, model: str, seconds: float) -> dict[str, Any]:
    history = columns.history
    scans = int(numpy.count_nonzero(history.kind == SCAN))
    passed_over = f" Scans are not checked ({scans})." if scans else ""
    return {
        "verdict": verdict.verdict,
        "level": verdict.level,
        "model": model,
        "operations": len(history),
        "keys": verdict.keys if model == models.TXN else len(history.key_names),
        "witness": [dict(operation) for operation in verdict.witness],
        "explanation": verdict.explanation + passed_over,
        "seconds": round(seconds, 6),
    }
