"""What a client does about operations that are slow, lost or turned away: when it asks again, whom
it leaves alone, and how much it asks at once.

Attempts of one operation carry its identity, and where all changes go through one order a write
that is sent again is applied once. Elsewhere another node would take it for a new one, which
could undo a later write: there a write is sent again only when it is certain that it did not
happen. Asking again is not free either: where clients ask again because a system is slow, they
make it slower, and an overload can outlive what caused it (Bronson, Aghayev, Charapko and Zhu,
"Metastable Failures in Distributed Systems", HotOS 2021). A budget bounds that: over any long
time retries are no more than ``share`` of the operations, whatever happens.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from orchestrator.core.parameters import ParameterError, choice, duration, number
from orchestrator.core.units import NS_PER_S

NONE: Final = "none"
FULL: Final = "full"
EQUAL: Final = "equal"
DECORRELATED: Final = "decorrelated"


@dataclass(frozen=True)
class Backoff:
    """Pauses before retries (Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog,
    2015). The n-th grows to base * factor^(n-1), at most ``max``; jitter draws up to it (full),
    between half of it and it (equal), or between the base and three times the last pause.
    """

    base: int = duration("10ms", low="1us")
    factor: float = number(2.0, low=1.0, high=100.0)
    max: int = duration("1s", low="1us")
    jitter: str = choice(FULL, options=(NONE, FULL, EQUAL, DECORRELATED))

    def __post_init__(self) -> None:
        if self.max < self.base:
            raise ParameterError("must not be below base", key="max")


@dataclass(frozen=True)
class Budget:
    """Retries are at most ``share`` of the operations, and ``reserve`` a second beside them."""

    share: float | None = number(None, low=0.0, high=100.0, help="null: no budget")
    reserve: float = number(1.0, low=0.0, help="a second, so that few operations can retry, too")


@dataclass(frozen=True)
class Retry:
    """``attempts`` of an operation in all, the first included."""

    attempts: int = number(1, low=1, high=100, help="of an operation, the first included")
    backoff: Backoff = field(default_factory=Backoff)
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True)
class Hedge:
    """Another node is asked for a read, too, where an answer takes longer than most do (Dean and
    Barroso, "The Tail at Scale", CACM 56(2), 2013); the first answer counts.
    """

    after: int | None = duration(None, low="1us", help="null: by the percentile, if there is one")
    percentile: float | None = number(
        None, low=1.0, high=99.99, help="of this client's recent latencies"
    )
    attempts: int = number(1, low=1, high=10, help="beside the first")

    def __post_init__(self) -> None:
        if self.after is not None and self.percentile is not None:
            raise ParameterError("give after or percentile, not both", key="percentile")

    @property
    def wanted(self) -> bool:
        """Whether there is any hedging."""
        return self.after is not None or self.percentile is not None


@dataclass(frozen=True)
class TieParams:
    """A read waits at two nodes, each of which knows of the other: who begins it tells the other to
    drop its copy (Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013, "Tied requests").

    The second copy leaves ``after`` the first, unless that is answered by then. They say twice the
    network's delay, so that a first that begins at once can call the second off before it begins.
    """

    after: int | None = duration(
        None, help="null: no ties; twice the network's delay is a good one"
    )

    @property
    def wanted(self) -> bool:
        """Whether there are any ties."""
        return self.after is not None


@dataclass(frozen=True)
class ClientBatch:
    """Operations of a client for one node that leave as one request: ``max`` of them, or as many as
    have come within ``linger`` of the first.
    """

    max: int = number(1, low=1, high=100_000, help="operations in a request; 1: each by itself")
    linger: int = duration("0s", help="how long the first may wait for others")

    def __post_init__(self) -> None:
        if self.linger and self.max == 1:
            raise ParameterError("needs max above 1: nobody is waited for", key="linger")


class RecentLatency:
    """A percentile of the last latencies, looked up anew now and then."""

    __slots__ = ("_at", "_next", "_ring", "_share", "value_ns")

    MEMORY: Final = 512
    EVERY: Final = 64

    def __init__(self, percentile: float) -> None:
        self._share = percentile / 100
        self._ring: list[int] = []
        self._next = self._at = 0
        self.value_ns: int | None = None
        """None while too few are known."""

    def add(self, latency_ns: int) -> None:
        """One more."""
        if len(self._ring) < self.MEMORY:
            self._ring.append(latency_ns)
        else:
            self._ring[self._at] = latency_ns
        self._at = (self._at + 1) % self.MEMORY
        self._next += 1
        if self._next == self.EVERY:
            self._next = 0
            ordered = sorted(self._ring)
            self.value_ns = ordered[min(len(ordered) - 1, int(self._share * len(ordered)))]


class BackoffTimer:
    """Draws pauses."""

    __slots__ = ("_backoff", "_draw")

    def __init__(self, backoff: Backoff, chance: random.Random) -> None:
        self._backoff = backoff
        self._draw = chance.random

    def pause_ns(self, retry: int, last_ns: int) -> int:
        """Before the ``retry``-th retry, from 1; ``last_ns``: the pause before the last, else 0."""
        backoff = self._backoff
        if backoff.jitter == DECORRELATED:
            high_ns = min(backoff.max, 3 * max(last_ns, backoff.base))
            return backoff.base + int(self._draw() * (high_ns - backoff.base))
        # Beyond that many doublings it is the longest anyway, and a float would overflow.
        grown = backoff.base * backoff.factor ** min(retry - 1, 64)
        whole_ns = int(min(backoff.max, grown))
        if backoff.jitter == FULL:
            return int(self._draw() * whole_ns)
        if backoff.jitter == EQUAL:
            return whole_ns // 2 + int(self._draw() * (whole_ns - whole_ns // 2))
        return whole_ns


class RetryBudget:
    """The tokens that retries are paid with; a second's worth of operations may be saved up."""

    __slots__ = ("_last_ns", "_reserve_per_ns", "_share", "_tokens")

    MEMORY_S: Final = 10
    """What was not used for so long is forgotten, so that a calm hour pays for no storm."""

    def __init__(self, budget: Budget) -> None:
        assert budget.share is not None
        self._share = budget.share
        self._reserve_per_ns = budget.reserve / NS_PER_S
        self._tokens = budget.reserve
        self._last_ns = 0

    def operation(self, now_ns: int) -> None:
        """An operation begins, and pays in."""
        self._fade(now_ns)
        self._tokens += self._share

    def spend(self, now_ns: int) -> bool:
        """Whether a retry can be paid for; then it is."""
        self._fade(now_ns)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _fade(self, now_ns: int) -> None:
        """The reserve flows in, and what is saved leaks out over MEMORY_S."""
        passed_ns = now_ns - self._last_ns
        if passed_ns <= 0:
            return
        self._last_ns = now_ns
        kept = max(0.0, 1 - passed_ns / (self.MEMORY_S * NS_PER_S))
        self._tokens = self._tokens * kept + self._reserve_per_ns * passed_ns


@dataclass(frozen=True)
class BreakerParams:
    """Opens for a node after so many failures in a row; null: never."""

    failures: int | None = number(None, low=1, help="in a row; null: no circuit breaker")
    open: int = duration("1s", low="1us", help="then one operation tries the node again")


class Breaker:
    """One client's circuit breakers, one a node (Nygard, "Release It!", 2007).

    Closed: operations pass. Open: none does, until a time has passed. Half open: one passes; if
    it succeeds the breaker closes, else it is open for as long again.
    """

    __slots__ = ("_failed", "_limit", "_open_ns", "_until_ns", "opened")

    def __init__(self, params: BreakerParams, nodes: int) -> None:
        assert params.failures is not None
        self._limit = params.failures
        self._open_ns = params.open
        self._failed = [0] * nodes
        # 0: closed, else when the next may try.
        self._until_ns = [0] * nodes
        self.opened = 0

    def allows(self, node: int, now_ns: int) -> bool:
        """Whether the node may be asked."""
        return self._until_ns[node] <= now_ns

    def asked(self, node: int, now_ns: int) -> None:
        """An operation goes there; where the breaker is half open it is the one that tries."""
        if self._until_ns[node]:
            self._until_ns[node] = now_ns + self._open_ns

    def succeeded(self, node: int) -> None:
        """It answered."""
        self._failed[node] = self._until_ns[node] = 0

    def failed(self, node: int, now_ns: int) -> None:
        """It turned an operation away, or did not answer in time."""
        self._failed[node] += 1
        if self._failed[node] >= self._limit:
            self.opened += not self._until_ns[node]
            self._until_ns[node] = now_ns + self._open_ns


class Limit(Protocol):
    """How many operations a client has under way at most; the contract of the family ``limit``."""

    def __init__(self, params: Any) -> None: ...

    @property
    @abstractmethod
    def most(self) -> int:
        """At least 1."""

    @abstractmethod
    def answered(self, latency_ns: int, under_way: int, now_ns: int) -> None:
        """An attempt was answered after ``latency_ns``, with so many under way, itself included."""

    @abstractmethod
    def dropped(self, under_way: int, now_ns: int) -> None:
        """An attempt was turned away, or not answered in time."""
