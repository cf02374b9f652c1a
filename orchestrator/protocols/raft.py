"""Raft: a replicated log behind an elected leader.

Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (USENIX ATC 2014),
with its log compaction (section 7); and of Ongaro's dissertation, "Consensus: Bridging Theory
and Practice" (Stanford 2014): pre-vote (9.6), the leader that steps down when it hears no
majority (6.2), deduplication of sessions (6.3), reads beside the log (6.4), members that change
one at a time (chapter 4), leadership transfer (3.10).

Writes go through the log: what a majority has persisted in the leader's term is in the log of
every later leader, so all nodes apply the same entries in the same order, and a history is
linearizable as long as a majority keeps what it persisted. The leader counts its own copy only
once it is durable and commits only entries of its own term by counting (section 5.4.2). Each
append carries entries of one term. What every node has applied is dropped from memory, what a
snapshot stands for from the disk.

Strong reads go through the log too, or wait for a majority to confirm the leader after they
came (``read_index``), or are served at once under a lease. A lease assumes that no node's clock
runs faster than another's by more than the factor 1 + ``clock_drift``: a majority has promised
not to elect anybody for an election timeout, counted from when it heard the leader, and the
leader counts from when it spoke, so that nobody else can have written meanwhile. Weak reads go
to any member: the index of the newest entry applied is their version, and all that a session
sees is of one order of all writes (``sequential``, as in ZooKeeper).

Cost per operation with n nodes, unbatched: 2(n-1) messages and one round trip from the leader
to the fastest majority; a batch shares them. The same for a read in mode ``read_index``, without
a record; a read under a lease and a weak read cost no message.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar, Final

from orchestrator.core.levels import LINEARIZABLE
from orchestrator.core.machine import (
    READING,
    Admin,
    ClusterView,
    Effect,
    Entry,
    Event,
    Machine,
    MachineContext,
    Op,
    Persisted,
    Received,
    Redirect,
    Requested,
    SetTimer,
    Started,
    TimerFired,
)
from orchestrator.core.parameters import ParameterError, choice, duration, flag, number, size
from orchestrator.core.portions import PORTION_BYTES
from orchestrator.core.registry import Family, register
from orchestrator.protocols._pipeline import IN_FLIGHT_HELP
from orchestrator.protocols._raft_admin import ADD, REMOVE, TRANSFER, Administered
from orchestrator.protocols._raft_claims import RaftClaims
from orchestrator.protocols._raft_election import (
    CANDIDATE,
    HEARTBEAT,
    LEADER,
    NOBODY,
    Ballot,
    Elections,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from orchestrator.protocols._raft_log import PIPELINING, Append, Appended, Entries, Progress
from orchestrator.protocols._raft_members import CONFIGURATION, Changes
from orchestrator.protocols._raft_reads import (
    LEASE,
    LOG,
    READ_INDEX,
    STRONG,
    Confirmation,
    Reads,
)
from orchestrator.protocols._raft_snapshot import Installing, InstallSnapshot, Saved

_NO_OP: Final = 255  # a new leader's first entry; no client sends this kind
_SILENT_HEARTBEATS: Final = 2  # after which appends under way are taken for lost
_level: Final = attrgetter("level")


@dataclass(frozen=True)
class Params:
    election_timeout: int = duration("500ms", help="the shortest that is drawn")
    election_timeout_max: int | None = duration(
        None, help="the longest; null: its double", probes=("600ms", "750ms")
    )
    heartbeat: int = duration("50ms")
    pre_vote: bool = flag(
        True, help="who stands asks first, who hears a leader refuses; false: as in the paper"
    )
    in_flight: int | None = number(None, low=1, help=IN_FLIGHT_HELP)
    reads: str = choice(LOG, options=(LOG, READ_INDEX, LEASE), help="how strong reads are served")
    clock_drift: float = number(
        0.01, low=0.0, help="lease: bound on how much faster one node's clock runs than another's"
    )
    snapshot_every: int | None = number(None, low=1, help="entries; null: never", probes=(9, 40))
    snapshot_chunk: int = size("256KiB", low="1B", help="a message", probes=("200B", "1KiB"))

    def __post_init__(self) -> None:
        if self.heartbeat <= 0 or self.heartbeat * 2 > self.election_timeout:
            raise ParameterError("heartbeat must be above 0 and at most half of election_timeout")
        longest = self.election_timeout_max
        if longest is not None and longest < self.election_timeout:
            raise ParameterError("election_timeout_max must be at least election_timeout")
        if self.snapshot_chunk > PORTION_BYTES:
            raise ParameterError("one message holds 8MiB of a snapshot", key="snapshot_chunk")
        if self.reads == LEASE and not self.pre_vote:
            raise ParameterError(
                "reads: lease needs pre_vote: true, since a lease holds only while who hears the"
                " leader refuses to elect another; without it use reads: read_index",
                key="pre_vote",
            )

    @property
    def elections(self) -> Elections:
        """What the elections go by."""
        longest_ns = self.election_timeout_max or 2 * self.election_timeout
        return Elections(self.election_timeout, longest_ns, self.pre_vote)

    @property
    def clock_bound(self) -> float:
        """How much faster one clock may run than another."""
        return self.clock_drift if self.reads == LEASE else math.inf

    @property
    def lease_ns(self) -> int:
        """How long after a leader has spoken nobody else is elected, by its own clock."""
        return int(self.election_timeout / (1 + self.clock_drift)) if self.reads == LEASE else 0


@register(
    Family.PROTOCOL,
    "raft",
    params=Params,
    claims={
        LINEARIZABLE: "unless crashed nodes come back without what they persisted (durability:"
        " memory); with reads: lease as long as clock_drift bounds how clocks drift apart"
    },
)
class Raft(RaftClaims, Administered, Machine):
    """Replicated log with an elected leader; reads through the log, by index or by lease."""

    Message: ClassVar[Any] = (
        Append | Appended | VoteRequest | VoteReply | TimeoutNow | InstallSnapshot | Installing
    )
    Record: ClassVar[Any] = Ballot | Entries | Saved
    commands: ClassVar[frozenset[str]] = frozenset({ADD, REMOVE, TRANSFER})
    ordered: ClassVar[bool] = True

    __slots__ = ("_all_logged", "_logs_reads", "_params")

    def __init__(self, context: MachineContext, params: Params) -> None:
        super().__init__(
            context,
            params.elections,
            params.snapshot_every,
            params.in_flight,
            params.snapshot_chunk,
        )
        self._params = params
        self._logs_reads = self._all_logged = params.reads == LOG

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Requested():
                self._requested(event.handles, event.ops, now_ns, effects)
            case Received():
                self._received(event.source, event.message, now_ns, effects)
            case Persisted():
                self._persisted(event.token, now_ns, effects)
            case TimerFired():
                if event.timer == HEARTBEAT:
                    self._heartbeat(now_ns, effects)
                else:
                    self._election_timer(now_ns, effects)
            case Started():
                self._started(event.records, now_ns, effects)
            case Admin():
                self._admin(event.command, event.node, now_ns, effects)
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
            case InstallSnapshot():
                self._install_snapshot(source, message, now_ns, effects)
            case Installing():
                self._installing(source, message, now_ns, effects)
            case TimeoutNow():
                self._timeout_now(message, now_ns, effects)

    def _started(self, records: list[Any], now_ns: int, effects: list[Effect]) -> None:
        self._recover(records)
        self._heard_ns = now_ns
        if self._node == 0 and not records:
            # A fresh cluster need not wait for its first timeout: node 0 stands at once.
            self._campaign(now_ns, effects)
            return
        if records and self._params.reads == LEASE:
            # Before the crash it may have heard a leader, whose lease it must not break.
            self._led_ns = now_ns
        self._arm_election(effects)

    # --- requests -------------------------------------------------------------------------

    def _requested(
        self, handles: list[Any], ops: list[Op], now_ns: int, effects: list[Effect]
    ) -> None:
        if self._all_logged and not ops[0].level and self.role == LEADER and not self._transfer:
            self._propose(ops, handles, effects)
            return
        # Where operations ask for levels of their own, each is looked at from the first seen on;
        # a weak read that goes through the log until then is only better than it asked for.
        self._all_logged = self._all_logged and not any(map(_level, ops))
        strong: Reads = []
        logged: Reads = []
        for handle, op in zip(handles, ops, strict=True):
            reads = op.kind in READING
            if reads and op.level not in STRONG:
                self._weak_read(handle, op, effects)
            elif self.role != LEADER:
                effects.append(Redirect(handle, op, self.leader))
            elif self._transfer is not None:
                effects.append(Redirect(handle, op, NOBODY))
            elif reads and not self._logs_reads:
                strong.append((handle, op))
            else:
                logged.append((handle, op))
        if strong:
            self._strong_reads(strong, now_ns, effects)
        if logged:
            self._propose([op for _, op in logged], [handle for handle, _ in logged], effects)
        if strong:
            self._spread_round(now_ns, effects)

    # --- the leader in normal operation ---------------------------------------------------

    def _take_office(self, now_ns: int, effects: list[Effect]) -> None:
        self._own = Progress(0, 1)
        self._progress = {}
        self._track()
        self._rounds = Confirmation(self._pipeline.in_flight, self._params.lease_ns)
        self._term_start = self.log.last + 1
        self._attentive = True
        self._changed = self.members.index > self.commit
        effects.append(SetTimer(HEARTBEAT, self._params.heartbeat))
        self._propose([Op(0, 0, _NO_OP, b"")], None, effects)

    def _leave_office(self, effects: list[Effect]) -> None:
        for handle, op in self._rounds.give_up():
            effects.append(Redirect(handle, op, self.leader))
        self._progress = {}
        self._voting = []
        self._changes = Changes()
        self._transfer = self._image = None

    def _propose(self, ops: list[Op], handles: list[Any] | None, effects: list[Effect]) -> None:
        prev_index = self.log.last
        self.log.extend(self.term, ops, handles)
        self._persist(Entries(prev_index, self.term, ops), effects)
        self._replicate(effects)

    def _persisted(self, token: int, now_ns: int, effects: list[Effect]) -> None:
        while self._persisting and self._persisting[0][0] <= token:
            _, term, last = self._persisting.popleft()
            if self.role == LEADER and term == self.term:
                self._own.match = max(self._own.match, last)
            elif self.role == CANDIDATE:
                self._own_vote_durable(term, now_ns, effects)
        if self.role == LEADER:
            self._advance_commit(now_ns, effects)

    def _appended(self, source: int, message: Appended, now_ns: int, effects: list[Effect]) -> None:
        if message.term > self.term:
            self._follow(message.term, NOBODY, now_ns, effects)
        progress = self._progress.get(source)
        if progress is None or message.term < self.term:
            return
        progress.silent = 0
        if message.applied > progress.applied:
            progress.applied = message.applied
        if message.success:
            progress.matched(message.index)
            if message.index > self.commit:
                self._advance_commit(now_ns, effects)
                if self.role != LEADER:
                    return
        else:
            progress.refused(message.prev_index, message.index)
        self._replicate(effects)
        if message.round > progress.confirmed:
            self._answered(progress, message.round, now_ns, effects)
        if self._transfer is not None and not self._transfer.told:
            self._push_transfer(effects)
        if self._changes.asked:
            self._pursue(now_ns, effects)

    def _advance_commit(self, now_ns: int, effects: list[Effect]) -> None:
        matched = sorted([progress.match for progress in self._voting], reverse=True)
        index = matched[self.members.majority - 1]
        # Section 5.4.2: only entries of the own term are committed by counting.
        if index > self.commit and self.log.term_at(index) == self.term:
            self.commit = index
            self._apply(effects)
            if self._attentive:
                self._serve_confirmed(now_ns, effects)
                self._committed(now_ns, effects)

    def _heartbeat(self, now_ns: int, effects: list[Effect]) -> None:
        if self.role != LEADER:
            return
        patience = self._params.election_timeout // self._params.heartbeat
        heard = sum(progress.silent <= patience for progress in self._voting)
        if heard < self.members.majority:
            # Cut off: clients should look for the leader that the others may have by now.
            self._follow(self.term, NOBODY, now_ns, effects)
            return
        self._tend(now_ns, patience, effects)
        if self._params.reads == LEASE:
            self._rounds.begin(now_ns)
        others = self._progress.values()
        self._drop_prefix(min([self.applied, *(progress.applied for progress in others)]))
        for peer, progress in self._progress.items():
            progress.silent += 1
            if progress.silent > patience:
                # Whoever is away is asked for the end of the log, and holds up no compaction.
                progress.image = None
                progress.probe_from(self.log.last + 1)
            elif progress.image is not None:
                self._send_chunk(peer, progress, effects)
                continue
            elif progress.probe != PIPELINING:
                progress.probe_from(progress.probe + 1)
            elif progress.silent > _SILENT_HEARTBEATS and progress.window:
                progress.probe_from(progress.next)
            self._send_append(peer, progress, effects)
        if all(progress.image is None for progress in others):
            self._image = None
        effects.append(SetTimer(HEARTBEAT, self._params.heartbeat))
        if self._rounds.open:
            self._confirm(now_ns, effects)

    # --- about it -------------------------------------------------------------------------

    def check(self) -> None:
        log, members = self.log, self.members
        assert log.base <= self.applied <= self.commit <= log.last
        assert len(log.ops) == len(log.terms) == len(log.handles)
        assert log.terms == sorted(log.terms)
        assert log.base_term <= log.last_term <= self.term
        assert (self.role == LEADER) == (self.leader == self._node)
        kinds = [op.kind for op in log.ops]
        if CONFIGURATION in kinds:
            assert members.index == log.last - kinds[::-1].index(CONFIGURATION)
        else:
            assert members.index <= log.base
        assert members.majority == len(members.current) // 2 + 1
        assert (self.role == LEADER) == bool(self._voting)
        assert len(self._voting) == (len(members.current) if self.role == LEADER else 0)
        for progress in self._progress.values():
            assert progress.match < progress.next <= log.last + 1
            assert progress.probe < progress.next

    def contents(self) -> Mapping[bytes, Entry]:
        return self._state.contents()

    @property
    def holds_copy(self) -> bool:
        """Whether it is a member, whose copy will be as the others'."""
        return self._node in self.members.current

    @staticmethod
    def candidates(params: Params, op: Op, view: ClusterView) -> Sequence[int]:
        if op.kind not in READING:
            return (view.writer,)
        return (view.reader,) if op.level in STRONG else view.nodes

    @staticmethod
    def validate(params: Params, replicas: int, nodes: int) -> str | None:
        return None if nodes >= replicas else f"{nodes} nodes cannot hold {replicas} replicas"
