"""The commands that answer by many runs: ``capacity``, the highest rate within the objective."""

from __future__ import annotations

from typing import Annotated

import typer

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

RUNS_MIN = 10


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(capacity)


def capacity(
    config: ConfigPath,
    overrides: Overrides = None,
    runtime: RuntimeName = None,
    seed: Seed = None,
    precision: Annotated[
        float,
        typer.Option(
            "--precision", metavar="P", help="Half of the 95 % interval, of the capacity."
        ),
    ] = 0.02,
    runs: Annotated[
        int, typer.Option("--runs", metavar="N", help="The most that the search may take.")
    ] = 60,
    results: Results = DEFAULT_RESULTS,
    json: Json = False,
    address: Address = None,
) -> Answer:
    """Find the highest rate that meets the objective, and the latency on the way to it.

    The search begins at the config's arrival.rate; runs that are stored already are not made again.
    """
    from orchestrator import _capacity_terminal as terminal
    from orchestrator.capacity import capacity as search
    from orchestrator.config.load import ConfigSource
    from orchestrator.config.render import config_hash
    from orchestrator.run import Runner
    from orchestrator.stored import write_capacity_figure

    if not 0.001 <= precision <= 0.5:
        hint = "from 0.001 to 0.5, of the capacity"
        raise InputError(f"{precision:g} is none", path="--precision", hint=hint)
    if runs < RUNS_MIN:
        raise InputError(f"{runs} are too few", path="--runs", hint=f"{RUNS_MIN} or more")
    source = ConfigSource.read(config, *with_options(overrides, runtime, seed))
    with Runner(results, address) as runner, terminal.progress() as told:
        done = search(
            source, runner, precision=precision, runs_max=runs, told=told, lost=terminal.lost
        )
    data = done.as_json()
    simulated = done.config.runtime == "sim"
    hashed = config_hash(done.config)
    name = done.config.experiment
    figure = write_capacity_figure(done.results, name, data, hashed, simulated=simulated)
    data["figure"] = str(figure)
    return Answer(data, lambda out: terminal.show(out, data, name), 0 if done.good else BAD_VERDICT)
