"""What may stand where: the config's dataclasses, read as a tree of nodes.

Everything else in this package (building, rendering, overriding, describing) walks this tree,
so a field declared with the helpers of :mod:`orchestrator.core.parameters` is all it takes to
add a checked, documented and searchable parameter.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard, cast

from orchestrator.core.registry import Family

ABSENT: Final[Any] = object()
"""Stands for a key that is not there (None is a value: YAML's null)."""


@dataclass(frozen=True)
class Scalar:
    """An int, float, bool or str, perhaps within bounds or out of a list of options."""

    type: type[Any]
    low: float | None = None
    high: float | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quantity:
    """A text with a unit; ``kind`` keys the parsers and formatters of core.parameters."""

    kind: str
    low: float | None = None


@dataclass(frozen=True)
class PluginName:
    """The ``name`` of a slot."""

    family: Family


@dataclass(frozen=True)
class PluginSlot:
    """A mapping with ``name``, the plug-in's parameters and the keys of ``extra``."""

    family: Family
    extra: type[Any] | None = None


@dataclass(frozen=True)
class Record:
    """A mapping with the fields of a dataclass."""

    type: type[Any]


@dataclass(frozen=True)
class ListOf:
    item: Node


@dataclass(frozen=True)
class MapOf:
    """A mapping with free keys."""

    item: Node


@dataclass(frozen=True)
class Anything:
    """Plain YAML data that has no shape here."""


Node = Scalar | Quantity | PluginName | PluginSlot | Record | ListOf | MapOf | Anything


@dataclass(frozen=True)
class Member:
    """One field of a dataclass. ``default`` is ABSENT where the field is required.

    ``default_slot`` is the human mapping that a slot holds by default, else None.
    """

    name: str
    node: Node
    optional: bool
    default: Any
    default_slot: dict[str, Any] | None
    help: str


def members(record: type[Any]) -> dict[str, Member]:
    """The fields of a dataclass by name, in their order."""
    return _members(cast(Hashable, record))


@functools.cache
def _members(record: Hashable) -> dict[str, Member]:
    assert isinstance(record, type)
    hints = typing.get_type_hints(record)
    return {
        field.name: _member(record, field, hints[field.name])
        for field in dataclasses.fields(record)
        if field.init
    }


def _member(record: type[Any], field: dataclasses.Field[Any], hint: Any) -> Member:
    inner, nullable = _without_none(hint)
    node = _node(inner, field.metadata)
    if node is None:
        raise TypeError(f"{record.__name__}.{field.name}: {hint!r} has no place in a config")
    return Member(
        name=field.name,
        node=node,
        optional=nullable or bool(field.metadata.get("optional")),
        default=_default(field),
        default_slot=field.metadata.get("default_slot"),
        help=field.metadata.get("help", ""),
    )


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return ABSENT


def _without_none(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [part for part in typing.get_args(hint) if part is not types.NoneType]
        if len(rest) == 1 and len(typing.get_args(hint)) > 1:
            return rest[0], True
    return hint, hint is Any


def _node(hint: Any, metadata: Mapping[str, Any]) -> Node | None:
    if "quantity" in metadata:
        quantity = Quantity(metadata["quantity"], metadata.get("low"))
        nested: Node = quantity
        for _ in range(metadata.get("many", 0)):
            nested = ListOf(nested)
        return nested
    if "family" in metadata:
        slot = PluginSlot(metadata["family"], metadata.get("extra"))
        match metadata.get("collection"):
            case "mapping":
                return MapOf(slot)
            case "list":
                return ListOf(slot)
            case _:
                return slot
    return _plain_node(hint, metadata)


def _plain_node(hint: Any, metadata: Mapping[str, Any]) -> Node | None:
    arguments = typing.get_args(hint)
    match typing.get_origin(hint):
        case origin if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
            item = _plain_node(arguments[0], metadata)
            return None if item is None else ListOf(item)
        case origin if origin is dict and arguments[0] is str:
            item = _plain_node(arguments[1], metadata)
            return None if item is None else MapOf(item)
    if hint is Any:
        return Anything()
    if hint in (int, float, bool, str):
        bounds = (metadata.get("low"), metadata.get("high"))
        return Scalar(hint, *bounds, tuple(metadata.get("options", ())))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return Record(hint)
    return None


def slot_members(slot: PluginSlot, params: type[Any]) -> dict[str, Member]:
    """All keys that a slot takes beside ``name`` once its plug-in is known."""
    extra = {} if slot.extra is None else members(slot.extra)
    return {**extra, **members(params)}


def nested_members(member: Member) -> dict[str, Member]:
    """The fields below a member that is a record, with the defaults of the member's default."""
    assert isinstance(member.node, Record)
    below = members(member.node.type)
    if member.default is ABSENT or member.default is None:
        return below
    return {
        name: dataclasses.replace(each, default=getattr(member.default, name))
        for name, each in below.items()
    }


def is_interpolation(value: Any) -> TypeGuard[str]:
    """Whether the value still waits for ``${...}`` to be filled in."""
    return isinstance(value, str) and "${" in value


def joined(path: str, key: object) -> str:
    """``path`` with one more key (an int is an index)."""
    if isinstance(key, int) and not isinstance(key, bool):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else str(key)
