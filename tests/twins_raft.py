"""Twins of Raft that each break one rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
from twins import Twin

from orchestrator.core.machine import READING, Effect, Op, Persist, Send
from orchestrator.protocols._raft_election import LEADER, NOBODY
from orchestrator.protocols._raft_log import Append
from orchestrator.protocols._raft_reads import Confirmation, Reads
from orchestrator.protocols._raft_snapshot import Contents, InstallSnapshot
from orchestrator.protocols.raft import Raft


class SkipsLogMatching(Raft):
    """Accepts any append that leaves no gap."""

    def _continues(self, message: Append) -> bool:
        return message.prev_index <= self.log.last


class CommitsOldTerms(Raft):
    """Counts copies of entries of earlier terms (section 5.4.2 forbids it)."""

    def _advance_commit(self, now_ns: int, effects: list[Effect]) -> None:
        matched = sorted([progress.match for progress in self._voting], reverse=True)
        index = matched[self.members.majority - 1]
        if index > self.commit:
            self.commit = index
            self._apply(effects)
            self._serve_confirmed(now_ns, effects)
            self._committed(now_ns, effects)


class ForgetsItsVote(Raft):
    """Comes back from a crash with its term but not with its vote."""

    def _recover(self, records: list[Any]) -> None:
        super()._recover(records)
        self.vote = NOBODY


class AcknowledgesEarly(Raft):
    """Sends its answers before what they promise is durable."""

    def handle(self, event: Any, now_ns: int) -> list[Effect]:
        return [
            Send(effect.target, effect.message, overlap=True) if type(effect) is Send else effect
            for effect in super().handle(event, now_ns)
        ]


class ReadsWithoutRound(Raft):
    """Takes itself for the leader as long as it has not heard otherwise."""

    def _strong_reads(self, reads: Reads, now_ns: int, effects: list[Effect]) -> None:
        self._serve(reads, effects)


class ReadsBeforeItsTerm(Raft):
    """Reads what it knows to be committed before an entry of its own term is."""

    def _serve_confirmed(self, now_ns: int, effects: list[Effect]) -> None:
        self._serve(self._rounds.take(), effects)
        if self._begin_round(now_ns, effects):
            self._spread_round(now_ns, effects)


class LeaseFromTheAnswer(Raft):
    """Counts its lease from when the answers came."""

    def _confirm(self, now_ns: int, effects: list[Effect]) -> None:
        rounds = self._rounds
        rounds._under_way.extend((number, now_ns) for number, _ in list(rounds._under_way))
        for _ in range(len(rounds._under_way) // 2):
            rounds._under_way.popleft()
        super()._confirm(now_ns, effects)


class KeepsItsLease(Confirmation):
    """A lease that nothing ends before its time."""

    def revoke_lease(self) -> None:
        pass


class LeaseInTransfer(Raft):
    """Reads by its lease when it has told another to stand."""

    def _take_office(self, now_ns: int, effects: list[Effect]) -> None:
        super()._take_office(now_ns, effects)
        number = self._rounds.number
        self._rounds = KeepsItsLease(self._pipeline.in_flight, self._params.lease_ns)
        self._rounds.number = number

    def _requested(
        self, handles: list[Any], ops: list[Op], now_ns: int, effects: list[Effect]
    ) -> None:
        asked = list(zip(handles, ops, strict=True))
        if self.role == LEADER and self._transfer is not None and self._rounds.leased(now_ns):
            self._serve([read for read in asked if read[1].kind in READING], effects)
            writes = [(handle, op) for handle, op in asked if op.kind not in READING]
            handles, ops = [handle for handle, _ in writes], [op for _, op in writes]
        super()._requested(handles, ops, now_ns, effects)


class ForgetsSessions(Raft):
    """Leaves the table of sessions out of its snapshots."""

    def _contents(self) -> Contents:
        contents = super()._contents()
        state = msgspec.structs.replace(
            contents.state, sessions=[], sequences=[], took_effect_at=[], unmatched={}
        )
        return Contents(contents.members, state)


class InstallsOverMore(Raft):
    """Puts a snapshot in the place of whatever log it has."""

    def _has(self, message: InstallSnapshot) -> bool:
        return False


class ForgetsTheTail(Raft):
    """Saves a snapshot without the entries behind it."""

    def _save(self, effects: list[Effect]) -> None:
        super()._save(effects)
        saved = effects.pop()
        assert isinstance(saved, Persist)
        record = msgspec.structs.replace(saved.record, tail=[], tail_terms=[])
        effects.append(Persist(record, saved.token, replaces=True))


class ChangesAtOnce(Raft):
    """Changes members before an entry of its own term is committed."""

    def _may_change(self) -> bool:
        return self.members.index <= self.commit and self._transfer is None


class ChangesTogether(Raft):
    """Begins a change before the last one is committed."""

    def _may_change(self) -> bool:
        return self._own_term_committed() and self._transfer is None


class KeepsCutMembers(Raft):
    """Keeps a configuration whose entry was cut off."""

    def _cut_after(self, index: int, effects: list[Effect]) -> None:
        members = self.members
        at, current = members.index, members.current
        super()._cut_after(index, effects)
        if at > index:
            members.append(index, current)


def _twin(machine: type[Raft], profile: str = "", **fixed: Any) -> Twin:
    """``profile``: the fuzzer's, where it takes a special one."""
    made = Twin(machine.__name__, machine, "raft", machine.__doc__ or "", fixed)
    return replace(made, profiles=(profile,)) if profile else made


TWINS = [
    _twin(SkipsLogMatching),
    _twin(CommitsOldTerms, "succession", in_flight=1),
    _twin(ForgetsItsVote, "blinking"),
    _twin(AcknowledgesEarly),
    _twin(ReadsWithoutRound, reads="read_index"),
    _twin(ReadsBeforeItsTerm, reads="read_index"),
    _twin(LeaseFromTheAnswer, "isolation", reads="lease", clock_drift=0),
    _twin(LeaseInTransfer, "membership", reads="lease"),
    _twin(ForgetsSessions, snapshot_every=8, snapshot_chunk="150B"),
    _twin(InstallsOverMore, "isolation", snapshot_every=4, snapshot_chunk="64KiB"),
    _twin(ForgetsTheTail, snapshot_every=8, snapshot_chunk="150B"),
    _twin(ChangesAtOnce, "membership"),
    _twin(ChangesTogether, "membership"),
    _twin(KeepsCutMembers, "membership"),
]
