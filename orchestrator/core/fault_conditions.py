"""The conditions in force, and the actions that a change of them asks of a runtime."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, assert_never

from orchestrator.core.faults import (
    CLEAR,
    WELL,
    Burdened,
    ClientDown,
    Condition,
    Disturbed,
    Down,
    LinkState,
    NodeState,
    Paused,
)

_Kind = TypeVar("_Kind", bound=Condition)

# --- what a runtime is to do ------------------------------------------------------------


@dataclass(frozen=True)
class Crash:
    """End the node's process; the rest as in :class:`~orchestrator.core.faults.Down`."""

    node: int
    power: bool = False
    gone: bool = False


@dataclass(frozen=True)
class Restart:
    node: int


@dataclass(frozen=True)
class Pause:
    node: int


@dataclass(frozen=True)
class Resume:
    node: int


@dataclass(frozen=True)
class Burden:
    """From now on the node is in this state."""

    node: int
    state: NodeState


@dataclass(frozen=True)
class Disturb:
    """From now on the links from this party to those named are in these states, others clear."""

    party: int
    links: Mapping[int, LinkState]


@dataclass(frozen=True)
class CrashClient:
    client: int


@dataclass(frozen=True)
class ReviveClient:
    client: int


Action = Crash | Restart | Pause | Resume | Burden | Disturb | CrashClient | ReviveClient


# --- what is in force -------------------------------------------------------------------


class Conditions:
    """The conditions in force, by number, and the actions that a change of them asks for."""

    def __init__(self) -> None:
        self._in_force: dict[int, Condition] = {}
        self._numbers = itertools.count()

    def impose(self, condition: Condition) -> tuple[int, list[Action]]:
        """Its number, by which it is lifted, and what is to be done."""
        number = next(self._numbers)
        before = self._touched(condition)
        self._in_force[number] = condition
        return number, _changes(before, self._touched(condition))

    def lift(self, number: int) -> list[Action]:
        """What is to be done when it holds no longer."""
        condition = self._in_force[number]
        before = self._touched(condition)
        del self._in_force[number]
        return _changes(before, self._touched(condition))

    def curable(self, remembers: bool) -> list[int]:
        """Those that healing can lift, oldest first; ``remembers``: nodes can come back."""
        return [
            number
            for number, condition in self._in_force.items()
            if not isinstance(condition, Down) or (remembers and not condition.gone)
        ]

    def down(self, node: int) -> Down | None:
        """Whether and how a node is down: the worst counts."""
        found = [each for each in self._of(Down) if each.node == node]
        if not found:
            return None
        return Down(node, any(each.power for each in found), any(each.gone for each in found))

    def paused(self, node: int) -> bool:
        return any(each.node == node for each in self._of(Paused))

    def client_down(self, client: int) -> bool:
        return any(each.client == client for each in self._of(ClientDown))

    def node_state(self, node: int) -> NodeState:
        """Everything that burdens a node."""
        return sum((each.state for each in self._of(Burdened) if each.node == node), WELL)

    def links_from(self, party: int) -> dict[int, LinkState]:
        """The states of the links from a party that are not clear, by receiver."""
        states: dict[int, LinkState] = {}
        for each in self._of(Disturbed):
            for sender, receiver in each.links:
                if sender == party:
                    states[receiver] = states.get(receiver, CLEAR) + each.state
        return states

    def _of(self, kind: type[_Kind]) -> list[_Kind]:
        return [each for each in self._in_force.values() if isinstance(each, kind)]

    def _touched(self, condition: Condition) -> list[tuple[type[Condition], int, Any]]:
        """The state of everything that the condition is about."""
        match condition:
            case Down(node):
                return [(Down, node, self.down(node))]
            case Paused(node):
                return [(Paused, node, self.paused(node))]
            case Burdened(node):
                return [(Burdened, node, self.node_state(node))]
            case Disturbed(links):
                senders = dict.fromkeys(sender for sender, _ in links)
                return [(Disturbed, sender, self.links_from(sender)) for sender in senders]
            case ClientDown(client):
                return [(ClientDown, client, self.client_down(client))]
            case _:
                assert_never(condition)


def _changes(
    before: Sequence[tuple[type[Condition], int, Any]],
    after: Sequence[tuple[type[Condition], int, Any]],
) -> list[Action]:
    actions: list[Action] = []
    for (kind, party, was), (_, _, now) in zip(before, after, strict=True):
        if was == now:
            continue
        if kind is Down:
            # What is down already cannot crash again, but its disk may yet be lost.
            actions.append(Crash(party, now.power, now.gone) if now else Restart(party))
        elif kind is Paused:
            actions.append(Pause(party) if now else Resume(party))
        elif kind is Burdened:
            actions.append(Burden(party, now))
        elif kind is Disturbed:
            actions.append(Disturb(party, now))
        else:
            actions.append(CrashClient(party) if now else ReviveClient(party))
    return actions
