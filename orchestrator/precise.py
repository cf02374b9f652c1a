"""A run repeated until its figures are known as precisely as was asked.

After each run all so far are pooled, and the 95 % intervals of throughput and of each percentile
that the objective names (p50 and p99 where it names none) are looked at: a single run has its own,
of blocks; several have Student's, across repeats with seeds counted up. It ends where half of every
interval is within the share of its figure that was asked for, or at a number of runs. Looking again
and again stops a little too early now and then (Chow and Robbins, Annals of Mathematical Statistics
36(2), 1965: the coverage is right in the limit); fewer than REPEATS_MIN repeats do not know their
own scatter and are never enough.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from orchestrator.analysis.latency import QUANTILES
from orchestrator.config.schema import Config
from orchestrator.errors import InputError
from orchestrator.plan import plan
from orchestrator.report.model import interval, metric
from orchestrator.run import Runner, RunResult, pooled
from orchestrator.runtimes._parts import Parts

REPEATS_MAX: Final = 30
REPEATS_MIN: Final = 3
THROUGHPUT: Final = "throughput_ops"
_USUAL: Final = ("p50", "p99")
_BOUNDS: Final = (0.001, 0.5)

Told = Callable[[int, Mapping[str, Any]], None]


def parse_precision(text: str | float) -> float:
    """``5%`` or ``0.05`` as a share. Raises InputError outside of 0.1 % to 50 %."""
    words = str(text).strip()
    try:
        share = float(words.removesuffix("%")) / (100 if words.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not _BOUNDS[0] <= share <= _BOUNDS[1]:
        hint = "a share of the figures, as 5% or 0.05; from 0.1% to 50%"
        raise InputError(f"{words!r} is none", path="--precision", hint=hint)
    return share


def asked_precision(text: str | None, repeat: int, repeat_max: int) -> float | None:
    """What ``--precision`` asks for, beside ``--repeat`` and ``--repeat-max``; None: nothing."""
    if text is None:
        return None
    if repeat > 1:
        hint = "use --repeat-max for the most runs"
        raise InputError("--precision finds the number of runs", path="--repeat", hint=hint)
    if repeat_max < 1:
        hint = "1 or more"
        raise InputError(f"{repeat_max} is not a number of runs", path="--repeat-max", hint=hint)
    return parse_precision(text)


def figures_of(config: Config) -> tuple[str, ...]:
    """What must be known: names of throughput and of percentiles of all operations."""
    named = tuple(name for name in QUANTILES if getattr(config.slo, name) is not None)
    return (THROUGHPUT, *(named or _USUAL))


def precision_of(summary: Mapping[str, Any], config: Config, asked: float) -> dict[str, Any]:
    """``asked``, ``reached`` (of the worst figure), ``met``, and ``by_figure``: half of each 95 %
    interval over its figure. None where a figure has no interval.
    """
    found = {name: _half_width(summary, name) for name in figures_of(config)}
    known = [each for each in found.values() if each is not None]
    reached = max(known) if len(known) == len(found) else None
    met = reached is not None and reached <= asked
    return {"asked": asked, "reached": reached, "met": met, "by_figure": found}


def _half_width(summary: Mapping[str, Any], name: str) -> float | None:
    path = name if name == THROUGHPUT else f"latency_ms.all.{name}"
    value, bounds = metric(summary, path), interval(summary, path)
    return (bounds[1] - bounds[0]) / 2 / value if value and bounds else None


def run_precisely(
    config: Config | Parts,
    runner: Runner,
    precision: float | None,
    *,
    repeats_max: int = REPEATS_MAX,
    told: Told | None = None,
    lost: Callable[[str], None] | None = None,
) -> RunResult:
    """The pool of as many runs as it took, with ``precision`` in its summary; of ``repeats_max``
    where no precision is asked for.

    ``told(runs so far, precision)`` hears of each. Raises what a run raises.
    """
    parts = config if isinstance(config, Parts) else plan(config)
    if precision is None:
        return runner.run_repeated(parts, repeats_max)
    results: list[RunResult] = []
    for repeat in range(repeats_max):
        seed = parts.config.seed + repeat
        results.append(runner.run_surely(parts, lost, seed=seed, repeat=repeat))
        done = pooled(results) if len(results) > 1 else results[0]
        found = precision_of(done.summary, parts.config, precision)
        if told is not None:
            told(len(results), found)
        if found["met"] and (len(results) == 1 or len(results) >= REPEATS_MIN):
            break
    return dataclasses.replace(done, summary=done.summary | {"precision": found})
