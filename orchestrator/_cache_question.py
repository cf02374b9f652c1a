"""What ``archbench cache`` is asked: its options, checked, and made into passes over a trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy

from orchestrator.config.build import build
from orchestrator.config.load import parse_override
from orchestrator.config.paths import assign, parts_of, spelled
from orchestrator.config.shape import PluginSlot
from orchestrator.core.parameters import Capacity, format_capacity, parse_capacity
from orchestrator.core.registry import Family, plugin
from orchestrator.errors import InputError, suggestion
from orchestrator.miss_ratio import Pass
from orchestrator.sweep import split_values
from orchestrator.workloads.trace import (
    FORMATS,
    LIMIT_MAX,
    NAMED_COLUMNS,
    TIME_UNITS,
    Columns,
    Requests,
    TraceParams,
    format_of,
)

SIZES: Final = "0.1%,0.3%,1%,3%,10%,30%"
_ROLES: Final = tuple(field.name for field in dataclasses.fields(Columns))
_SLOT: Final = PluginSlot(Family.CACHE)


# --- the trace --------------------------------------------------------------------------


def trace_params(
    path: str, *, columns: str | None, form: str, time_unit: str | None, limit: int | None
) -> TraceParams:
    """How the trace is to be read. Operations are not, unless their column is named: every
    access counts, whatever it is.
    """
    _check_choice(form, FORMATS, "--format")
    if time_unit is not None:
        _check_choice(time_unit, TIME_UNITS, "--time-unit")
    if limit is not None and not 1 <= limit <= LIMIT_MAX:
        hint = "1 or more" if limit < 1 else f"up to {LIMIT_MAX}"
        raise InputError(f"{limit} is no number of requests", path="--limit", hint=hint)
    params = TraceParams(
        path,
        Columns(**({"op": ""} | _columns(columns))),
        time_unit=time_unit or TraceParams.time_unit,
        limit=limit,
        format=form,
    )
    chosen = format_of(params)
    for option, given in (("--columns", columns), ("--time-unit", time_unit)):
        if given is not None and chosen is not None and chosen not in NAMED_COLUMNS:
            raise InputError(f"has no meaning for {chosen}, which fixes it", path=option)
    return params


def _check_choice(given: str, allowed: Sequence[str], option: str) -> None:
    if given not in allowed:
        raise InputError(f"unknown value {given!r}", path=option, hint=suggestion(given, allowed))


def _columns(text: str | None) -> dict[str, str]:
    """``key=lbn,size=bytes`` as names by their roles."""
    named: dict[str, str] = {}
    for part in [] if text is None else text.split(","):
        role, equals, name = (word.strip() for word in part.partition("="))
        if not equals:
            hint = "write ROLE=NAME,..., as in key=lbn"
            raise InputError(f"malformed column {part!r}", path="--columns", hint=hint)
        if role not in _ROLES:
            hint = suggestion(role, _ROLES)
            raise InputError(f"unknown role {role!r}", path="--columns", hint=hint)
        if role in named:
            raise InputError(f"{role} is given twice", path="--columns")
        named[role] = name
    return named


# --- policies ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Policy:
    """A cache by name and parameters, but for its size; ``label`` is how it was called for."""

    label: str
    values: Mapping[str, Any]

    def at(self, capacity: Capacity) -> Pass:
        """The cache of that size. Raises ConfigError where its parameters do not fit."""
        name = self.values["name"]
        sized = {**self.values, "size": format_capacity(capacity)}
        return Pass(self.label, build(_SLOT, spelled(_SLOT, sized), name))


def policies(texts: Sequence[str]) -> list[Policy]:
    """The policies of ``lru,s3fifo:small=0.2,ghost=0.5``: a part with ``=`` but no name of its
    own is a further parameter of the policy before it.
    """
    labels: list[str] = []
    for part in (part for text in texts for part in split_values(text)):
        name, _, _ = part.partition(":")
        if "=" not in name:
            labels.append(part)
        elif labels:
            labels[-1] += f",{part}"
        else:
            hint = "write POLICY:KEY=VALUE"
            raise InputError(f"{part!r} belongs to no policy", path="--policy", hint=hint)
    return [_policy(label) for label in dict.fromkeys(labels)]


def _policy(label: str) -> Policy:
    name, colon, given = (word.strip() for word in label.partition(":"))
    plugin(Family.CACHE, name, path="--policy")
    values: Any = {"name": name}
    for text in split_values(given) if colon else ():
        key, value = parse_override(text)
        if key in {"name", "size"}:
            hint = "give sizes by --size" if key == "size" else None
            raise InputError(f"{key} is no parameter here", path="--policy", hint=hint)
        values = assign(_SLOT, values, parts_of(key), value, name)
    made = Policy(label, values)
    made.at(Capacity(10_000, in_bytes=False))  # what is wrong by itself is told before all else
    return made


# --- sizes ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """A size as a part of the trace's objects, or of the bytes of all of them."""

    text: str
    share: Fraction
    in_bytes: bool


def sizes(text: str) -> list[Capacity | Share]:
    """The sizes of ``1000,64MiB,1%,1%B``: entries, bytes, a share of the objects, or a share of
    their bytes.
    """
    return [_size(part.strip()) for part in text.split(",")]


def _size(text: str) -> Capacity | Share:
    number, percent, unit = (part.strip() for part in text.partition("%"))
    try:
        if not percent:
            return parse_capacity(text)
        share = Fraction(number) / 100
        if unit not in {"", "B"} or not 0 < share <= 1:
            raise ValueError
    except (ValueError, ArithmeticError) as error:
        hint = "a percentage is above 0 and up to 100: 1% of the objects, 1%B of their bytes"
        message = f"{text!r} is no size" if percent else str(error)
        raise InputError(message, path="--size", hint=hint if percent else None) from None
    return Share(text, share, unit == "B")


def object_bytes(requests: Requests) -> int | None:
    """What all objects weigh together, each at its largest; None where there are no sizes."""
    if requests.size is None:
        return None
    largest = numpy.zeros(len(requests.key_names), dtype=numpy.int64)
    numpy.maximum.at(largest, requests.key, requests.size)
    return int(largest.sum())


def capacities(
    asked: Sequence[Capacity | Share], requests: Requests, total_bytes: int | None
) -> list[Capacity]:
    """The sizes as they are for this trace: entries before bytes, small before large, each once.

    ``total_bytes``: of all objects, see :func:`object_bytes`. Raises InputError for bytes where the
    trace has no sizes, or where not one object fits.
    """
    found = {_capacity(each, requests, total_bytes) for each in asked}
    ordered = sorted(found, key=lambda capacity: (capacity.in_bytes, capacity.amount))
    smallest = 0 if requests.size is None else int(requests.size.min())
    for capacity in ordered:
        if capacity.in_bytes and capacity.amount < smallest:
            raise InputError(
                f"no object of the trace fits into {capacity}",
                path="--size",
                hint=f"the smallest has {smallest} bytes",
            )
    return ordered


def _capacity(asked: Capacity | Share, requests: Requests, total_bytes: int | None) -> Capacity:
    if asked.in_bytes and total_bytes is None:
        raise InputError(
            f"{asked if isinstance(asked, Capacity) else asked.text} needs sizes, and the trace"
            " has none",
            path="--size",
            hint="name their column, --columns size=NAME, or give entries",
        )
    if isinstance(asked, Capacity):
        return asked
    whole = total_bytes if asked.in_bytes and total_bytes is not None else len(requests.key_names)
    return Capacity(max(1, int(asked.share * whole)), asked.in_bytes)
