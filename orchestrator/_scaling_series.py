"""Throughput over one dimension of a system's size, from the stored runs of an experiment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from orchestrator.errors import DataError, InputError, suggestion

_LEFT_OPEN: Final = ("seed", "experiment")
_SATURATED: Final = 0.95
"""Who serves this part of what is offered shows what was asked for, and not what it can."""


def scaling_series(
    results: str, experiment: str, over: str, where: str | None
) -> tuple[list[float], list[float]]:
    """(sizes, throughputs) of the valid runs, or of those that ``where`` chooses, in the order of
    the sizes. Runs of one size are repeats, each a point.

    Raises InputError where there are none, ``over`` is no number in them, or they are of different
    configurations otherwise; DataError where all of them served whatever was offered.
    """
    from orchestrator.config.load import parse_yaml
    from orchestrator.store.query import query

    quoted = experiment.replace("'", "''")
    _, rows = query(
        results,
        "SELECT config_yaml, throughput_ops, offered_ops, clock FROM runs"
        f" WHERE experiment = '{quoted}' AND throughput_ops IS NOT NULL"
        f" AND ({'valid' if where is None else where}) ORDER BY started_utc, run_id",
    )
    if not rows:
        raise InputError(
            f"there is no file and no such run of an experiment {experiment!r} in {results}",
            hint="archbench query 'SELECT DISTINCT experiment FROM runs' names them",
        )
    configs = [dict(_leaves(parse_yaml(text, experiment))) for text, *_ in rows]
    sizes = [_size(config, over) for config in configs]
    _check_alike([{**config, "clock": row[3]} for config, row in zip(configs, rows, strict=True)],
                 over)  # fmt: skip
    if all(offered and served >= _SATURATED * offered for _, served, offered, _ in rows):
        raise DataError(
            "all of these runs served what was offered, which says nothing of what they could",
            path=experiment,
            hint="sweep with arrival: {name: closed, ...}, or a rate above the largest's capacity",
        )
    pairs = sorted(zip(sizes, (float(row[1]) for row in rows), strict=True))
    return [size for size, _ in pairs], [measured for _, measured in pairs]


def _leaves(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All values of a configuration by their path; a list is one value."""
    if isinstance(data, Mapping):
        for key, each in data.items():
            yield from _leaves(each, f"{path}.{key}" if path else str(key))
    else:
        yield path, data


def _size(config: Mapping[str, Any], over: str) -> float:
    if over not in config:
        raise InputError(
            "no such path in these runs' configurations",
            path=over,
            hint=suggestion(over, list(config)),
        )
    value = config[over]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        hint = "a size such as system.replicas, system.node.cores or arrival.sessions"
        raise InputError(f"{value!r} is no number above 0", path=over, hint=hint)
    return float(value)


def _check_alike(configs: Sequence[Mapping[str, Any]], over: str) -> None:
    """Whatever else differs would pass for the effect of the size."""
    first = configs[0]
    paths = sorted({path for config in configs for path in config} - {over, *_LEFT_OPEN})
    other = [
        path for path in paths if any(config.get(path) != first.get(path) for config in configs)
    ]
    if other:
        raise InputError(
            f"these runs differ in more than {over}: {', '.join(other[:5])}",
            path="--where",
            hint="choose those that are alike by SQL, a config_hash IN (...) for example",
        )
