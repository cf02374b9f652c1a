"""The command line: parse, call, print, exit code.

A command returns an :class:`Answer`; :func:`main` prints it, as JSON or for people. stdout
carries the answer and nothing else, progress and errors go to stderr. Exit codes: 0 fine, 1 the
verdict is bad, 2 the input is wrong, 3 the environment failed, 130 stopped by Ctrl-C.

Whatever is heavy is imported inside the command that needs it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator import (
    _checking,
    _measuring,
    _predicting,
    _recorded,
    _series,
    _stored_results,
    _terminal,
)
from orchestrator._command import (
    BAD_ENVIRONMENT,
    BAD_INPUT,
    BAD_VERDICT,
    DEFAULT_RESULTS,
    INTERRUPTED,
    Address,
    Answer,
    ConfigPath,
    DryRun,
    Json,
    Overrides,
    Precision,
    RepeatMax,
    Results,
    RuntimeName,
    Seed,
    app,
    with_options,
)
from orchestrator.errors import ArchbenchError, EnvironmentFailure, InputError, RunInterrupted
from orchestrator.errors import suggestion as suggested

if TYPE_CHECKING:
    pass


# --- commands ---------------------------------------------------------------------------


@app.command()
def run(
    config: ConfigPath,
    overrides: Overrides = None,
    runtime: RuntimeName = None,
    seed: Seed = None,
    repeat: Annotated[
        int, typer.Option("--repeat", metavar="N", help="Runs with seeds counted up, pooled.")
    ] = 1,
    precision: Precision = None,
    repeat_max: RepeatMax = 30,
    dry_run: DryRun = False,
    results: Results = DEFAULT_RESULTS,
    json: Json = False,
    address: Address = None,
) -> Answer:
    """Run one experiment, check it and store it."""
    from orchestrator.config.load import load
    from orchestrator.plan import plan
    from orchestrator.precise import asked_precision, run_precisely
    from orchestrator.run import Runner

    loaded = load(config, *with_options(overrides, runtime, seed))
    if repeat < 1:
        raise InputError(f"{repeat} is not a number of runs", path="--repeat", hint="1 or more")
    share = asked_precision(precision, repeat, repeat_max)
    runs = repeat if share is None else repeat_max
    planned = plan(loaded)
    if dry_run:
        from orchestrator.dry_run import dry_run as forecast

        found = forecast(planned, repeats=runs, address=address)
        return Answer(found, lambda out: _terminal.show_dry_run(out, found))
    times = f" {repeat} times" if repeat > 1 else ""
    what = f"running {loaded.experiment} on {loaded.runtime}{times}"
    lasts_s = _terminal.expected_s(planned, repeat)
    with Runner(results, address) as runner, _terminal.progress(what, lasts_s):
        done = run_precisely(
            planned,
            runner,
            share,
            repeats_max=runs,
            told=_terminal.say_precision,
            lost=_terminal.say_lost,
        )
    return Answer(
        done.summary,
        lambda out: _terminal.show_run(out, done),
        0 if done.good else BAD_VERDICT,
    )


@app.command()
def sweep(
    config: ConfigPath,
    overrides: Overrides = None,
    runtime: RuntimeName = None,
    seed: Seed = None,
    repeat: Annotated[
        int, typer.Option("--repeat", metavar="N", help="Runs of each variant, interleaved.")
    ] = 1,
    results: Results = DEFAULT_RESULTS,
    json: Json = False,
    address: Address = None,
) -> Answer:
    """Run the grid of all comma lists among the overrides; what is done already is reused."""
    from orchestrator import _sweep_terminal
    from orchestrator.config.load import ConfigSource
    from orchestrator.run import Runner
    from orchestrator.sweep import split_axes, with_own_axes
    from orchestrator.sweep import sweep as run_sweep

    plain, axes = split_axes(with_options(overrides, runtime, seed))
    source, axes = with_own_axes(ConfigSource.read(config, *plain), plain, axes)
    if repeat < 1:
        raise InputError(f"{repeat} is not a number of runs", path="--repeat", hint="1 or more")
    if not axes:
        raise InputError(
            "there is no axis to sweep",
            hint="give a list, system.replicas=1,3,5, or lists by path under sweep: in the config",
        )
    with Runner(results, address) as runner:
        done = run_sweep(
            source,
            axes,
            runner,
            repeats=repeat,
            told=lambda number, of, point: _terminal.say(
                _sweep_terminal.point_line(number, of, point)
            ),
            lost=_terminal.say_lost,
        )
    figure = _sweep_terminal.draw_costs(done, source.build().experiment)
    found = done.as_json() | {"figure": figure}
    return Answer(found, lambda out: _sweep_terminal.show_sweep(out, done, figure))


@app.command()
def tune(
    config: ConfigPath,
    overrides: Overrides = None,
    runtime: RuntimeName = None,
    seed: Seed = None,
    trials: Annotated[
        int | None, typer.Option("--trials", metavar="N", help="Replaces tune.trials.")
    ] = None,
    study: Annotated[
        str | None, typer.Option("--study", metavar="NAME", help="Default: by the config's hash.")
    ] = None,
    storage: Annotated[
        str, typer.Option("--storage", metavar="journal|sqlite", help="How the study is kept.")
    ] = "journal",
    dry_run: DryRun = False,
    results: Results = DEFAULT_RESULTS,
    json: Json = False,
    address: Address = None,
) -> Answer:
    """Search the parameters for the best variant; the same command resumes.

    The study is named after the experiment and a hash of the config, the seed included, so a
    changed config begins a study of its own; a larger --trials goes on with the same one.
    """
    from orchestrator import _tune_terminal
    from orchestrator.config.load import ConfigSource
    from orchestrator.study.plan import prepare
    from orchestrator.tune import dry_run as forecast
    from orchestrator.tune import tune as search

    source = ConfigSource.read(config, *with_options(overrides, runtime, seed))
    planned = prepare(source, trials=trials, results=results, study=study, storage=storage)
    if dry_run:
        found = forecast(planned, address=address)
        return Answer(found, lambda out: _terminal.show_dry_run(out, found))
    command = _tune_terminal.command_line(config, overrides, runtime, seed)
    with _tune_terminal.progress(planned) as listener:
        done = search(planned, address=address, command=command, listener=listener)
    return Answer(
        done.as_json(),
        lambda out: _tune_terminal.show_tune(out, done),
        0 if done.good else BAD_VERDICT,
    )


@app.command()
def serve(
    config: ConfigPath,
    overrides: Overrides = None,
    port: Annotated[
        int | None, typer.Option("--port", metavar="P", help="Of node 0; node i has P + i.")
    ] = None,
    results: Results = DEFAULT_RESULTS,
    json: Json = False,
    address: Address = None,
) -> None:
    """Let the emulated cluster answer real Redis clients until it is interrupted.

    Clients on other machines need the password in the environment variable ARCHBENCH_PASSWORD.
    """
    from orchestrator.config.load import load
    from orchestrator.runtimes._gate import PASSWORD_VARIABLE
    from orchestrator.serve import serve as serve_until_ended

    def announce(addresses: Sequence[str]) -> None:
        text = _terminal.json_line({"addresses": addresses}) if json else "\n".join(addresses)
        # sys.stdout is stderr by now where only an object may be printed.
        print(text, file=sys.__stdout__, flush=True)

    # Taken out, so that no process that is started from here inherits it.
    password = os.environ.pop(PASSWORD_VARIABLE, None)
    loaded = load(config, *(overrides or []))
    serve_until_ended(loaded, announce, port=port, address=address, password=password)


@app.command()
def show(
    config: ConfigPath,
    overrides: Overrides = None,
    results: Results = DEFAULT_RESULTS,
    json: Json = False,
    address: Address = None,
) -> Answer:
    """Print the resolved configuration: every default filled in, every unit spelled out."""
    from orchestrator.config.load import load
    from orchestrator.config.render import render_yaml, resolved

    loaded = load(config, *(overrides or []))
    text = render_yaml(loaded).rstrip("\n")
    return Answer(resolved(loaded), lambda out: out.print(text, markup=False, soft_wrap=True))


@app.command("list")
def list_plugins(
    family: Annotated[str | None, typer.Argument(metavar="[FAMILY]")] = None,
    results: Results = DEFAULT_RESULTS,
    json: Json = False,
    address: Address = None,
) -> Answer:
    """List the plug-ins with what they claim and their parameters."""
    from orchestrator.config.describe import catalogue

    found = catalogue(family)
    return Answer(found, lambda out: _terminal.show_catalogue(out, found))


@app.command()
def doctor(
    results: Results = DEFAULT_RESULTS,
    json: Json = False,
    address: Address = None,
) -> Answer:
    """Check Python, packages, timers, cores, memory and Ray, and all hosts of a cluster."""
    from orchestrator.doctor import checks

    with _terminal.progress("checking the environment", 10.0):
        found = checks(address)
    broken = any(check.needed and not check.ok for check in found)
    return Answer(
        {"checks": [check.as_json() for check in found]},
        lambda out: _terminal.show_checks(out, found),
        BAD_ENVIRONMENT if broken else 0,
    )


_checking.register(app)
_measuring.register(app)
_predicting.register(app)
_recorded.register(app)
_series.register(app)
_stored_results.register(app)


# --- the way in and out -----------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and print its answer; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    out = sys.stdout
    with contextlib.ExitStack() as stack:
        if as_json:  # whatever else prints, stdout carries one object
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        stack.enter_context(warnings.catch_warnings())
        warnings.showwarning = _warn
        answer, code = _invoke(given)
    try:
        if as_json and answer is not None:
            print(_terminal.json_line(answer.data), file=out, flush=True)
        elif answer is not None:
            answer.show(_terminal.console())
            out.flush()
    except BrokenPipeError:
        # The reader has gone; without this the interpreter complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    return code


def _invoke(given: Sequence[str]) -> tuple[Answer | None, int]:
    """(answer, exit code); errors are told on stderr, and None is for help."""
    try:
        answer = app(list(given), prog_name="archbench", standalone_mode=False)
    except ArchbenchError as error:
        return _failed(error, error.exit_code)
    except typer.TyperException as error:
        return _failed(_wrong_command_line(error.format_message(), given), BAD_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:  # a full disk, a folder of others
            return _failed(EnvironmentFailure(error.strerror, path=error.filename), BAD_ENVIRONMENT)
        traceback.print_exc()
        return _failed(error, BAD_ENVIRONMENT)
    if answer == INTERRUPTED:  # what typer makes of Ctrl-C
        return _interrupted()
    return (answer, answer.exit_code) if isinstance(answer, Answer) else (None, int(answer or 0))


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    _terminal.say(f"warning: {message}")


def _failed(error: Exception, code: int) -> tuple[Answer, int]:
    _terminal.say(f"error: {_terminal.printable(str(error))}")
    return Answer(_terminal.error_json(error), lambda _: None), code


def _interrupted() -> tuple[Answer, int]:
    return _failed(RunInterrupted("stopped; what had finished is kept"), INTERRUPTED)


def _wrong_command_line(message: str, given: Sequence[str]) -> InputError:
    """With the command that was meant, or where to read on."""
    commands = list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    word = next((word for word in given if not word.startswith("-")), "")
    if message.startswith("No such command"):
        return InputError(f"no such command: {word!r}", hint=suggested(word, commands))
    command = f" {word}" if word in commands else ""
    return InputError(message.rstrip("."), hint=f"see archbench{command} --help")


if __name__ == "__main__":
    sys.exit(main())
