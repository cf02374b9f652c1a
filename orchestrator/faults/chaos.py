"""A mix of faults: each strike is one of them, drawn by weight, on the victims of this one.

With ``every`` a law (exponential, say) and ``target: any`` this is the random nemesis of fault
injection, and unlike a hand-made one it comes again with the seed.
"""

from __future__ import annotations

import functools
import operator
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.core.faults import Blow, ClusterState, Fault, Hazards
from orchestrator.core.parameters import ParameterError, number, slots
from orchestrator.core.registry import Family, Slot, register


@dataclass(frozen=True)
class Weight:
    """What each fault of the mix has beside its own parameters."""

    weight: float = number(1.0, low=0.0)


@dataclass(frozen=True)
class ChaosParams:
    mix: tuple[tuple[Weight, Slot], ...] = slots(
        Family.FAULT, extra=Weight, help="faults of nodes and links with their weights"
    )

    def __post_init__(self) -> None:
        if not any(each.weight for each, _ in self.mix):
            raise ParameterError("a mix needs a fault with a weight above 0", key="mix")
        for index, (_, slot) in enumerate(self.mix):
            if slot.name == "chaos" or slot.implementation.strikes_clients:
                raise ParameterError(f"{slot.name} cannot be mixed in", key=f"mix[{index}].name")


@register(Family.FAULT, "chaos", params=ChaosParams)
class Chaos(Fault):
    """Strikes with one of several faults, drawn anew each time."""

    def __init__(self, params: ChaosParams) -> None:
        self._weights = [each.weight for each, _ in params.mix]
        self._faults: list[Fault] = [slot.implementation(slot.params) for _, slot in params.mix]
        self._names = [slot.name for _, slot in params.mix]

    def blow(self, victims: Sequence[int], cluster: ClusterState, chance: random.Random) -> Blow:
        drawn = chance.choices(range(len(self._faults)), self._weights)[0]
        blow = self._faults[drawn].blow(victims, cluster, chance)
        return replace(blow, drawn=self._names[drawn])

    @property
    def variants(self) -> Sequence[Fault]:
        return [fault for fault, weight in zip(self._faults, self._weights, strict=True) if weight]

    @property
    def hazards(self) -> Hazards:
        return functools.reduce(operator.or_, (fault.hazards for fault in self.variants))

    def why_not(self, durability: str) -> str:
        reasons = [fault.why_not(durability) for fault in self.variants]
        return next((reason for reason in reasons if reason), "")
