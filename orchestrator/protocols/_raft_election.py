"""Raft's elections: terms, votes and pre-votes.

Sections 5.2 and 5.4.1 of the paper that :mod:`orchestrator.protocols.raft` names, and of
Ongaro's dissertation section 9.6: a node that has heard of no leader for a while first asks
whether it would win, so that one which was cut off does not depose a leader when it returns;
section 4.2.3: who has just heard the leader gives nobody a vote, nor takes a newer term from
who asks for one; section 3.10: unless the leader itself wants to be replaced. Without pre-vote
neither of the first two holds, and elections are those of the paper.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec

from orchestrator.core.machine import (
    ACKNOWLEDGE,
    REPLICATE,
    Became,
    CancelTimer,
    Effect,
    MachineContext,
    Mark,
    Send,
    SetTimer,
)
from orchestrator.protocols._raft_log import Log
from orchestrator.protocols._raft_members import Membership

NOBODY: Final = -1
FOLLOWER, CANDIDATE, LEADER = "follower", "candidate", "leader"
ELECTION, HEARTBEAT = "election", "heartbeat"
_NEVER_NS: Final = -(2**62)


class VoteRequest(msgspec.Struct, array_like=True, tag=3, gc=False):
    """RequestVote; with ``pre`` it only asks whether a real one would be granted.

    ``transfer``: the leader has told the candidate to stand.
    """

    link: ClassVar[str] = REPLICATE
    term: int
    last_index: int
    last_term: int
    pre: bool
    transfer: bool


class VoteReply(msgspec.Struct, array_like=True, tag=4, gc=False):
    """``term``: the one that was asked for where a pre-vote is granted, else the sender's."""

    link: ClassVar[str] = ACKNOWLEDGE
    term: int
    granted: bool
    pre: bool


class TimeoutNow(msgspec.Struct, array_like=True, tag=8, gc=False):
    """The leader of ``term`` asks the receiver to stand at once."""

    link: ClassVar[str] = REPLICATE
    term: int


class Ballot(msgspec.Struct, array_like=True, tag=5, gc=False):
    """Durable record: current term and the vote in it."""

    term: int
    vote: int


@dataclass(frozen=True)
class Elections:
    """Their rules: patience is drawn between the two time-outs, both included.

    ``pre_vote``: who stands first asks whether it would win, and who hears a leader refuses.
    """

    shortest_timeout_ns: int
    longest_timeout_ns: int
    pre_vote: bool


class Elector(ABC):
    """A node as a voter and candidate; who leads a log builds on it."""

    __slots__ = (
        "_chance",
        "_heard_ns",
        "_led_ns",
        "_node",
        "_peers",
        "_pre_vote",
        "_pre_voting",
        "_shortest_timeout_ns",
        "_timeout_ns",
        "_timeout_span_ns",
        "_votes",
        "commit",
        "leader",
        "log",
        "members",
        "role",
        "term",
        "vote",
    )

    def __init__(self, context: MachineContext, elections: Elections) -> None:
        self._node = context.node
        self._peers = context.peers
        self._chance = context.chance
        self._shortest_timeout_ns = elections.shortest_timeout_ns
        self._timeout_span_ns = elections.longest_timeout_ns - elections.shortest_timeout_ns
        self._pre_vote = elections.pre_vote
        self.role = FOLLOWER
        self.term = 0
        self.vote = NOBODY
        self.leader = NOBODY
        self.log = Log()
        self.commit = 0
        self.members = Membership(context.nodes[: context.replicas or len(context.nodes)])
        self._heard_ns = 0  # when patience began: a leader was heard, or a vote given
        self._led_ns = _NEVER_NS  # when a leader was heard
        self._timeout_ns = 0
        self._votes: set[int] = set()
        self._pre_voting = False

    @abstractmethod
    def _persist(self, record: Any, effects: list[Effect]) -> None:
        """Make a record durable."""

    @abstractmethod
    def _take_office(self, now_ns: int, effects: list[Effect]) -> None:
        """The node has just become the leader."""

    @abstractmethod
    def _leave_office(self, effects: list[Effect]) -> None:
        """The node has just ceased to be the leader."""

    def _follow(self, term: int, leader: int, now_ns: int, effects: list[Effect]) -> None:
        """Be a follower in ``term``, of ``leader`` where it is known."""
        if term > self.term:
            self.term = term
            self.vote = NOBODY
            self._persist(Ballot(term, NOBODY), effects)
        led, self.leader = self.role == LEADER, leader
        if self.role != FOLLOWER:
            self.role = FOLLOWER
            effects.append(Became(FOLLOWER))
        self._pre_voting = False
        if led:
            effects.append(CancelTimer(HEARTBEAT))
            self._heard_ns = now_ns
            self._arm_election(effects)
            self._leave_office(effects)

    def _led(self, now_ns: int) -> bool:
        """Whether a leader was heard so recently that nobody else should stand."""
        recently = now_ns - self._led_ns < self._shortest_timeout_ns
        return self._pre_vote and (self.role == LEADER or recently)

    def _may_stand(self) -> bool:
        """Whether it is a member, or still needed as one until it is known not to be.

        A member that is being removed stands for the majority of the others (section 4.2.2), also
        when it has come back and does not know any more what is committed.
        """
        return self.members.may_need(self._node, self.commit)

    def _arm_election(self, effects: list[Effect]) -> None:
        more_ns = self._chance.randrange(self._timeout_span_ns + 1)
        self._timeout_ns = self._shortest_timeout_ns + more_ns
        effects.append(SetTimer(ELECTION, self._timeout_ns))

    def _election_timer(self, now_ns: int, effects: list[Effect]) -> None:
        if self.role == LEADER:
            return
        quiet_ns = now_ns - self._heard_ns
        if quiet_ns < self._timeout_ns:
            # Appends only note the time; the timer catches up here.
            effects.append(SetTimer(ELECTION, self._timeout_ns - quiet_ns))
        elif self._may_stand():
            self._campaign(now_ns, effects)
        else:
            # Whom it followed once may not even be a member any more.
            self.leader = NOBODY
            self._arm_election(effects)

    def _campaign(
        self, now_ns: int, effects: list[Effect], *, pre: bool = True, transfer: bool = False
    ) -> None:
        pre = pre and self._pre_vote
        self.leader = NOBODY
        self._votes = {self._node} if pre else set()
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
            # A leader that is no member of the own configuration can tell what became of it.
            if pre or peer in self.members.current:
                request = VoteRequest(term, self.log.last, self.log.last_term, pre, transfer)
                effects.append(Send(peer, request))
        if pre:
            self._count_votes(now_ns, effects)

    def _own_vote_durable(self, term: int, now_ns: int, effects: list[Effect]) -> None:
        """A crash can no longer take back that it stood in ``term``: the own vote counts.

        The others are asked no sooner; a lone voter would else lead, crash, and lead once more.
        """
        if self.role == CANDIDATE and term == self.term and not self._pre_voting:
            self._votes.add(self._node)
            self._count_votes(now_ns, effects)

    def _vote_request(
        self, source: int, message: VoteRequest, now_ns: int, effects: list[Effect]
    ) -> None:
        up_to_date = (message.last_term, message.last_index) >= (self.log.last_term, self.log.last)
        led = self._led(now_ns) and not message.transfer
        if message.pre:
            granted = up_to_date and message.term > self.term and not led
            term = message.term if granted else self.term
            effects.append(Send(source, VoteReply(term, granted, True)))
            return
        if led:
            effects.append(Send(source, VoteReply(self.term, False, False)))
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
        members = self.members
        if sum(member in self._votes for member in members.current) < members.majority:
            return
        if self._pre_voting:
            self._campaign(now_ns, effects, pre=False)
            return
        self.role = LEADER
        self.leader = self._node
        effects.append(Became(LEADER))
        effects.append(Mark("election"))
        effects.append(CancelTimer(ELECTION))
        self._take_office(now_ns, effects)

    def _timeout_now(self, message: TimeoutNow, now_ns: int, effects: list[Effect]) -> None:
        if message.term == self.term and self.role == FOLLOWER and self._may_stand():
            self._campaign(now_ns, effects, pre=False, transfer=True)
