"""A cache tier in front of the store, as a configuration describes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from orchestrator.core.faults import Hazards
from orchestrator.core.levels import LINEARIZABLE, NONE
from orchestrator.core.machine import READ, WRITE
from orchestrator.core.parameters import ParameterError, duration, number, slot
from orchestrator.core.registry import Family, Slot
from orchestrator.core.tier import Pattern
from orchestrator.systems._cpu import Cpu, law

TIER_KINDS: Final = frozenset({READ, WRITE})
"""Kinds of operation that go through a tier."""


@dataclass(frozen=True)
class TierCpu(Cpu):
    """A look-up in memory and a write of it cost less than the store's work."""

    read: Slot = law("20us")
    write: Slot = law("20us")


@dataclass(frozen=True)
class Tier:
    """Nodes that cache, each a part of the keys; all that is about one key goes through one."""

    pattern: Slot = slot(Family.PATTERN, {"name": "cache_aside"})
    nodes: int = number(1, low=1, high=100)
    cache: Slot = slot(Family.CACHE, {"name": "lru"}, help="of each of its nodes")
    ttl: int | None = duration(
        None, low="1us", help="after which what is cached is fetched anew; null: never"
    )
    early_refresh: float = number(
        0.0, low=0.0, high=100.0, help="before that, by a reader; 1 is right, more is sooner"
    )
    cores: int = number(1, low=1)
    cpu: TierCpu = field(default_factory=TierCpu)

    def __post_init__(self) -> None:
        if self.early_refresh and self.ttl is None:
            raise ParameterError("needs a ttl", key="early_refresh")
        if self._implementation.needs_ttl(self.pattern.params) and self.ttl is None:
            raise ParameterError(
                "invalidation by time needs one, else nothing is ever fetched anew", key="ttl"
            )

    @property
    def _implementation(self) -> type[Pattern]:
        made: type[Pattern] = self.pattern.implementation
        return made

    def claims(self, store: frozenset[str], hazards: Hazards) -> frozenset[str]:
        """What the whole keeps, over a store that claims so much."""
        kept = self._implementation.keeps(self.pattern.params, hazards)
        return frozenset({kept}) - {NONE} if LINEARIZABLE in store else frozenset()

    def why_not(self, store: frozenset[str], hazards: Hazards) -> str:
        """Why the whole keeps no more than that."""
        name, params = self.pattern.name, self.pattern.params
        if LINEARIZABLE not in store:
            return "what is cached of a store that is not linearizable may stay out of date"
        if self._implementation.keeps(params, Hazards()) != self._implementation.keeps(
            params, hazards
        ):
            return f"a tier node that crashes forgets what {name} had under way"
        return f"{name} keeps no more"
