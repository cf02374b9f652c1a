"""The commands that answer by many runs: ``capacity``, the highest rate within the objective, and
``compare``, whether one variant is better than another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from orchestrator import _terminal
from orchestrator._command import (
    BAD_VERDICT,
    DEFAULT_RESULTS,
    Address,
    Answer,
    ConfigPath,
    Json,
    Overrides,
    Results,
    RuntimeName,
    Seed,
    with_options,
)
from orchestrator.errors import InputError

if TYPE_CHECKING:
    from orchestrator.compare import ComparisonResult
    from orchestrator.config.load import ConfigSource

RUNS_MIN: Final = 10
PAIRS_MIN: Final = 3


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(capacity)
    app.command()(compare)


def capacity(
    config: ConfigPath,
    overrides: Overrides = None,
    runtime: RuntimeName = None,
    seed: Seed = None,
    precision: Annotated[
        str,
        typer.Option(
            "--precision", metavar="P", help="Half of the 95 % interval, of the capacity."
        ),
    ] = "2%",
    runs: Annotated[
        int, typer.Option("--runs", metavar="N", help="The most that the search may take.")
    ] = 60,
    load: Annotated[
        str | None,
        typer.Option("--load", metavar="RATE,...", help="Loads to be carried: with --over."),
    ] = None,
    over: Annotated[
        str | None,
        typer.Option(
            "--over",
            metavar="PATH=VALUES",
            help="Find the first of the values, 1..7 or 1,2,4, that carries each load.",
        ),
    ] = None,
    results: Results = DEFAULT_RESULTS,
    json: Json = False,
    address: Address = None,
) -> Answer:
    """Find the highest rate that meets the objective, and the latency on the way to it.

    The search begins at the config's arrival.rate; runs that are stored already are not made again.
    With --load and --over: the fewest resources that carry each load, as in
    --load 2000/s,5000/s --over system.replicas=1..7.
    """
    from orchestrator.config.load import ConfigSource
    from orchestrator.precise import parse_precision

    share = parse_precision(precision)
    if runs < RUNS_MIN:
        raise InputError(f"{runs} are too few", path="--runs", hint=f"{RUNS_MIN} or more")
    source = ConfigSource.read(config, *with_options(overrides, runtime, seed))
    if load is None and over is None:
        return _highest_rate(source, share, runs, results, address)
    from orchestrator import _demand_question as question

    data, name, good = question.answered(source, load, over, results, address)
    return Answer(data, lambda out: question.show(out, data, name), 0 if good else BAD_VERDICT)


def _highest_rate(
    source: ConfigSource, precision: float, runs: int, results: str, address: str | None
) -> Answer:
    """The capacity of a config."""
    from orchestrator import _capacity_terminal as terminal
    from orchestrator.capacity import capacity as search
    from orchestrator.config.render import config_hash
    from orchestrator.run import Runner
    from orchestrator.stored import write_capacity_figure

    with Runner(results, address) as runner:
        done = search(
            source,
            runner,
            precision=precision,
            runs_max=runs,
            told=terminal.told,
            lost=_terminal.say_lost,
        )
    data = done.as_json()
    simulated = done.config.runtime == "sim"
    hashed = config_hash(done.config)
    name = done.config.experiment
    figure = write_capacity_figure(done.results, name, data, hashed, simulated=simulated)
    data["figure"] = str(figure)
    return Answer(data, lambda out: terminal.show(out, data, name), 0 if done.good else BAD_VERDICT)


def compare(
    base: Annotated[str, typer.Argument(metavar="BASE", help="A config, run or experiment.")],
    candidate: Annotated[
        str, typer.Argument(metavar="CANDIDATE", help="The same; of configs both are run in turn.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Replace values in both configs."),
    ] = None,
    runtime: RuntimeName = None,
    seed: Seed = None,
    pairs: Annotated[int, typer.Option("--pairs", metavar="N", help="Runs of each config.")] = 10,
    threshold: Annotated[
        float, typer.Option("--threshold", metavar="P", help="A smaller difference is none.")
    ] = 0.02,
    results: Results = DEFAULT_RESULTS,
    json: Json = False,
    address: Address = None,
) -> Answer:
    """Say whether a candidate is better or worse than a base, and by how much.

    Exit code 1: something is worse.
    """
    from orchestrator import _compare_terminal as terminal
    from orchestrator.compare import compare_stored, is_config
    from orchestrator.store.parquet import Store

    if pairs < PAIRS_MIN:
        raise InputError(f"{pairs} are too few", path="--pairs", hint=f"{PAIRS_MIN} or more")
    if not 0 <= threshold < 1:
        hint = "a part of the base's figure, such as 0.02"
        raise InputError(f"{threshold:g} is none", path="--threshold", hint=hint)
    files = [is_config(name) for name in (base, candidate)]
    if any(files) and not all(files):
        hint = "give two configs, or two runs or experiments"
        raise InputError("one is a config and one is not", hint=hint)
    if all(files):
        plain = with_options(overrides, runtime, seed)
        done = _compared((base, candidate), plain, pairs, threshold, results, address)
    else:
        done = compare_stored(Store(results), base, candidate, threshold=threshold)
    data = done.as_json()
    return Answer(data, lambda out: terminal.show(out, data), 0 if done.good else BAD_VERDICT)


def _compared(
    names: tuple[str, str],
    overrides: list[str],
    pairs: int,
    threshold: float,
    results: str,
    address: str | None,
) -> ComparisonResult:
    """Both configs run in turn."""
    from orchestrator import _compare_terminal as terminal
    from orchestrator.compare import compare_configs
    from orchestrator.config.load import ConfigSource
    from orchestrator.run import Runner

    base, candidate = (ConfigSource.read(name, *overrides) for name in names)
    with Runner(results, address) as runner:
        return compare_configs(
            base,
            candidate,
            runner,
            pairs=pairs,
            threshold=threshold,
            told=terminal.told(pairs),
            lost=_terminal.say_lost,
        )
