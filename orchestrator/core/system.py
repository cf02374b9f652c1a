"""What can be put under test: an emulated service, or a real server program."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from orchestrator.core.faults import Hazards
from orchestrator.core.machine import ClusterView, Op
from orchestrator.core.registry import Slot

CACHED: Final = "a client's cache hears of nobody else's writes (client.cache)"
"""Why clients' caches keep a system from claiming anything."""


@dataclass(frozen=True)
class Address:
    """Where a node listens for clients."""

    host: str
    port: int


@dataclass(frozen=True)
class Circumstances:
    """What a system's claims depend on besides itself: how it is used, and what befalls it.

    ``cached``: clients answer reads themselves, from what they have read before.
    """

    sticky: bool
    hazards: Hazards = Hazards()
    cached: bool = False


class System(Protocol):
    """A system under test.

    ``emulated``: its nodes are machines of this project, in either runtime. Otherwise
    ``program`` gives the server program of each node, for the real runtime alone.
    """

    emulated: bool

    def __init__(self, params: Any) -> None: ...

    @property
    @abstractmethod
    def nodes(self) -> int:
        """How many nodes it has."""

    @property
    @abstractmethod
    def balancer(self) -> Slot:
        """Which balancer its clients use."""

    @property
    @abstractmethod
    def consistency(self) -> str | None:
        """The level that the user asks for; None: whatever it claims."""

    @abstractmethod
    def candidates(self, op: Op, view: ClusterView) -> Sequence[int]:
        """The nodes that may serve the operation; pure and cheap."""

    @property
    def group_of(self) -> Callable[[Op], int] | None:
        """The group of nodes that an operation belongs to, of which each has a writer and a reader
        of its own; None where there is one.
        """
        return None

    def first_view(self, group: int) -> ClusterView:
        """What a client knows of a group in the beginning."""
        return ClusterView(tuple(range(self.nodes)))

    @abstractmethod
    def claims(self, circumstances: Circumstances) -> frozenset[str]:
        """Consistency levels that every history of this configuration keeps."""

    @abstractmethod
    def read_levels(self, circumstances: Circumstances) -> frozenset[str]:
        """Levels that a single read may ask for."""

    @abstractmethod
    def why_not(self, circumstances: Circumstances, level: str) -> str:
        """Why it cannot claim ``level``, with its figures; empty: no more to say than the
        catalogue does.
        """

    @property
    @abstractmethod
    def kinds(self) -> frozenset[int]:
        """Kinds of operation that it serves."""

    @abstractmethod
    def validate(self, entry_bytes: int) -> None:
        """Raise ConfigError or InfeasibleError where it cannot run as configured.

        ``entry_bytes``: key and value of one entry of the workload.
        """

    @abstractmethod
    def program(
        self, node: int, addresses: Sequence[Address], folder: str, password: str
    ) -> list[str]:
        """Command line of the server of a node, for systems that are not emulated.

        The server serves nobody without the ``password``. It must not stand on the command line,
        which every user of the host can read; it may be written into the ``folder``.
        """
