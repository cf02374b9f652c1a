"""A grid over any config paths: every combination once, whatever was interrupted before.

A variant is identified by the hash of its resolved configuration. One whose valid run is in
the results already is taken from there; what its own limits forbid is listed and not run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from orchestrator.analysis.efficiency import efficiency
from orchestrator.config.load import ConfigSource, parse_override, parse_value
from orchestrator.config.render import config_hash
from orchestrator.config.schema import Config
from orchestrator.errors import (
    ClusterLost,
    ConfigError,
    EnvironmentFailure,
    InfeasibleError,
    InputError,
    ResultsFull,
)
from orchestrator.plan import plan
from orchestrator.run import Runner
from orchestrator.streak import FAILURES_MAX, Streak

RUN: Final = "run"
REUSED: Final = "reused"
INFEASIBLE: Final = "infeasible"
FAILED: Final = "failed"

Axes = Mapping[str, Sequence[Any]]
_OPENING: Final = {"[": "]", "{": "}", "(": ")"}


@dataclass(frozen=True)
class Variant:
    """One combination: ``values`` by path, and its config, or why it cannot run."""

    values: dict[str, Any]
    config: Config | None
    error: InputError | None = None


@dataclass(frozen=True)
class Point:
    """One variant that was dealt with; ``summary`` is None where it is infeasible or failed.
    ``repeat``: which of its runs it is, from 0.
    """

    values: dict[str, Any]
    state: Literal["run", "reused", "infeasible", "failed"]
    summary: dict[str, Any] | None = None
    reason: str | None = None
    error: EnvironmentFailure | None = field(default=None, repr=False)
    repeat: int = 0


@dataclass(frozen=True)
class SweepResult:
    """All points in the order of the grid, the last axis changing fastest; of several repeats one
    whole grid after the other.
    """

    points: tuple[Point, ...]
    results: str
    axes: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def efficiency(self) -> list[dict[str, Any]] | None:
        """What each variant does for its price; None where nothing has one."""
        runs: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
        for point in self.points:
            if point.summary is not None:
                runs.setdefault(repr(point.values), (point.values, []))[1].append(point.summary)
        return efficiency([(values, _typical(found)) for values, found in runs.values()])

    def as_json(self) -> dict[str, Any]:
        """``runs``: result objects with ``values`` and ``reused``; the others with reasons.
        ``efficiency``: of :mod:`orchestrator.analysis.efficiency`.
        """
        return {
            "runs": [
                {
                    **point.summary,
                    "values": point.values,
                    "reused": point.state == REUSED,
                    "repeat": point.repeat,
                }
                for point in self.points
                if point.summary is not None
            ],
            **{
                state: [
                    {"values": point.values, "reason": point.reason}
                    for point in self.points
                    if point.state == state
                ]
                for state in (INFEASIBLE, FAILED)
            },
            "efficiency": self.efficiency,
            "results": self.results,
        }


def _typical(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The run that stands for the repeats: of those that agree with most on whether the objective
    was met, the one with the middle goodput.
    """

    def good(found: Mapping[str, Any]) -> bool:
        return bool(found["valid"]) and found["slo"]["met"] is not False

    most = 2 * sum(map(good, runs)) > len(runs)
    agreeing = [found for found in runs if good(found) == most]
    agreeing.sort(key=lambda found: float(found["goodput_ops"] or 0.0))
    return agreeing[(len(agreeing) - 1) // 2]


# --- the grid ---------------------------------------------------------------------------


def split_axes(texts: Sequence[str]) -> tuple[list[str], dict[str, list[Any]]]:
    """(plain overrides, axes) of ``path=value`` texts: a list of values at commas is an axis.

    Commas within brackets or quotes belong to a value: ``tune.objectives=[a,b]`` is one value.
    Raises ConfigError for a malformed text, an empty value between commas, an axis given twice,
    or one that is given a single value, too.
    """
    plain: dict[str, str] = {}
    axes: dict[str, list[Any]] = {}
    for text in texts:
        path, _, value = text.partition("=")
        values = list(split_values(value))
        if len(values) == 1:
            name, _ = parse_override(text)
            plain[name] = text
            continue
        name = path.strip()
        if "" in values:
            raise ConfigError(
                f"{value!r} has an empty value", path=name, hint="write null for no value"
            )
        parsed = [parse_override(f"{path}={each}") for each in values]
        if name in axes:
            raise ConfigError("the axis is given twice", path=name, hint="join the two lists")
        axes[name] = [each for _, each in parsed]
    for name in axes:
        if name in plain:
            raise ConfigError(
                f"is an axis, and {plain[name]!r} gives it one value",
                path=name,
                hint="give the list or the value, not both",
            )
    return list(plain.values()), axes


def with_own_axes(
    source: ConfigSource, plain: Sequence[str], axes: Mapping[str, list[Any]]
) -> tuple[ConfigSource, dict[str, list[Any]]]:
    """(source without axes, all axes): those of its ``sweep`` section before those given.

    What is given for a path, a list or one value, stands in place of what the section says.
    """
    own = source.build().sweep
    given = {*axes, *(parse_override(text)[0] for text in plain)}
    kept = {path: list(values) for path, values in own.items() if path not in given}
    for path, values in kept.items():
        if not values:
            raise ConfigError("an axis without a value", path=f"sweep.{path}")
    return source.with_values({"sweep": {}}), kept | dict(axes)


def split_values(text: str) -> Iterator[str]:
    """The parts of ``text`` between commas that stand outside brackets and quotes."""
    closing: list[str] = []
    quote = ""
    start = 0
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in _OPENING:
            closing.append(_OPENING[character])
        elif closing and character == closing[-1]:
            closing.pop()
        elif character == "," and not closing:
            yield text[start:position].strip()
            start = position + 1
    yield text[start:].strip()


def variants(source: ConfigSource, axes: Axes) -> list[Variant]:
    """The grid, checked as far as that goes without running it.

    A value that is wrong by itself raises ConfigError; a combination that cannot run becomes a
    variant with its error, unless no combination can run at all.
    """
    for path, values in axes.items():
        if source.knows(path):
            for value in values:
                parse_value(source, path, value)
    found = [
        _variant(source, dict(zip(axes, combination, strict=True)))
        for combination in itertools.product(*axes.values())
    ]
    errors = [variant.error for variant in found if variant.error is not None]
    if len(errors) == len(found) and not any(isinstance(e, InfeasibleError) for e in errors):
        raise errors[0]
    return found


def _variant(source: ConfigSource, values: dict[str, Any]) -> Variant:
    try:
        config = source.with_values(values).build()
        plan(config)
    except (ConfigError, InfeasibleError) as error:
        return Variant(values, None, error)
    return Variant(values, config)


# --- the sweep --------------------------------------------------------------------------


def sweep(
    source: ConfigSource,
    axes: Axes,
    runner: Runner,
    *,
    repeats: int = 1,
    told: Callable[[int, int, Point], None] | None = None,
    started: Callable[[int, int, Variant], None] | None = None,
    lost: Callable[[str], None] | None = None,
) -> SweepResult:
    """Run every feasible variant of the grid that has no valid run yet.

    ``repeats``: so many runs of each, with seeds counted up, interleaved: the whole grid once, then
    the whole grid again, so that what changes about the machine meanwhile favours no variant, and
    each time on other hosts of a cluster. A variant that cannot run is listed once.

    ``started(number, of, variant)`` is called before a run, ``told(number, of, point)`` after
    each variant, ``lost(reason)`` when a run lost a part and is made again. A variant whose run
    fails is left out, and the next call tries it again.

    Raises what :func:`variants` raises; ClusterLost and ResultsFull; and EnvironmentFailure
    after FAILURES_MAX failures in a row for the same reason, or where nothing but failed.
    Finished runs are kept, and the same call goes on where it stopped.
    """
    grid = list(enumerate_repeats(source, variants(source, axes), axes, repeats))
    done = runner.valid_results()
    points: list[Point] = []
    streak = Streak()
    for number, (repeat, variant) in enumerate(grid, start=1):
        point = _known(variant, done, repeat)
        if point is None:
            if started is not None:
                started(number, len(grid), variant)
            point = _run(variant, runner, lost, repeat)
            if point.summary is not None and point.summary["valid"]:
                done[point.summary["config_hash"]] = point.summary
        points.append(point)
        if told is not None:
            told(number, len(grid), point)
        if point.state == RUN:
            streak.succeed()
        elif point.state == FAILED:
            streak.fail(str(point.reason))
        if streak.hopeless:
            raise EnvironmentFailure(
                f"{FAILURES_MAX} runs in a row failed: {point.reason}",
                hint="the same command goes on where this one stopped",
            )
    errors = [point.error for point in points if point.error is not None]
    if errors and all(point.summary is None for point in points):
        raise errors[-1]
    listed = {path: list(values) for path, values in axes.items()}
    return SweepResult(tuple(points), runner.store.results, listed)


def enumerate_repeats(
    source: ConfigSource, grid: Sequence[Variant], axes: Axes, repeats: int
) -> Iterator[tuple[int, Variant]]:
    """(repeat, variant) in the order in which they are run."""
    if repeats > 1 and "seed" in axes:
        raise InputError(
            "repeats count the seed up, which is an axis here",
            path="seed",
            hint="sweep over seeds or repeat, not both",
        )
    for repeat in range(repeats):
        for variant in grid:
            if not repeat:
                yield repeat, variant
            elif variant.config is not None:
                seeded = source.with_values({"seed": variant.config.seed + repeat})
                yield repeat, _variant(seeded, variant.values)


def _known(variant: Variant, done: Mapping[str, dict[str, Any]], repeat: int) -> Point | None:
    """What needs no run: infeasible, or run before."""
    if variant.config is None:
        return Point(variant.values, INFEASIBLE, reason=str(variant.error), repeat=repeat)
    summary = done.get(config_hash(variant.config))
    return None if summary is None else Point(variant.values, REUSED, summary, repeat=repeat)


def _run(
    variant: Variant, runner: Runner, lost: Callable[[str], None] | None, repeat: int
) -> Point:
    assert variant.config is not None
    try:
        done = runner.run_surely(variant.config, lost, repeat=repeat)
    except (ClusterLost, ResultsFull):
        raise
    except EnvironmentFailure as error:
        return Point(variant.values, FAILED, reason=str(error), error=error, repeat=repeat)
    return Point(variant.values, RUN, done.summary, repeat=repeat)
