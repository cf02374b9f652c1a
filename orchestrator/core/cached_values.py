"""Values in a cache: a policy says which entries stay, time says how long they are fresh.

**Early refresh.** Where many readers share an entry that expires, all of them miss at once. So a
reader may take an entry for expired before it is, the more likely the nearer the end is and the
longer the last fetch took, such that one does so early as a rule (Vattani, Chierichetti and
Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", PVLDB 8(8), 2015: ``now - fetch time
* beta * ln(random) >= expiry``).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import Final

from orchestrator.core.load import CachePolicy

NEVER_NS: Final = 2**63


class CachedValue:
    """What is known of a key, and for how long; ``fetch_ns``: what it took to get it."""

    __slots__ = ("fetch_ns", "until_ns", "value", "version")

    def __init__(self, value: bytes, version: int, until_ns: int, fetch_ns: int) -> None:
        self.value = value
        self.version = version
        self.until_ns = until_ns
        self.fetch_ns = fetch_ns


class CachedValues:
    """Key -> value, where the policy keeps the key and its time is not over.

    ``ttl_ns``: None where entries stay fresh. ``early``: beta above; 0 for none. ``left``: keys
    that have left for want of room since it was last cleared, where the owner sets it to a list.
    """

    def __init__(
        self, policy: CachePolicy, chance: random.Random, *, ttl_ns: int | None, early: float
    ) -> None:
        self.policy = policy
        self._departed: list[bytes] = []
        policy.departed = self._departed
        self._chance = chance
        self._ttl_ns = ttl_ns
        self._early = early
        self._values: dict[bytes, CachedValue] = {}
        self.left: list[bytes] | None = None
        self.hits = self.misses = 0

    def fill(self, keys: Iterable[bytes], value_of: Callable[[bytes], bytes | None]) -> None:
        """The policy has been warmed with these keys; from now on they have these values.

        They are as old as if they had come one after the other, so they do not expire together.
        """
        self._departed.clear()
        for key in keys:
            value = value_of(key) if key in self.policy else None
            if value is not None:
                until_ns = NEVER_NS
                if self._ttl_ns is not None:
                    until_ns = round(self._chance.random() * self._ttl_ns)
                self._values[key] = CachedValue(value, 0, until_ns, 0)
            else:
                self.policy.forget(key)

    @property
    def evictions(self) -> int:
        """Entries that left for want of room."""
        return self.policy.evictions

    def look(self, key: bytes, size: int, now_ns: int) -> CachedValue | None:
        """The value where it is there and fresh; ``size`` of the entry in bytes."""
        self.policy.advance(now_ns)
        self._let_go()
        held = self._values.get(key)
        if held is not None and held.until_ns <= now_ns:
            self.drop(key)
            held = None
        if held is None:
            self.misses += 1
            return None
        self.hits += 1
        self.policy.access(key, size, now_ns)
        self._let_go()
        return held

    def serve(self, key: bytes, size: int, now_ns: int) -> None:
        """A reader had the value from its owner: a hit."""
        self.hits += 1
        if key in self.policy:
            self.policy.access(key, size, now_ns)
            self._let_go()

    def wants_refresh(self, held: CachedValue, now_ns: int) -> bool:
        """Whether this reader is to fetch anew what is fresh still."""
        if not self._early or held.until_ns == NEVER_NS:
            return False
        ahead_ns = -held.fetch_ns * self._early * math.log(1 - self._chance.random())
        return now_ns + ahead_ns >= held.until_ns

    def keep(
        self, key: bytes, value: bytes, version: int, size: int, fetch_ns: int, now_ns: int
    ) -> None:
        """From now on this is the key's value, if the policy takes it in."""
        self.policy.advance(now_ns)
        self.policy.access(key, size, now_ns)
        # Before the new value is stored: what had expired may have come back in this access.
        self._let_go()
        if key in self.policy:
            until_ns = NEVER_NS if self._ttl_ns is None else now_ns + self._ttl_ns
            self._values[key] = CachedValue(value, version, until_ns, fetch_ns)

    def drop(self, key: bytes) -> None:
        """Forget the key."""
        self.policy.forget(key)
        self._values.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        for key in list(self._values):
            self.drop(key)

    def __contains__(self, key: bytes) -> bool:
        return key in self._values

    def _let_go(self) -> None:
        """Values of keys that the policy has let go."""
        if self._departed:
            for key in self._departed:
                if self._values.pop(key, None) is not None and self.left is not None:
                    self.left.append(key)
            self._departed.clear()

    def check(self) -> None:
        """Assert that what has a value is in the policy."""
        for key in self._values:
            assert key in self.policy, f"{key!r} has a value and no room"
