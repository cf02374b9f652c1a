"""The commands that prove: ``fuzz`` a protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator._command import (
    BAD_VERDICT,
    DEFAULT_RESULTS,
    Address,
    Answer,
    Json,
    Results,
)
from orchestrator.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(fuzz)


def fuzz(
    protocol: Annotated[str, typer.Argument(metavar="PROTOCOL")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Parameters of the protocol not to draw."),
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", help="How many simulations, from seed 0 on.")
    ] = 100,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="K", help="This simulation alone.")
    ] = None,
    scenario: Annotated[
        str | None, typer.Option("--scenario", metavar="FILE", help="Run a kept scenario.")
    ] = None,
    profile: Annotated[
        str, typer.Option("--profile", metavar="mixed|recovery|membership")
    ] = "mixed",
    results: Results = DEFAULT_RESULTS,
    json: Json = False,
    address: Address = None,
) -> Answer:
    """Simulate a protocol under faults by seeds, and check that it keeps what it claims.

    A seed draws the cluster, its links, the faults and the load; after the faults have ended,
    everything must succeed again. A failing seed is minimised and its scenario kept.
    """
    from orchestrator import _fuzz_terminal
    from orchestrator import fuzz as fuzzing

    wanted = fuzzing.Wanted(protocol, profile, fuzzing.fixed_parameters(protocol, overrides or []))
    folder = Path(results) / "fuzz"
    if scenario is not None:
        findings, took_s = fuzzing.replay(wanted, scenario)
        data = fuzzing.as_json(wanted, findings, took_s, scenario)
    else:
        if seeds < 1:
            raise InputError(f"{seeds} is not a number of seeds", path="--seeds", hint="1 or more")
        asked = range(seeds) if seed is None else [seed]
        with _fuzz_terminal.progress(protocol, len(asked)) as told:
            findings, took_s = fuzzing.fuzz(
                wanted, asked, folder=folder, address=address, told=told
            )
        data = fuzzing.as_json(wanted, findings, took_s)
    return Answer(
        data,
        lambda out: _fuzz_terminal.show(out, data),
        BAD_VERDICT if findings.failures else 0,
    )
