"""When faults strike and whom: the plan of one run's faults.

``FaultPlan.wake(now_ns, cluster)`` says what a runtime has to do now, ``next_wake_ns`` when to ask
again, ``heal`` ends everything. Both are pure but for the plan's own streams of chance, so the
same seed strikes at the same times in every runtime; whom ``leader`` names depends on who leads.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from orchestrator.core.distributions import Sampler, build
from orchestrator.core.fault_conditions import Action, Conditions, Reappear
from orchestrator.core.faults import (
    ALL,
    AUTHORITY,
    CACHE,
    COUNT,
    FOLLOWER,
    LEADER,
    NODE,
    ZONE,
    Aim,
    ClusterState,
    Disturbed,
    Fault,
    Target,
    leads,
    parse_target,
)
from orchestrator.core.randomness import block_stream, scalar_stream
from orchestrator.core.registry import Slot
from orchestrator.core.units import NS_PER_MS, NS_PER_S

PATIENCE_NS: Final = NS_PER_S
"""How long a fault that is aimed at a leader or follower waits for one; then it takes any node."""
RETRY_NS: Final = 10 * NS_PER_MS
GAP_NS: Final = NS_PER_MS
"""The shortest from strike to strike: a law may draw 0, and a fault that strikes without end at one
moment never lets go.
"""
NEVER_NS: Final = 2**63 - 1


@dataclass(frozen=True)
class Strike:
    """One strike: of which fault (``MIX: FAULT`` of a mix), when, whom, and until when (None while
    it is in force).
    """

    number: int
    name: str
    target: str
    at_ns: int
    victims: tuple[int, ...]
    until_ns: int | None = None


@dataclass(frozen=True)
class _Planned:
    """One fault of the configuration, with its chances; ``gap``: from strike to strike."""

    aim: Aim
    name: str
    fault: Fault
    target: Target
    chance: random.Random
    gap: Sampler | None

    @staticmethod
    def of(number: int, aim: Aim, chosen: Slot, seed: int) -> _Planned:
        """Each fault has streams of its own."""
        gap = None
        if aim.every is not None:
            gap = Sampler(build(aim.every), block_stream(seed, f"fault/{number}/every"))
        return _Planned(
            aim,
            chosen.name,
            chosen.implementation(chosen.params),
            parse_target(aim.target),
            scalar_stream(seed, f"fault/{number}/strike"),
            gap,
        )


@dataclass(frozen=True)
class _Due:
    """A strike that is planned; ``asked_ns``: when it was to strike at first."""

    planned: _Planned
    asked_ns: int


@dataclass(frozen=True)
class _Ends:
    """A strike is over: its conditions, by number."""

    strike: int
    conditions: tuple[int, ...]


class FaultPlan:
    """All faults of one run, which strike until ``end_ns``.

    ``remembers``: nodes have a log on disk; else who has crashed stays away, for it has forgotten
    what it promised. ``led``: whether there is ever a leader to wait for.
    """

    def __init__(
        self,
        faults: Sequence[tuple[Aim, Slot]],
        seed: int,
        end_ns: int,
        *,
        remembers: bool,
        led: bool = True,
    ) -> None:
        self._planned = [
            _Planned.of(n, aim, chosen, seed) for n, (aim, chosen) in enumerate(faults)
        ]
        self._end_ns = end_ns
        self._remembers = remembers
        self._led = led
        self._conditions = Conditions()
        self._order = itertools.count()
        self._agenda: list[tuple[int, int, _Due | _Ends]] = []
        self.strikes: list[Strike] = []
        for planned in self._planned:
            if planned.aim.at is not None:
                self._plan_strike(planned, planned.aim.at)
            else:
                self._plan_next(planned, 0, 0)

    @property
    def next_wake_ns(self) -> int:
        """When something is to be done next; NEVER_NS where nothing is left."""
        return self._agenda[0][0] if self._agenda else NEVER_NS

    def wake(self, now_ns: int, cluster: ClusterState) -> list[Action]:
        """What is to be done now."""
        actions: list[Action] = []
        while self._agenda and self._agenda[0][0] <= now_ns:
            entry = heapq.heappop(self._agenda)[2]
            if isinstance(entry, _Due):
                actions += self._strike(entry, now_ns, cluster)
            else:
                actions += self._end(entry, now_ns)
        return actions

    def heal(self, now_ns: int) -> list[Action]:
        """Everything is over, and nothing strikes any more. Of machines that are lost everybody
        knows now, so that nobody waits for them.
        """
        actions: list[Action] = []
        self._agenda.clear()
        for number in self._conditions.curable(self._remembers):
            actions += self._conditions.lift(number)
        actions += map(Reappear, self._conditions.vanished())
        for index, strike in enumerate(self.strikes):
            if strike.until_ns is None:
                self.strikes[index] = replace(strike, until_ns=now_ns)
        return actions

    def keeps_down(self, node: int) -> bool:
        """Whether a fault says that the node is down."""
        return self._conditions.down(node) is not None

    def silent(self, node: int) -> bool:
        """Whether a fault keeps the node from answering anything."""
        return self.keeps_down(node) or self._conditions.paused(node)

    # --- strikes --------------------------------------------------------------------------

    def _plan_strike(self, planned: _Planned, when_ns: int) -> None:
        last_ns = planned.aim.until
        if when_ns < self._end_ns and (last_ns is None or when_ns <= last_ns):
            self._put(when_ns, _Due(planned, when_ns))

    def _plan_next(self, planned: _Planned, asked_ns: int, now_ns: int) -> None:
        """After a strike that was to come at one time and came at another.

        A little delay does not shift the schedule. After a long one it begins anew, so that no
        strikes come in a heap that were meant to be apart.
        """
        if planned.gap is None:
            return
        gap_ns = max(planned.gap.draw_ns(), GAP_NS)
        late_ns = now_ns - asked_ns
        since_ns = asked_ns if late_ns < gap_ns and late_ns <= PATIENCE_NS else now_ns
        self._plan_strike(planned, since_ns + gap_ns)

    def _put(self, when_ns: int, entry: _Due | _Ends) -> None:
        heapq.heappush(self._agenda, (when_ns, next(self._order), entry))

    def _strike(self, due: _Due, now_ns: int, cluster: ClusterState) -> list[Action]:
        planned = due.planned
        patient = now_ns - due.asked_ns < PATIENCE_NS
        victims = self._victims(planned, cluster, patient)
        if not victims and patient:
            self._put(now_ns + RETRY_NS, due)
            return []
        self._plan_next(planned, due.asked_ns, now_ns)
        if not victims:
            return []
        blow = planned.fault.blow(victims, cluster, planned.chance)
        actions: list[Action] = []
        numbers = []
        for condition in blow.conditions:
            number, asked_for = self._conditions.impose(condition)
            numbers.append(number)
            actions += asked_for
        name = f"{planned.name}: {blow.drawn}" if blow.drawn else planned.name
        strike = Strike(len(self.strikes), name, planned.aim.target, now_ns, victims)
        self.strikes.append(strike)
        if blow.lasts_ns is not None:
            self._put(now_ns + blow.lasts_ns, _Ends(strike.number, tuple(numbers)))
        return actions

    def _end(self, ends: _Ends, now_ns: int) -> list[Action]:
        strike = self.strikes[ends.strike]
        self.strikes[ends.strike] = replace(strike, until_ns=now_ns)
        return [action for number in ends.conditions for action in self._conditions.lift(number)]

    def _victims(self, planned: _Planned, cluster: ClusterState, patient: bool) -> tuple[int, ...]:
        """Whom it strikes; nobody where those whom it is aimed at are not there."""
        chance, target = planned.chance, planned.target
        if planned.fault.strikes_clients:
            return _clients(target, cluster, chance)
        up = [node for node in cluster.nodes if self._conditions.down(node) is None]
        return tuple(_nodes(target, cluster, up, chance, patient and self._led))


def idles(target: Target, fault: Fault, cluster: ClusterState) -> bool:
    """Whether a strike of it would change nothing: no link lies where it strikes."""
    chance = random.Random(0)
    if fault.strikes_clients:
        victims = _clients(target, cluster, chance)
    else:
        victims = tuple(_nodes(target, cluster, cluster.nodes, chance, False))
    conditions = fault.blow(victims, cluster, chance).conditions
    return not any(each.links if isinstance(each, Disturbed) else True for each in conditions)


def _nodes(
    target: Target,
    cluster: ClusterState,
    up: Sequence[int],
    chance: random.Random,
    patient: bool,
) -> Sequence[int]:
    leading = [node for node in up if leads(cluster.roles.get(node, ""))]
    following = [node for node in up if node not in leading] if leading else []
    instead = [] if patient else up
    if target.word == LEADER:
        return (leading or instead)[:1]
    if target.word == FOLLOWER:
        return _some(following or instead, 1, chance)
    if target.word == COUNT:
        return _some(up, target.number, chance)
    if target.word == CACHE:
        present = [node for node in cluster.tier if node in cluster.roles]
        return _some(present or cluster.tier, 1, chance)
    fixed = {
        ALL: cluster.nodes,
        AUTHORITY: [] if cluster.authority is None else [cluster.authority],
        ZONE: [node for node in cluster.nodes if cluster.zones.get(node) == target.zone],
        NODE: [target.number],
    }
    return fixed.get(target.word) or _some(up, 1, chance)


def _clients(target: Target, cluster: ClusterState, chance: random.Random) -> tuple[int, ...]:
    clients = range(cluster.clients)
    if target.word == ALL:
        return tuple(clients)
    if target.word == NODE:
        return (target.number,)
    return tuple(_some(clients, target.number if target.word == COUNT else 1, chance))


def _some(among: Sequence[int], count: int, chance: random.Random) -> list[int]:
    return sorted(chance.sample(among, min(count, len(among))))
