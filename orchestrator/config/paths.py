"""Dotted paths into plain config data: setting what stands there, and finding its shape.

A path is keys joined by dots (``system.cache.size``). An item of a list is ``[0]`` or ``.0``;
a key that itself holds dots may stand in brackets (``tune.search[arrival.rate].low``), but
need not where only one reading makes sense.

Nothing here changes what it is given: setting returns new data that shares the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from orchestrator.config.build import (
    CONSTANT,
    bare,
    mapping_at,
    owner_of,
    plugin_at,
    unknown_key,
)
from orchestrator.config.render import render
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
    is_interpolation,
    joined,
    members,
    nested_members,
    slot_members,
)
from orchestrator.core.registry import plugin, plugins
from orchestrator.errors import ConfigError

_PART = re.compile(r"(?:^|\.)([^.\[\]\s]+)|\[([^\[\]]+)\]")


@dataclass(frozen=True)
class Part:
    """One key of a path; ``whole``: it was in brackets and is not to be joined with others."""

    text: str
    whole: bool = False


def parts_of(path: str) -> tuple[Part, ...]:
    """The keys of a dotted path; ConfigError where it is malformed."""
    parts = []
    at = 0
    while at < len(path):
        match = _PART.match(path, at)
        if match is None or (at == 0 and match.group(1) is None):
            break
        parts.append(Part(match.group(1) or match.group(2), match.group(1) is None))
        at = match.end()
    if at < len(path) or not parts:
        raise ConfigError(
            f"malformed path {path!r}", path=path or None, hint="write keys joined by dots"
        )
    return tuple(parts)


@dataclass(frozen=True)
class _Step:
    """One key down: ``container`` is what was there, in its long form, never shared."""

    container: dict[Any, Any] | list[Any]
    key: Any
    node: Node
    optional: bool
    value: Any
    rest: tuple[Part, ...]
    path: str


def assign(node: Node, data: Any, parts: tuple[Part, ...], value: Any, path: str = "") -> Any:
    """``data`` with ``value`` at ``parts``.

    A new ``name`` in a slot takes away the keys that the new plug-in does not know.
    """
    if not parts:
        return value
    step = _descend(node, data, parts, value, path)
    container = step.container
    inner = assign(step.node, step.value, step.rest, value, step.path)
    if isinstance(node, PluginSlot) and step.key == "name":
        container = _kept(node, dict(mapping_at(container, path)), inner, step.path)
    container[step.key] = inner
    return container


def locate(node: Node, data: Any, parts: tuple[Part, ...], path: str = "") -> tuple[Node, bool]:
    """The node that stands at ``parts``, and whether null is allowed there."""
    optional = False
    while parts:
        step = _descend(node, data, parts, ABSENT, path)
        node, data, optional = step.node, step.value, step.optional
        parts, path = step.rest, step.path
    return node, optional


def _kept(node: PluginSlot, slot: dict[Any, Any], name: Any, path: str) -> dict[Any, Any]:
    if not isinstance(name, str) or is_interpolation(name) or slot.get("name") == name:
        return slot
    allowed = slot_members(node, plugin(node.family, name, path=path).params)
    return {key: value for key, value in slot.items() if key in allowed or key == "name"}


def _descend(node: Node, data: Any, parts: tuple[Part, ...], value: Any, path: str) -> _Step:
    """One key down; ``value`` is what will be set at the end (ABSENT: nothing)."""
    part, rest = parts[0], parts[1:]
    match node:
        case Record(record):
            container = _mapping(data, path)
            known = members(record)
            if part.text not in known:
                raise unknown_key(part.text, path, known, "")
            return _member_step(container, known[part.text], rest, path)
        case PluginSlot():
            return _slot_step(node, _slot_mapping(node, data, path), part, rest, path)
        case ListOf(item):
            return _list_step(item, data, part, rest, path)
        case MapOf(item):
            container = _mapping(data, path)
            key, rest = _free_key(item, container, parts, value)
            return _Step(container, key, item, False, container.get(key), rest, joined(path, key))
        case Anything():
            if isinstance(data, (list, tuple)):
                return _list_step(Anything(), data, part, rest, path)
            container = _mapping(data, path)
            at = joined(path, part.text)
            return _Step(container, part.text, node, True, container.get(part.text), rest, at)
        case Quantity() | Scalar() | PluginName():
            raise ConfigError(
                f"{path} is a single value",
                path=joined(path, part.text),
                hint="nothing can be set below it",
            )
        case _:
            assert_never(node)


def _member_step(
    container: dict[Any, Any], member: Member, rest: tuple[Part, ...], path: str
) -> _Step:
    at = joined(path, member.name)
    value = container[member.name] if member.name in container else default_of(member)
    if isinstance(member.node, Record) and member.name not in container:
        value = None  # only what is set is written out: see spelled()
    elif member.default_slot is not None:
        value = with_default_name(member, value)
    return _Step(container, member.name, member.node, member.optional, value, rest, at)


def _slot_step(
    node: PluginSlot, container: dict[Any, Any], part: Part, rest: tuple[Part, ...], path: str
) -> _Step:
    at = joined(path, part.text)
    if part.text == "name":
        name = PluginName(node.family)
        return _Step(container, "name", name, False, container.get("name"), rest, at)
    if is_interpolation(container.get("name")):
        unknown = Anything()
        return _Step(container, part.text, unknown, True, container.get(part.text), rest, at)
    chosen = plugin_at(node, container, path)
    allowed = slot_members(node, chosen.params)
    if part.text not in allowed:
        raise unknown_key(part.text, path, [*allowed, "name"], owner_of(chosen))
    return _member_step(container, allowed[part.text], rest, path)


def _list_step(item: Node, data: Any, part: Part, rest: tuple[Part, ...], path: str) -> _Step:
    items = list(data) if isinstance(data, (list, tuple)) else []
    if not part.text.isdecimal() or int(part.text) >= len(items):
        raise ConfigError(
            f"no item {part.text!r}",
            path=path,
            hint=f"the list has {len(items)}, counted from 0; set the whole list to add one",
        )
    index = int(part.text)
    return _Step(items, index, item, False, items[index], rest, joined(path, index))


def _free_key(
    item: Node, container: Mapping[Any, Any], parts: Sequence[Part], value: Any
) -> tuple[str, tuple[Part, ...]]:
    """How many parts make the free key of a mapping, whose keys may hold dots."""
    if parts[0].whole or not isinstance(item, Record):
        return parts[0].text, tuple(parts[1:])
    fields = members(item.type)
    for count in range(len(parts), 0, -1):
        key = ".".join(part.text for part in parts[:count])
        below = parts[count:]
        if key in container and (not below or below[0].text in fields):
            return key, tuple(below)
    # A new key: its last part is a field only where a plain value is set.
    count = len(parts)
    if count > 1 and parts[-1].text in fields and not isinstance(value, Mapping):
        count -= 1
    return ".".join(part.text for part in parts[:count]), tuple(parts[count:])


def _mapping(data: Any, path: str) -> dict[Any, Any]:
    return {} if data is None or data is ABSENT else dict(mapping_at(data, path))


def _slot_mapping(node: PluginSlot, data: Any, path: str) -> dict[Any, Any]:
    match bare(node):
        case Quantity() if isinstance(data, (str, int, float)):
            return {"name": CONSTANT, "value": data}
        case PluginName() if isinstance(data, str):
            return {"name": data}
    return _mapping(data, path)


# --- defaults ---------------------------------------------------------------------------


def default_of(member: Member) -> Any:
    """What stands for the member where its key is absent, as plain data; ABSENT: required."""
    if member.default_slot is not None and member.default is None:
        return dict(member.default_slot)
    return ABSENT if member.default is ABSENT else render(member.node, member.default)


def with_default_name(member: Member, value: Any) -> Any:
    """A slot's mapping without ``name`` is about the default plug-in."""
    if member.default_slot is not None and isinstance(value, Mapping) and "name" not in value:
        return {**member.default_slot, **value}
    return value


def spelled(node: Node, data: Any) -> Any:
    """``data`` with every default written out; what does not fit is left for :func:`build`."""
    match node:
        case Record(record) if isinstance(data, Mapping):
            return _spelled_keys(members(record), data)
        case PluginSlot(family) if isinstance(data, str) and isinstance(bare(node), PluginName):
            return spelled(node, {"name": data}) if data in plugins(family) else data
        case PluginSlot(family) if isinstance(data, Mapping):
            chosen = plugins(family).get(str(data.get("name")))
            return (
                data if chosen is None else _spelled_keys(slot_members(node, chosen.params), data)
            )
        case ListOf(item) if isinstance(data, (list, tuple)):
            return [spelled(item, each) for each in data]
        case MapOf(item) if isinstance(data, Mapping):
            return {key: spelled(item, each) for key, each in data.items()}
        case _:
            return data


def _spelled_keys(known: Mapping[str, Member], data: Mapping[Any, Any]) -> dict[Any, Any]:
    complete = dict(data)
    for member in known.values():
        value = data.get(member.name, ABSENT)
        if isinstance(member.node, Record) and member.default is not None:
            if value is ABSENT and member.default is not ABSENT:
                value = {}
            if isinstance(value, Mapping):
                complete[member.name] = _spelled_keys(nested_members(member), value)
            continue
        value = default_of(member) if value is ABSENT else with_default_name(member, value)
        if value is not ABSENT:
            complete[member.name] = spelled(member.node, value)
    return complete
