"""Multi-Paxos' ballots: who leads, and phase 1.

Phase 1 as in "Paxos Made Simple" (section 2.2) for all open slots together (section 3). An
acceptor that has heard of its leader lately does not answer anybody else's phase 1, so a node
that was cut off deposes nobody when it returns, and a leader may hold a lease ("Paxos Made
Live", sections 5.2 and 5.3); to ignore a message is always safe.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final

from orchestrator.core.machine import (
    Became,
    CancelTimer,
    Effect,
    MachineContext,
    Mark,
    Send,
    SetTimer,
)
from orchestrator.protocols._multi_paxos_log import Found, Prepare, Promise, Promised, Slots

NOBODY: Final = -1
FOLLOWER, CANDIDATE, LEADER = "follower", "candidate", "leader"
ELECTION, HEARTBEAT = "election", "heartbeat"


class Elector(ABC):
    """A node as an acceptor of phase 1 and as a candidate."""

    def __init__(self, context: MachineContext, election_timeout_ns: int) -> None:
        self._node = context.node
        self._peers = context.peers
        self._count = len(context.nodes)
        self._majority = self._count // 2 + 1
        self._chance = context.chance
        self._shortest_timeout_ns = election_timeout_ns
        self.role = FOLLOWER
        self.leader = NOBODY
        self.promised = 0
        self.slots = Slots()
        self.commit = 0
        # Every slot up to there is known to be chosen or accepted in the promised ballot.
        self.through = 0
        self._noted = 0  # the commit index in the last record
        self._seen = 0  # the newest ballot heard of
        self._heard_ns = 0
        self._timeout_ns = 0
        self._loyal_until_ns = 0
        self._found = Found()

    @abstractmethod
    def _persist(self, record: Any, effects: list[Effect]) -> None:
        """Make a record durable."""

    @abstractmethod
    def _take_office(self, found: Found, now_ns: int, effects: list[Effect]) -> None:
        """Phase 1 is over; ``found`` is what a majority has accepted."""

    def _begin(self, now_ns: int, effects: list[Effect], *, fresh: bool) -> None:
        """The node is up; one that was so before may have promised its leader loyalty."""
        self._heard_ns = now_ns
        self._loyal_until_ns = now_ns + (0 if fresh else self._shortest_timeout_ns)
        if fresh and self._node == 0:
            # A fresh cluster need not wait for its first timeout: node 0 stands at once.
            self._campaign(now_ns, effects)
        else:
            self._arm_election(effects)

    def _arm_election(self, effects: list[Effect]) -> None:
        shortest_ns = self._shortest_timeout_ns
        self._timeout_ns = shortest_ns + self._chance.randrange(shortest_ns + 1)
        effects.append(SetTimer(ELECTION, self._timeout_ns))

    def _retire(self, now_ns: int, effects: list[Effect]) -> None:
        """Lead or stand no longer."""
        self.leader = NOBODY
        if self.role == LEADER:
            effects.append(CancelTimer(HEARTBEAT))
            self._heard_ns = now_ns
            self._arm_election(effects)
        if self.role != FOLLOWER:
            self.role = FOLLOWER
            effects.append(Became(FOLLOWER))

    def _join(self, ballot: int, effects: list[Effect]) -> None:
        """Promise a newer ballot."""
        self.promised = ballot
        self.through = self.commit
        self._persist(Promised(ballot, self.commit), effects)

    def _heard_leader(self, source: int, ballot: int, now_ns: int, effects: list[Effect]) -> None:
        """A leader whose ballot is not old speaks."""
        if ballot > self.promised or self.leader != source:
            self._retire(now_ns, effects)
            self.leader = source
        if ballot > self.promised:
            self._join(ballot, effects)
        self._heard_ns = now_ns
        self._loyal_until_ns = now_ns + self._shortest_timeout_ns

    def _election_timer(self, now_ns: int, effects: list[Effect]) -> None:
        if self.role == LEADER:
            return
        quiet_ns = now_ns - self._heard_ns
        if quiet_ns < self._timeout_ns:
            # Messages of the leader only note the time; the timer catches up here.
            effects.append(SetTimer(ELECTION, self._timeout_ns - quiet_ns))
            return
        self._campaign(now_ns, effects)

    def _campaign(self, now_ns: int, effects: list[Effect]) -> None:
        """Phase 1a of a ballot above all that were heard of."""
        newest = max(self.promised, self._seen)
        self.leader = NOBODY
        self._heard_ns = now_ns
        if self.role == FOLLOWER:
            self.role = "candidate"
            effects.append(Became(CANDIDATE))
        self._join((newest // self._count + 1) * self._count + self._node, effects)
        self._arm_election(effects)
        first = self.commit + 1
        self._found = Found(first)
        self._found.add(self._node, self.commit, first, *self.slots.accepted_from(first))
        for peer in self._peers:
            effects.append(Send(peer, Prepare(self.promised, first)))
        self._count_promises(now_ns, effects)

    def _prepare(self, source: int, message: Prepare, now_ns: int, effects: list[Effect]) -> None:
        """Phase 1b."""
        first, ballot = message.first, message.ballot
        self._seen = max(self._seen, ballot)
        if ballot >= self.promised:
            loyal = self.role == LEADER or now_ns < self._loyal_until_ns
            if loyal or first <= self.slots.base:
                return
            found = self.slots.promised_from(first)
            if ballot > self.promised or first + len(found[1]) <= self.slots.last:
                # It deserves the time to finish.
                self._heard_ns = now_ns
            if ballot > self.promised:
                self._retire(now_ns, effects)
                self._join(ballot, effects)
            effects.append(Send(source, Promise(ballot, ballot, self._noted, first, *found)))
        else:
            refusal = Promise(ballot, self.promised, self.commit, first, [], [], 0)
            effects.append(Send(source, refusal))

    def _promise(self, source: int, message: Promise, now_ns: int, effects: list[Effect]) -> None:
        self._seen = max(self._seen, message.promised)
        current = self.role == CANDIDATE and message.ballot == self.promised
        if current and message.promised == message.ballot:
            rest = self._found.heard(source, message)
            if rest:
                self._heard_ns = now_ns
                effects.append(Send(source, Prepare(self.promised, rest)))
            self._count_promises(now_ns, effects)

    def _count_promises(self, now_ns: int, effects: list[Effect]) -> None:
        if len(self._found.commits) < self._majority:
            return
        self.role = LEADER
        self.leader = self._node
        effects.append(Became(LEADER))
        effects.append(Mark("view_change"))
        effects.append(CancelTimer(ELECTION))
        found, self._found = self._found, Found()
        self._take_office(found, now_ns, effects)
