"""How the data of a simulated store is divided, and what an operator changes about that."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from orchestrator.core.layout import ADD_NODE, ADD_SHARD, REMOVE_NODE, REMOVE_SHARD, Change, Planner
from orchestrator.core.randomness import scalar_stream
from orchestrator.core.registry import NoParams
from orchestrator.core.units import format_duration
from orchestrator.fuzzing.profiles import Profile
from orchestrator.shardings.modulo import Modulo

_CHANGES_MAX: Final = 4
_ATTEMPTS: Final = 20


@dataclass(frozen=True)
class Division:
    """``apart``: nodes beside those of one group, over which the groups are spread."""

    shards: int = 1
    apart: int = 0
    moves: bool = False


def draw_division(
    seed: int, protocol: str, profile: Profile, *, layered: bool, ordered: bool
) -> Division:
    """Seldom into several shards, by a stream of its own; ``layered``: always."""
    chance = scalar_stream(seed, f"fuzz/{protocol}/shards")
    if layered:
        return Division(chance.choice((2, 3)))
    if chance.random() >= profile.sharded:
        return Division()
    shards, apart = chance.choice((2, 3)), chance.choice((0, 0, 1, 2))
    return Division(shards, apart, ordered and chance.random() < profile.moving)


def draw_moves(
    chance: random.Random, shards: int, replicas: int, nodes: int, pace_ns: int, until_ns: int
) -> dict[str, Any]:
    """Parts of a store's configuration: its shards, commands until then, and how data moves."""
    changes: list[Change] = []
    count = chance.randint(1, _CHANGES_MAX)
    for _ in range(_ATTEMPTS):
        drawn = _change(chance, shards, nodes)
        if len(changes) < count and _moves_something(shards, nodes, replicas, [*changes, drawn]):
            changes.append(drawn)
    times = sorted(chance.randrange(pace_ns, until_ns) for _ in changes)
    given = [
        {
            "command": change.command,
            "at": format_duration(at_ns // 10_000 * 10_000),
            ("shard" if change.command in (ADD_SHARD, REMOVE_SHARD) else "node"): change.subject,
        }
        for change, at_ns in zip(changes, times, strict=True)
    ]
    return {
        "shards": shards,
        "sharding": {"name": chance.choice(("ring", "hash_ranges", "modulo"))},
        "administration": given,
        "moving": {
            "portions": chance.choice((1, 2, 4)),
            "piece": chance.choice(("200B", "64KiB", "64KiB")),
            "resend": format_duration(pace_ns // chance.choice((2, 4, 8)) // 1000 * 1000),
            "patience": format_duration(pace_ns * chance.choice((1, 4))),
        },
    }


def _change(chance: random.Random, shards: int, nodes: int) -> Change:
    command = chance.choice((ADD_SHARD, ADD_SHARD, REMOVE_SHARD, ADD_NODE, REMOVE_NODE))
    return Change(command, chance.randrange(shards if "shard" in command else nodes))


def _moves_something(shards: int, nodes: int, replicas: int, changes: Sequence[Change]) -> bool:
    def make(present: Sequence[int]) -> Modulo:
        return Modulo(NoParams(), present)

    try:
        layouts = Planner(shards, nodes, replicas, make).plan(changes)
    except ValueError:
        return False
    pairs = pairwise(layouts.epochs)
    return all(before.group_of != after.group_of for before, after in pairs)
