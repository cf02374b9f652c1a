"""``archbench capacity --load RATES --over PATH=VALUES``: the question and its answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator import _terminal
from orchestrator.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.config.load import ConfigSource
    from orchestrator.resource_demand import Trials

_RANGE = re.compile(r"(\d+)\.\.(\d+)(?:\.\.(\d+))?")
_HINT = "as in --load 2000/s,5000/s --over system.replicas=1..7"
VALUES_MAX = 200


def answered(
    source: ConfigSource, load: str | None, over: str | None, results: str, address: str | None
) -> tuple[dict[str, Any], str, bool]:
    """Search the demand of each load, and store the picture: (the object of ``--json``, the
    experiment, whether all is well).
    """
    from orchestrator.capacity import CapacityResult
    from orchestrator.config.render import config_hash
    from orchestrator.resource_demand import resource_demand
    from orchestrator.run import Runner
    from orchestrator.stored import write_demand_figure

    if load is None:
        raise InputError("what load is to be carried?", path="--load", hint=_HINT)
    if over is None:
        raise InputError("by how much of what is it to be carried?", path="--over", hint=_HINT)
    path, values = values_of(over)
    loads = [each.strip() for each in load.split(",")]
    with Runner(results, address) as runner:
        done = resource_demand(
            source, runner, path, values, loads, told=_told, lost=_terminal.say_lost
        )
    data = dict.fromkeys(CapacityResult.KEYS) | done.as_json()
    config = done.config
    figure = write_demand_figure(
        done.results,
        config.experiment,
        data,
        config_hash(config),
        simulated=config.runtime == "sim",
    )
    data["figure"] = str(figure)
    return data, config.experiment, done.good


def values_of(text: str) -> tuple[str, list[Any]]:
    """(path, values) of ``path=1..7``, ``path=10..50..10`` or ``path=1,2,4``, in the order given.

    Raises InputError for what is none of these, or names a value twice.
    """
    from orchestrator.config.load import parse_override
    from orchestrator.sweep import split_values

    path, _, listed = text.partition("=")
    found = _RANGE.fullmatch(listed.strip())
    if found is not None:
        first, last, step = int(found[1]), int(found[2]), int(found[3] or 1)
        values: list[Any] = list(range(first, last + 1, step)) if step else []
    else:
        values = [parse_override(f"{path}={each}")[1] for each in split_values(listed) if each]
    if not path.strip() or not values or len(values) > VALUES_MAX:
        raise InputError(f"{text!r} names no values of a path", path="--over", hint=_HINT)
    if len({str(each) for each in values}) < len(values):
        raise InputError(f"{text!r} names a value twice", path="--over", hint=_HINT)
    return path.strip(), values


def _told(load_ops: float, trials: Trials) -> None:
    """A line a run."""
    from orchestrator.report.wording import quantity

    point = trials.as_json(load_ops)
    verdict = "met" if point["met"] else "missed" if point["valid"] else "not valid"
    rate, p99 = quantity(load_ops, "ops/s"), quantity(point["p99_ms"], "ms")
    _terminal.say(f"{rate} at {trials.value}: p99 {p99}, {verdict} ({point['runs']})")


# --- for people -------------------------------------------------------------------------


def show(out: Console, data: Mapping[str, Any], experiment: str) -> None:
    """The curve of each load, what it takes, and what casts doubt on it."""
    from orchestrator.report.wording import counted, number

    for demand in data["demands"]:
        key = demand["path"].rpartition(".")[2]
        header = [key, "ops/s", "p50 ms", "p99 ms", "SLO", "valid", "runs", "cost"]
        out.print(_terminal.table(header, [_row(each) for each in demand["curve"]]))
        load = f"{number(demand['load_ops'])} ops/s"
        if demand["value"] is None:
            out.print(f"{demand['reason']}", style="bold red", markup=False)
            continue
        text = f"{load} of {experiment} take {demand['path']} = {demand['value']}"
        out.print(text, markup=False)
        if demand["contradictions"]:
            listed = ", ".join(map(str, demand["contradictions"]))
            text = f"more is not always enough: at {listed} the objective was missed"
            out.print(text, style="bold red", markup=False)
    out.print(f"{counted(data['runs'], 'run')}; {data['figure']}", markup=False, soft_wrap=True)


def _row(point: Mapping[str, Any]) -> Sequence[str]:
    from orchestrator.report.wording import number

    if point["reason"] is not None:
        return [str(point["value"]), "cannot run", "", "", "no", "", "0", ""]
    return [
        str(point["value"]),
        *(number(point[name]) for name in ("throughput_ops", "p50_ms", "p99_ms")),
        "yes" if point["met"] else "no",
        "yes" if point["valid"] else "no",
        f"{point['runs_met']} of {point['runs']} met",
        number(point["cost"]),
    ]
