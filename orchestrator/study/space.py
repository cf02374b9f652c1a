"""The searched paths of a study as Optuna's distributions, and how it draws from them.

A study starts with points of a scrambled Halton sequence (Halton, Numerische Mathematik 2,
1960; Owen, arXiv:1706.02808), which cover a small budget's range evenly, and goes on with the
tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), constraints included. What a
trial draws follows from the seed, its number and the trials before it, so a resumed study goes
on as if it had never stopped, and two drivers never draw the same. No variant is drawn twice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from orchestrator.config.load import ConfigSource
from orchestrator.config.paths import parts_of
from orchestrator.config.schema import CATEGORICAL, INT, Config
from orchestrator.config.search import Axis, axes
from orchestrator.core.parameters import FORMATTERS, PARSERS, Capacity
from orchestrator.core.randomness import block_stream, scalar_stream
from orchestrator.errors import ConfigError
from orchestrator.store.text import json_text

Params = Mapping[str, Any]
"""Path -> the number (in the axis' canonical unit) or the choice that Optuna draws."""
Values = Mapping[str, Any]
"""Path -> the value as YAML writes it, of the paths that the variant has."""

# Optuna's progress is not ours to tell.
optuna.logging.set_verbosity(optuna.logging.WARNING)

_MODEL_DRAWS: Final = 8
_RANDOM_DRAWS: Final = 64
_LISTED_VARIANTS: Final = 20_000
"""Spaces up to this size are looked through for what is left."""


def distribution(axis: Axis) -> BaseDistribution:
    """What Optuna draws from for one axis."""
    if axis.type == CATEGORICAL:
        return CategoricalDistribution(axis.sampled)
    assert axis.low is not None and axis.high is not None
    if axis.type == INT:
        step = int(axis.step or 1)
        # Optuna wants the last value itself where the steps do not reach the bound.
        high = int(axis.low + (axis.high - axis.low) // step * step)
        return IntDistribution(int(axis.low), high, log=axis.log, step=step)
    high_float = float(axis.high)
    if axis.step is not None:
        steps = math.floor((axis.high - axis.low) / axis.step + 1e-9)
        high_float = axis.low + steps * axis.step
    return FloatDistribution(float(axis.low), high_float, log=axis.log, step=axis.step)


def number(axis: Axis, value: Any) -> Any:
    """The inverse of ``axis.value``: what Optuna holds for a value as YAML writes it.

    None where the axis does not reach the value: another unit, a choice that is not offered, a
    number out of range or between two steps.
    """
    if axis.wholes:
        return axis.reached(value)
    if isinstance(value, Mapping) and value.get("name") == "constant":
        value = value.get("value")  # a bare duration stands for it
    if axis.quantity is not None:
        try:
            value = PARSERS[axis.quantity](value)
        except ValueError:
            return None
    if axis.type == CATEGORICAL:
        written = value if axis.quantity is None else FORMATTERS[axis.quantity](value)
        return written if written in axis.choices else None
    if isinstance(value, Capacity):
        value = value.amount if value.in_bytes == axis.in_bytes else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    assert axis.low is not None and axis.high is not None
    if not axis.low <= value <= axis.high or (axis.type == INT and value != int(value)):
        return None
    steps = 0.0 if axis.step is None else (value - axis.low) / axis.step
    return value if math.isclose(steps, round(steps), abs_tol=1e-9) else None


class SearchSpace:
    """The axes of a config, and the variants that values on them make of it."""

    def __init__(self, source: ConfigSource, config: Config) -> None:
        self.source = source
        self.axes = axes(config)
        self.distributions = {axis.path: distribution(axis) for axis in self.axes}
        self._applicable: dict[tuple[Any, ...], frozenset[str]] = {}
        if not self.axes:
            raise ConfigError(
                "nothing is searched",
                path="tune.search",
                hint="name a config path, as in system.replicas: {type: int, low: 1, high: 7}",
            )

    def values(self, params: Params) -> dict[str, Any]:
        """The values to set; paths that this variant does not have are left out."""
        values = {axis.path: axis.value(params[axis.path]) for axis in self.axes}
        chosen = {axis.path: params[axis.path] for axis in self.axes if axis.chooses}
        key = tuple(chosen.values())
        if key not in self._applicable:
            self._applicable[key] = self._applying({path: values[path] for path in chosen})
        return {path: value for path, value in values.items() if path in self._applicable[key]}

    def _applying(self, choices: Mapping[str, Any]) -> frozenset[str]:
        """The paths that exist once these are chosen, outer ones first."""
        variant, chosen = self.source, set()
        absent: tuple[str, ...] = ()
        for path in sorted(choices, key=lambda path: (path.count("."), path)):
            if variant.knows(path) and not path.startswith(absent):
                variant = variant.with_values({path: choices[path]})
                chosen.add(path)
                if choices[path] is None:
                    absent += (f"{path}.",)
        rest = sorted({axis.path for axis in self.axes} - set(choices))
        there = {path for path in rest if variant.knows(path) and not path.startswith(absent)}
        return frozenset(chosen | there)

    def default(self) -> tuple[Params | None, Values]:
        """What the config itself has on the axes; params are None where they do not reach it."""
        complete = self.source.complete()
        held = {axis.path: _at(complete, _names(axis.path)) for axis in self.axes}
        choices = {axis.path: held[axis.path] for axis in self.axes if axis.chooses}
        # A slot that is empty has no plug-in of which there could be a name.
        empty = {path for path in choices if path.endswith(".name") and choices[path] is None}
        there = self._applying({path: choices[path] for path in choices if path not in empty})
        outside = {path for path in empty if path.removesuffix(".name") not in choices}
        params, values = {}, {}
        for axis in self.axes:
            if axis.path in outside:
                continue
            if axis.path in empty or axis.path not in there:
                # A variant of the search has a value there, too, which makes no difference.
                params[axis.path] = _spread(self.distributions[axis.path], 0.0)
                continue
            values[axis.path] = held[axis.path]
            reached = number(axis, values[axis.path])
            if reached is not None:
                params[axis.path] = reached
                values[axis.path] = axis.value(reached)
        return (params if len(params) == len(self.axes) else None), values

    def variant(self, values: Values) -> Config:
        """The config with the values set; ConfigError where they make none."""
        return self.source.with_values(values).build()

    def all(self) -> Iterator[Params] | None:
        """Every point; None where there are too many, or infinitely many."""
        grids = [_grid(held) for held in self.distributions.values()]
        if None in grids or math.prod(len(grid) for grid in grids if grid) > _LISTED_VARIANTS:
            return None
        points = itertools.product(*(grid for grid in grids if grid is not None))
        return (dict(zip(self.distributions, point, strict=True)) for point in points)


def suggest(trial: optuna.Trial, path: str, held: BaseDistribution) -> Any:
    """What the trial has on an axis, drawn now where it has nothing yet."""
    match held:
        case IntDistribution():
            return trial.suggest_int(path, held.low, held.high, step=held.step, log=held.log)
        case FloatDistribution():
            return trial.suggest_float(path, held.low, held.high, step=held.step, log=held.log)
        case CategoricalDistribution():
            return trial.suggest_categorical(path, held.choices)
        case _:
            raise TypeError(f"{path}: {held!r}")


def key(values: Values) -> str:
    """What two equal variants have in common."""
    return json_text(dict(sorted(values.items())))


def _names(path: str) -> list[str]:
    return [part.text for part in parts_of(path)]


def _at(data: Any, names: Sequence[str]) -> Any:
    """What lies at a path that exists; a key may itself be several names joined by dots."""
    if not names:
        return data
    if isinstance(data, list):
        return _at(data[int(names[0])], names[1:])
    for length in range(1, len(names) + 1):
        name = ".".join(names[:length])
        if isinstance(data, Mapping) and name in data:
            return _at(data[name], names[length:])
    return None


def _grid(held: BaseDistribution) -> list[Any] | None:
    match held:
        case CategoricalDistribution():
            return list(held.choices)
        case IntDistribution() if (held.high - held.low) // held.step < _LISTED_VARIANTS:
            return list(range(held.low, held.high + 1, held.step))
        case FloatDistribution() if held.single():
            return [held.low]
        case FloatDistribution() if held.step is not None:
            count = round((held.high - held.low) / held.step) + 1
            return [held.low + index * held.step for index in range(count)]
        case _:
            return None


def _spread(held: BaseDistribution, share: float) -> Any:
    """The value below which ``share`` of a distribution lies; ``share`` in [0, 1)."""
    if isinstance(held, CategoricalDistribution):
        return held.choices[int(share * len(held.choices))]
    assert isinstance(held, (IntDistribution, FloatDistribution))
    if held.log:
        # A whole number stands for everything that rounds to it.
        half = 0.5 if isinstance(held, IntDistribution) else 0.0
        low, high = math.log(held.low - half), math.log(held.high + half)
        drawn = math.exp(low + share * (high - low))
        drawn = round(drawn) if isinstance(held, IntDistribution) else drawn
        return min(max(drawn, held.low), held.high)
    if held.step is None:
        return held.low + share * (held.high - held.low)
    count = round((held.high - held.low) / held.step) + 1
    return held.low + min(int(share * count), count - 1) * held.step


class Sampler(optuna.samplers.BaseSampler):
    """Halton points until ``startup`` trials are measured, then TPE; never a known variant.

    ``is_new`` tells whether the variant of some params is not yet measured, running or
    refused. ``exhausted`` is set when nothing new could be found.
    """

    def __init__(
        self, seed: int, space: SearchSpace, startup: int, is_new: Callable[[Params], bool]
    ) -> None:
        self._seed = seed
        self._space = space
        self._startup = startup
        self._is_new = is_new
        self.exhausted = False
        # Imported before the first trial, not between two of them.
        from scipy.stats import qmc

        chance = block_stream(seed, "study")
        self._halton = qmc.Halton(len(space.axes), scramble=True, rng=chance)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All axes at once: they are the same in every trial."""
        return self._space.distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A point for this trial."""
        point: Params = {}
        for point in self._draws(study, trial):
            if self._is_new(point):
                return dict(point)
        self.exhausted = True
        return dict(point)

    def _draws(self, study: optuna.Study, trial: FrozenTrial) -> Iterator[Params]:
        measured = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        chance = scalar_stream(self._seed, f"study/{trial.number}")
        space = self._space.distributions
        if len(measured) < self._startup:
            yield self._even(trial.number)
        else:
            free = {path: held for path, held in space.items() if not held.single()}
            fixed = {path: _spread(held, 0.0) for path, held in space.items() if held.single()}
            model = optuna.samplers.TPESampler(
                seed=chance.getrandbits(32), n_startup_trials=0, multivariate=True
            )
            for _ in range(_MODEL_DRAWS if free else 0):
                yield fixed | model.sample_relative(study, trial, free)
        for _ in range(_RANDOM_DRAWS):
            yield {path: _spread(held, chance.random()) for path, held in space.items()}
        rest = list(self._space.all() or ())
        chance.shuffle(rest)
        yield from rest

    def _even(self, index: int) -> Params:
        """A point of the Halton sequence."""
        space = self._space.distributions
        self._halton.reset().fast_forward(index)
        [point] = self._halton.random()
        return {
            path: _spread(held, float(share))
            for (path, held), share in zip(space.items(), point, strict=True)
        }

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Of a queued trial that lacks a path, which no study of ours makes."""
        chance = scalar_stream(self._seed, f"study/{trial.number}/{param_name}")
        return _spread(param_distribution, chance.random())
