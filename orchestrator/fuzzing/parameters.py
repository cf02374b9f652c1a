"""A plug-in's parameters as the fuzzer draws them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from typing import Any

from orchestrator.core.parameters import DURATION
from orchestrator.core.registry import Plugin
from orchestrator.core.units import format_duration, parse_duration_ns


def draw_parameters(
    chance: random.Random, of: Plugin, fixed: Mapping[str, Any], longest_ns: int
) -> dict[str, Any]:
    """Words and switches at random, numbers and optional durations from their probes, and all
    durations to scale: the longest lasts ``longest_ns``.

    What is ``fixed`` is neither drawn nor scaled. Nothing says that the parameters fit each other.
    """
    params: dict[str, Any] = {}
    fields: Any = dataclasses.fields(of.params)
    unscaled_ns: dict[str, int] = {
        field.name: field.default for field in fields if _is_duration(field)
    }
    for field in fields:
        metadata = field.metadata
        if field.name in fixed or field.name in unscaled_ns:
            continue
        if "options" in metadata:
            params[field.name] = chance.choice(metadata["options"])
        elif field.type == "bool":
            params[field.name] = chance.random() < 0.5
        elif "probes" in metadata and (drawn := chance.choice((None, *metadata["probes"]))):
            if metadata.get("quantity") == DURATION:
                unscaled_ns[field.name] = parse_duration_ns(drawn)
            else:
                params[field.name] = drawn
    whole_ns = max(unscaled_ns.values(), default=longest_ns)
    for name, lasts_ns in unscaled_ns.items():
        scaled_ns = max(1000, lasts_ns * longest_ns // whole_ns)
        params[name] = format_duration(scaled_ns // 1000 * 1000)
    order = [field.name for field in fields]
    return {name: params[name] for name in order if name in params} | dict(fixed)


def _is_duration(field: dataclasses.Field[Any]) -> bool:
    return field.metadata.get("quantity") == DURATION and isinstance(field.default, int)
