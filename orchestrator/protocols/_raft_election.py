"""Raft's elections: terms, votes and pre-votes.

Sections 5.2 and 5.4.1 of the paper that :mod:`orchestrator.protocols.raft` names, and section
9.6 of Ongaro's dissertation: a node that has heard of no leader for a while first asks whether
it would win, so that one which was cut off does not depose a leader when it returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final

import msgspec

from orchestrator.core.machine import (
    ACKNOWLEDGE,
    REPLICATE,
    Became,
    CancelTimer,
    Effect,
    MachineContext,
    Send,
    SetTimer,
)
from orchestrator.protocols._raft_log import Log

NOBODY: Final = -1
FOLLOWER, CANDIDATE, LEADER = "follower", "candidate", "leader"
ELECTION, HEARTBEAT = "election", "heartbeat"


class VoteRequest(msgspec.Struct, array_like=True, tag=3, gc=False):
    """RequestVote; with ``pre`` it only asks whether a real one would be granted."""

    link: ClassVar[str] = REPLICATE
    term: int
    last_index: int
    last_term: int
    pre: bool


class VoteReply(msgspec.Struct, array_like=True, tag=4, gc=False):
    """``term``: the one that was asked for where a pre-vote is granted, else the sender's."""

    link: ClassVar[str] = ACKNOWLEDGE
    term: int
    granted: bool
    pre: bool


class Ballot(msgspec.Struct, array_like=True, tag=5, gc=False):
    """Durable record: current term and the vote in it."""

    term: int
    vote: int


class Elector(ABC):
    """A node as a voter and candidate; who leads a log builds on it."""

    def __init__(self, context: MachineContext, election_timeout_ns: int) -> None:
        self._node = context.node
        self._peers = context.peers
        self._majority = len(context.nodes) // 2 + 1
        self._chance = context.chance
        self._shortest_timeout_ns = election_timeout_ns
        self.role = FOLLOWER
        self.term = 0
        self.vote = NOBODY
        self.leader = NOBODY
        self.log = Log()
        self._heard_ns = 0
        self._timeout_ns = 0
        self._votes: set[int] = set()
        self._pre_voting = False

    @abstractmethod
    def _persist(self, record: Any, effects: list[Effect]) -> None:
        """Make a record durable."""

    @abstractmethod
    def _take_office(self, effects: list[Effect]) -> None:
        """The node has just become the leader."""

    def _follow(self, term: int, leader: int, now_ns: int, effects: list[Effect]) -> None:
        """Be a follower in ``term``, of ``leader`` where it is known."""
        if term > self.term:
            self.term = term
            self.vote = NOBODY
            self._persist(Ballot(term, NOBODY), effects)
        self.leader = leader
        if self.role == LEADER:
            effects.append(CancelTimer(HEARTBEAT))
            self._heard_ns = now_ns
            self._arm_election(effects)
        if self.role != FOLLOWER:
            self.role = FOLLOWER
            effects.append(Became(FOLLOWER))
        self._pre_voting = False

    def _arm_election(self, effects: list[Effect]) -> None:
        shortest_ns = self._shortest_timeout_ns
        self._timeout_ns = shortest_ns + self._chance.randrange(shortest_ns + 1)
        effects.append(SetTimer(ELECTION, self._timeout_ns))

    def _election_timer(self, now_ns: int, effects: list[Effect]) -> None:
        if self.role == LEADER:
            return
        quiet_ns = now_ns - self._heard_ns
        if quiet_ns < self._timeout_ns:
            # Appends only note the time; the timer catches up here.
            effects.append(SetTimer(ELECTION, self._timeout_ns - quiet_ns))
            return
        self._campaign(now_ns, effects)

    def _campaign(self, now_ns: int, effects: list[Effect], *, pre: bool = True) -> None:
        self.leader = NOBODY
        self._votes = {self._node}
        self._pre_voting = pre
        self._heard_ns = now_ns
        if not pre:
            self.term += 1
            self.vote = self._node
            self.role = CANDIDATE
            effects.append(Became(CANDIDATE))
            self._persist(Ballot(self.term, self.vote), effects)
        self._arm_election(effects)
        term = self.term + 1 if pre else self.term
        for peer in self._peers:
            request = VoteRequest(term, self.log.last, self.log.last_term, pre)
            effects.append(Send(peer, request))
        self._count_votes(now_ns, effects)

    def _vote_request(
        self, source: int, message: VoteRequest, now_ns: int, effects: list[Effect]
    ) -> None:
        up_to_date = (message.last_term, message.last_index) >= (self.log.last_term, self.log.last)
        if message.pre:
            led = self.role == LEADER or (
                self.leader != NOBODY and now_ns - self._heard_ns < self._shortest_timeout_ns
            )
            granted = up_to_date and message.term > self.term and not led
            term = message.term if granted else self.term
            effects.append(Send(source, VoteReply(term, granted, True)))
            return
        if message.term > self.term:
            self._follow(message.term, NOBODY, now_ns, effects)
        granted = message.term == self.term and up_to_date and self.vote in (NOBODY, source)
        if granted and self.vote == NOBODY:
            self.vote = source
            self._heard_ns = now_ns
            self._persist(Ballot(self.term, source), effects)
        effects.append(Send(source, VoteReply(self.term, granted, False)))

    def _vote_reply(
        self, source: int, message: VoteReply, now_ns: int, effects: list[Effect]
    ) -> None:
        if message.term > self.term and not (message.pre and message.granted):
            self._follow(message.term, NOBODY, now_ns, effects)
            return
        asked = self.term + 1 if self._pre_voting else self.term
        current = message.term == asked and message.pre == self._pre_voting
        if not message.granted or not current or not (self._pre_voting or self.role == CANDIDATE):
            return
        self._votes.add(source)
        self._count_votes(now_ns, effects)

    def _count_votes(self, now_ns: int, effects: list[Effect]) -> None:
        if len(self._votes) < self._majority:
            return
        if self._pre_voting:
            self._campaign(now_ns, effects, pre=False)
            return
        self.role = LEADER
        self.leader = self._node
        effects.append(Became(LEADER))
        effects.append(CancelTimer(ELECTION))
        self._take_office(effects)
