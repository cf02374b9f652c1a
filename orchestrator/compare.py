"""`archbench compare`: is the candidate better or worse than the base, and by how much?

Two configs are run in turn, base and candidate, base and candidate, each pair with a seed of its
own, so that neither has the better time of a machine or an easier load. Stored runs are compared as
they are: those of two experiments as groups, of two runs by their own intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orchestrator._pairs import valid_pairs
from orchestrator.analysis.comparison import (
    THRESHOLD,
    WORSE,
    Effect,
    judged,
    of_groups,
    of_intervals,
    of_pairs,
    together,
)
from orchestrator.config.load import ConfigSource
from orchestrator.errors import InputError
from orchestrator.plan import plan
from orchestrator.report.model import interval, metric
from orchestrator.run import Runner
from orchestrator.store.parquet import Store, result

METRICS: Final = {
    "throughput_ops": True,
    "goodput_ops": True,
    "availability": True,
    "latency_ms.all.mean": False,
    "latency_ms.all.p50": False,
    "latency_ms.all.p90": False,
    "latency_ms.all.p99": False,
    "latency_ms.all.p999": False,
}
"""Figures that are compared, and whether more of each is better."""
PAIRS: Final = 10


@dataclass(frozen=True)
class ComparisonResult:
    """``runs``: result objects of base and candidate, in pairs where ``paired``."""

    effects: dict[str, Effect]
    base: str
    candidate: str
    runs: tuple[list[dict[str, Any]], list[dict[str, Any]]]
    paired: bool
    invalid: int
    threshold: float
    results: str

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``same`` or ``inconclusive``."""
        return together([each.verdict for each in self.effects.values()])

    @property
    def good(self) -> bool:
        """Nothing is worse."""
        return self.verdict != WORSE

    def as_json(self) -> dict[str, Any]:
        """The object of ``compare --json``."""
        return {
            "verdict": self.verdict,
            "metrics": {
                name: {
                    "base": each.base,
                    "candidate": each.candidate,
                    "ratio": each.ratio,
                    "ratio_ci95": None if each.interval is None else list(each.interval),
                    "p": each.p,
                    "verdict": each.verdict,
                }
                for name, each in self.effects.items()
            },
            "base": self.base,
            "candidate": self.candidate,
            "runs": {
                name: [summary["run_id"] for summary in runs]
                for name, runs in zip(("base", "candidate"), self.runs, strict=True)
            },
            "paired": self.paired,
            "invalid_runs": self.invalid,
            "threshold": self.threshold,
            "results": self.results,
        }


def is_config(name: str) -> bool:
    """Whether it names a file, and not something that is stored."""
    return name.lower().endswith((".yaml", ".yml")) or Path(name).is_file()


def compare_configs(
    base: ConfigSource,
    candidate: ConfigSource,
    runner: Runner,
    *,
    pairs: int = PAIRS,
    threshold: float = THRESHOLD,
    told: Callable[[int, str, dict[str, Any]], None] | None = None,
    lost: Callable[[str], None] | None = None,
) -> ComparisonResult:
    """Run both in turn; ``told(pair, name, summary)`` hears of each run.

    Pairs of which one is not valid are left out, and others are made. Raises InputError where the
    two do not run on the same clock, and what planning and running raise.
    """
    configs = [base.build(), candidate.build()]
    for config in configs:
        plan(config)
    if configs[0].runtime != configs[1].runtime:
        raise InputError(
            f"the base runs on {configs[0].runtime} and the candidate on {configs[1].runtime},"
            " whose figures do not compare",
            path="runtime",
            hint="--runtime sim or --runtime ray for both",
        )

    def run(pair: int, name: str, source: ConfigSource) -> dict[str, Any]:
        made = source.with_values({"seed": configs[0].seed + pair}).build()
        # Both of a pair on the same hosts, each pair on others.
        summary = runner.run_surely(made, lost, repeat=pair).summary
        if told is not None:
            told(pair, name, summary)
        return summary

    kept, others = valid_pairs(
        lambda pair: (run(pair, "base", base), run(pair, "candidate", candidate)),
        lambda both: all(summary["valid"] for summary in both),
        pairs,
    )
    found = ([one for one, _ in kept], [other for _, other in kept])
    invalid = sum(not summary["valid"] for both in others for summary in both)
    return _result(
        found, ("base", "candidate"), runner.store.results, threshold, invalid, paired=True
    )


def compare_stored(
    store: Store, base: str, candidate: str, *, threshold: float = THRESHOLD
) -> ComparisonResult:
    """The valid runs of two experiments, or two runs. Raises InputError where there are none."""
    found = (_runs(store, base), _runs(store, candidate))
    kept = tuple([each for each in runs if each["valid"]] for runs in found)
    for name, runs in zip((base, candidate), kept, strict=True):
        if not runs:
            raise InputError(f"no run of {name!r} is valid", hint="invalid ones prove nothing")
    if len({each["clock"] for runs in kept for each in runs}) > 1:
        raise InputError("some of these runs are simulated and some are not, and do not compare")
    invalid = sum(map(len, found)) - sum(map(len, kept))
    return _result(
        (kept[0], kept[1]), (base, candidate), store.results, threshold, invalid, paired=False
    )


def _runs(store: Store, name: str) -> list[dict[str, Any]]:
    """Of a run id that one, of an experiment all, in the order of their starts."""
    row = store.run(name) if store.files("runs", name) else None
    if row is not None:
        return [result(row)]
    rows = [row for row in store.table("runs").to_pylist() if row["experiment"] == name]
    if not rows:
        known = ", ".join(store.experiments()[:10]) or "none"
        raise InputError(
            f"{name!r} is no file, and no run or experiment in {store.results}",
            hint=f"experiments: {known}",
        )
    rows.sort(key=lambda row: (str(row["started_utc"]), row["run_id"]))
    return [result(row) for row in rows]


def _of_runs(base: Mapping[str, Any], candidate: Mapping[str, Any], name: str) -> Effect:
    """One run each: by their own intervals, where the figure has one."""
    ones = metric(base, name), metric(candidate, name)
    bounds = interval(base, name), interval(candidate, name)
    assert ones[0] is not None and ones[1] is not None
    if bounds[0] is None or bounds[1] is None:
        return of_groups([ones[0]], [ones[1]])
    return of_intervals(ones[0], bounds[0], ones[1], bounds[1])


def _result(
    runs: tuple[list[dict[str, Any]], list[dict[str, Any]]],
    names: tuple[str, str],
    results: str,
    threshold: float,
    invalid: int,
    *,
    paired: bool,
) -> ComparisonResult:
    effects = {}
    for name in METRICS:
        values = [[metric(summary, name) for summary in each] for each in runs]
        known = [[value for value in each if value is not None] for each in values]
        if not known[0] or not known[1] or (paired and known != values):
            continue
        if paired:
            effects[name] = of_pairs(known[0], known[1])
        elif len(known[0]) == len(known[1]) == 1:
            effects[name] = _of_runs(runs[0][0], runs[1][0], name)
        else:
            effects[name] = of_groups(known[0], known[1])
    higher = {name: METRICS[name] for name in effects}
    done = judged(effects, higher, threshold=threshold)
    return ComparisonResult(done, *names, runs, paired, invalid, threshold, results)
