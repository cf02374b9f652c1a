"""Views, and the configuration machine that issues them: who replicates, in which order.

Primary-backup and chains need an outside authority to survive failures: the chain's master (van
Renesse and Schneider, "Chain Replication for Supporting High Throughput and Availability", OSDI
2004, section 3.2), the configuration master of Lamport, Malkhi and Zhou, "Vertical Paxos and
Primary-Backup Replication" (PODC 2009), in practice ZooKeeper or etcd. Here it is one machine on
node n. It is assumed to be reliable: while it is away nothing is reconfigured and leases lapse,
and it comes back with every view that it told anybody of. Its messages may be lost.

**A view change.** Members beat; each beat that is answered grants a lease (Gray and Cheriton,
"Leases: An Efficient Fault-Tolerant Mechanism for Distributed File Cache Consistency", SOSP
1989). When a lease lapses, or a node has caught up and wants in, the authority *seals* the view:
a sealed member takes no more writes in it, serves no strong reads, and reports how much of the
common order it holds, all of this for good (it persists the seal). Once every member has sealed
or its lease has surely lapsed, the view is over: nobody serves strong reads in it, and what is
committed in it is on members that reported. The next view, one epoch higher, is made of those
that reported, the most advanced first, and of those who want in at its end. It is persisted
before anybody is told. Every message between nodes names its epoch; those of others are ignored.

**Leases are durations.** A member counts its lease from when it *sent* the beat, the authority
from when it *received* it and longer by ``clock_drift``, the bound on how much faster one clock
may run than the other; only durations on one clock are ever compared. After a restart the
authority first waits for as long as any lease that it may have granted.

**Which members suffice.** The first of a view holds ``start`` writes when it begins, everything
that was committed before. A member that reports at least ``start`` therefore misses nothing of
older views. Of what is committed in the view itself, the class says how many members it is on:
all of them (:class:`Configuration`), all but some that must not all be missing
(:class:`OneMayBeMissing`), or perhaps only one (:class:`AnyOfThem`, which may lose). Where too
few report, the view stays until members *of this last view* come back with what they persisted;
after a crash of all nobody else may serve, whatever it still knows of an earlier view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec

from orchestrator.core.machine import (
    ACKNOWLEDGE,
    REPLICATE,
    ClaimContext,
    ClusterView,
    Effect,
    Entry,
    Event,
    Machine,
    MachineContext,
    Mark,
    Op,
    Persist,
    Received,
    Send,
    SetTimer,
    Started,
    TimerFired,
)
from orchestrator.core.parameters import ParameterError, duration, number

NOBODY: Final = -1
NEVER_NS: Final = -(2**63)
UNASKED_NS: Final = NEVER_NS
_REVIEW: Final = "review"


class View(msgspec.Struct, array_like=True, gc=False):
    """Who replicates in this epoch, in which order; ``start``: what the first held at first."""

    epoch: int
    members: list[int]
    start: int


class Beat(msgspec.Struct, array_like=True, tag=11, gc=False):
    """A node asks for a lease and says where it stands.

    ``asked_ns`` is its own time of asking, ``heard_ns`` the authority's of the last grant that
    it heard. ``position``: how many writes of the common order it holds durably. ``ready``: it
    is no member, has caught up and wants in. ``suspect``: a member behind it that does not
    answer (NOBODY: none).
    """

    link: ClassVar[str] = ACKNOWLEDGE
    asked_ns: int
    heard_ns: int
    epoch: int
    sealed: bool
    position: int
    ready: bool
    suspect: int


class Grant(msgspec.Struct, array_like=True, tag=12, gc=False):
    """The view, and a lease counted from ``asked_ns`` if ``leased``; ``sealing``: seal it."""

    link: ClassVar[str] = REPLICATE
    asked_ns: int
    granted_ns: int
    leased: bool
    sealing: bool
    view: View


@dataclass(frozen=True)
class ViewParams:
    """What nodes and their authority have to agree on."""

    heartbeat: int = duration("50ms", help="between a node's requests for a new lease")
    lease: int = duration("500ms", help="a node that was not heard for so long is replaced")
    clock_drift: float = number(
        0.01, low=0.0, high=1.0, help="bound on how much faster one clock runs than another"
    )

    def __post_init__(self) -> None:
        if self.heartbeat <= 0 or self.heartbeat * 2 > self.lease:
            raise ParameterError("heartbeat must be above 0 and at most half of lease")


class Configuration(Machine):
    """The authority; what is committed in a view is on every member of it."""

    Message: ClassVar[Any] = Beat
    Record: ClassVar[Any] = View

    def __init__(self, context: MachineContext, params: ViewParams) -> None:
        self.role = "authority"
        self.view = View(1, list(context.nodes), 0)
        self.sealing = False
        self._nodes = context.nodes
        self._heartbeat_ns = params.heartbeat
        self._allowance_ns = params.lease + round(params.lease * params.clock_drift) + 1
        self._patience = params.lease // params.heartbeat + 1
        self._started = False
        self._token = 0
        # When the lease of a node has surely lapsed, and until when it is to get no new one.
        self._lapses_ns: dict[int, int] = {}
        self._accused_ns: dict[int, int] = {}
        # Of sealed members and of nodes that want in: how much they hold.
        self._sealed: dict[int, int] = {}
        self._ready: dict[int, int] = {}
        # The last grant that a node says it heard, and how many beats ago that changed.
        self._heard: dict[int, tuple[int, int]] = {}

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Received(source, Beat() as beat):
                if self._started:
                    self._beat(source, beat, now_ns, effects)
            case TimerFired():
                self._review(now_ns, effects)
                effects.append(SetTimer(_REVIEW, self._heartbeat_ns))
            case Started(records):
                self._started = True
                if records:
                    self.view = records[-1]
                # Anybody may hold a lease that was granted just before a crash.
                self._lapses_ns = dict.fromkeys(self._nodes, now_ns + self._allowance_ns)
                effects.append(SetTimer(_REVIEW, self._heartbeat_ns))
        return effects

    # --- what a class of protocols needs --------------------------------------------------

    def _needed(self, members: int) -> int:
        """How many of so many members the next view needs at least."""
        return 1

    def _suffice(self, held: Mapping[int, int]) -> bool:
        """Whether these sealed members, and what they hold, are enough for the next view."""
        return len(held) >= self._needed(len(self.view.members)) and (
            max(held.values()) >= self.view.start
        )

    # --- beats ----------------------------------------------------------------------------

    def _beat(self, source: int, beat: Beat, now_ns: int, effects: list[Effect]) -> None:
        members = self.view.members
        current = beat.epoch == self.view.epoch
        if current and source in members:
            if beat.sealed:
                self._sealed[source] = beat.position
            if beat.suspect in members and members.index(beat.suspect) > members.index(source):
                self._accused_ns[beat.suspect] = now_ns + 2 * self._allowance_ns
        elif current and beat.ready:
            self._ready[source] = beat.position
        heard_ns, unanswered = self._heard.get(source, (UNASKED_NS, 0))
        unanswered = unanswered + 1 if heard_ns == beat.heard_ns else 0
        self._heard[source] = (beat.heard_ns, unanswered)
        # Who hears no answer, or does not seal, lapses; for others this is a sign of life.
        if (
            unanswered <= self._patience
            and not self._accused(source, now_ns)
            and (not self.sealing or source in self._sealed or source not in members)
        ):
            self._lapses_ns[source] = now_ns + self._allowance_ns
        self._review(now_ns, effects)
        self._answer(source, beat.asked_ns, now_ns, effects)

    def _accused(self, node: int, now_ns: int) -> bool:
        return self._accused_ns.get(node, NEVER_NS) > now_ns

    def _lapsed(self, node: int, now_ns: int) -> bool:
        return self._lapses_ns[node] <= now_ns

    def _answer(self, node: int, asked_ns: int, now_ns: int, effects: list[Effect]) -> None:
        # Whatever counts as a lease here may be granted: this time is on the books.
        leased = node in self.view.members and (
            self._lapses_ns[node] == now_ns + self._allowance_ns
        )
        grant = Grant(asked_ns, now_ns, leased, self.sealing, self.view)
        effects.append(Send(node, grant))

    def _tell(self, nodes: Sequence[int], now_ns: int, effects: list[Effect]) -> None:
        grant = Grant(UNASKED_NS, now_ns, False, self.sealing, self.view)
        effects.extend(Send(node, grant) for node in nodes)

    # --- view changes ---------------------------------------------------------------------

    def _review(self, now_ns: int, effects: list[Effect]) -> None:
        """Seal the view if it has to change; issue the next one if this one is over."""
        members = self.view.members
        if not self.sealing:
            live = [
                node
                for node in members
                if not self._lapsed(node, now_ns) and not self._accused(node, now_ns)
            ]
            wanted = len(live) < len(members) or bool(self._joiners(now_ns))
            enough = len(live) >= self._needed(len(members))
            if not self._sealed and not (wanted and enough):
                return
            self.sealing = True
            self._tell(members, now_ns, effects)
        held: dict[int, int] = {}
        for node in members:
            if self._lapsed(node, now_ns):
                continue
            if node not in self._sealed or self._accused(node, now_ns):
                return
            held[node] = self._sealed[node]
        if held and self._suffice(held):
            self._issue(held, now_ns, effects)

    def _joiners(self, now_ns: int) -> list[int]:
        return [node for node in self._ready if not self._lapsed(node, now_ns)]

    def _issue(self, held: dict[int, int], now_ns: int, effects: list[Effect]) -> None:
        order = sorted(held, key=lambda node: -held[node])  # stable: else as before
        start = held[order[0]]
        # Only a protocol that loses writes can have let somebody in who holds more.
        joiners = [node for node in self._joiners(now_ns) if self._ready[node] <= start]
        self.view = View(self.view.epoch + 1, order + joiners, start)
        self.sealing = False
        self._sealed.clear()
        self._ready.clear()
        self._token += 1
        effects.append(Persist(self.view, self._token, replaces=True))
        effects.append(Mark("view_change"))
        self._tell(self._nodes, now_ns, effects)

    # --- what every machine has -----------------------------------------------------------

    def check(self) -> None:
        members = self.view.members
        assert members and len(members) == len(dict.fromkeys(members))
        assert all(node in self._nodes for node in members)
        assert self.view.epoch >= 1 and self.view.start >= 0
        assert all(node in members for node in self._sealed)
        assert not any(node in members for node in self._ready)

    def contents(self) -> Mapping[bytes, Entry]:
        return {}

    @staticmethod
    def candidates(params: Any, op: Op, view: ClusterView) -> Sequence[int]:
        return ()

    @staticmethod
    def claims(params: Any, context: ClaimContext) -> frozenset[str]:
        return frozenset()


class OneMayBeMissing(Configuration):
    """What is committed in a view is on its first and on one other member at least, so all
    members but one suffice.
    """

    def _needed(self, members: int) -> int:
        return max(1, members - 1)


class AnyOfThem(Configuration):
    """What is committed in a view may be on its first member alone: a successor may lack it."""

    def _suffice(self, held: Mapping[int, int]) -> bool:
        return True


class Membership:
    """A node's side: its view, its seal and its lease.

    ``static``: there is no authority, and the first view holds for ever.
    """

    def __init__(self, context: MachineContext, params: ViewParams, *, static: bool) -> None:
        self.node = context.node
        self.static = static
        self.view = View(1, list(context.nodes), 0)
        self.sealed = False
        self._authority = len(context.nodes)
        self._lease_ns = params.lease
        self._started_ns = NEVER_NS
        self._leased_until_ns = NEVER_NS
        self._heard_ns = UNASKED_NS

    @property
    def member(self) -> bool:
        """Whether the node replicates in this view."""
        return self.node in self.view.members

    def started(self, now_ns: int) -> None:
        """Grants that were asked for before this time do not count."""
        self._started_ns = now_ns

    def serving(self, now_ns: int) -> bool:
        """Whether no later view can be serving: this one is not sealed, and the lease holds."""
        return self.static or (
            not self.sealed and now_ns < self._leased_until_ns and self.node in self.view.members
        )

    def beat(
        self, position: int, now_ns: int, effects: list[Effect], *, ready: bool, suspect: int
    ) -> None:
        """Ask the authority for a lease and for news."""
        beat = Beat(now_ns, self._heard_ns, self.view.epoch, self.sealed, position, ready, suspect)
        effects.append(Send(self._authority, beat))

    def granted(self, grant: Grant, now_ns: int) -> bool:
        """Take up a lease; returns whether there is a new view, or this one is to be sealed."""
        if grant.view.epoch < self.view.epoch:
            return False
        self._heard_ns = grant.granted_ns
        if grant.leased and self._started_ns <= grant.asked_ns <= now_ns:
            until_ns = grant.asked_ns + self._lease_ns
            self._leased_until_ns = max(self._leased_until_ns, until_ns)
        return grant.view.epoch > self.view.epoch or (
            grant.sealing and not self.sealed and self.member
        )
