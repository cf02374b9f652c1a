"""The parameters of a plug-in or of the root config, in words: for ``list`` and the docs."""

from __future__ import annotations

from typing import Any, Final, assert_never

from orchestrator.config.build import bounds_words
from orchestrator.config.paths import default_of
from orchestrator.config.schema import Config
from orchestrator.config.shape import (
    ABSENT,
    Anything,
    ListOf,
    MapOf,
    Member,
    Node,
    PluginName,
    PluginSlot,
    Quantity,
    Record,
    Scalar,
    members,
    nested_members,
)
from orchestrator.core.parameters import BANDWIDTH, CAPACITY, DURATION, FORMATTERS, LEAD, RATE, SIZE
from orchestrator.core.registry import Family, Plugin, plugins
from orchestrator.errors import InputError, suggestion

_QUANTITY_WORDS: Final = {
    DURATION: "duration",
    LEAD: "duration or auto",
    SIZE: "size",
    RATE: "rate",
    BANDWIDTH: "bandwidth",
    CAPACITY: "entries or size",
}
_SCALAR_WORDS: Final = {int: "integer", float: "number", bool: "true or false", str: "text"}


def describe(subject: Plugin | type[Any] = Config) -> list[dict[str, Any]]:
    """One ``{name, type, default, required, help}`` a parameter, in the order of the source.

    Nested records are flattened into dotted names. ``default`` is what YAML would say (None:
    null, or nothing where ``required``).
    """
    record = subject.params if isinstance(subject, Plugin) else subject
    return [row for member in members(record).values() for row in _rows(member, member.name)]


def catalogue(family: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """``{family: [{name, summary, claims, params}]}`` of all plug-ins, or of one family.

    Raises InputError for a name that is no family.
    """
    names = [each.value for each in Family]
    if family is not None and family not in names:
        raise InputError(f"unknown family {family!r}", hint=suggestion(family, names))
    return {
        each.value: [
            {
                "name": name,
                "summary": found.summary,
                "claims": found.claims,
                "params": describe(found),
            }
            for name, found in plugins(each).items()
        ]
        for each in Family
        if family in {None, each.value}
    }


def _rows(member: Member, name: str) -> list[dict[str, Any]]:
    if isinstance(member.node, Record) and not member.optional:
        inner = nested_members(member).values()
        return [row for each in inner for row in _rows(each, f"{name}.{each.name}")]
    default = default_of(member)
    required = default is ABSENT
    words = type_words(member.node)
    return [
        {
            "name": name,
            "type": f"{words} or null" if member.optional and default is None else words,
            "default": None if required else default,
            "required": required,
            "help": member.help,
        }
    ]


def type_words(node: Node) -> str:
    """What may stand at a node, in a few words."""
    match node:
        case Quantity(kind, low):
            least = "" if low is None else f", at least {FORMATTERS[kind](low)}"
            return _QUANTITY_WORDS[kind] + least
        case Scalar(options=()):
            bounds = bounds_words(node)
            return _SCALAR_WORDS[node.type] + (f", {bounds}" if bounds else "")
        case Scalar():
            return "one of " + ", ".join(node.options)
        case PluginName(family):
            return f"name of a {family.value}"
        case PluginSlot(family):
            return f"{family.value} plug-in"
        case Record():
            return "mapping of " + ", ".join(members(node.type))
        case ListOf(item):
            return f"list of {type_words(item)}"
        case MapOf(item):
            return f"mapping of names to {type_words(item)}"
        case Anything():
            return "any value"
        case _:
            assert_never(node)
