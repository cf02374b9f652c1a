"""A cache tier: nodes of their own between clients and the store, each with a part of the keys.

Clients and tier nodes find the node of a key by rendezvous hashing, so that all that goes through
the tier about one key goes through one node. What a tier node does with it is its pattern's (a
family of plug-ins): a pure machine, as a protocol's is. It asks the store as clients do, by
:class:`Ask`, and hears :class:`Answer`; a node of the store takes such an operation as it takes a
client's, with the same costs and in the same queue.

Where the clients of a pattern talk to the store themselves, a tier node knows three requests: a
read is a look-up, a write with a value fills, and one without a value invalidates.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec

from orchestrator.core.cached_values import CachedValues
from orchestrator.core.faults import Hazards
from orchestrator.core.machine import (
    REQUEST,
    RESPONSE,
    UNMATCHED,
    ClaimContext,
    ClusterView,
    Entry,
    Machine,
    Op,
)

CACHE_ROLE: Final = "cache"
"""Role of every node of a tier."""

MISSED: Final = -1
"""Version of a look-up's answer: nothing is there, fetch it and fill."""
WAIT: Final = -2
"""Version of a look-up's answer: somebody is fetching it, look again soon."""

BY_WRITE: Final = "write"
BY_LEASE: Final = "lease"
BY_TIME: Final = "time"


class Ask(msgspec.Struct, array_like=True, tag=101, gc=False):
    """A tier node has the store carry an operation out."""

    link: ClassVar[str] = REQUEST
    number: int
    op: Op


class Answer(msgspec.Struct, array_like=True, tag=102, gc=False):
    """What came of it. ``node``: who serves it instead (-1: nobody known), with REDIRECTED."""

    link: ClassVar[str] = RESPONSE
    number: int
    outcome: int
    value: bytes | None = None
    version: int = 0
    context: bytes = b""
    node: int = -1


Messages: Final = Ask | Answer

# Outcomes of an Answer besides those of core.machine.
REDIRECTED: Final = UNMATCHED + 1
REFUSED: Final = REDIRECTED + 1


@dataclass(frozen=True)
class TierContext:
    """What a tier node is born with.

    ``candidates``: the nodes of the store that may serve an operation; ``group_of`` its group
    there, and ``first_view`` what is known of one in the beginning. ``known_again``: whether the
    store knows a write again that is sent twice. ``client``: a number that no client has, for
    sessions of its own.
    """

    node: int
    first_view: Callable[[int], ClusterView]
    candidates: Callable[[Op, ClusterView], Sequence[int]]
    group_of: Callable[[Op], int] | None
    cached: CachedValues
    known_again: bool
    client: int


class Pattern(Machine):
    """What a tier node does. Patterns inherit from it, and state what their clients do.

    ``fills``: they fetch from the store what is missing, and fill. ``takes_writes``: they write
    through the tier; else they write to the store.
    """

    Message = Messages
    Record = None
    fills: ClassVar[bool] = False
    takes_writes: ClassVar[bool] = True
    needs_known_again: ClassVar[bool] = False
    """Whether the store must know writes again that are sent twice."""

    role = CACHE_ROLE

    def __init__(self, context: TierContext, params: Any) -> None:
        self.cached = context.cached

    @classmethod
    def invalidates(cls, params: Any) -> bool:
        """Whether clients that write to the store invalidate here afterwards."""
        return False

    @classmethod
    def insists(cls, params: Any) -> bool:
        """Whether a write is not acknowledged before the tier has invalidated."""
        return False

    @classmethod
    def wait_ns(cls, params: Any) -> int:
        """After which to look again for what somebody else fetches."""
        return 0

    @classmethod
    @abstractmethod
    def keeps(cls, params: Any, hazards: Hazards) -> str:
        """The level that the whole keeps over a store that is linearizable."""

    @classmethod
    def needs_ttl(cls, params: Any) -> bool:
        """Whether nothing but time makes an entry leave that is out of date."""
        return False

    @property
    def holds_copy(self) -> bool:
        """It holds no replica."""
        return False

    def contents(self) -> Mapping[bytes, Entry]:
        """It holds no replica."""
        return {}

    def check(self) -> None:
        """Assert that room and values agree."""
        self.cached.check()

    @staticmethod
    def candidates(params: Any, op: Op, view: ClusterView) -> Sequence[int]:
        """Of the store's nodes none is its own."""
        return ()

    @staticmethod
    def claims(params: Any, context: ClaimContext) -> frozenset[str]:
        """By itself nothing: see ``keeps``."""
        return frozenset()


def node_of(key: bytes, nodes: Sequence[int]) -> int:
    """Which of ``nodes`` has the key: rendezvous hashing (Thaler and Ravishankar, "Using Name-Based
    Mappings to Increase Hit Rates", IEEE/ACM TON 6(1), 1998). O(nodes).
    """
    if len(nodes) == 1:
        return nodes[0]
    own = zlib.crc32(key)
    return max(nodes, key=lambda node: _mixed(own, node))


def _mixed(hashed: int, node: int) -> int:
    """A weight that looks random in both (the finaliser of MurmurHash3)."""
    mixed = (hashed ^ node * 0x9E3779B1) & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return mixed ^ mixed >> 16
