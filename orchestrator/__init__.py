"""archbench: which distributed architecture to run, and how sure one may be of it.

>>> import orchestrator as ab
>>> config = ab.load("configs/first.yaml", "runtime=sim")
>>> result = ab.run(config)
>>> result.summary["throughput_ops"], result.summary["valid"]
>>> ab.results("results").sql("SELECT run_id, throughput_ops FROM runs")
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from orchestrator.config.load import ConfigSource
    from orchestrator.config.schema import Config
    from orchestrator.run import RunResult
    from orchestrator.tune import TuneResult

__version__ = "0.1.0"
__all__ = ["__version__", "load", "results", "run", "tune"]

_RESULTS: Final = "results"


def load(path: str | os.PathLike[str], *overrides: str) -> Config:
    """The configuration in a YAML file under ``key=value`` overrides, typed and frozen.

    Raises InputError or ConfigError, which say what is wrong where.
    """
    from orchestrator.config.load import load as load_config

    return load_config(os.fspath(path), *overrides)


def run(
    config: Config,
    *,
    results: str | os.PathLike[str] = _RESULTS,
    repeat: int = 1,
    precision: float | str | None = None,
    repeat_max: int = 30,
    address: str | None = None,
) -> RunResult:
    """One experiment (``repeat``: several, pooled), checked and stored in ``results``.

    ``precision`` (0.05, or ``"5%"``): repeated until the 95 % intervals of throughput and of each
    percentile that the objective names are within that of the figure, ``repeat_max`` times at most.

    Raises as :meth:`orchestrator.run.Runner.run` does. For many runs on one warm pool of
    actors, use :class:`orchestrator.run.Runner`.
    """
    from orchestrator.run import Runner

    with Runner(results, address) as runner:
        if precision is None:
            return runner.run_repeated(config, repeat)
        from orchestrator.precise import parse_precision, run_precisely

        return run_precisely(config, runner, parse_precision(precision), repeats_max=repeat_max)


def tune(config: Config | ConfigSource | Mapping[str, Any], **options: Any) -> TuneResult:
    """A study; ``options`` are those of :func:`orchestrator.tune.tune`."""
    from orchestrator.tune import tune as search

    return search(config, **options)


def results(folder: str | os.PathLike[str] = _RESULTS) -> Any:
    """A DuckDB connection with a view of every table of a results folder.

    ``.sql("SELECT ...").to_arrow_table()`` gives Arrow. InputError: there is no such folder.
    """
    from orchestrator.store.query import relation

    return relation(folder)


class _Package(types.ModuleType):
    """Keeps ``run`` and ``tune`` the functions above.

    An import of the submodule of that name would put the module in their place.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in ("run", "tune") and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
