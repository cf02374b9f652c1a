"""From plain, fully spelled data to frozen dataclasses; every refusal names its path."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, assert_never

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.config.shape import (
    Anything,
    ListOf,
    MapOf,
    Node,
    PluginName,
    PluginSlot,
    Quantity,
    Record,
    Scalar,
    joined,
    members,
    slot_members,
)
from orchestrator.core.parameters import (
    DURATION,
    FORMATTERS,
    PARSERS,
    SIZE,
    FrozenMapping,
    ParameterError,
)
from orchestrator.core.registry import Family, Plugin, Slot, plugin, plugins
from orchestrator.errors import ConfigError, suggestion


@dataclass
class _Cells:
    """One typed cell for each scalar type; OmegaConf checks and converts what enters it."""

    whole: int | None = None
    real: float | None = None
    flag: bool | None = None
    word: str | None = None


_CELLS: Final = OmegaConf.structured(_Cells)
CONSTANT: Final = "constant"
"""The plug-in that a bare quantity stands for; its one parameter is ``value``."""
_BARE: Final[dict[Family, Quantity | PluginName]] = {
    Family.DISTRIBUTION: Quantity(DURATION),
    Family.VALUE_SIZE: Quantity(SIZE),
    Family.KEYS: PluginName(Family.KEYS),
}

_TYPES: Final = {
    int: ("whole", "a whole number"),
    float: ("real", "a number"),
    bool: ("flag", "true or false"),
    str: ("word", "a text"),
}


def build(node: Node, value: Any, path: str, *, optional: bool = False) -> Any:
    """The typed value of ``value`` at ``path``; ConfigError where it does not fit.

    ``optional``: null may stand here.
    """
    if value is None and not isinstance(node, Anything):
        if optional:
            return None
        raise ConfigError("null is not allowed here", path=path or None)
    match node:
        case Scalar():
            return _scalar(node, value, path)
        case Quantity():
            return _quantity(node, value, path)
        case PluginName(family):
            return plugin(family, _name(value, path), path=path).name
        case PluginSlot():
            return _slot(node, value, path)
        case Record(record):
            return _record(record, mapping_at(value, path), path)
        case ListOf(item):
            return tuple(
                build(item, each, joined(path, index))
                for index, each in enumerate(_list(value, path))
            )
        case MapOf(item):
            return FrozenMapping(
                (key_at(key, path), build(item, each, joined(path, key)))
                for key, each in mapping_at(value, path).items()
            )
        case Anything():
            return frozen(value)
        case _:
            assert_never(node)


def frozen(value: Any) -> Any:
    """Plain data with tuples for lists and frozen mappings for dicts."""
    match value:
        case Mapping():
            return FrozenMapping((key, frozen(each)) for key, each in value.items())
        case list() | tuple():
            return tuple(frozen(each) for each in value)
        case _:
            return value


def shown(value: Any) -> str:
    """``value`` in an error message, as YAML would write it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def mapping_at(value: Any, path: str) -> Mapping[Any, Any]:
    """``value`` if it is a mapping."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{shown(value)} is no mapping of keys to values", path=path or None)
    return value


def key_at(key: Any, path: str) -> str:
    """``key`` if it is a text."""
    if not isinstance(key, str):
        raise ConfigError(f"the key {key!r} is no text", path=path or None, hint="put it in quotes")
    return key


def unknown_key(key: object, path: str, allowed: Iterable[str], owner: str) -> ConfigError:
    """The refusal of a key; ``owner`` says whose keys are meant, empty for a plain record."""
    of_whom = f" of {owner}" if owner else ""
    name, colon, value = str(key).partition(":")
    hint = suggestion(str(key), allowed)
    if colon and value:  # YAML takes {name:raft} for a key without a value
        hint = f"put a space after the colon: {{{name}: {value}}}"
    return ConfigError(f"unknown key {key!r}{of_whom}", path=joined(path, str(key)), hint=hint)


def owner_of(chosen: Plugin) -> str:
    """How messages call a plug-in."""
    return f"{chosen.family.value} {chosen.name!r}"


# --- leaves -----------------------------------------------------------------------------


def _quantity(node: Quantity, value: Any, path: str) -> Any:
    try:
        parsed: Any = PARSERS[node.kind](value)
    except ValueError as error:
        raise ConfigError(str(error), path=path) from None
    if node.low is not None and parsed < node.low:
        least = FORMATTERS[node.kind](node.low)
        raise ConfigError(
            f"{value!r} is out of bounds", path=path, hint=f"allowed: at least {least}"
        )
    return parsed


def _scalar(node: Scalar, value: Any, path: str) -> Any:
    typed = _converted(node, value, path)
    if node.options and typed not in node.options:
        raise ConfigError(
            f"unknown value {typed!r}", path=path, hint=suggestion(str(typed), node.options)
        )
    below = node.low is not None and typed < node.low
    above = node.high is not None and typed > node.high
    if below or above:
        raise ConfigError(
            f"{typed!r} is out of bounds", path=path, hint=f"allowed: {bounds_words(node)}"
        )
    return typed


def bounds_words(node: Scalar) -> str:
    """The bounds of a scalar in words, empty where it has none."""
    match node.low, node.high:
        case None, None:
            return ""
        case low, None:
            return f"at least {low}"
        case None, high:
            return f"at most {high}"
        case low, high:
            return f"{low} to {high}"


def _converted(node: Scalar, value: Any, path: str) -> Any:
    wanted = node.type
    cell, words = _TYPES[wanted]
    if wanted is int and isinstance(value, float) and value.is_integer():
        value = int(value)  # YAML reads 1e6 as a float
    typed = value if type(value) is wanted else _from_cell(wanted, cell, value)
    if typed is None:
        raise ConfigError(
            f"expected {words}, got {shown(value)}", path=path, hint=_type_hint(node) or None
        )
    if wanted is float and not math.isfinite(typed):
        raise ConfigError(f"expected a finite number, got {value!r}", path=path)
    return typed


def _type_hint(node: Scalar) -> str:
    if node.options:
        return "allowed: " + ", ".join(node.options)
    return "put it in quotes to make it a text" if node.type is str else bounds_words(node)


def _from_cell(wanted: type[Any], cell: str, value: Any) -> Any:
    """``value`` as OmegaConf converts it, None where it does not."""
    if isinstance(value, (Mapping, list, tuple)):
        return None
    # OmegaConf would make texts of flags and flags of numbers.
    if (wanted is str and isinstance(value, bool)) or (
        wanted is bool and not isinstance(value, str)
    ):
        return None
    cells = _CELLS.copy()
    try:
        OmegaConf.update(cells, cell, value)
        return cells[cell]
    except OmegaConfBaseException:
        return None


def _list(value: Any, path: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{shown(value)} is no list", path=path, hint="write it in [...]")
    return value


# --- records and slots ------------------------------------------------------------------


def _record(record: type[Any], values: Mapping[Any, Any], path: str, owner: str = "") -> Any:
    known = members(record)
    for key in values:
        if key not in known:
            raise unknown_key(key, path, known, owner)
    return _made(record, values, path, owner)


def _made(record: type[Any], values: Mapping[Any, Any], path: str, owner: str) -> Any:
    """``record`` from its own keys among ``values``."""
    arguments = {}
    for member in members(record).values():
        at = joined(path, member.name)
        if member.name not in values:
            by_whom = f" by {owner}" if owner else ""
            raise ConfigError(f"required{by_whom}, but missing", path=at, hint=member.help or None)
        value = values[member.name]
        arguments[member.name] = build(member.node, value, at, optional=member.optional)
    try:
        return record(**arguments)
    except ParameterError as error:
        at = path if error.key is None else joined(path, error.key)
        raise ConfigError(str(error), path=at or None) from None


def _slot(node: PluginSlot, value: Any, path: str) -> Any:
    if not isinstance(value, Mapping):
        return _bare_slot(node, value, path)
    chosen = plugin_at(node, value, path)
    allowed = slot_members(node, chosen.params)
    for key in value:
        if key not in allowed and key != "name":
            raise unknown_key(key, path, [*allowed, "name"], owner_of(chosen))
    params = _made(chosen.params, value, path, owner_of(chosen))
    slot = Slot(node.family, chosen.name, params)
    return slot if node.extra is None else (_made(node.extra, value, path, ""), slot)


def _bare_slot(node: PluginSlot, value: Any, path: str) -> Slot:
    """A slot without a mapping: see :func:`bare`."""
    named = isinstance(value, str) and value in plugins(node.family)
    plain = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    match bare(node):
        case Quantity() as quantity if plain and not named:
            constant = plugin(node.family, CONSTANT)
            return Slot(node.family, CONSTANT, constant.params(_quantity(quantity, value, path)))
        case PluginName(family) if isinstance(value, str):
            plugin(family, value, path=path)  # raises; the name of one is spelled out before
    raise ConfigError(
        f"{shown(value)} is no {node.family.value}",
        path=path,
        hint=f"write {{name: {value if named else '...'}, ...}}",
    )


def bare(node: Node) -> Quantity | PluginName | None:
    """What may stand for a slot's mapping: the ``value`` of its CONSTANT, or the ``name``."""
    if not isinstance(node, PluginSlot) or node.extra is not None:
        return None
    return _BARE.get(node.family)


def plugin_at(node: PluginSlot, value: Mapping[Any, Any], path: str) -> Plugin:
    """The plug-in that a slot's mapping names."""
    at = joined(path, "name")
    if value.get("name") is None:
        raise ConfigError(
            f"a {node.family.value} needs a name",
            path=at,
            hint="allowed: " + ", ".join(plugins(node.family)),
        )
    return plugin(node.family, _name(value["name"], at), path=at)


def _name(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"expected a name, got {shown(value)}", path=path)
    return value
