"""Typed parameters: dataclass fields that know their unit, bounds and choices.

The root config and the ``Params`` of every plug-in are dataclasses built from these fields,
so one loader checks them all and ``archbench list`` can describe them. A field holds the
parsed value (integers of nanoseconds or bytes, floats per second); YAML holds the human text.

Plain ``int``, ``float``, ``str``, ``bool`` and nested dataclass fields need no helper unless
they have bounds or choices.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from orchestrator.core import units

DURATION = "duration"
SIZE = "size"
RATE = "rate"
BANDWIDTH = "bandwidth"
CAPACITY = "capacity"
LEAD = "lead"

AUTO = -1
"""A duration that the run itself is to find, written ``auto``."""

SUM_TOLERANCE = 1e-9
"""Decimal shares need not add up to 1 in binary."""

Key = TypeVar("Key")
Value = TypeVar("Value")


class ParameterError(ValueError):
    """A parameter's value contradicts another; raised by a Params' ``__post_init__``.

    ``key`` names the parameter at fault where it is one; the error's path then ends in it.
    """

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


def check_shares(shares: Iterable[float], *, key: str | None = None) -> None:
    """Raises ParameterError, of ``key``, where they do not add up to 1."""
    total = math.fsum(shares)
    if abs(total - 1) > SUM_TOLERANCE:
        raise ParameterError(f"the shares must add up to 1, and these give {total:g}", key=key)


class FrozenMapping(dict[Key, Value]):
    """A dict that refuses every change and can be hashed: how a config holds free keys.

    Equal to a plain dict of the same items. It is a dict (and no ``MappingProxyType``) so that
    it travels between processes.
    """

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a configuration is frozen; use override() to get a changed one")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[object, ...]:
        return (FrozenMapping, (dict(self),))


@dataclass(frozen=True)
class Capacity:
    """Room of a cache: a number of entries, or of bytes when the text had a unit."""

    amount: int
    in_bytes: bool

    def __str__(self) -> str:
        return units.format_size(self.amount) if self.in_bytes else str(self.amount)


def _whole_number(text: object) -> int | None:
    if isinstance(text, str):
        return int(text) if text.strip().isdecimal() else None
    if isinstance(text, bool) or not isinstance(text, (int, float)) or text != text // 1:
        return None
    return int(text)


def parse_capacity(text: object) -> Capacity:
    """``10000`` -> entries, ``"64MiB"`` -> bytes."""
    if isinstance(text, Capacity):
        return text
    entries = _whole_number(text)
    in_bytes = entries is None
    amount = units.parse_size_bytes(text) if entries is None else entries
    if amount <= 0:
        raise ValueError(f"{text!r} must be above 0: a number of entries, or bytes with a unit")
    if amount > units.LARGEST:
        raise ValueError(f"{text!r} is too large; a capacity is below 2^63")
    return Capacity(amount, in_bytes)


def format_capacity(capacity: Capacity) -> str | int:
    """A number of entries as a number, bytes as a text with a unit."""
    return str(capacity) if capacity.in_bytes else capacity.amount


def parse_lead_ns(text: object) -> int:
    """A duration, or AUTO."""
    return AUTO if text in ("auto", AUTO) else units.parse_duration_ns(text)


def format_lead(lead_ns: int) -> str:
    """``auto``, or a duration."""
    return "auto" if lead_ns == AUTO else units.format_duration(lead_ns)


PARSERS = {
    DURATION: units.parse_duration_ns,
    SIZE: units.parse_size_bytes,
    RATE: units.parse_rate_per_s,
    BANDWIDTH: units.parse_bandwidth_bytes_per_s,
    CAPACITY: parse_capacity,
    LEAD: parse_lead_ns,
}
FORMATTERS: dict[str, Any] = {
    DURATION: units.format_duration,
    SIZE: units.format_size,
    RATE: units.format_rate,
    BANDWIDTH: units.format_bandwidth,
    CAPACITY: format_capacity,
    LEAD: format_lead,
}

_MISSING: Any = object()


def _field(default: Any, metadata: dict[str, Any]) -> Any:
    if default is _MISSING:
        return dataclasses.field(metadata=metadata | {"required": True})
    return dataclasses.field(default=default, metadata=metadata)


def _quantity(
    kind: str,
    default: Any,
    *,
    many: int = 0,
    low: str | None = None,
    help: str = "",
    probes: Sequence[str] = (),
) -> Any:
    metadata = {"quantity": kind, "many": many, "optional": default is None, "help": help}
    metadata["low"] = None if low is None else PARSERS[kind](low)
    if probes:
        metadata["probes"] = tuple(probes)
    if default is not _MISSING and default is not None:
        parse = PARSERS[kind]
        default = tuple(parse(item) for item in default) if many else parse(default)
    return _field(default, metadata)


def duration(
    default: Any = _MISSING,
    *,
    many: int = 0,
    low: str | None = None,
    help: str = "",
    probes: Sequence[str] = (),
) -> Any:
    """An int of nanoseconds, written like ``5ms``, at least ``low``; with ``many`` a tuple of
    them, with ``many=2`` a tuple of such tuples (whose default is empty). ``probes``: tried when
    it is fuzzed, where none is the default; to the scale of the other durations' defaults.
    """
    return _quantity(DURATION, default, many=many, low=low, help=help, probes=probes)


def lead(default: Any = _MISSING, *, help: str = "") -> Any:
    """A duration as of :func:`duration`, or ``auto``: an int of nanoseconds, or AUTO."""
    return _quantity(LEAD, default, help=help)


def size(
    default: Any = _MISSING,
    *,
    low: str | None = None,
    help: str = "",
    probes: Sequence[str] = (),
) -> Any:
    """An int of bytes, written like ``64MiB``, at least ``low``; ``probes`` as of a number."""
    return _quantity(SIZE, default, low=low, help=help, probes=probes)


def rate(default: Any = _MISSING, *, many: int = 0, help: str = "") -> Any:
    """A float per second, written like ``2000/s``; with ``many=1`` a tuple of them."""
    return _quantity(RATE, default, many=many, help=help)


def bandwidth(default: Any = _MISSING, *, help: str = "") -> Any:
    """A float of bytes per second, written like ``1GiB/s``."""
    return _quantity(BANDWIDTH, default, help=help)


def capacity(default: Any = _MISSING, *, help: str = "") -> Any:
    """A :class:`Capacity`: entries, or bytes with a unit."""
    return _quantity(CAPACITY, default, help=help)


def number(
    default: Any = _MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    help: str = "",
    probes: Sequence[float] = (),
) -> Any:
    """An int or float (by the annotation) within inclusive bounds.

    ``probes``: values that bring rare paths of the code about, tried when it is fuzzed.
    """
    metadata: dict[str, Any] = {"low": low, "high": high, "optional": default is None}
    metadata["help"] = help
    if probes:
        metadata["probes"] = tuple(probes)
    return _field(default, metadata)


def choice(default: Any = _MISSING, *, options: Sequence[str], help: str = "") -> Any:
    """One of a closed list of words."""
    return _field(default, {"options": tuple(options), "optional": default is None, "help": help})


def text(default: Any = _MISSING, *, help: str = "") -> Any:
    """Free text."""
    return _field(default, {"optional": default is None, "help": help})


def flag(default: Any = _MISSING, *, help: str = "") -> Any:
    """True or false."""
    return _field(default, {"help": help})


def mapping(help: str = "") -> Any:
    """A mapping with free keys, empty by default; the annotation gives the type of its items."""
    return dataclasses.field(default_factory=FrozenMapping, metadata={"help": help})


def slot(family: Any, default: Any = _MISSING, *, help: str = "") -> Any:
    """A plug-in slot: a mapping with ``name`` and that plug-in's parameters.

    ``default`` is such a mapping, or None for an empty slot. A slot of distributions also
    takes a bare duration, which means ``constant``, one of value sizes a bare size, and one of key
    choices a bare name.
    """
    metadata = {"family": family, "optional": default is None, "help": help}
    if default is _MISSING:
        return dataclasses.field(metadata=metadata | {"required": True})
    if default is None:
        return dataclasses.field(default=None, metadata=metadata)
    return dataclasses.field(default=None, metadata=metadata | {"default_slot": dict(default)})


def slots(family: Any, *, keyed: bool = False, extra: Any = None, help: str = "") -> Any:
    """A list (``keyed``: a mapping by free key) of plug-in slots, empty by default.

    ``extra`` is a dataclass of keys allowed beside the plug-in's own; items are then pairs of
    (that dataclass, Slot).
    """
    metadata = {"family": family, "collection": "mapping" if keyed else "list", "extra": extra}
    metadata["help"] = help
    if keyed:
        return dataclasses.field(default_factory=FrozenMapping, metadata=metadata)
    return dataclasses.field(default=(), metadata=metadata)
