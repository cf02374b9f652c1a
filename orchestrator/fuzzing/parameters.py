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
    """Words and switches at random, numbers from their probes, durations to scale: the longest
    of the defaults lasts ``longest_ns``, and probes of a duration are to the same scale.

    What is ``fixed`` is not drawn. Nothing says that the parameters fit each other.
    """
    params: dict[str, Any] = {}
    fields: Any = dataclasses.fields(of.params)
    unscaled_ns: list[int] = [field.default for field in fields if _is_duration(field)]
    scale_ns = max(unscaled_ns, default=longest_ns)

    def scaled(lasts_ns: int) -> str:
        scaled_ns = max(1000, lasts_ns * longest_ns // scale_ns)
        return format_duration(scaled_ns // 1000 * 1000)

    for field in fields:
        metadata = field.metadata
        if field.name in fixed:
            continue
        if _is_duration(field):
            params[field.name] = scaled(field.default)
        elif "options" in metadata:
            params[field.name] = chance.choice(metadata["options"])
        elif field.type == "bool":
            params[field.name] = chance.random() < 0.5
        elif "probes" in metadata and (drawn := chance.choice((None, *metadata["probes"]))):
            timed = metadata.get("quantity") == DURATION
            params[field.name] = scaled(parse_duration_ns(drawn)) if timed else drawn
    return params | dict(fixed)


def _is_duration(field: dataclasses.Field[Any]) -> bool:
    return field.metadata.get("quantity") == DURATION and isinstance(field.default, int)
