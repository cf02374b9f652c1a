"""What a client's load needs of whoever carries it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from orchestrator.core.waiting import Tie
from orchestrator.runtimes._session import Session


class Leg:
    """An attempt of a sampled operation: its number, and when it left, once it has."""

    __slots__ = ("number", "sent_ns")

    def __init__(self, number: int) -> None:
        self.number = number
        self.sent_ns = 0


class Port(Protocol):
    """How a client reaches the nodes."""

    @abstractmethod
    def submit(self, session: Session, node: int) -> bool:
        """Send the session's operation; False where the node cannot be reached (nothing sent)."""

    @abstractmethod
    def submit_tied(self, session: Session, node: int, tie: Tie) -> bool:
        """As ``submit``, of one of two copies."""

    @abstractmethod
    def submit_sampled(self, session: Session, node: int, tie: Tie | None, leg: Leg) -> bool:
        """As ``submit`` or ``submit_tied``, of a sampled operation; notes when it leaves."""

    @abstractmethod
    def ask(self, node: int) -> None:
        """Ask the node for its own word of its load; the balancer hears what comes back."""

    @abstractmethod
    def wake_at(self, when_ns: int) -> None:
        """Call ``poll`` at that time at the latest."""
