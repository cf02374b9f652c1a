"""From a store's parameters to where its keys are: shards, groups of nodes, and what an operator
changes about them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from orchestrator.core.layout import (
    ADD_SHARD,
    MOVING,
    REMOVE_SHARD,
    Change,
    Layouts,
    Planner,
    ShardMap,
)
from orchestrator.core.levels import LINEARIZABLE
from orchestrator.core.machine import ClaimContext
from orchestrator.core.parameters import ParameterError, duration, number, text
from orchestrator.core.registry import Family, Slot, plugins
from orchestrator.errors import ConfigError, suggestion

OF_SHARDS = frozenset({ADD_SHARD, REMOVE_SHARD})


@dataclass(frozen=True)
class Command:
    """An operator's command about a node or a shard, given at a time of the run."""

    command: str = text(help="one that the protocol knows, or one that moves data")
    at: int = duration(help="from the start of the load")
    node: int | None = number(None, low=0, help="what it is about")
    shard: int | None = number(None, low=0, help="the same, of add_shard and remove_shard")

    @property
    def subject(self) -> int:
        """What it is about; 0 where that is missing."""
        return (self.shard if self.command in OF_SHARDS else self.node) or 0


def commands_that_move(administration: Sequence[Command]) -> list[Command]:
    """Those of the operator's commands that move data, in their order."""
    given = [command for command in administration if command.command in MOVING]
    return sorted(given, key=lambda command: command.at)


@functools.lru_cache(maxsize=64)
def layouts_of(
    shards: int,
    nodes: int,
    replicas: int,
    sharding: Slot,
    administration: Sequence[Command],
    portions: int,
) -> Layouts:
    """All epochs. Raises ConfigError where weights do not fit, or a command asks the impossible."""

    def make(present: Sequence[int]) -> ShardMap:
        made: ShardMap = sharding.implementation(sharding.params, present)
        return made

    given = commands_that_move(administration)
    # Whether there are nodes enough is for the protocol to say.
    planner = Planner(shards, nodes, min(replicas, nodes), make, portions)
    try:
        return planner.plan([Change(command.command, command.subject) for command in given])
    except ParameterError as error:
        path = "system.sharding" + (f".{error.key}" if error.key else "")
        raise ConfigError(str(error), path=path) from None
    except ValueError as error:
        path = "system.administration" if given else "system.shards"
        hint = "who is added later is not there in the beginning, and counts in shards and nodes"
        raise ConfigError(str(error), path=path, hint=hint) from None


def check_commands(
    administration: Sequence[Command],
    known: frozenset[str],
    protocol: str,
    nodes: int,
    shards: int,
) -> None:
    """Raise ConfigError for a command that is unknown, or about nobody that there is."""
    for index, command in enumerate(administration):
        path = f"system.administration[{index}]"
        if command.command not in known | MOVING:
            raise ConfigError(
                f"protocol {protocol!r} has no command {command.command!r}",
                path=f"{path}.command",
                hint=suggestion(command.command, known | MOVING),
            )
        of_shard = command.command in OF_SHARDS
        what, other = ("shard", "node") if of_shard else ("node", "shard")
        about = command.shard if of_shard else command.node
        if about is None or getattr(command, other) is not None:
            raise ConfigError(
                f"{command.command} is about a {what}: it needs {what}, and no {other}", path=path
            )
        count = shards if of_shard else nodes
        if about >= count:
            raise ConfigError(
                f"there is no {what} {about}",
                path=f"{path}.{what}",
                hint=f"{what}s are 0 to {count - 1}",
            )


def check_moves(layouts: Layouts) -> None:
    """Raise ConfigError for a command that would move nothing."""
    for change, (before, after) in zip(layouts.changes, pairwise(layouts.epochs), strict=True):
        if before.group_of == after.group_of:
            raise ConfigError(
                f"{change.command} {change.subject} would move nothing",
                path="system.administration",
                hint="with so few shards every node has its part already: more shards",
            )


def ordered_protocols() -> list[str]:
    """Those that apply all changes in one order."""
    found = plugins(Family.PROTOCOL).items()
    return [name for name, plugin in found if plugin.implementation.ordered]


def check_ordered(protocol: Slot, replicas: int, what: str, path: str) -> None:
    """Raise ConfigError where a protocol does not apply all changes in one order, or does not
    answer from the newest state; ``what`` needs both.
    """
    machine = protocol.implementation
    reason = "" if machine.ordered else "it does not apply all changes in one order"
    ideal = ClaimContext(replicas, True, "fsync", replicas)
    if not reason and LINEARIZABLE not in machine.claims(protocol.params, ideal):
        why = machine.why_not(protocol.params, ideal, LINEARIZABLE)
        reason = "it is not linearizable" + (f": {why}" if why else "")
    if not reason:
        return
    raise ConfigError(
        f"no {what} over protocol {protocol.name!r}: {reason}",
        path=path,
        hint="protocols that can carry them: " + ", ".join(ordered_protocols()),
    )
