"""What an operator may ask of Raft's leader: to add a member, to remove one, to hand over.

Chapter 4 of Ongaro's dissertation (changes of one server at a time) and its section 3.10
(leadership transfer). A leader begins a change only once it has committed an entry of its own
term: without that, two leaders can each have committed a change that the other has not heard
of, to configurations with disjoint majorities (Ongaro, "bug in single-server membership
changes", raft-dev, 2015).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Final

from orchestrator.core.machine import Effect, MachineContext, Mark, Op, Send
from orchestrator.protocols._raft_election import LEADER, NOBODY, Elections, TimeoutNow, VoteRequest
from orchestrator.protocols._raft_log import Progress
from orchestrator.protocols._raft_members import Changes, Transfer, configuration
from orchestrator.protocols._raft_replication import Replicator

ADD, REMOVE, TRANSFER = "add", "remove", "transfer"
_ROUNDS_MAX: Final = 10
"""Rounds in which a learner may catch up (section 4.2.1)."""


class Administered(Replicator):
    """A replica that changes the members and hands leadership over while it leads."""

    __slots__ = (
        "_attentive",
        "_changed",
        "_changes",
        "_strangers",
        "_transfer",
    )

    def __init__(
        self,
        context: MachineContext,
        elections: Elections,
        snapshot_every: int | None,
        in_flight: int | None,
        chunk_bytes: int,
    ) -> None:
        super().__init__(context, elections, snapshot_every, in_flight, chunk_bytes)
        self._attentive = False  # something waits for the commit index to move
        self._changed = False  # a configuration is in the log that is not known to be committed
        self._changes = Changes()
        # Without pre-vote: who asked for votes and is no member, until there is a leader again.
        self._strangers: list[int] = []
        self._transfer: Transfer | None = None

    @abstractmethod
    def _propose(self, ops: list[Op], handles: list[Any] | None, effects: list[Effect]) -> None:
        """Append to the log and replicate."""

    def _admin(self, command: str, node: int, now_ns: int, effects: list[Effect]) -> None:
        if self.role != LEADER:
            return
        if command != TRANSFER:
            self._changes.asked.append((command, node))
            self._attentive = True
            self._pursue(now_ns, effects)
        elif self._transfer is None and node != self._node and node in self.members.current:
            self._transfer = Transfer(node, now_ns + self._shortest_timeout_ns)
            self._push_transfer(effects)

    # --- members --------------------------------------------------------------------------

    def _may_change(self) -> bool:
        """Whether the next change may begin: the last is committed, and so is the own term."""
        return (
            self.members.index <= self.commit
            and self._own_term_committed()
            and self._transfer is None
        )

    def _pursue(self, now_ns: int, effects: list[Effect]) -> None:
        """Begin what was asked for, as far as it can be begun."""
        changes = self._changes
        while self.role == LEADER and changes.asked and self._may_change():
            command, node = changes.asked[0]
            members = self.members.current
            adds = command == ADD
            if adds == (node in members) or members == (node,):
                changes.done()
            elif adds and not self._caught_up(node, now_ns, effects):
                return
            else:
                changes.done()
                rest = (member for member in members if member != node)
                self._configure(tuple(sorted((*rest, node) if adds else rest)), effects)

    def _configure(self, members: tuple[int, ...], effects: list[Effect]) -> None:
        self.members.append(self.log.last + 1, members)
        self._track()
        self._attentive = self._changed = True
        self._propose([configuration(members)], None, effects)

    def _caught_up(self, learner: int, now_ns: int, effects: list[Effect]) -> bool:
        """Whether the learner would not hold the others up, being a timeout behind or less."""
        changes = self._changes
        if changes.learner != learner:
            changes.teach(learner)
            changes.begin_round(self.log.last, now_ns)
            progress = self._progress.setdefault(learner, Progress(0, self.log.last + 1))
            self._send_append(learner, progress, effects)
        if self._progress[learner].match < changes.target:
            return False
        if now_ns - changes.began_ns < self._shortest_timeout_ns:
            return True
        if changes.rounds < _ROUNDS_MAX:
            changes.begin_round(self.log.last, now_ns)
        else:
            changes.done()
        return False

    def _committed(self, now_ns: int, effects: list[Effect]) -> None:
        """The commit index has moved while something waited for that."""
        members = self.members
        if self._changed and members.index <= self.commit:
            self._changed = False
            effects.append(Mark("membership_change"))
            if self._node not in members.current:
                self._retire(now_ns, effects)
                return
        self._pursue(now_ns, effects)
        self._attentive = members.index > self.commit or bool(self._changes.asked)

    def _retire(self, now_ns: int, effects: list[Effect]) -> None:
        """A leader that is no member any more makes room (section 4.2.2)."""
        best = max(self.members.current, key=lambda member: self._progress[member].match)
        for peer, progress in self._progress.items():
            self._send_append(peer, progress, effects)
        effects.append(Send(best, TimeoutNow(self.term)))
        self._follow(self.term, NOBODY, now_ns, effects)

    def _tend(self, now_ns: int, patience: int, effects: list[Effect]) -> None:
        """With every heartbeat: end what takes too long, push what goes on."""
        changes, members = self._changes, self.members
        learner = self._progress.get(changes.learner)
        if learner is not None and learner.silent > patience:
            changes.done()
        for peer in [peer for peer in self._progress if peer not in members.current]:
            progress = self._progress[peer]
            informed = members.index <= self.commit and progress.applied >= members.index
            if peer != changes.learner and (informed or progress.silent > patience):
                del self._progress[peer]
        self._pursue(now_ns, effects)
        if self._transfer is not None:
            if now_ns >= self._transfer.deadline_ns:
                self._transfer = None
            else:
                self._push_transfer(effects)

    def _vote_request(
        self, source: int, message: VoteRequest, now_ns: int, effects: list[Effect]
    ) -> None:
        super()._vote_request(source, message, now_ns, effects)
        known = source in self.members.current or source in self._strangers
        if not self._pre_vote and not known:
            # It has just deposed the leader, who could have told it that it was removed.
            self._strangers.append(source)
        if self.role == LEADER and source not in self._progress:
            # It was removed and has not heard so: it is followed until it has.
            self._progress[source] = Progress(0, self.log.last + 1)

    def _track(self) -> None:
        super()._track()
        for stranger in self._strangers:
            self._progress.setdefault(stranger, Progress(0, self.log.last + 1))
        self._strangers = []

    # --- leadership transfer --------------------------------------------------------------

    def _push_transfer(self, effects: list[Effect]) -> None:
        """Tell the next leader to stand once it has the whole log."""
        transfer = self._transfer
        assert transfer is not None
        progress = self._progress.get(transfer.target)
        if progress is None:
            self._transfer = None
        elif progress.match == self.log.last:
            # It may lead before its voters' patience is over, now or whenever this arrives.
            self._rounds.revoke_lease()
            if not transfer.told:
                effects.append(Mark("transfer"))
            transfer.told = True
            effects.append(Send(transfer.target, TimeoutNow(self.term)))
