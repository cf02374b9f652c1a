"""How long a strike lasts."""

from __future__ import annotations

import random
from dataclasses import dataclass

from orchestrator.core.distributions import build
from orchestrator.core.parameters import duration, slot
from orchestrator.core.registry import Family, Slot


def drawn_ns(law: Slot, chance: random.Random) -> int:
    """One draw of a law, by a stream of the fault's own."""
    # Laws draw from numpy's streams; one of its own per strike costs nothing that counts.
    import numpy

    found = build(law).block(numpy.random.default_rng(chance.getrandbits(64)), 1)
    return round(float(found[0]))


@dataclass(frozen=True)
class Lasting:
    """Parameters of what holds for a while."""

    lasts: Slot = slot(Family.DISTRIBUTION, {"name": "constant", "value": "2s"})
    at_least: int = duration("0s", help="the shortest that a random length may be")

    @property
    def longest_ns(self) -> float:
        """How long a strike may last at most."""
        return max(self.at_least, build(self.lasts).bounds_ns[1])

    def length_ns(self, chance: random.Random) -> int:
        """How long this strike lasts."""
        return max(self.at_least, drawn_ns(self.lasts, chance))
