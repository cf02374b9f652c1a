"""Raft: a replicated log behind an elected leader.

Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (USENIX ATC 2014);
pre-vote, the leader that steps down when it hears no majority, and deduplication of sessions
as in Ongaro's dissertation (sections 9.6, 6.2 and 6.3).

Every operation, reads included, goes through the log, so a history is linearizable as long as
a majority keeps what it persisted. The leader counts its own copy only once it is durable and
commits only entries of its own term by counting (section 5.4.2). Each append carries entries
of one term. What every node has applied is dropped from memory.

Cost per operation with n nodes, unbatched: 2(n-1) messages and one round trip from the leader
to the fastest majority; a batch shares them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from orchestrator.core.levels import LINEARIZABLE
from orchestrator.core.machine import (
    OK,
    READING,
    UNKNOWN,
    WRITE,
    ClaimContext,
    ClusterView,
    Effect,
    Entry,
    Event,
    Machine,
    MachineContext,
    Op,
    Persist,
    Persisted,
    Received,
    Redirect,
    Reply,
    Requested,
    Send,
    SetTimer,
    Started,
    TimerFired,
)
from orchestrator.core.parameters import ParameterError, duration, number
from orchestrator.core.registry import Family, register
from orchestrator.core.state import KeyValueState
from orchestrator.protocols._raft_election import (
    FOLLOWER,
    HEARTBEAT,
    LEADER,
    NOBODY,
    Ballot,
    Elector,
    VoteReply,
    VoteRequest,
)
from orchestrator.protocols._raft_log import PIPELINING, Append, Appended, Entries, Progress

_NO_OP: Final = 255  # a new leader's first entry; no client sends this kind
_DROP_AT_LEAST: Final = 512  # in steps, while the entries are still warm in the cache
_SILENT_HEARTBEATS: Final = 2  # after which appends under way are taken for lost


@dataclass(frozen=True)
class Params:
    election_timeout: int = duration("500ms", help="drawn between this and its double")
    heartbeat: int = duration("50ms")
    in_flight: int = number(4, low=1, help="appends sent to a follower before it answers")

    def __post_init__(self) -> None:
        if self.heartbeat <= 0 or self.heartbeat * 2 > self.election_timeout:
            raise ParameterError("heartbeat must be above 0 and at most half of election_timeout")


@register(
    Family.PROTOCOL,
    "raft",
    params=Params,
    claims={LINEARIZABLE: "always: reads go through the log"},
)
class Raft(Elector, Machine):
    """Replicated log with an elected leader; reads and writes through the log."""

    Message: ClassVar[Any] = Append | Appended | VoteRequest | VoteReply
    Record: ClassVar[Any] = Ballot | Entries

    def __init__(self, context: MachineContext, params: Params) -> None:
        super().__init__(context, params.election_timeout)
        self._params = params
        self._batch_max = context.batch_max
        self.commit = 0
        self.applied = 0
        self._state = KeyValueState(context.preload, accesses=context.accesses)
        self._progress: dict[int, Progress] = {}
        self._last_append: tuple[Append, tuple[int, ...]] = (Append(0, 0, 0, 0, 0, 0, []), ())
        # (token, term, last index) of persists under way, to know the leader's own durable copy.
        self._persisting: deque[tuple[int, int, int]] = deque()
        self._token = 0
        self._durable = 0

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Requested():
                self._requested(event.handles, event.ops, effects)
            case Received():
                self._received(event.source, event.message, now_ns, effects)
            case Persisted():
                self._persisted(event.token, effects)
            case TimerFired():
                if event.timer == HEARTBEAT:
                    self._heartbeat(now_ns, effects)
                else:
                    self._election_timer(now_ns, effects)
            case Started():
                self._started(event.records, now_ns, effects)
        return effects

    def _received(self, source: int, message: Any, now_ns: int, effects: list[Effect]) -> None:
        match message:
            case Append():
                self._append(source, message, now_ns, effects)
            case Appended():
                self._appended(source, message, now_ns, effects)
            case VoteRequest():
                self._vote_request(source, message, now_ns, effects)
            case VoteReply():
                self._vote_reply(source, message, now_ns, effects)

    # --- the leader in normal operation ---------------------------------------------------

    def _take_office(self, effects: list[Effect]) -> None:
        self._durable = 0
        log = self.log
        self._progress = {peer: Progress(log.base, log.last + 1) for peer in self._peers}
        effects.append(SetTimer(HEARTBEAT, self._params.heartbeat))
        self._propose([Op(0, 0, _NO_OP, b"")], None, effects)

    def _requested(self, handles: list[Any], ops: list[Op], effects: list[Effect]) -> None:
        if self.role != LEADER:
            for handle, op in zip(handles, ops, strict=True):
                effects.append(Redirect(handle, op, self.leader))
            return
        self._propose(ops, handles, effects)

    def _propose(self, ops: list[Op], handles: list[Any] | None, effects: list[Effect]) -> None:
        prev_index = self.log.last
        self.log.extend(self.term, ops, handles)
        self._persist(Entries(prev_index, self.term, ops), effects)
        self._replicate(effects)

    def _persist(self, record: Any, effects: list[Effect]) -> None:
        self._token += 1
        self._persisting.append((self._token, self.term, self.log.last))
        effects.append(Persist(record, self._token))

    def _persisted(self, token: int, effects: list[Effect]) -> None:
        while self._persisting and self._persisting[0][0] <= token:
            _, term, last = self._persisting.popleft()
            if self.role == LEADER and term == self.term:
                self._durable = max(self._durable, last)
        if self.role == LEADER:
            self._advance_commit(effects)

    def _replicate(self, effects: list[Effect]) -> None:
        last, in_flight = self.log.last, self._params.in_flight
        for peer, progress in self._progress.items():
            while progress.next <= last and progress.room(in_flight):
                self._send_append(peer, progress, effects)

    def _send_append(self, peer: int, progress: Progress, effects: list[Effect]) -> None:
        log = self.log
        prev_index = progress.next - 1
        # Followers in step get one message object, which a runtime need encode only once.
        message, made_for = self._last_append
        if made_for != (prev_index, log.last, self.commit, log.base, self.term):
            entries_term, ops = log.run_from(progress.next, self._batch_max)
            message = Append(
                self.term,
                prev_index,
                log.term_at(prev_index),
                self.commit,
                log.base,
                entries_term,
                ops,
            )
            made_for = (prev_index, log.last, self.commit, log.base, self.term)
            self._last_append = (message, made_for)
        effects.append(Send(peer, message, overlap=True))
        if message.ops:
            progress.next += len(message.ops)
            progress.window.append(progress.next - 1)

    def _appended(self, source: int, message: Appended, now_ns: int, effects: list[Effect]) -> None:
        if message.term > self.term:
            self._follow(message.term, NOBODY, now_ns, effects)
        if self.role != LEADER or message.term < self.term:
            return
        progress = self._progress[source]
        progress.silent = 0
        progress.applied = max(progress.applied, message.applied)
        if message.success:
            progress.matched(message.index)
            if message.index > self.commit:
                self._advance_commit(effects)
        else:
            progress.refused(message.prev_index, message.index)
        self._replicate(effects)

    def _advance_commit(self, effects: list[Effect]) -> None:
        matched = sorted(
            [self._durable, *[progress.match for progress in self._progress.values()]],
            reverse=True,
        )
        index = matched[self._majority - 1]
        # Section 5.4.2: only entries of the own term are committed by counting.
        if index > self.commit and self.log.term_at(index) == self.term:
            self.commit = index
            self._apply(effects)

    def _heartbeat(self, now_ns: int, effects: list[Effect]) -> None:
        if self.role != LEADER:
            return
        followers = self._progress.values()
        patience = self._params.election_timeout // self._params.heartbeat
        heard = 1 + sum(progress.silent <= patience for progress in followers)
        if heard < self._majority:
            # Cut off: clients should look for the leader that the others may have by now.
            self._follow(self.term, NOBODY, now_ns, effects)
            return
        self._drop_prefix(min([self.applied, *(progress.applied for progress in followers)]))
        for peer, progress in self._progress.items():
            progress.silent += 1
            if progress.probe != PIPELINING:
                progress.probe_from(progress.probe + 1)
            elif progress.silent > _SILENT_HEARTBEATS and progress.window:
                progress.probe_from(progress.next)
            self._send_append(peer, progress, effects)
        effects.append(SetTimer(HEARTBEAT, self._params.heartbeat))

    # --- followers ------------------------------------------------------------------------

    def _append(self, source: int, message: Append, now_ns: int, effects: list[Effect]) -> None:
        prev_index = message.prev_index
        if message.term < self.term:
            refusal = Appended(self.term, False, prev_index, self.log.last, self.applied)
            effects.append(Send(source, refusal))
            return
        if message.term > self.term or self.role != FOLLOWER or self.leader != source:
            self._follow(message.term, source, now_ns, effects)
        self._heard_ns = now_ns
        if not self._continues(message):
            # Past all entries of the conflicting term at once (end of section 5.3).
            last = self.log.last
            look_at = last if prev_index > last else self.log.before_term_of(prev_index)
            answer = Appended(self.term, False, prev_index, look_at, self.applied)
            effects.append(Send(source, answer))
            return
        matched = prev_index + len(message.ops)
        self._store_entries(prev_index, message.entries_term, message.ops, effects)
        if min(message.commit, matched) > self.commit:
            self.commit = min(message.commit, matched)
            self._apply(effects)
        self._drop_prefix(message.everywhere)
        answer = Appended(self.term, True, prev_index, matched, self.applied)
        effects.append(Send(source, answer))

    def _continues(self, message: Append) -> bool:
        """Whether the log holds the entry that the append follows (section 5.3)."""
        log, prev_index = self.log, message.prev_index
        # What is dropped was applied everywhere and needs no comparison.
        return prev_index <= log.base or (
            prev_index <= log.last and log.term_at(prev_index) == message.prev_term
        )

    def _store_entries(
        self, prev_index: int, term: int, ops: list[Op], effects: list[Effect]
    ) -> None:
        """Append what is new, cutting a conflicting tail (section 5.3); repeats change nothing."""
        log = self.log
        skip = max(0, log.base - prev_index)
        while prev_index + skip < log.last and skip < len(ops):
            index = prev_index + skip + 1
            if log.term_at(index) != term:
                assert index > self.commit, f"entry {index} was committed and must not change"
                for handle in log.cut_after(index - 1):
                    # Another node may still hold the entry and commit it.
                    effects.append(Reply(handle, UNKNOWN))
                break
            skip += 1
        if skip < len(ops):
            new = ops[skip:] if skip else ops
            log.extend(term, new)
            self._persist(Entries(prev_index + skip, term, new), effects)

    # --- both -----------------------------------------------------------------------------

    def _apply(self, effects: list[Effect]) -> None:
        log, state = self.log, self._state
        start, stop = self.applied - log.base, self.commit - log.base
        write, touches = state.write, state.accesses
        version = self.applied
        for op, handle in zip(log.ops[start:stop], log.handles[start:stop], strict=True):
            version += 1
            if op.kind == WRITE:
                took_effect_at = write(op, version)
                if touches:
                    state.touch(op, effects)
                if handle is not None:
                    effects.append(Reply(handle, OK, None, took_effect_at))
            elif handle is not None:
                state.serve(handle, op, version, effects)
        self.applied = self.commit

    def _drop_prefix(self, everywhere: int) -> None:
        """Forget what every node has applied."""
        everywhere = min(everywhere, self.applied)
        if everywhere - self.log.base >= _DROP_AT_LEAST:
            self.log.drop_through(everywhere)
            for progress in self._progress.values():
                progress.dropped(everywhere)

    def _started(self, records: list[Any], now_ns: int, effects: list[Effect]) -> None:
        for record in records:
            if isinstance(record, Ballot):
                self.term, self.vote = record.term, record.vote
            else:
                self.log.cut_after(record.prev_index)
                self.log.extend(record.term, record.ops)
        self._heard_ns = now_ns
        if self._node == 0 and not records:
            # A fresh cluster need not wait for its first timeout: node 0 stands at once.
            self._campaign(now_ns, effects)
        else:
            self._arm_election(effects)

    def check(self) -> None:
        log = self.log
        assert log.base <= self.applied <= self.commit <= log.last
        assert len(log.ops) == len(log.terms) == len(log.handles)
        assert all(first <= second for first, second in zip(log.terms, log.terms[1:], strict=False))
        assert log.base_term <= log.last_term <= self.term
        assert (self.role == LEADER) == (self.leader == self._node)
        for progress in self._progress.values() if self.role == LEADER else ():
            assert log.base <= progress.match < progress.next <= log.last + 1
            assert progress.probe < progress.next

    def contents(self) -> Mapping[bytes, Entry]:
        return self._state.contents()

    @staticmethod
    def candidates(params: Params, op: Op, view: ClusterView) -> Sequence[int]:
        return (view.reader if op.kind in READING else view.writer,)

    @staticmethod
    def claims(params: Params, context: ClaimContext) -> frozenset[str]:
        return frozenset({LINEARIZABLE})
