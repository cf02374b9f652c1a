"""The commands that prove: ``fuzz`` a protocol, ``check`` a history."""

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
from orchestrator.core.levels import LINEARIZABLE
from orchestrator.core.models import MODELS, STEPS_MAX
from orchestrator.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(fuzz)
    app.command()(check)


def fuzz(
    protocol: Annotated[str, typer.Argument(metavar="PROTOCOL")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Parameters of the protocol not to draw."),
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
        str,
        typer.Option(
            "--profile",
            metavar="NAME",
            help="What the faults are heavy in: mixed, recovery, blinking, isolation,"
            " succession or membership.",
        ),
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


HistoryFile = Annotated[str, typer.Argument(metavar="HISTORY", help="What clients saw: a file.")]
Model = Annotated[
    str, typer.Option("--model", metavar="|".join(MODELS), help="What kind of object a key is.")
]
Level = Annotated[
    str, typer.Option("--level", metavar="LEVEL", help="linearizable, sequential, causal, ...")
]
Initial = Annotated[
    str, typer.Option("--initial", metavar="V", help="First value of every key, as JSON.")
]
Format = Annotated[
    str | None,
    typer.Option("--format", metavar="jsonl|parquet|edn|log", help="Default: by the ending."),
]
FailedCas = Annotated[
    str,
    typer.Option(
        "--failed-cas",
        metavar="observed|not-happened",
        help="Whether a cas that failed saw a value other than the one it expected.",
    ),
]
Budget = Annotated[
    int, typer.Option("--budget", metavar="N", help="Steps of a search; then: unknown.")
]


def check(
    history: HistoryFile,
    model: Model,
    level: Level = LINEARIZABLE,
    initial: Initial = "null",
    form: Format = None,
    failed_cas: FailedCas = "observed",
    budget: Budget = STEPS_MAX,
    results: Results = DEFAULT_RESULTS,
    json: Json = False,
    address: Address = None,
) -> Answer:
    """Judge a history file by a consistency level; a violation is shown by a minimal witness."""
    from orchestrator import _check_terminal
    from orchestrator.check import check_file

    if failed_cas not in {"observed", "not-happened"}:
        what = f"{failed_cas!r} is no reading of a failed cas"
        raise InputError(what, path="--failed-cas", hint="observed or not-happened")
    if budget < 1:
        raise InputError(f"{budget} is no number of steps", path="--budget", hint="1 or more")
    data = check_file(
        history,
        model=model,
        level=level,
        initial=_check_terminal.parsed(initial),
        form=form,
        failed_cas_observed=failed_cas == "observed",
        steps_max=budget,
    )
    return Answer(
        data,
        lambda out: _check_terminal.show(out, data),
        0 if data["verdict"] == "valid" else BAD_VERDICT,
    )
