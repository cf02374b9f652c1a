"""The commands about the simulator's truth: ``calibrate``, what a host takes, and ``predict``,
whether the simulator foretells a real run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

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
    Seed,
    with_options,
)
from orchestrator.errors import EnvironmentFailure, InputError

PROFILES: Final = "profiles"
"""Folder within the results."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(calibrate)
    app.command()(predict)


def calibrate(
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="DIR", help="Of the profiles. Default: in results."),
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option("--protocol", metavar="NAME", help="Whose costs are measured; repeatable."),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", help="That each run measures.")
    ] = 1.5,
    results: Results = DEFAULT_RESULTS,
    json: Json = False,
    address: Address = None,
) -> Answer:
    """Measure what each host of the cluster really takes, into a profile for the simulator.

    It takes a minute or two a host, which should have nothing else to do. Give the profile as
    hosts.profile.
    """
    from orchestrator import _predict_terminal as terminal
    from orchestrator.calibrate import PROTOCOLS
    from orchestrator.calibrate import calibrate as measure
    from orchestrator.config.profile import write_profile
    from orchestrator.config.render import render_record

    if not 0.2 <= seconds <= 60:
        raise InputError(f"{seconds:g} is none", path="--seconds", hint="from 0.2 to 60")
    folder = Path(output or Path(results) / PROFILES)
    found = measure(protocol or PROTOCOLS, address=address, seconds=seconds, told=_terminal.say)
    written = []
    for each in found:
        name = each.profile.host if len(found) == 1 else f"{each.profile.host}-{each.address}"
        path = folder / f"{name}.yaml"
        try:
            write_profile(each.profile, str(path))
        except OSError as error:
            raise EnvironmentFailure(f"cannot write {path}: {error.strerror}") from error
        written.append((each, str(path)))
    hosts = [
        {"profile": path, "residual": each.residual, "observations": each.observations}
        | render_record(each.profile)
        for each, path in written
    ]
    return Answer({"hosts": hosts}, lambda out: terminal.show_calibration(out, written))


def predict(
    config: ConfigPath,
    overrides: Overrides = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", metavar="FILE", help="Of this host. Default: hosts.profile."),
    ] = None,
    repeat: Annotated[
        int, typer.Option("--repeat", metavar="N", help="Pairs of runs at each load.")
    ] = 3,
    loads: Annotated[
        str | None,
        typer.Option(
            "--loads", metavar="0.5,0.8,0.9", help="Shares of the capacity, which comes first."
        ),
    ] = None,
    sessions: Annotated[
        int, typer.Option("--sessions", metavar="N", help="Of the closed load for the capacity.")
    ] = 64,
    seed: Seed = None,
    results: Results = DEFAULT_RESULTS,
    json: Json = False,
    address: Address = None,
) -> Answer:
    """Run a config simulated and for real, and say how far the simulator is off.

    A pair whose real run was not valid is made again. Exit code 1: not one was at some load.
    """
    from orchestrator import _predict_terminal as terminal
    from orchestrator.config.load import ConfigSource
    from orchestrator.predict import predict as compare
    from orchestrator.run import Runner

    if repeat < 1:
        raise InputError(f"{repeat} are too few", path="--repeat", hint="1 or more")
    if sessions < 1:
        raise InputError(f"{sessions} are too few", path="--sessions", hint="1 or more")
    source = ConfigSource.read(config, *with_options(overrides, None, seed))
    with Runner(results, address) as runner:
        done = compare(
            source,
            runner,
            profile=profile,
            repeats=repeat,
            loads=_shares(loads),
            sessions=sessions,
            told=terminal.told,
            lost=_terminal.say_lost,
        )
    data = done.as_json()
    return Answer(
        data, lambda out: terminal.show_prediction(out, data), 0 if done.good else BAD_VERDICT
    )


def _shares(text: str | None) -> list[float]:
    """``0.5,0.8`` as numbers. Raises InputError."""
    if text is None:
        return []
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < share < 1 for share in found):
        hint = "shares of the capacity, such as 0.5,0.8,0.9"
        raise InputError(f"{text!r} are none", path="--loads", hint=hint)
    return found
