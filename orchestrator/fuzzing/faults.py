"""The faults of a scenario, as a profile has them: what strikes whom, when, and for how long."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

from orchestrator.core.registry import Plugin
from orchestrator.fuzzing.profiles import Profile
from orchestrator.fuzzing.scenario import LEADER, Fault
from orchestrator.fuzzing.sharding import Division

STEP_NS: Final = 10_000
AUTHORITY_SHARE: Final = 0.15
"""Of the crashes, where a protocol has an authority."""
SPARSE: Final = 20
"""Of so many faults one is left where they are sparse."""


class FaultDrawing:
    """What else is drawn of the scenario is there when its faults are."""

    _chance: random.Random
    _profile: Profile
    _pace_ns: int
    _plugin: Plugin
    _layer: Plugin | None
    _pattern: Plugin | None
    _division: Division
    _watched: bool
    _late: float
    _late_ns: int
    _ambush: bool

    def _faults(self, nodes: int, replicas: int, durable: bool, heal_ns: int) -> list[Fault]:
        chance, profile = self._chance, self._profile
        # A command reaches every shard, and each acts on it for itself.
        whole = self._division.shards == 1
        commands = sorted(self._plugin.implementation.commands) if whole else []
        weights = {
            "crash": profile.crash,
            "pause": profile.pause,
            "cut": profile.cut,
            "storm": profile.storm,
            "command": profile.command if commands else 0.0,
        }
        count = chance.randint(*profile.faults)
        if profile.sparse and chance.random() < profile.sparse:
            count //= SPARSE
        kinds = chance.choices(list(weights), list(weights.values()), k=count)
        times = draw_times(chance, self._pace_ns, heal_ns - self._pace_ns, len(kinds))
        lost = 0
        faults = self._constant(heal_ns, commands)
        for kind, at_ns in zip(kinds, times, strict=True):
            if kind == "crash" and not durable:
                # Who forgets everything stays away, and a minority may be away.
                if lost >= ((nodes if self._division.shards == 1 else replicas) - 1) // 2:
                    kind = "cut"  # noqa: PLW2901 - drawn again
                else:
                    lost += 1
                    faults.append(Fault("crash", at_ns, node=chance.randrange(nodes)))
                    continue
            faults.append(self._fault(kind, at_ns, nodes, commands))
        return faults

    def _constant(self, heal_ns: int, commands: Sequence[str]) -> list[Fault]:
        """What happens all the time until all is healed."""
        chance = self._chance
        faults = []
        loss, duplicates = chance.choice(self._profile.losses)
        # Only where all changes go through one order is a request known again at another node.
        known_again = self._plugin.implementation.ordered
        known_again &= self._layer is None and self._pattern is None
        repeats = chance.choice((0.0, 0.05, 0.3)) if known_again else 0.0
        if loss or repeats:
            storm = Fault("storm", 0, heal_ns, loss=loss, duplicates=duplicates, repeats=repeats)
            faults.append(storm)
        if self._late:
            faults.append(Fault("storm", 0, heal_ns, late=self._late, after_ns=self._late_ns))
        if self._ambush:
            after_ns = self._part_of_pace((2, 4, 8))
            loss, until_ns = chance.choice(self._profile.unheard), heal_ns * 3 // 4
            known = [command for command in self._profile.told if command in commands]
            told = chance.choice(known) if known else ""
            faults.append(Fault("ambush", 0, until_ns, loss=loss, after_ns=after_ns, command=told))
        return faults

    def _lateness(self) -> tuple[float, int]:
        """What share of the messages takes how much longer until all is healed."""
        chance, profile = self._chance, self._profile
        if chance.random() >= profile.late:
            return 0.0, 0
        share, part = chance.choice(profile.lateness)
        return share, self._part_of_pace((part,))

    def _part_of_pace(self, parts: Sequence[int]) -> int:
        return self._pace_ns // self._chance.choice(parts) // STEP_NS * STEP_NS

    def _fault(self, kind: str, at_ns: int, nodes: int, commands: Sequence[str]) -> Fault:
        chance, pace_ns = self._chance, self._pace_ns
        lasts_ns = round(chance.expovariate(1 / (self._profile.lasts * pace_ns)))
        until_ns = at_ns + lasts_ns // STEP_NS * STEP_NS + STEP_NS
        aimed = chance.random() < self._profile.hunt
        node: Any = LEADER if aimed else chance.randrange(nodes)
        match kind:
            case "crash":
                survivors = chance.choice((0, 0, 1, 3))
                # The authority, where there is one, is node ``nodes``.
                if self._watched and chance.random() < AUTHORITY_SHARE:
                    node = nodes
                return Fault("crash", at_ns, until_ns, node, survivors=survivors)
            case "pause":
                return Fault("pause", at_ns, until_ns, node)
            case "cut":
                others = tuple(sorted(_some(chance, range(nodes + 1))))
                direction: Any = chance.choice(("both", "both", "out", "in"))
                return Fault("cut", at_ns, until_ns, node, others, direction)
            case "storm":
                # At least as long as usual, however quickly nodes come back.
                until_ns = max(until_ns, at_ns + round(chance.random() * pace_ns))
                if chance.random() < 0.5:
                    loss, duplicates = chance.choice(((0.3, 0.0), (0.1, 0.3), (0.0, 0.5)))
                    return Fault("storm", at_ns, until_ns, loss=loss, duplicates=duplicates)
                after_ns = self._part_of_pace((1, 2, 4))
                return Fault("storm", at_ns, until_ns, late=1.0, after_ns=after_ns)
            case _:
                about = chance.randrange(nodes)
                return Fault("command", at_ns, node=about, command=chance.choice(commands))


def draw_times(chance: random.Random, low_ns: int, high_ns: int, count: int) -> list[int]:
    """Times in order, in steps that are readable in a scenario file."""
    drawn = sorted(chance.randrange(low_ns, high_ns) for _ in range(count))
    return [at_ns // STEP_NS * STEP_NS for at_ns in drawn]


def _some(chance: random.Random, among: Sequence[int]) -> list[int]:
    return chance.sample(list(among), chance.randint(1, len(among)))
