"""The typed config as plain data again: with human units, every default spelled out.

:func:`resolved` loads back to an equal config, and two configs are equal exactly when their
resolved mappings are; so the hash is one over the resolved mapping.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, assert_never

from omegaconf import OmegaConf

from orchestrator.config.schema import Config
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
    members,
)
from orchestrator.core.parameters import FORMATTERS
from orchestrator.core.registry import plugin

HASH_DIGITS = 16
_INTERPOLATION = re.compile(r"(\\*)\$\{")


def resolved(config: Config) -> dict[str, Any]:
    """The whole config as plain dicts, lists, texts and numbers."""
    return render_record(config)


def render_yaml(config: Config) -> str:
    """The resolved config as YAML, which loads back to an equal config."""
    return OmegaConf.to_yaml(OmegaConf.create(resolved(config)))


def config_hash(config: Config) -> str:
    """16 hex digits of SHA-256 over the canonical JSON of the resolved config.

    It does not depend on the order of keys, on how units were spelled, on which defaults were
    written out, or on the process. Everything counts, the seed, the runtime, the experiment's
    name and what the host profile holds included.
    """
    text = json.dumps(resolved(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    if config.hosts.profile is not None:
        # What is in the file decides on the results, wherever it lies.
        with suppress(OSError):
            text += hashlib.sha256(Path(config.hosts.profile).read_bytes()).hexdigest()
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]


def render_record(record: Any) -> dict[str, Any]:
    """A dataclass instance as a plain mapping.

    A slot field that is still empty (a dataclass made without the loader) shows its default.
    """
    rendered = {}
    for member in members(type(record)).values():
        value = getattr(record, member.name)
        if value is None and member.default_slot is not None:
            rendered[member.name] = dict(member.default_slot)
        else:
            rendered[member.name] = render(member.node, value)
    return rendered


def render(node: Node, value: Any) -> Any:
    """A typed value as the human text, number, list or mapping that parses to it."""
    if value is None:
        return None
    match node:
        case Quantity(kind):
            return FORMATTERS[kind](value)
        case Scalar() | Anything() | PluginName():
            return _plain(value)
        case Record():
            return render_record(value)
        case PluginSlot(family, extra):
            beside, chosen = (None, value) if extra is None else value
            params = plugin(family, chosen.name).params
            keys = {} if beside is None else render(Record(type(beside)), beside)
            return {"name": chosen.name, **keys, **render(Record(params), chosen.params)}
        case ListOf(item):
            return [render(item, each) for each in value]
        case MapOf(item):
            return {key: render(item, each) for key, each in value.items()}
        case _:
            assert_never(node)


def _plain(value: Any) -> Any:
    match value:
        case str():
            # A literal "${" must not become an interpolation when the text is loaded again.
            return _INTERPOLATION.sub(lambda found: found.group(1) * 2 + r"\${", value)
        case Mapping():
            return {key: _plain(each) for key, each in value.items()}
        case tuple() | list():
            return [_plain(each) for each in value]
        case _:
            return value
