"""Raft: a replicated log behind an elected leader.

Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (USENIX ATC 2014);
pre-vote and deduplication of sessions as in Ongaro's dissertation (sections 9.6 and 6.3).

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

import msgspec

from orchestrator.core.levels import LINEARIZABLE
from orchestrator.core.machine import (
    ACKNOWLEDGE,
    OK,
    REPLICATE,
    UNKNOWN,
    WRITE,
    Became,
    CancelTimer,
    ClaimContext,
    ClusterView,
    Effect,
    Event,
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

NOBODY: Final = -1
FOLLOWER, CANDIDATE, LEADER = "follower", "candidate", "leader"
_ELECTION, _HEARTBEAT = "election", "heartbeat"
_NO_OP: Final = 255  # a new leader's first entry; no client sends this kind
_DROP_AT_LEAST: Final = 4096  # cutting a list at its head copies the rest
_APPEND_MAX: Final = 8192  # entries of one append where the runtime sets no bound
_SILENT_HEARTBEATS: Final = 2  # after which appends in flight are taken for lost


class Append(msgspec.Struct, array_like=True, tag=1, gc=False):
    """AppendEntries; all ``ops`` are of ``entries_term``. ``everywhere``: applied by all."""

    link: ClassVar[str] = REPLICATE
    term: int
    prev_index: int
    prev_term: int
    commit: int
    everywhere: int
    entries_term: int
    ops: list[Op]


class Appended(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Answer to an append. ``index``: matched up to, or where to look next when refused."""

    link: ClassVar[str] = ACKNOWLEDGE
    term: int
    success: bool
    index: int
    applied: int


class VoteRequest(msgspec.Struct, array_like=True, tag=3, gc=False):
    """RequestVote; with ``pre`` it only asks whether a real one would be granted."""

    link: ClassVar[str] = REPLICATE
    term: int
    last_index: int
    last_term: int
    pre: bool


class VoteReply(msgspec.Struct, array_like=True, tag=4, gc=False):
    link: ClassVar[str] = ACKNOWLEDGE
    term: int
    granted: bool
    pre: bool


class Ballot(msgspec.Struct, array_like=True, tag=5, gc=False):
    """Durable record: current term and the vote in it."""

    term: int
    vote: int


class Entries(msgspec.Struct, array_like=True, tag=6, gc=False):
    """Durable record: the log is cut after ``prev_index``, then these follow."""

    prev_index: int
    term: int
    ops: list[Op]


@dataclass(frozen=True)
class Params:
    election_timeout: int = duration("500ms", help="drawn between this and its double")
    heartbeat: int = duration("50ms")
    in_flight: int = number(4, low=1, help="appends sent to a follower before it answers")

    def __post_init__(self) -> None:
        if self.heartbeat <= 0 or self.heartbeat * 2 > self.election_timeout:
            raise ParameterError("heartbeat must be above 0 and at most half of election_timeout")


class Log:
    """Entries ``base`` + 1 ... ``last``; lists side by side, so that batches are slices."""

    __slots__ = ("base", "base_term", "handles", "ops", "terms")

    def __init__(self) -> None:
        self.base = 0
        self.base_term = 0
        self.ops: list[Op] = []
        self.terms: list[int] = []
        self.handles: list[Any] = []

    @property
    def last(self) -> int:
        return self.base + len(self.ops)

    @property
    def last_term(self) -> int:
        return self.terms[-1] if self.terms else self.base_term

    def term_at(self, index: int) -> int:
        return self.base_term if index == self.base else self.terms[index - self.base - 1]

    def extend(self, term: int, ops: list[Op], handles: list[Any] | None = None) -> None:
        self.ops.extend(ops)
        self.terms.extend([term] * len(ops))
        self.handles.extend(handles if handles is not None else [None] * len(ops))

    def cut_after(self, index: int) -> list[Any]:
        """Forget all entries behind ``index``; returns the handles that waited for them."""
        keep = index - self.base
        waiting = [handle for handle in self.handles[keep:] if handle is not None]
        del self.ops[keep:], self.terms[keep:], self.handles[keep:]
        return waiting

    def drop_through(self, index: int) -> None:
        """Forget the prefix up to ``index``."""
        count = index - self.base
        self.base_term = self.terms[count - 1]
        del self.ops[:count], self.terms[:count], self.handles[:count]
        self.base = index

    def run_from(self, index: int, count_max: int) -> tuple[int, list[Op]]:
        """Entries from ``index`` on that share a term: (term, ops)."""
        start = index - self.base - 1
        stop = min(len(self.ops), start + (count_max or _APPEND_MAX))
        if start >= stop:
            return 0, []
        term = self.terms[start]
        if self.terms[stop - 1] != term:
            # Terms never fall along the log, so the run ends where a greater one begins.
            while self.terms[stop - 1] != term:
                stop = start + max(1, (stop - start) // 2)
        return term, self.ops[start:stop]


class Progress:
    """What the leader knows of one follower."""

    __slots__ = ("applied", "in_flight", "match", "next", "silent")

    def __init__(self, next_index: int) -> None:
        self.match = 0
        self.next = next_index
        self.in_flight = 0
        self.applied = 0
        self.silent = 0


@register(
    Family.PROTOCOL,
    "raft",
    params=Params,
    claims={LINEARIZABLE: "always: reads go through the log"},
)
class Raft:
    """Replicated log with an elected leader; reads and writes through the log."""

    Message: ClassVar[Any] = Append | Appended | VoteRequest | VoteReply
    Record: ClassVar[Any] = Ballot | Entries

    def __init__(self, context: MachineContext, params: Params) -> None:
        self._node = context.node
        self._peers = context.peers
        self._majority = len(context.nodes) // 2 + 1
        self._params = params
        self._chance = context.chance
        self._batch_max = context.batch_max
        self.role = FOLLOWER
        self.term = 0
        self.vote = NOBODY
        self.leader = NOBODY
        self.log = Log()
        self.commit = 0
        self.applied = 0
        self._state = KeyValueState(context.preload, accesses=context.accesses)
        self._heard_ns = 0
        self._timeout_ns = 0
        self._votes: set[int] = set()
        self._pre_voting = False
        self._progress: dict[int, Progress] = {}
        # (token, term, last index) of persists under way, to know the leader's own durable copy.
        self._persisting: deque[tuple[int, int, int]] = deque()
        self._token = 0
        self._durable = 0

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Requested(handles, ops):
                self._requested(handles, ops, effects)
            case Received(source, Append() as message):
                self._append(source, message, now_ns, effects)
            case Received(source, Appended() as message):
                self._appended(source, message, now_ns, effects)
            case Persisted(token):
                self._persisted(token, effects)
            case Received(source, VoteRequest() as message):
                self._vote_request(source, message, now_ns, effects)
            case Received(source, VoteReply() as message):
                self._vote_reply(source, message, now_ns, effects)
            case TimerFired(timer):
                if timer == _HEARTBEAT:
                    self._heartbeat(effects)
                else:
                    self._election_timer(now_ns, effects)
            case Started(records):
                self._started(records, now_ns, effects)
        return effects

    # --- the leader in normal operation ---------------------------------------------------

    def _requested(self, handles: list[Any], ops: list[Op], effects: list[Effect]) -> None:
        if self.role != LEADER:
            for handle, op in zip(handles, ops, strict=True):
                effects.append(Redirect(handle, op, self.leader))
            return
        self._propose(ops, handles, effects)

    def _propose(
        self, ops: list[Op], handles: list[Any] | None, effects: list[Effect]
    ) -> None:
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
            while progress.next <= last and progress.in_flight < in_flight:
                self._send_append(peer, progress, effects)

    def _send_append(self, peer: int, progress: Progress, effects: list[Effect]) -> None:
        log = self.log
        prev_index = progress.next - 1
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
        effects.append(Send(peer, message, overlap=True))
        progress.next += len(ops)
        progress.in_flight += 1

    def _appended(
        self, source: int, message: Appended, now_ns: int, effects: list[Effect]
    ) -> None:
        if message.term > self.term:
            self._follow(message.term, NOBODY, now_ns, effects)
        if self.role != LEADER or message.term < self.term:
            return
        progress = self._progress[source]
        progress.silent = 0
        progress.in_flight = max(0, progress.in_flight - 1)
        progress.applied = max(progress.applied, message.applied)
        if message.success:
            if message.index > progress.match:
                progress.match = message.index
                progress.next = max(progress.next, message.index + 1)
                self._advance_commit(effects)
        elif message.index >= progress.match:
            # A refusal: look again further back, but never behind what is known to match.
            progress.next = min(progress.next - 1, message.index + 1)
            progress.next = max(progress.next, progress.match + 1, self.log.base + 1)
            progress.in_flight = 0
        self._replicate(effects)

    def _advance_commit(self, effects: list[Effect]) -> None:
        matched = sorted(
            [self._durable, *(progress.match for progress in self._progress.values())],
            reverse=True,
        )
        index = matched[self._majority - 1]
        # Section 5.4.2: only entries of the own term are committed by counting.
        if index > self.commit and self.log.term_at(index) == self.term:
            self.commit = index
            self._apply(effects)

    def _heartbeat(self, effects: list[Effect]) -> None:
        if self.role != LEADER:
            return
        self._drop_prefix(min([self.applied, *(p.applied for p in self._progress.values())]))
        for peer, progress in self._progress.items():
            progress.silent += 1
            if progress.silent > _SILENT_HEARTBEATS and progress.in_flight:
                progress.next = max(progress.match, self.log.base) + 1
                progress.in_flight = 0
            self._send_append(peer, progress, effects)
        effects.append(SetTimer(_HEARTBEAT, self._params.heartbeat))

    # --- followers ------------------------------------------------------------------------

    def _append(self, source: int, message: Append, now_ns: int, effects: list[Effect]) -> None:
        if message.term < self.term:
            effects.append(Send(source, Appended(self.term, False, self.log.last, self.applied)))
            return
        if message.term > self.term or self.role != FOLLOWER or self.leader != source:
            self._follow(message.term, source, now_ns, effects)
        self._heard_ns = now_ns
        log = self.log
        prev_index, ops = message.prev_index, message.ops
        if prev_index > log.last or (
            prev_index > log.base and log.term_at(prev_index) != message.prev_term
        ):
            look_at = min(prev_index - 1, log.last)
            effects.append(Send(source, Appended(self.term, False, look_at, self.applied)))
            return
        matched = prev_index + len(ops)
        self._store_entries(prev_index, message.entries_term, ops, effects)
        if min(message.commit, matched) > self.commit:
            self.commit = min(message.commit, matched)
            self._apply(effects)
        self._drop_prefix(message.everywhere)
        effects.append(Send(source, Appended(self.term, True, matched, self.applied)))

    def _store_entries(
        self, prev_index: int, term: int, ops: list[Op], effects: list[Effect]
    ) -> None:
        """Append what is new, cutting a conflicting tail (section 5.3); duplicates change nothing."""
        log = self.log
        skip = max(0, log.base - prev_index)
        while prev_index + skip < log.last and skip < len(ops):
            index = prev_index + skip + 1
            if log.term_at(index) != term:
                for handle in log.cut_after(index - 1):
                    # Another node may still hold the entry and commit it.
                    effects.append(Reply(handle, UNKNOWN))
                break
            skip += 1
        if skip < len(ops):
            new = ops[skip:] if skip else ops
            log.extend(term, new)
            self._persist(Entries(prev_index + skip, term, new), effects)

    def _apply(self, effects: list[Effect]) -> None:
        log, state = self.log, self._state
        start, stop = self.applied - log.base, self.commit - log.base
        version = self.applied
        for op, handle in zip(log.ops[start:stop], log.handles[start:stop], strict=True):
            version += 1
            if op.kind == WRITE:
                took_effect_at = state.write(op, version)
                state.touch(op, effects)
                if handle is not None:
                    effects.append(Reply(handle, OK, None, took_effect_at))
            elif handle is not None and op.kind != _NO_OP:
                state.serve(handle, op, version, effects)
        self.applied = self.commit

    def _drop_prefix(self, everywhere: int) -> None:
        """Forget what every node has applied."""
        everywhere = min(everywhere, self.applied)
        if everywhere - self.log.base >= _DROP_AT_LEAST:
            self.log.drop_through(everywhere)

    # --- elections ------------------------------------------------------------------------

    def _follow(self, term: int, leader: int, now_ns: int, effects: list[Effect]) -> None:
        if term > self.term:
            self.term = term
            self.vote = NOBODY
            self._persist(Ballot(term, NOBODY), effects)
        self.leader = leader
        if self.role == LEADER:
            effects.append(CancelTimer(_HEARTBEAT))
            self._heard_ns = now_ns
            self._arm_election(effects)
        if self.role != FOLLOWER:
            self.role = FOLLOWER
            effects.append(Became(FOLLOWER))
        self._pre_voting = False

    def _arm_election(self, effects: list[Effect]) -> None:
        shortest = self._params.election_timeout
        self._timeout_ns = shortest + self._chance.randrange(shortest + 1)
        effects.append(SetTimer(_ELECTION, self._timeout_ns))

    def _election_timer(self, now_ns: int, effects: list[Effect]) -> None:
        if self.role == LEADER:
            return
        quiet_ns = now_ns - self._heard_ns
        if quiet_ns < self._timeout_ns:
            # Appends only note the time; the timer catches up here.
            effects.append(SetTimer(_ELECTION, self._timeout_ns - quiet_ns))
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
                self.leader != NOBODY and now_ns - self._heard_ns < self._params.election_timeout
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
        else:
            self._lead(effects)

    def _lead(self, effects: list[Effect]) -> None:
        self.role = LEADER
        self.leader = self._node
        self._durable = 0
        self._progress = {peer: Progress(self.log.last + 1) for peer in self._peers}
        effects.append(Became(LEADER))
        effects.append(CancelTimer(_ELECTION))
        effects.append(SetTimer(_HEARTBEAT, self._params.heartbeat))
        self._propose([Op(0, 0, _NO_OP, b"")], None, effects)

    # --- start and recovery ---------------------------------------------------------------

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
        assert log.last_term <= self.term
        assert self.role != LEADER or self.leader == self._node
        for progress in self._progress.values() if self.role == LEADER else ():
            assert progress.match < progress.next

    def contents(self) -> Mapping[bytes, tuple[bytes, int]]:
        return self._state.contents()

    @staticmethod
    def candidates(params: Params, kind: int, view: ClusterView) -> Sequence[int]:
        return (view.leader,)

    @staticmethod
    def claims(params: Params, context: ClaimContext) -> frozenset[str]:
        return frozenset({LINEARIZABLE})

    @staticmethod
    def validate(params: Params, replicas: int) -> str | None:
        return None
