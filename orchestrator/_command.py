"""What every command of the command line shares: the app, its options, its answers, exit codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_RESULTS: Final = "results"
BAD_VERDICT: Final = 1
BAD_INPUT: Final = 2
BAD_ENVIRONMENT: Final = 3
INTERRUPTED: Final = 130

app = typer.Typer(
    name="archbench",
    help="Which architecture should a distributed service run, and how sure are we?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigPath = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Replace values at config paths."),
]
Results = Annotated[str, typer.Option("--results", metavar="DIR", help="Where results are kept.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="ADDRESS",
        help="A Ray cluster; default: RAY_ADDRESS, else an embedded local Ray.",
    ),
]
RuntimeName = Annotated[str | None, typer.Option("--runtime", metavar="ray|sim")]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Replaces the config's.")]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision", metavar="P", help="Repeat until half of each 95 % interval is within P."
    ),
]
RepeatMax = Annotated[
    int, typer.Option("--repeat-max", metavar="N", help="The most runs for --precision.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run, and do not run it.")]


@dataclass(frozen=True)
class Answer:
    """What a command has to say: for programs, for people, and as its exit code."""

    data: dict[str, Any]
    show: Callable[[Console], None]
    exit_code: int = 0


def with_options(
    overrides: Sequence[str] | None, runtime: str | None, seed: int | None
) -> list[str]:
    """Options are overrides that come last."""
    options = {"runtime": runtime, "seed": seed}
    return [
        *(overrides or []),
        *(f"{path}={value}" for path, value in options.items() if value is not None),
    ]
