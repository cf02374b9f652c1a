"""A cache as its slot describes it: the policy, and before it the admission where there is one.

An admission is asked about what is missing. What it refuses is a miss like another, and neither
the policy nor its ghosts hear of it.
"""

from __future__ import annotations

import random

from orchestrator.core.load import Admission, CachePolicy
from orchestrator.core.registry import Slot


class GuardedCache(CachePolicy):
    """A policy into which only admitted entries are put."""

    __slots__ = ("_admission", "_policy")

    def __init__(self, policy: CachePolicy, admission: Admission) -> None:
        self._policy = policy
        self._admission = admission

    @property
    def evictions(self) -> int:  # type: ignore[override]
        """Those of the policy."""
        return self._policy.evictions

    @property
    def departed(self) -> list[bytes] | None:
        """The policy's list; what was never put in cannot leave."""
        return self._policy.departed

    @departed.setter
    def departed(self, keys: list[bytes] | None) -> None:
        self._policy.departed = keys

    def access(self, key: bytes, size: int, now_ns: int) -> bool:
        """Whether it was there; a missing one is put in if it is admitted."""
        policy = self._policy
        policy.advance(now_ns)
        if key in policy:
            self._admission.hit(key)
            return policy.access(key, size, now_ns)
        if self._admission.admits(key, size):
            policy.access(key, size, now_ns)
        return False

    def forget(self, key: bytes) -> None:
        """Drop an entry if it is there."""
        self._policy.forget(key)

    def __contains__(self, key: object) -> bool:
        return key in self._policy

    def advance(self, now_ns: int) -> None:
        """It is now so late: what has expired leaves."""
        self._policy.advance(now_ns)


def build_cache(slot: Slot, chance: random.Random) -> CachePolicy:
    """An empty cache; ``chance`` is the admission's alone."""
    policy: CachePolicy = slot.implementation(slot.params)
    chosen: Slot | None = slot.params.admission
    if chosen is None:
        return policy
    return GuardedCache(policy, chosen.implementation(chosen.params, chance))
