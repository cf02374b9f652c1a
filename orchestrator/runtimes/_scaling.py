"""A node's autoscaler at work: it looks now and then, and cores come and go. The same code in
virtual and in real time.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from orchestrator.core.record import ASKED, SCALED
from orchestrator.core.registry import Slot
from orchestrator.core.scaling import Autoscaler, AutoscalerParams, Seen


class Scaled(Protocol):
    """What scaling needs of its node."""

    stopped: bool

    @property
    @abstractmethod
    def cpu_busy_ns(self) -> int:
        """Service that the CPU has finished."""

    @property
    @abstractmethod
    def waiting(self) -> int:
        """Operations and messages that wait for a core."""

    @abstractmethod
    def resize(self, cores: int) -> None:
        """From now on it has so many."""


class Scaling:
    """One node's cores; ``now_ns`` and ``at`` are its clock, ``note`` takes events."""

    def __init__(
        self,
        node: Scaled,
        slot: Slot,
        cores: int,
        now_ns: Callable[[], int],
        at: Callable[[int, Callable[[Any], None], Any], None],
        note: Callable[[str, str], None],
    ) -> None:
        self._node = node
        self._params: AutoscalerParams = slot.params
        self._autoscaler: Autoscaler = slot.implementation(slot.params)
        self._cores = cores
        # What is on its way, oldest first: how many of each order are still wanted.
        self._orders: list[list[int]] = []
        self._now_ns, self._at, self._note = now_ns, at, note
        # Since the last look: time of the cores in service up to the last change.
        self._provided_ns = self._changed_ns = self._busy_ns = 0

    def begin(self) -> None:
        """The node has started: the first look is a period from now, or from the load's start."""
        now_ns = self._now_ns()
        if now_ns > 0:
            # Another began before it, and may have had others.
            self._note(SCALED, str(self._cores))
        self._changed_ns = max(now_ns, 0)
        self._at(self._changed_ns + self._params.period, self._look, None)

    def _look(self, _: None) -> None:
        if self._node.stopped:
            return
        now_ns, busy_ns = self._now_ns(), self._node.cpu_busy_ns
        self._account(now_ns)
        used = (busy_ns - self._busy_ns) / max(1, self._provided_ns)
        self._busy_ns, self._provided_ns = busy_ns, 0
        coming = sum(order[0] for order in self._orders)
        # Service is counted when it ends, so that much may end at once.
        seen = Seen(self._cores, coming, min(1.0, max(0.0, used)), self._node.waiting)
        wanted = self._autoscaler.wanted(seen, now_ns)
        wanted = min(max(wanted, self._params.least), self._params.most)
        if wanted > self._cores + coming:
            self._ask(wanted - self._cores - coming, now_ns)
        elif wanted < self._cores + coming:
            self._let_go(self._cores + coming - wanted)
        self._at(now_ns + self._params.period, self._look, None)

    def _account(self, now_ns: int) -> None:
        self._provided_ns += (now_ns - self._changed_ns) * self._cores
        self._changed_ns = now_ns

    def _ask(self, more: int, now_ns: int) -> None:
        self._note(ASKED, str(more))
        self._orders.append([more])
        self._at(now_ns + self._params.delay, self._come, None)

    def _come(self, _: None) -> None:
        """The oldest order is there, as far as it is wanted still."""
        more = self._orders.pop(0)[0]
        if more and not self._node.stopped:
            self._change(self._cores + more)

    def _let_go(self, less: int) -> None:
        """What is on its way is called off first, the latest before others."""
        for order in reversed(self._orders):
            called_off = min(less, order[0])
            order[0] -= called_off
            less -= called_off
        if less:
            self._change(self._cores - less)

    def _change(self, cores: int) -> None:
        self._account(self._now_ns())
        self._cores = cores
        self._note(SCALED, str(cores))
        self._node.resize(cores)
