"""What a study is to do, and all that can be wrong with it before it starts."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orchestrator.config.load import ConfigSource
from orchestrator.config.render import resolved
from orchestrator.config.schema import Config
from orchestrator.errors import ConfigError, InfeasibleError, InputError, suggestion
from orchestrator.plan import plan
from orchestrator.run import DEFAULT_RESULTS
from orchestrator.store import tables
from orchestrator.store.parquet import Store
from orchestrator.store.text import json_text
from orchestrator.study.space import SearchSpace
from orchestrator.study.trials import JOURNAL, SQLITE, storage_file

THROUGHPUT_METRICS: Final = ("throughput_ops", "goodput_ops")
HASH_DIGITS: Final = 8

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RATE_PATHS: Final = tuple(
    f"arrival.{key}"
    for key in ("name", "rate", "speed", "burst", "calm", "base", "peak", "start", "end")
)


@dataclass(frozen=True)
class Plan:
    """A study that may start: its config, search space, name, budget and where it is kept."""

    config: Config
    space: SearchSpace
    name: str
    trials: int
    results: str
    folder: Path
    storage: str

    @property
    def exists(self) -> bool:
        """Whether it was started before."""
        return storage_file(self.storage, self.folder, self.name).exists()


def prepare(
    config: Config | ConfigSource | Mapping[str, Any],
    *,
    trials: int | None = None,
    results: str | os.PathLike[str] = DEFAULT_RESULTS,
    study: str | None = None,
    storage: str = JOURNAL,
) -> Plan:
    """Everything that can be wrong with a study, checked before it starts.

    The name of a study defaults to that of the experiment and a hash of all that decides its
    figures, so the same command resumes it and a changed config begins another. Raises
    ConfigError, or what :func:`orchestrator.plan.plan` raises of the config's own variant.
    """
    source = ConfigSource.of(config)
    built = source.build()
    if trials is not None and trials < 1:
        raise ConfigError(f"{trials} is no number of trials", path="--trials", hint="at least 1")
    _check_objective(built)
    space = SearchSpace(source, built)
    with suppress(InfeasibleError):  # then it is the first refused trial
        plan(built)
    name = study if study is not None else _study_name(built)
    if _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"{name!r} cannot name a study",
            path="--study",
            hint="1 to 100 letters, digits, '.', '_' or '-', the first a letter or digit",
        )
    folder = local_folder(results) / "studies"
    planned = Plan(
        built, space, name, trials or built.tune.trials, os.fspath(results), folder, storage
    )
    _check_home(planned)
    return planned


def _check_home(planned: Plan) -> None:
    """A study is kept in one place, and its trials in the results are those of that place."""
    home = storage_file(planned.storage, planned.folder, planned.name)
    # Read first: another driver may begin the study meanwhile, its file before its trials.
    names = [file.name.rpartition("-")[0] for file in Store(planned.results).files("trials")]
    if home.exists():
        return
    for kind in (JOURNAL, SQLITE):
        if kind != planned.storage and storage_file(kind, planned.folder, planned.name).exists():
            raise ConfigError(
                f"the study {planned.name!r} is kept in {kind}",
                path="--storage",
                hint=f"use --storage {kind}, or name another study",
            )
    if planned.name in names:
        raise ConfigError(
            f"the results hold trials of the study {planned.name!r}, but {home} is gone",
            path="--study",
            hint="name another study, or use another results folder",
        )


def _check_objective(config: Config) -> None:
    objectives = config.tune.objectives
    if len(objectives) > 1:
        raise ConfigError(
            f"{len(objectives)} objectives at once cannot be searched",
            path="tune.objectives",
            hint="give one, and bound the others in slo",
        )
    metric = objectives[0].metric
    at = "tune.objectives[0].metric"
    types = tables.RUNS.schema
    known = [
        ".".join(path)
        for column, path in tables.SUMMARY_PATHS.items()
        if types.field(column).type in (tables.NUMBER, tables.WHOLE)
    ]
    if metric not in known:
        raise ConfigError(
            f"{metric!r} is no figure of a run", path=at, hint=suggestion(metric, known)
        )
    arrival = config.arrival.implementation(config.arrival.params)
    searched = any(path in config.tune.search for path in _RATE_PATHS)
    if metric in THROUGHPUT_METRICS and not arrival.closed and not searched:
        raise ConfigError(
            f"{metric} cannot be searched for under a fixed open rate: every variant that keeps up"
            " has the same",
            path=at,
            hint="use arrival: {name: closed, ...}, put arrival.rate into tune.search, or make a"
            " latency or the cost the objective",
        )


def identity(config: Config) -> dict[str, Any]:
    """All that decides what the study finds: the config without the length of the search."""
    plain: dict[str, Any] = json.loads(json_text(resolved(config)))
    del plain["tune"]["trials"]
    return plain


def _study_name(config: Config) -> str:
    text = json.dumps(identity(config), sort_keys=True)
    hashed = hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]
    return f"{config.experiment[:80]}-{hashed}"


def local_folder(results: str | os.PathLike[str]) -> Path:
    """A results folder as a path. ConfigError where it is not local."""
    scheme, address, path = os.fspath(results).partition("://")
    if address and scheme not in ("file", "local"):
        raise ConfigError(
            "a study keeps its journal and its leases in the results folder, which must be local",
            path="--results",
            hint="tune into a local folder, and copy it afterwards",
        )
    return Path(path if address else os.fspath(results))


def check_same(noted: Mapping[str, Any], config: Config, name: str) -> None:
    """A study's trials must be comparable, so its config must not have changed."""
    changed = sorted(_differences(noted, identity(config)))
    if changed:
        listed = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
        raise ConfigError(
            f"the study {name!r} was started with another configuration: {listed} changed",
            path="--study",
            hint="name another study, or take the change back",
        )


def _differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in sorted({*one, *other}):
            below = f"{path}.{name}" if path else name
            yield from _differences(one.get(name), other.get(name), below)
    elif one != other:
        yield path


def largest(space: SearchSpace, config: Config) -> int:
    """The most nodes and clients that a variant at the ends of the search has."""
    together: dict[str, Any] = {}
    ends: list[dict[str, Any]] = [together]
    for axis in space.axes:
        values = [axis.value(end) for end in axis.sampled or (axis.low, axis.high)]
        ends += [{axis.path: value} for value in values]
        together[axis.path] = values[-1]
    most = _processes(config)
    for end in ends:
        with suppress(InputError):
            most = max(most, _processes(space.variant(end)))
    return most


def _processes(config: Config) -> int:
    nodes: int = config.system.implementation(config.system.params).nodes
    return nodes + config.clients
