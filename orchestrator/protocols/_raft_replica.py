"""Raft's log on one node, whoever leads: stored, applied, compacted, recovered.

Sections 5.3 and 7 of the paper that :mod:`orchestrator.protocols.raft` names, for the node that
hears a leader; and the weak reads that every member serves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from orchestrator.core.machine import (
    CAS,
    OK,
    SCAN,
    UNKNOWN,
    WRITE,
    Effect,
    Machine,
    MachineContext,
    Mark,
    Op,
    Persist,
    Redirect,
    Reply,
    Send,
)
from orchestrator.core.state import OTHER_CHANGES, state_for
from orchestrator.protocols._pieces import Arrival
from orchestrator.protocols._raft_election import LEADER, Ballot, Elections, Elector
from orchestrator.protocols._raft_log import Append, Appended, Entries, Progress
from orchestrator.protocols._raft_members import CONFIGURATION, members_in
from orchestrator.protocols._raft_reads import AT_ONCE, PatientReads
from orchestrator.protocols._raft_snapshot import (
    Contents,
    Installing,
    InstallSnapshot,
    Saved,
    decode,
)

_DROP_AT_LEAST: Final = 512  # in steps, while the entries are still warm in the cache
_NEVER: Final = 2**63


class Replica(Elector):
    """A copy of the log and of the state that its committed entries make."""

    kinds = Machine.kinds | {CAS}

    __slots__ = (
        "_arrival",
        "_patient",
        "_persisting",
        "_progress",
        "_snapshot_due",
        "_snapshot_every",
        "_snapshot_index",
        "_state",
        "_token",
        "applied",
    )

    def __init__(
        self, context: MachineContext, elections: Elections, snapshot_every: int | None
    ) -> None:
        super().__init__(context, elections)
        self.applied = 0
        self._state = state_for(context)
        self._snapshot_every = snapshot_every
        self._snapshot_index = 0
        self._snapshot_due = snapshot_every or _NEVER
        self._arrival = Arrival()
        self._patient = PatientReads()
        # The leader's view of the others; empty on who does not lead.
        self._progress: dict[int, Progress] = {}
        # (token, term, last index) of persists under way, to know the leader's own durable copy.
        self._persisting: deque[tuple[int, int, int]] = deque()
        self._token = 0

    @property
    def reign(self) -> int | None:
        return self.term if self.role == LEADER else None

    @property
    def decided(self) -> int:
        return self.commit

    def held_after(self, position: int) -> tuple[int, Sequence[Op]]:
        base = self.log.base
        position = max(position, base)
        return position + 1, self.log.ops[position - base :]

    def _persist(self, record: Any, effects: list[Effect]) -> None:
        self._token += 1
        self._persisting.append((self._token, self.term, self.log.last))
        effects.append(Persist(record, self._token))

    # --- entries --------------------------------------------------------------------------

    def _append(self, source: int, message: Append, now_ns: int, effects: list[Effect]) -> None:
        prev_index = message.prev_index
        if message.term < self.term:
            refusal = Appended(self.term, False, prev_index, self.log.last, self.applied, 0)
            effects.append(Send(source, refusal))
            return
        if message.term > self.term or self.leader != source:
            self._follow(message.term, source, now_ns, effects)
        self._heard_ns = self._led_ns = now_ns
        if not self._continues(message):
            # Past all entries of the conflicting term at once (end of section 5.3).
            last = self.log.last
            look_at = last if prev_index > last else self.log.before_term_of(prev_index)
            answer = Appended(self.term, False, prev_index, look_at, self.applied, message.round)
            effects.append(Send(source, answer))
            return
        matched = prev_index + len(message.ops)
        self._store_entries(message, effects)
        if min(message.commit, matched) > self.commit:
            self.commit = min(message.commit, matched)
            self._apply(effects)
        self._drop_prefix(message.base)
        answer = Appended(self.term, True, prev_index, matched, self.applied, message.round)
        effects.append(Send(source, answer))

    def _continues(self, message: Append) -> bool:
        """Whether the log holds the entry that the append follows (section 5.3)."""
        log, prev_index = self.log, message.prev_index
        # What is dropped was committed and needs no comparison.
        return prev_index <= log.base or log.holds(prev_index, message.prev_term)

    def _store_entries(self, message: Append, effects: list[Effect]) -> None:
        """Append what is new, cutting a conflicting tail (section 5.3); repeats change nothing."""
        log = self.log
        prev_index, term, ops = message.prev_index, message.entries_term, message.ops
        skip = max(0, log.base - prev_index)
        while prev_index + skip < log.last and skip < len(ops):
            index = prev_index + skip + 1
            if log.term_at(index) != term:
                assert index > self.commit, f"entry {index} was committed and must not change"
                self._cut_after(index - 1, effects)
                break
            skip += 1
        if skip < len(ops):
            new = ops[skip:] if skip else ops
            if message.configures:
                self._note_configurations(log.last, new)
            log.extend(term, new)
            self._persist(Entries(prev_index + skip, term, new), effects)

    def _cut_after(self, index: int, effects: list[Effect]) -> None:
        for handle in self.log.cut_after(index):
            # Another node may still hold the entry and commit it.
            effects.append(Reply(handle, UNKNOWN))
        self.members.cut_after(index)
        effects.append(Mark("truncation"))

    def _note_configurations(self, prev_index: int, ops: list[Op]) -> None:
        """A configuration is in force once its entry is in the log."""
        for index, op in enumerate(ops, prev_index + 1):
            if op.kind == CONFIGURATION:
                self.members.append(index, members_in(op))

    def _apply(self, effects: list[Effect]) -> None:
        log, state = self.log, self._state
        start, stop = self.applied - log.base, self.commit - log.base
        write, touches = state.write, state.accesses
        version = self.applied
        for op, handle in zip(log.ops[start:stop], log.handles[start:stop], strict=True):
            version += 1
            kind = op.kind
            if kind == WRITE:
                took_effect_at = write(op, version)
                if touches:
                    state.touch(op, effects)
                if handle is not None:
                    effects.append(Reply(handle, OK, None, took_effect_at))
            elif kind <= SCAN:
                if handle is not None:
                    state.serve(handle, op, version, effects)
            elif kind in OTHER_CHANGES:
                state.change(handle, op, version, effects)
        self.applied = self.commit
        if self._patient:
            self._serve_patient(effects)
        if self.applied >= self._snapshot_due:
            self._take_snapshot(effects)

    def _drop_prefix(self, everywhere: int) -> None:
        """Forget what every node has applied, or what the leader has forgotten."""
        everywhere = min(everywhere, self.applied)
        if everywhere - self.log.base >= _DROP_AT_LEAST:
            self._drop_through(everywhere)
            for progress in self._progress.values():
                progress.dropped(everywhere)

    def _drop_through(self, index: int) -> None:
        if index > self.log.base:
            self.log.drop_through(index)
            self.members.drop_through(index)

    # --- snapshots ------------------------------------------------------------------------

    def _take_snapshot(self, effects: list[Effect]) -> None:
        previous = self._snapshot_index
        self._save(effects)
        effects.append(Mark("snapshot_taken"))
        # Whoever lacks little should not need a snapshot, and whoever gets one what follows it.
        images = [each.image.index for each in self._progress.values() if each.image is not None]
        self._drop_through(min([previous, *images]))

    def _save(self, effects: list[Effect]) -> None:
        """The state as it is stands for all that was applied."""
        log, index = self.log, self.applied
        behind = index - log.base
        saved = Saved(
            self.term,
            self.vote,
            index,
            log.term_at(index),
            self._contents(),
            log.terms[behind:],
            log.ops[behind:],
        )
        self._token += 1
        self._persisting.append((self._token, self.term, log.last))
        effects.append(Persist(saved, self._token, replaces=True))
        self._saved_at(index)

    def _contents(self) -> Contents:
        return Contents(self.members.at(self.applied), self._state.snapshot())

    def _saved_at(self, index: int) -> None:
        self._snapshot_index = index
        if self._snapshot_every is not None:
            self._snapshot_due = index + self._snapshot_every

    def _install_snapshot(
        self, source: int, message: InstallSnapshot, now_ns: int, effects: list[Effect]
    ) -> None:
        index = message.index
        if message.term < self.term:
            effects.append(Send(source, Installing(self.term, index, 0, 0)))
            return
        if message.term > self.term or self.leader != source:
            self._follow(message.term, source, now_ns, effects)
        self._heard_ns = self._led_ns = now_ns
        if not self._has(message):
            name = (message.term, index)
            whole = self._arrival.add(name, message.offset, message.data, message.last)
            if whole is None:
                size = self._arrival.size
                effects.append(Send(source, Installing(self.term, index, size, message.round)))
                return
            self._install(message, decode(whole), effects)
        elif index > self.commit:
            self.commit = index
            self._apply(effects)
        answer = Appended(self.term, True, index, index, self.applied, message.round)
        effects.append(Send(source, answer))

    def _has(self, message: InstallSnapshot) -> bool:
        """Whether the log is as the snapshot says: then what follows stays (figure 13, rule 6)."""
        index = message.index
        return index <= self.commit or self.log.holds(index, message.index_term)

    def _install(self, message: InstallSnapshot, contents: Contents, effects: list[Effect]) -> None:
        """The snapshot takes the place of the whole log."""
        for handle in self.log.restart_at(message.index, message.index_term):
            effects.append(Reply(handle, UNKNOWN))
        self._restore(message.index, contents)
        self._save(effects)
        effects.append(Mark("snapshot_installed"))
        self._serve_patient(effects)

    def _restore(self, index: int, contents: Contents) -> None:
        self.members.restart_at(index, contents.members)
        self._state.restore(contents.state)
        self.commit = self.applied = index
        self._saved_at(index)

    # --- recovery -------------------------------------------------------------------------

    def _recover(self, records: list[Any]) -> None:
        """Be as the durable records say."""
        log = self.log
        for record in records:
            match record:
                case Ballot():
                    self.term, self.vote = record.term, record.vote
                case Saved():
                    self.term, self.vote = record.term, record.vote
                    log.restart_at(record.index, record.index_term)
                    self._restore(record.index, record.contents)
                    self._note_configurations(record.index, record.tail)
                    for term, op in zip(record.tail_terms, record.tail, strict=True):
                        log.extend(term, [op])
                case _:
                    log.cut_after(record.prev_index)
                    self.members.cut_after(record.prev_index)
                    self._note_configurations(record.prev_index, record.ops)
                    log.extend(record.term, record.ops)

    # --- weak reads -----------------------------------------------------------------------

    def _weak_read(self, handle: Any, op: Op, effects: list[Effect]) -> None:
        """Any member serves it, for a session once it has applied what the session has seen."""
        if self._node not in self.members.current:
            effects.append(Redirect(handle, op, self.leader))
        elif op.seen <= self.applied or op.level in AT_ONCE:
            self._state.serve(handle, op, self.applied, effects)
        else:
            self._patient.wait(handle, op)

    def _serve_patient(self, effects: list[Effect]) -> None:
        stays = self._node in self.members.current
        for handle, op in self._patient.take(self.applied if stays else _NEVER):
            self._weak_read(handle, op, effects)
