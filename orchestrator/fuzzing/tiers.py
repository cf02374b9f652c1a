"""A cache tier in front of a simulated store: its configuration, and how its nodes fail."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from orchestrator.core.registry import Family, Plugin, plugins
from orchestrator.core.tier import BY_TIME
from orchestrator.core.units import format_duration
from orchestrator.fuzzing.parameters import draw_parameters
from orchestrator.fuzzing.scenario import Fault

NODES_MAX: Final = 3
_CRASHING: Final = 0.5
"""Of the scenarios in which nodes come back, those in which nodes of the tier crash."""


def draw_tier(
    chance: random.Random, pattern: Plugin, fixed: Mapping[str, Any], pace_ns: int
) -> dict[str, Any]:
    """Few nodes with little room, so that entries leave, and sometimes with little time."""
    # A fetch is given up no sooner than a client gives up.
    drawn = draw_parameters(chance, pattern, fixed, 2 * pace_ns)
    timed = drawn.get("invalidation") == BY_TIME or chance.random() < 0.3
    return {
        "pattern": {"name": pattern.name} | drawn,
        "nodes": chance.randint(1, NODES_MAX),
        "cache": {
            "name": chance.choice(list(plugins(Family.CACHE))),
            "size": chance.choice((2, 4, 20)),
            "warm": chance.random() < 0.5,
        },
        "ttl": format_duration(chance.choice((1, 4)) * pace_ns) if timed else None,
        "early_refresh": chance.choice((0.0, 1.0, 10.0)) if timed else 0.0,
        "cpu": {"read": "10us", "write": "10us", "message": "10us"},
    }


def tier_faults(
    chance: random.Random,
    nodes: Sequence[int],
    stores: int,
    times: Sequence[int],
    pace_ns: int,
    *,
    returning: bool,
) -> list[Fault]:
    """At these times: a tier node is cut off from nodes of the store, stands still, or crashes."""
    crashes = returning and chance.random() < _CRASHING
    kinds = ("crash", "pause", "cut") if crashes else ("pause", "cut")
    faults = []
    for at_ns in times:
        kind: Any = chance.choice(kinds)
        node = chance.choice(nodes)
        until_ns = at_ns + chance.randint(1, 4) * pace_ns // 4
        others: tuple[int, ...] = ()
        if kind == "cut":
            others = tuple(sorted(chance.sample(range(stores), chance.randint(1, stores))))
        faults.append(Fault(kind, at_ns, until_ns, node, others))
    return faults
