"""Faults: what breaks, whom it strikes, and what it makes of nodes, links and clients.

A fault is a pure plug-in. When it strikes it is handed its victims and says which *conditions*
hold from then on and for how long (a :class:`Blow`); :mod:`orchestrator.core.fault_plan` decides
when it strikes and whom, and turns conditions that come and go into the actions that a runtime
carries out. Conditions add up: a node is down while any of its conditions says so, delays sum,
losses are independent, the tightest bandwidth counts.

Parties are integers: node ``n``, the authority (where the protocol has one) behind the last
node, behind that the nodes of a cache tier, and client ``c`` as :func:`client_party`. A link is a
pair (sender, receiver).
"""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Protocol

from orchestrator.core.parameters import ParameterError, duration, slot, text
from orchestrator.core.registry import Family, Slot
from orchestrator.core.units import NS_PER_MS

LEADER: Final = "leader"
FOLLOWER: Final = "follower"
ANY: Final = "any"
ALL: Final = "all"
AUTHORITY: Final = "authority"
CACHE: Final = "cache"
ZONE: Final = "zone"
COUNT: Final = "count"
NODE: Final = "node"
_WORDS: Final = (LEADER, FOLLOWER, ANY, ALL, AUTHORITY, CACHE)
CPU: Final = "cpu"
STORAGE: Final = "storage"
"""Parts of a node that a fault may slow down."""
TARGETS: Final = f"{', '.join(_WORDS)}, a node's number, {ZONE}:NAME or {COUNT}:N"
"""What a target may be, in words."""

RESPAWN_NS: Final = 200 * NS_PER_MS
"""A node whose process ended by itself is started again after that long."""
_LEADING: Final = ("leader", "primary", "head")


def leads(role: str) -> bool:
    """Whether a node of this role leads, be it one of its shards."""
    return any(word in _LEADING for word in role.split("/"))


def client_party(client: int) -> int:
    """The party that a client is."""
    return -1 - client


# --- whom and when ----------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """Whom a fault strikes: a word, or ``zone`` or ``count`` or a node with what it names."""

    word: str
    zone: str = ""
    number: int = -1


def parse_target(written: str) -> Target:
    """Raises ValueError for what is no target."""
    word, colon, rest = written.partition(":")
    if not colon and word in _WORDS:
        return Target(word)
    if not colon and word.isdecimal():
        return Target(NODE, number=int(word))
    if word == ZONE and rest:
        return Target(ZONE, zone=rest)
    if word == COUNT and rest.isdecimal() and int(rest):
        return Target(COUNT, number=int(rest))
    raise ValueError(f"{written!r} is no target; use {TARGETS}")


@dataclass(frozen=True)
class Aim:
    """Whom a fault strikes, and when; what every fault has beside its own parameters."""

    target: str = text(ANY, help=TARGETS)
    at: int | None = duration(None, help="first strike, from the start of the load")
    every: Slot | None = slot(
        Family.DISTRIBUTION, None, help="from strike to strike; a law makes it random"
    )
    until: int | None = duration(None, help="last strike; null: the end of the load")

    def __post_init__(self) -> None:
        try:
            parse_target(self.target)
        except ValueError as error:
            raise ParameterError(str(error), key="target") from None
        if self.at is None and self.every is None:
            raise ParameterError("when? it needs at, or every, or both", key="at")


# --- conditions -------------------------------------------------------------------------


@dataclass(frozen=True)
class Down:
    """The node's process is gone. ``power``: its machine stopped, and what was not synced is
    lost but for a torn piece. ``gone``: the machine and its disk are lost for good.
    """

    node: int
    power: bool = False
    gone: bool = False


@dataclass(frozen=True)
class Paused:
    """The node does nothing, and goes on later as if nothing had been."""

    node: int


@dataclass(frozen=True)
class NodeState:
    """What burdens a node.

    ``slowness``: its CPU takes so many times as long. ``offset_ns`` and ``drift``: its clock
    shows that much more, and runs faster by that share. ``storage_slowness`` and
    ``storage_adds_ns``: as of every read, write and sync. ``full``: nothing can be written.
    ``failing``: share of the syncs that fail. A node that cannot write ends itself.
    """

    slowness: float = 1.0
    offset_ns: int = 0
    drift: float = 0.0
    storage_slowness: float = 1.0
    storage_adds_ns: int = 0
    full: bool = False
    failing: float = 0.0

    def __add__(self, other: NodeState) -> NodeState:
        return NodeState(
            self.slowness * other.slowness,
            self.offset_ns + other.offset_ns,
            self.drift + other.drift,
            self.storage_slowness * other.storage_slowness,
            self.storage_adds_ns + other.storage_adds_ns,
            self.full or other.full,
            1 - (1 - self.failing) * (1 - other.failing),
        )


WELL: Final = NodeState()


@dataclass(frozen=True)
class Burdened:
    """The node goes on with a handicap."""

    node: int
    state: NodeState


@dataclass(frozen=True)
class LinkState:
    """What a link makes of messages, besides its usual law.

    ``delays``: laws of time that is added. ``late``: pairs (share, law): that share of the
    messages takes so much longer and lets others pass. ``bandwidth``: bytes per second.
    """

    cut: bool = False
    delays: tuple[Slot, ...] = ()
    loss: float = 0.0
    duplicates: float = 0.0
    late: tuple[tuple[float, Slot], ...] = ()
    bandwidth: float | None = None

    def __add__(self, other: LinkState) -> LinkState:
        caps = [cap for cap in (self.bandwidth, other.bandwidth) if cap is not None]
        return LinkState(
            self.cut or other.cut,
            self.delays + other.delays,
            1 - (1 - self.loss) * (1 - other.loss),
            1 - (1 - self.duplicates) * (1 - other.duplicates),
            self.late + other.late,
            min(caps, default=None),
        )


CLEAR: Final = LinkState()


@dataclass(frozen=True)
class Disturbed:
    """What is sent on these links suffers."""

    links: tuple[tuple[int, int], ...]
    state: LinkState


@dataclass(frozen=True)
class ClientDown:
    """The client is gone: what it has under way is lost to it, and its sessions end."""

    client: int


Condition = Down | Paused | Burdened | Disturbed | ClientDown


@dataclass(frozen=True)
class Blow:
    """What one strike does. ``lasts_ns``: None until all is healed. ``drawn``: which fault of a mix
    it is; empty where there is no mix.
    """

    conditions: tuple[Condition, ...]
    lasts_ns: int | None
    drawn: str = ""


# --- faults -----------------------------------------------------------------------------


@dataclass(frozen=True)
class ClusterState:
    """What a fault may know of the cluster when it strikes.

    ``roles`` of the nodes that are up and answer; ``zones`` by party, empty in one place;
    ``tier``: the nodes of the cache tier.
    """

    nodes: tuple[int, ...]
    roles: Mapping[int, str]
    clients: int = 0
    authority: int | None = None
    zones: Mapping[int, str] = field(default_factory=dict)
    tier: tuple[int, ...] = ()

    @property
    def members(self) -> tuple[int, ...]:
        """All nodes, the authority where there is one, and the nodes of the cache tier."""
        authority = () if self.authority is None else (self.authority,)
        return (*self.nodes, *authority, *self.tier)

    @property
    def client_parties(self) -> tuple[int, ...]:
        return tuple(client_party(client) for client in range(self.clients))


@dataclass(frozen=True)
class Hazards:
    """What faults expose a system to: what its claims may depend on.

    ``crashes``: nodes crash; ``restarts``: they come back; ``power_losses``: without what was not
    synced. ``fastest`` (0 or more) and ``slowest`` (0 or less): by which share of true time a clock
    may run fast or slow, ``drifts_ns``: for how long after a strike, at most; ``steps``: clocks are
    set forward or back. ``cache_crashes``: nodes of the cache tier crash, which hold no copy.
    """

    crashes: bool = False
    restarts: bool = False
    power_losses: bool = False
    fastest: float = 0.0
    slowest: float = 0.0
    drifts_ns: float = 0.0
    steps: bool = False
    cache_crashes: bool = False

    @property
    def clock_error(self) -> float:
        """How much faster one clock may run than another, as a share; infinite where they are
        set or may stand still: no bound on durations holds then.
        """
        if self.steps or self.slowest <= -1:
            return math.inf
        # What is written with few digits is to be compared with what is.
        return round((1 + self.fastest) / (1 + self.slowest) - 1, 12)

    def __or__(self, other: Hazards) -> Hazards:
        """What a strike that is one or the other exposes it to."""
        return Hazards(
            self.crashes or other.crashes,
            self.restarts or other.restarts,
            self.power_losses or other.power_losses,
            max(self.fastest, other.fastest),
            min(self.slowest, other.slowest),
            max(self.drifts_ns, other.drifts_ns),
            self.steps or other.steps,
            self.cache_crashes or other.cache_crashes,
        )

    def of_cache(self) -> Hazards:
        """The same where it befalls nodes of the cache tier."""
        return replace(
            self, crashes=False, restarts=False, power_losses=False, cache_crashes=self.crashes
        )


class Fault(Protocol):
    """A kind of fault with its parameters. Faults inherit from it."""

    strikes_clients: ClassVar[bool] = False
    """Whether its victims are clients, by number, and not nodes."""

    emulated_only: ClassVar[bool] = True
    """Whether it needs nodes that are emulated: real programs can only be killed and paused."""

    slows: ClassVar[frozenset[str]] = frozenset()
    """What it slows down of a node: CPU, STORAGE."""

    def __init__(self, params: Any) -> None: ...

    @abstractmethod
    def blow(self, victims: Sequence[int], cluster: ClusterState, chance: random.Random) -> Blow:
        """What it does when it strikes these."""

    @property
    def hazards(self) -> Hazards:
        """What one strike exposes the system to."""
        return Hazards()

    @property
    def variants(self) -> Sequence[Fault]:
        """What a strike may be; more than one of a mix."""
        return (self,)

    def why_not(self, durability: str) -> str:
        """Why it cannot strike nodes of this durability; empty if it can."""
        return ""
