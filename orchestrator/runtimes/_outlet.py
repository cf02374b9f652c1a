"""Where the effects of a node's machine leave it: sockets and disks, or the simulator's."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from orchestrator.core.machine import Redirect, Reply
from orchestrator.core.waiting import Refusal


class Outlet(Protocol):
    """Where effects leave the node.

    Where the handle of an answer, of whatever kind, is a ``_visits.Visit``, it tells the shell's
    tracer that it leaves, and what became of its time here goes along.
    """

    @abstractmethod
    def send(self, target: int, message: Any) -> None:
        """To the machine on another node."""

    @abstractmethod
    def reply(self, reply: Reply) -> None:
        """To a client."""

    @abstractmethod
    def redirect(self, redirect: Redirect) -> None:
        """To a client that should ask elsewhere, or on its behalf."""

    @abstractmethod
    def refuse(self, refusal: Refusal) -> None:
        """To a client whose operation is turned away."""

    @abstractmethod
    def append(self, record: Any, replaces: bool, group: int) -> None:
        """Write a record behind the others of this node's log, or in place of all of its group."""

    @abstractmethod
    def sync(self, done: Callable[[], None]) -> None:
        """Make everything appended so far durable, then call ``done``."""

    @abstractmethod
    def note(self, kind: str, detail: str) -> None:
        """An event of the run: the node's role changed, ..."""
