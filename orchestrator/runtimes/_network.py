"""Links: when a message that is sent now arrives. The same model in both runtimes.

A link has a delay (by message kind where given) on top of the distance between the zones of
its ends, jitter added to it, bandwidth (messages queue
behind each other), loss, and an order: ``fifo`` never lets a message overtake an earlier one
(as TCP; it changes the law of the delay), ``none`` lets independent delays reorder.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from orchestrator.core.distributions import Sampler, build
from orchestrator.core.faults import CLEAR, LinkState
from orchestrator.core.machine import LINK_KINDS
from orchestrator.core.randomness import block_stream, scalar_stream
from orchestrator.core.registry import Slot
from orchestrator.core.units import NS_PER_S
from orchestrator.systems.replicated_store import Network

Wait = Callable[[int, Callable[[Any], None], Any], None]
"""Calls back with an argument at a time (ns)."""
LOST = -(2**63)
BEFORE_ALL_NS = -(2**62)
QUEUE_NS = NS_PER_S // 2
"""What waits before a link whose bandwidth a fault has capped; more than that is lost."""


class Sender:
    """The draws of one sending party, shared by all its links."""

    def __init__(self, network: Network, seed: int, name: str) -> None:
        by_kind = {kind: network.delays.get(kind, network.delay) for kind in LINK_KINDS}
        self.delays: dict[str, Sampler] = {
            kind: Sampler(build(law), block_stream(seed, f"{name}/delay/{kind}"))
            for kind, law in by_kind.items()
        }
        self.jitter = Sampler(build(network.jitter), block_stream(seed, f"{name}/jitter"))
        self.chance: random.Random = scalar_stream(seed, f"{name}/loss")
        self.misfortune: random.Random = scalar_stream(seed, f"{name}/fault")
        self._added: dict[Slot, Sampler] = {}
        self._seed, self._name = seed, name
        self.loss = network.loss
        self.bandwidth = network.bandwidth
        self.fifo = network.ordering == "fifo"
        self.constant_ns = {
            kind: self.delays[kind].draw_ns() if self.delays[kind].is_constant else 0
            for kind in LINK_KINDS
        }
        # One constant delay keeps order by itself and needs no bookkeeping per link.
        self.plain = (
            not self.loss
            and self.bandwidth is None
            and self.jitter.always_zero
            and all(delay.is_constant for delay in self.delays.values())
            and (not self.fifo or len(set(self.constant_ns.values())) == 1)
        )
        # Nothing to emulate: a message may leave at once.
        self.instant = self.plain and not any(self.constant_ns.values())

    def added_ns(self, law: Slot) -> int:
        """A draw of a law that a fault brings in."""
        if law not in self._added:
            chance = block_stream(self._seed, f"{self._name}/fault/{law!r}")
            self._added[law] = Sampler(build(law), chance)
        return self._added[law].draw_ns()


class Link:
    """One direction between two parties. ``state``: what faults make of it.

    ``lead_ns``: by how much a message leaves an emulated delay early, since what carries it
    really takes about that long. ``wait``: how messages on it wait for their time, where not as
    whoever sends them does. Where both ends read one clock a message leaves at once with a stamp
    of when it arrives, and whoever receives it waits for that: then what carries it takes nothing
    of itself as long as it takes less than the delay.
    """

    __slots__ = (
        "_cap_free_ns",
        "_distance_ns",
        "_disturbed",
        "_free_ns",
        "_last_ns",
        "_metered_ns",
        "_occupied_ns",
        "_plain",
        "_sender",
        "instant",
        "lead_ns",
        "state",
        "wait",
    )  # fmt: skip

    def __init__(self, sender: Sender, distance_ns: int = 0) -> None:
        self._sender = sender
        self._plain = sender.plain
        self.state = CLEAR
        self.lead_ns = 0
        self.wait: Wait | None = None
        self._disturbed = False
        self._cap_free_ns = BEFORE_ALL_NS
        self._distance_ns = distance_ns
        # Nothing to emulate: a message may leave at once.
        self.instant = sender.instant and not distance_ns
        self._free_ns = BEFORE_ALL_NS
        self._last_ns = BEFORE_ALL_NS
        # How long all that was sent takes its bandwidth, and how much of it has been told.
        self._occupied_ns = self._metered_ns = 0

    @property
    def plain(self) -> bool:
        """Whether it takes the same for every message, unless a fault strikes."""
        return self._plain

    def arrival_ns(self, now_ns: int, kind: str, size_bytes: int) -> int:
        """When it arrives; LOST when it never does."""
        if self._plain:
            return now_ns + self._sender.constant_ns[kind] + self._distance_ns
        due_ns = self._transit_ns(now_ns, kind, size_bytes)
        return due_ns if due_ns == LOST else self._in_order_ns(due_ns)

    def _transit_ns(self, now_ns: int, kind: str, size_bytes: int) -> int:
        """When it would arrive whatever came before it."""
        sender = self._sender
        sent_ns = now_ns
        if sender.bandwidth is not None:
            takes_ns = round(size_bytes / sender.bandwidth * NS_PER_S)
            self._occupied_ns += takes_ns
            self._free_ns = sent_ns = max(now_ns, self._free_ns) + takes_ns
        # Lost on the way: it took its bandwidth all the same.
        if sender.loss and sender.chance.random() < sender.loss:
            return LOST
        due_ns = sent_ns + sender.delays[kind].draw_ns() + sender.jitter.draw_ns()
        return due_ns + self._distance_ns

    def occupied_since_ns(self, now_ns: int) -> int:
        """How long its bandwidth was in use since this was asked last."""
        occupied_ns = self._occupied_ns - max(0, self._free_ns - now_ns)
        since_ns, self._metered_ns = occupied_ns - self._metered_ns, occupied_ns
        return since_ns

    def _in_order_ns(self, due_ns: int) -> int:
        if self._sender.fifo:
            due_ns = self._last_ns = max(due_ns, self._last_ns)
        return due_ns

    def disturb(self, state: LinkState) -> None:
        """From now on it is in this state."""
        if state == self.state:
            return
        self.state = state
        self._disturbed = state != CLEAR
        # What was held up must not be overtaken by what comes after the disturbance.
        self._plain = self.instant = False

    def carry(
        self,
        at: Wait,
        now_ns: int,
        kind: str,
        size_bytes: int,
        deliver: Callable[[Any], None],
        argument: Any,
    ) -> bool:
        """Let a message that is sent now arrive: never, once or, with a fault, twice; it waits
        ``at``, unless the link has a ``wait`` of its own.

        Returns whether it does.
        """
        at = self.wait or at
        if not self._disturbed:
            due_ns = self.arrival_ns(now_ns, kind, size_bytes)
            if due_ns != LOST:
                at(due_ns - self.lead_ns, deliver, argument)
            return due_ns != LOST
        arrivals_ns = self._arrivals_ns(now_ns, kind, size_bytes)
        for arrival_ns in arrivals_ns:
            at(arrival_ns - self.lead_ns, deliver, argument)
        return bool(arrivals_ns)

    def _arrivals_ns(self, now_ns: int, kind: str, size_bytes: int) -> list[int]:
        """When a message arrives on a disturbed link: never, once or twice."""
        state, sender = self.state, self._sender
        chance = sender.misfortune
        due_ns = self._transit_ns(now_ns, kind, size_bytes)
        if due_ns == LOST or state.cut or (state.loss and chance.random() < state.loss):
            return []
        for law in state.delays:
            due_ns += sender.added_ns(law)
        if state.bandwidth is not None:
            started_ns = max(now_ns, self._cap_free_ns)
            if started_ns > now_ns + QUEUE_NS:
                return []
            self._cap_free_ns = started_ns + round(size_bytes / state.bandwidth * NS_PER_S)
            due_ns += self._cap_free_ns - now_ns
        for share, law in state.late:
            if chance.random() < share:
                # It loses its place: what comes behind passes it.
                return [due_ns + sender.added_ns(law)]
        copies = 2 if state.duplicates and chance.random() < state.duplicates else 1
        return [self._in_order_ns(due_ns)] * copies


class LinkMeter:
    """How busy the links of one sender are: the busiest of each interval, added up."""

    def __init__(self, sender: Sender) -> None:
        self._is_bounded = sender.bandwidth is not None
        self._busy_ns = 0

    def busy_ns(self, links: Iterable[Link], now_ns: int) -> int:
        """Since the start, asked at the end of an interval; 0 where bandwidth has no limit."""
        if self._is_bounded:
            self._busy_ns += max((link.occupied_since_ns(now_ns) for link in links), default=0)
        return self._busy_ns
