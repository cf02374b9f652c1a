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
    client_party,
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
class Vanish:
    """From now on nothing comes from the node's machine, not even that a connection has ended: who
    has asked it waits, and so does who asks it now. It comes before the crash.
    """

    node: int


@dataclass(frozen=True)
class Reappear:
    """The machine is there again, or known to be lost for good: connections from before break, and
    who asks what does not run is refused. It comes after the restart.
    """

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


NodeAction = Crash | Restart | Vanish | Reappear | Pause | Resume | Burden
Action = NodeAction | Disturb | CrashClient | ReviveClient


def in_turns(actions: Sequence[Action]) -> list[list[Action]]:
    """The actions, cut so that each turn holds one of each party at most, and each party's in
    order: within a turn they may be carried out in any order, or all at once.
    """
    turns: list[list[Action]] = []
    counts: dict[int, int] = {}
    for action in actions:
        party = _party(action)
        turn = counts[party] = counts.get(party, -1) + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(action)
    return turns


def _party(action: Action) -> int:
    """Whom the action is about."""
    if isinstance(action, Disturb):
        return action.party
    if isinstance(action, CrashClient | ReviveClient):
        return client_party(action.client)
    return action.node


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

    def vanished(self) -> list[int]:
        """The nodes whose machines are silent, in order."""
        downs = {each.node: self.down(each.node) for each in self._of(Down)}
        return sorted(node for node, down in downs.items() if down is not None and down.power)

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
            actions += _ups_and_downs(party, was, now)
        elif kind is Paused:
            actions.append(Pause(party) if now else Resume(party))
        elif kind is Burdened:
            actions.append(Burden(party, now))
        elif kind is Disturbed:
            actions.append(Disturb(party, now))
        else:
            actions.append(CrashClient(party) if now else ReviveClient(party))
    return actions


def _ups_and_downs(node: int, was: Down | None, now: Down | None) -> list[Action]:
    before, after = was or Down(node), now or Down(node)
    actions: list[Action] = []
    if after.power and not before.power:
        actions.append(Vanish(node))
    if now is None:
        actions.append(Restart(node))
    elif was is None or (after.power, after.gone) > (before.power, before.gone):
        # What is down already cannot crash again, but its disk may yet suffer, or be lost.
        actions.append(Crash(node, after.power, after.gone))
    if before.power and not after.power:
        actions.append(Reappear(node))
    return actions
