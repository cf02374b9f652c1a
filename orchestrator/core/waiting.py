"""Operations that wait for a node's CPU: the contract of the family ``queue``.

A queue decides which operation is served next and which are turned away. Who is turned away
learns so at once, and knows that nothing happened: that is the point of shedding load, as against
letting clients wait until their time-outs (Maurer, "Fail at Scale", ACM Queue 13(8), 2015).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import msgspec

from orchestrator.core.machine import CANCEL, Op
from orchestrator.core.parameters import number


@dataclass(frozen=True)
class QueueParams:
    """Every queue has these; one with parameters of its own extends them."""

    limit: int | None = number(
        1000, low=1, help="operations that may wait, besides those being served; null: no limit"
    )

    @property
    def known_tenants(self) -> tuple[str, ...]:
        """Tenants of the workload that it knows by name."""
        return ()


class Refusal(msgspec.Struct, gc=False):
    """An operation was turned away: nothing happened, and nothing will.

    ``wait_ns``: when there should be room again, where the node says so, else 0.
    """

    handle: Any
    wait_ns: int = 0


class Tie(NamedTuple):
    """What one of two copies of an operation knows of the other: the node that gets it, and the
    ``number`` of the pair among those of its operation.
    """

    node: int
    number: int


class Cancel(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """From the node that begins one of two copies to the one that has the other: it may be dropped
    if it has not begun. Names the pair.
    """

    link: ClassVar[str] = CANCEL

    session: int
    sequence: int
    number: int


class Queue(Protocol):
    """The operations that wait at one node. A job is opaque; jobs are told apart by identity."""

    def __init__(self, params: Any) -> None: ...

    @abstractmethod
    def __len__(self) -> int:
        """How many wait."""

    @abstractmethod
    def put(self, job: Any, op: Op, now_ns: int) -> Sequence[Any]:
        """Let a job wait. Returns the jobs that are turned away for it, or itself."""

    @abstractmethod
    def take(self, now_ns: int) -> tuple[Any | None, Sequence[Any]]:
        """(the job to serve now, or None; the jobs that are turned away on the way)."""

    @abstractmethod
    def remove(self, job: Any) -> None:
        """A job that waits leaves, neither served nor turned away."""
