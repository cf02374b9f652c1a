"""What drives a system: operations (workloads), their start times (arrivals), their targets
(balancers), the caches that serve them and what enters those (admissions). The contracts of five
plug-in families.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

import numpy
from numpy.typing import NDArray

from orchestrator.core.machine import Preload
from orchestrator.core.models import REGISTER
from orchestrator.core.parameters import Capacity, capacity, slot
from orchestrator.core.registry import Family, Slot


class ChunkedStream:
    """Operations that are drawn in chunks of a fixed length, so that they do not depend on how
    their reader cuts them into blocks.

    ``timed``: which keys they are on depends on when they start; blocks must go through ``at``.
    """

    timed: bool = False

    def __init__(self) -> None:
        self._ahead: deque[OperationBlock] = deque()
        self._chunk = self._draw()
        self._position = 0

    @abstractmethod
    def _draw(self) -> OperationBlock:
        """The next chunk."""

    def draw_ahead(self) -> int:
        """Draw one chunk more than is needed yet; how many operations wait like that now."""
        self._ahead.append(self._draw())
        return sum(map(len, self._ahead))

    def block(self, count: int) -> OperationBlock:
        """The next ``count`` operations."""
        parts = []
        missing = count
        while missing > len(self._chunk) - self._position:
            parts.append(self._chunk.select(slice(self._position, None)))
            missing -= len(parts[-1])
            self._chunk = self._ahead.popleft() if self._ahead else self._draw()
            self._position = 0
        parts.append(self._chunk.select(slice(self._position, self._position + missing)))
        self._position += missing
        return OperationBlock.concatenate(parts)

    def at(self, block: OperationBlock, starts_ns: NDArray[numpy.int64]) -> OperationBlock:
        """The operations of a block as they are when started at these times."""
        return block


CYCLIC: Final = "cyclic"
DRAWN: Final = "drawn"


@dataclass(frozen=True)
class OperationBlock:
    """Columns of n operations of one client, in order.

    ``kind``: READ, WRITE, SCAN or another of core.machine. ``key`` indexes the workload's
    ``key_names``. ``size``: bytes of one entry (key and value), its weight in caches; a trace
    gives its own weights. ``count``: records of a scan, else 1. ``follow_up``: the kind of what
    its session does to the same key as soon as this read returns, two operations of the history:
    WRITE is YCSB's read-modify-write, CAS expects what was read (0: nothing follows).
    ``time_ns``: original times of a trace relative to its first request, else None. ``level``:
    codes of the levels that operations ask for (None: the configuration says). ``steps``: of
    each transaction its micro-operations as a tuple of (kind, key index), ``count`` of them
    (None where no operation is one).
    """

    kind: NDArray[numpy.uint8]
    key: NDArray[numpy.int64]
    size: NDArray[numpy.int32]
    count: NDArray[numpy.int32]
    follow_up: NDArray[numpy.uint8]
    time_ns: NDArray[numpy.int64] | None = None
    level: NDArray[numpy.uint8] | None = None
    steps: NDArray[numpy.object_] | None = None

    def __len__(self) -> int:
        return len(self.kind)

    def select(self, rows: Any) -> OperationBlock:
        """The rows of a slice (without a copy), a mask or an index array, in that order."""
        return OperationBlock(
            kind=self.kind[rows],
            key=self.key[rows],
            size=self.size[rows],
            count=self.count[rows],
            follow_up=self.follow_up[rows],
            time_ns=None if self.time_ns is None else self.time_ns[rows],
            level=None if self.level is None else self.level[rows],
            steps=None if self.steps is None else self.steps[rows],
        )

    @staticmethod
    def concatenate(parts: Sequence[OperationBlock]) -> OperationBlock:
        """One block of several (at least one) of the same stream."""
        if len(parts) == 1:
            return parts[0]
        times = [part.time_ns for part in parts if part.time_ns is not None]
        levels = [part.level for part in parts if part.level is not None]
        steps = [part.steps for part in parts if part.steps is not None]
        return OperationBlock(
            kind=numpy.concatenate([part.kind for part in parts]),
            key=numpy.concatenate([part.key for part in parts]),
            size=numpy.concatenate([part.size for part in parts]),
            count=numpy.concatenate([part.count for part in parts]),
            follow_up=numpy.concatenate([part.follow_up for part in parts]),
            time_ns=numpy.concatenate(times) if times else None,
            level=numpy.concatenate(levels) if levels else None,
            steps=numpy.concatenate(steps) if steps else None,
        )


class Workload(Protocol):
    """Which operations on which keys.

    ``total`` is the number of operations over all clients, None for an endless stream. ``model``
    is what its keys are (register, counter or set): what its operations and their answers mean;
    txn where it has transactions.
    ``payload_bytes`` is the number of value bytes that writes really carry, at least the 8 of
    a value's identity; None where each carries what its entry's ``size`` leaves beside the key. A
    stream gives the same operations however it is cut into blocks.
    """

    total: int | None
    payload_bytes: int | None
    model: str = REGISTER

    def __init__(self, params: Any) -> None:
        """Raises DataError where a file is missing (path) or malformed (path:line)."""

    @property
    @abstractmethod
    def key_names(self) -> Sequence[bytes]:
        """Key index -> key, indexable for every index that a block can hold."""

    @abstractmethod
    def preload(self) -> Preload:
        """What is there before the first operation."""

    @abstractmethod
    def stream(self, seed: int, client: int, clients: int) -> OperationStream:
        """The operations of one of ``clients`` clients."""


class OperationStream(Protocol):
    """One client's operations, in blocks."""

    def block(self, count: int) -> OperationBlock:
        """The next operations: ``count`` of them, fewer only at the end of a finite stream."""


EXPONENTIAL: Final = "exponential"
EVEN: Final = "even"


class Arrival(Protocol):
    """When operations start.

    An open arrival has intended start times; a closed one has ``sessions`` that each start
    their next operation ``think_time`` after the last answer. ``closed`` belongs to the
    instance, since parameters may decide it. One may also have ``gaps``: how starts lie in the time
    in which their rate is 1: EXPONENTIAL (a Poisson process), EVEN, or None as without it, where
    nothing can be said.
    """

    closed: bool

    def __init__(self, params: Any) -> None: ...

    @property
    @abstractmethod
    def rate_per_s(self) -> float | None:
        """Offered operations per second of all clients, their mean where it changes.

        None for closed arrivals and replays.
        """

    @abstractmethod
    def timetable(self, seed: int, client: int, clients: int) -> Timetable:
        """The start times of one of ``clients`` clients.

        Raises ParameterError where the parameters cannot serve that many clients.
        """


class VaryingArrival(Arrival):
    """An open arrival whose rate changes in the course of the load.

    ``rate_per_s`` is the mean over its pattern, as its module says. ``ends``: after some time
    nothing starts any more.
    """

    ends: bool = False
    gaps: str | None = EXPONENTIAL

    @abstractmethod
    def expected(self, seed: int, clients: int, start_ns: int, end_ns: int) -> float:
        """Operations that all clients together are expected to start within [start, end).

        Of a rate that chance decides, the expectation under the rate that this seed gives.
        """


class Timetable(Protocol):
    """Start times of one client."""

    sessions: int
    """Closed: this client's sessions. Open: 0."""

    def starts_ns(self, operations: OperationBlock) -> NDArray[numpy.int64]:
        """Open: intended starts of the next operations, relative to the start of the load.

        They never fall. Closed: all 0, since a session starts as soon as it may.
        """

    def think_ns(self) -> int:
        """Closed: the pause before a session's next operation. Open: 0."""


class JoiningTimetable(Timetable):
    """Of sessions that come by themselves, stay for some operations, and leave.

    It is asked for no starts beforehand: ``think_ns`` may say LEAVES.
    """

    @abstractmethod
    def joins_ns(self) -> int:
        """When the next session comes and starts its first operation; never before the last."""


LEAVES: Final = -1
"""Instead of a pause: the session starts nothing more."""


# What a balancer is told of an operation: that it was sent to a node, and how that ended.
SENT: Final = 0
RETURNED: Final = 1
"""Answered."""
LOST: Final = 2
"""No answer came: a time-out, or a broken connection."""
REFUSED: Final = 3
"""The node answered that it was not carried out."""
REDIRECTED: Final = 4
"""The node answered that others serve it."""
ABANDONED: Final = 5
"""The client itself broke down, which says nothing of the node."""
OVERTAKEN: Final = 6
"""Another node answered first; this one would have taken longer than that."""


Word = tuple[int, int]
"""What a node says of itself: its operations in flight, and what they took it of late at about
that many, in ns (0: none did).
"""


@dataclass(frozen=True)
class BalancerContext:
    """From where one client's balancer sees the nodes.

    ``distances_ns``: one way to each node besides what the network model adds; empty where all
    are alike. ``client`` is its number among ``clients``.
    """

    nodes: int
    chance: random.Random
    distances_ns: Sequence[int] = ()
    client: int = 0
    clients: int = 1


class Balancer(Protocol):
    """Picks the node that serves an operation, seen from one client.

    ``split``: where its picks do not depend on what it hears or on keys, whether they are each
    candidate in its turn (CYCLIC) or drawn alike (DRAWN); None: they do.
    Every operation SENT ends exactly once, in one of the other ways. ``reports``: whether it
    wants the servers' word with every answer; ``probing``: whether it asks for it by itself.
    Where neither is so, nothing is spent on it.
    """

    __slots__ = ()
    reports: bool = False
    probing: bool = False
    split: ClassVar[str | None] = None

    def __init__(self, params: Any, context: BalancerContext) -> None:
        """Raises ParameterError where the parameters do not fit the nodes."""

    @abstractmethod
    def pick(self, key: bytes, candidates: Sequence[int], now_ns: int) -> int:
        """One of ``candidates`` (never empty)."""

    def observe(self, node: int, what: int, latency_ns: int, now_ns: int) -> None:
        """An operation was SENT to the node, or ended there ``latency_ns`` after it was sent."""

    def hear(self, node: int, in_flight: int, latency_ns: int, now_ns: int) -> None:
        """The node's own word. Of the answer that brought it the end was observed before."""

    def probes(self, candidates: Sequence[int], now_ns: int) -> Sequence[int]:
        """The nodes to ask for their word now, after a pick among these."""
        return ()


@dataclass(frozen=True)
class CacheParams:
    """Every cache has these; a policy with parameters of its own extends them."""

    size: Capacity = capacity(10_000, help="entries, or bytes with a unit")
    warm: bool = True
    admission: Slot | None = slot(Family.ADMISSION, None, help="what is put in; null: all")


class CachePolicy(Protocol):
    """Which entries stay; one instance a node.

    ``evictions`` counts the entries that left for want of room. An owner that keeps the values
    of entries sets ``departed`` to a list, to which every key is added that leaves for want of
    room or has expired, never one that is forgotten. The owner drops the values of those keys
    before it stores the value of a missing one: what expired may come back in the same access.
    """

    evictions: int
    departed: list[bytes] | None

    def __init__(self, params: Any) -> None: ...

    @abstractmethod
    def access(self, key: bytes, size: int, now_ns: int) -> bool:
        """Whether it was there; a missing one is put in, evicting what the policy chooses.

        ``size`` in bytes, 0 or more. An entry larger than the whole cache is not put in.
        """

    @abstractmethod
    def forget(self, key: bytes) -> None:
        """Drop an entry if it is there."""

    @abstractmethod
    def __contains__(self, key: object) -> bool:
        """Whether it is there at the latest time that the policy was told; changes nothing."""

    @abstractmethod
    def advance(self, now_ns: int) -> None:
        """It is now so late: what has expired leaves."""


class Admission(Protocol):
    """Which missing entries are put in; one instance a cache, told of every access."""

    def __init__(self, params: Any, chance: random.Random) -> None: ...

    @abstractmethod
    def hit(self, key: bytes) -> None:
        """An entry was there."""

    @abstractmethod
    def admits(self, key: bytes, size: int) -> bool:
        """An entry of ``size`` bytes was missing: whether it is put in."""
