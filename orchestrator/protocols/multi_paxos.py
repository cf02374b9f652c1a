"""Multi-Paxos: a log of slots, each decided by Paxos, behind a stable leader.

Lamport, "The Part-Time Parliament" (ACM TOCS 1998) and "Paxos Made Simple" (2001); many slots
as in van Renesse and Altinbuken, "Paxos Made Moderately Complex" (ACM Computing Surveys 2015);
leases and a leader that a returning node does not depose as in Chandra, Griesemer and Redstone,
"Paxos Made Live" (PODC 2007, section 5).

A ballot is (round, node) as one number. A node that hears of no leader begins a ballot with
phase 1 over all slots that it does not know to be chosen, adopts in each the value of the
highest ballot that a majority reports, fills gaps with no-ops, and from then on needs phase 2
only: one message per tick with the operations of consecutive slots. Followers accept slots in
any order.

Why it is linearizable: an acceptor answers once its promise or acceptance is durable, and any
two majorities meet, so phase 1 of a later ballot sees every value that an earlier one may have
chosen, and no slot is ever decided twice. A follower takes a slot at or below the leader's
commit index for chosen only if it accepted it in that leader's ballot; chosen slots that it
lacks are proposed to it again, which cannot change them. Every operation goes through the log.
With ``reads: lease`` the leader answers reads at once while a majority has promised not to
answer anybody else's phase 1 (section 5.2 there): that holds while clocks run within 10 % of
each other. Slots that all nodes durably know to be chosen are dropped from memory.

Cost per operation with n nodes, unbatched: 2(n-1) messages and one round trip from the leader
to the fastest majority; a batch shares them. A read under a lease, and a sequential or eventual
read at any node, costs no message.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from orchestrator.core.levels import EVENTUAL, LINEARIZABLE, SEQUENTIAL
from orchestrator.core.machine import (
    READING,
    UNKNOWN,
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
from orchestrator.core.parameters import ParameterError, choice, duration, number
from orchestrator.core.registry import Family, register
from orchestrator.protocols._clock_bound import UNSURE, outrun, why
from orchestrator.protocols._multi_paxos_election import HEARTBEAT, LEADER
from orchestrator.protocols._multi_paxos_learner import LEASE, LOG, WEAK, Learner
from orchestrator.protocols._multi_paxos_log import (
    NOTHING,
    Accept,
    Accepted,
    Found,
    Prepare,
    Progress,
    Promise,
    Promised,
    Values,
)
from orchestrator.protocols._pipeline import IN_FLIGHT_HELP, Pipeline

NO_OP: Final = 255  # fills a gap; no client sends this kind
_DROP_AT_LEAST: Final = 512  # in steps, while the slots are still warm in the cache
_SILENT_HEARTBEATS: Final = 2  # after which messages under way are taken for lost


@dataclass(frozen=True)
class Params:
    election_timeout: int = duration("500ms", help="drawn between this and its double")
    heartbeat: int = duration("50ms")
    in_flight: int | None = number(None, low=1, help=IN_FLIGHT_HELP)
    reads: str = choice(LOG, options=(LOG, LEASE), help="lease: needs clocks of one speed")

    def __post_init__(self) -> None:
        if self.heartbeat <= 0 or self.heartbeat * 2 > self.election_timeout:
            raise ParameterError("heartbeat must be above 0 and at most half of election_timeout")

    @property
    def clock_bound(self) -> float:
        """How much faster one clock may run than another: a lease is 9/10 of a time-out."""
        return 1 / 9 if self.reads == LEASE else math.inf


@register(
    Family.PROTOCOL,
    "multi_paxos",
    params=Params,
    claims={LINEARIZABLE: "what is promised and accepted survives restarts (durability: fsync)"},
)
class MultiPaxos(Learner, Machine):
    """Slots decided by Paxos behind a stable leader; reads through the log or under a lease."""

    Message: ClassVar[Any] = Prepare | Promise | Accept | Accepted
    Record: ClassVar[Any] = Promised | Values
    ordered: ClassVar[bool] = True

    def __init__(self, context: MachineContext, params: Params) -> None:
        super().__init__(context, params.election_timeout)
        self._params = params
        self._batch_max = context.batch_max
        self._pipeline = Pipeline(params.in_flight, context.batch_max)
        self._progress: dict[int, Progress] = {}
        self._last_accept: tuple[Accept, tuple[int, ...]] = (Accept(0, 0, 0, 0, 0, []), ())
        # (token, ballot, last slot, commit) of persists under way.
        self._persisting: deque[tuple[int, int, int, int]] = deque()
        self._token = 0
        # The leader's own acceptances that are durable, and the commit that a restart would know.
        self._durable = 0
        self._recorded = 0
        self._inherited = 0  # the last slot that may hold a value of an earlier leader

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Requested():
                self._requested(event.handles, event.ops, now_ns, effects)
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
            case Accept():
                self._accept(source, message, now_ns, effects)
            case Accepted():
                self._accepted(source, message, now_ns, effects)
            case Prepare():
                self._prepare(source, message, now_ns, effects)
            case Promise():
                self._promise(source, message, now_ns, effects)

    # --- the leader in normal operation ---------------------------------------------------

    def _take_office(self, found: Found, now_ns: int, effects: list[Effect]) -> None:
        """Phase 1 is over: propose again what it found (Paxos Made Simple, section 3)."""
        first = self.commit + 1
        ops: list[Op] = []
        for op in found.values(first):
            if op is None:
                effects.append(Mark("gap_filled"))
            ops.append(Op(0, 0, NO_OP, b"") if op is None else op)
        self._inherited = self.commit + len(ops)
        self._durable = self.commit
        self._progress = {}
        for peer in self._peers:
            # One that is not heard of yet has what was dropped here, and perhaps much more.
            match = found.commits.get(peer, self.slots.base)
            self._progress[peer] = Progress(match, match + 1 if peer in found.commits else first)
        effects.append(SetTimer(HEARTBEAT, self._params.heartbeat))
        if ops:
            self._store(first, ops, effects)
            self.through = self.slots.last
        for peer, progress in self._progress.items():
            self._send_accept(peer, progress, now_ns, effects)
        self._replicate(now_ns, effects)

    def _requested(
        self, handles: list[Any], ops: list[Op], now_ns: int, effects: list[Effect]
    ) -> None:
        leads = self.role == LEADER
        if leads and self._params.reads == LEASE and self._holds_lease(now_ns):
            here = READING
        else:
            here = frozenset()
        log_handles, log_ops = [], []
        for handle, op in zip(handles, ops, strict=True):
            if op.kind in here:
                self._state.serve(handle, op, self.applied, effects)
            elif op.level in WEAK and op.kind in READING:
                self._read_weakly(handle, op, effects)
            elif leads:
                log_handles.append(handle)
                log_ops.append(op)
            else:
                effects.append(Redirect(handle, op, self.leader))
        if log_ops:
            first = self.slots.last + 1
            self.slots.append(self.promised, log_ops, log_handles)
            self.through = self.slots.last
            self._persist(Values(self.promised, first, self.commit, log_ops), effects)
            self._replicate(now_ns, effects)

    def _holds_lease(self, now_ns: int) -> bool:
        """Whether no other leader can be at work and all of earlier leaders is applied."""
        echoes = sorted((each.echo_ns for each in self._progress.values()), reverse=True)
        needed = self._majority - 1
        since_ns = echoes[needed - 1] if needed else now_ns
        lease_ns = self._shortest_timeout_ns * 9 // 10
        return now_ns < since_ns + lease_ns and self.applied >= self._inherited

    def _replicate(self, now_ns: int, effects: list[Effect]) -> None:
        last, depth = self.slots.last, self._pipeline.depth
        for peer, progress in self._progress.items():
            while progress.next <= last and progress.room(depth(last - progress.next + 1)):
                self._send_accept(peer, progress, now_ns, effects)

    def _send_accept(
        self, peer: int, progress: Progress, now_ns: int, effects: list[Effect]
    ) -> None:
        slots = self.slots
        # Followers in step get one message object, which a runtime need encode only once.
        message, made_for = self._last_accept
        if made_for != (progress.next, slots.last, self.commit, self.promised, now_ns):
            message = Accept(
                self.promised,
                progress.next,
                self.commit,
                self._everywhere(),
                now_ns,
                slots.run_from(progress.next, self._batch_max),
            )
            made_for = (progress.next, slots.last, self.commit, self.promised, now_ns)
            self._last_accept = (message, made_for)
        effects.append(Send(peer, message, overlap=True))
        if message.ops:
            progress.next += len(message.ops)
            progress.window.append(progress.next - 1)

    def _everywhere(self) -> int:
        return min([self._recorded, *(each.recorded for each in self._progress.values())])

    def _accepted(self, source: int, message: Accepted, now_ns: int, effects: list[Effect]) -> None:
        if message.promised > self.promised:
            self._seen = max(self._seen, message.promised)
            if self.role == LEADER:
                self._retire(now_ns, effects)
            return
        if self.role != LEADER or message.promised < self.promised:
            return
        progress = self._progress[source]
        progress.silent = 0
        progress.recorded = max(progress.recorded, message.recorded)
        progress.echo_ns = max(progress.echo_ns, message.sent_ns)
        progress.accepted(message.through, message.last)
        if progress.match > self.commit:
            self._advance_commit(effects)
        self._replicate(now_ns, effects)

    def _advance_commit(self, effects: list[Effect]) -> None:
        matched = [self._durable, *[progress.match for progress in self._progress.values()]]
        matched.sort(reverse=True)
        self._commit_through(matched[self._majority - 1], effects)

    def _heartbeat(self, now_ns: int, effects: list[Effect]) -> None:
        if self.role != LEADER:
            return
        followers = self._progress.values()
        patience = self._params.election_timeout // self._params.heartbeat
        if 1 + sum(progress.silent <= patience for progress in followers) < self._majority:
            # Cut off: clients should look for the leader that the others may have by now.
            self._retire(now_ns, effects)
            return
        self._drop_prefix(self._everywhere())
        for peer, progress in self._progress.items():
            progress.silent += 1
            if progress.silent > _SILENT_HEARTBEATS and progress.match < progress.next - 1:
                progress.repair()
            self._send_accept(peer, progress, now_ns, effects)
        effects.append(SetTimer(HEARTBEAT, self._params.heartbeat))

    # --- acceptors and learners -----------------------------------------------------------

    def _accept(self, source: int, message: Accept, now_ns: int, effects: list[Effect]) -> None:
        first, ops = message.first, message.ops
        last = first + len(ops) - 1
        if message.ballot >= self.promised:
            self._heard_leader(source, message.ballot, now_ns, effects)
            if last > self.through:
                # What was accepted in this ballot before is cut off.
                skip = max(0, self.through + 1 - first)
                if ops:
                    self._store(first + skip, ops[skip:] if skip else ops, effects)
                self.through = self.slots.through(self.promised, self.through)
            self._commit_through(min(message.commit, self.through), effects)
            self._drop_prefix(message.everywhere)
        answer = Accepted(self.promised, self.through, last, self._noted, message.sent_ns)
        effects.append(Send(source, answer))

    def _store(self, first: int, ops: list[Op], effects: list[Effect]) -> None:
        """Accept these values in the promised ballot."""
        for handle in self.slots.put(self.promised, first, ops):
            # Its operation lost this slot here, but another node may know of it.
            effects.append(Reply(handle, UNKNOWN))
        self._persist(Values(self.promised, first, self.commit, ops), effects)

    # --- both -----------------------------------------------------------------------------

    def _persist(self, record: Promised | Values, effects: list[Effect]) -> None:
        self._token += 1
        self._noted = record.commit
        last = self.slots.last if isinstance(record, Values) else 0
        self._persisting.append((self._token, self.promised, last, self._noted))
        effects.append(Persist(record, self._token))

    def _persisted(self, token: int, effects: list[Effect]) -> None:
        while self._persisting and self._persisting[0][0] <= token:
            _, ballot, last, self._recorded = self._persisting.popleft()
            if self.role == LEADER and ballot == self.promised:
                self._durable = max(self._durable, last)
        if self.role == LEADER:
            self._advance_commit(effects)

    def _drop_prefix(self, everywhere: int) -> None:
        """Forget what every node durably knows to be chosen."""
        if min(everywhere, self.applied) - self.slots.base >= _DROP_AT_LEAST:
            self.slots.drop_through(min(everywhere, self.applied))

    def _started(self, records: list[Any], now_ns: int, effects: list[Effect]) -> None:
        for record in records:
            self.promised = record.ballot
            self._noted = self._recorded = record.commit
            if isinstance(record, Values):
                self.slots.put(record.ballot, record.first, record.ops)
        self._commit_through(self._noted, effects)
        self.through = self.slots.through(self.promised, self.commit)
        self._begin(now_ns, effects, fresh=not records)

    def check(self) -> None:
        slots = self.slots
        assert slots.base <= self.applied == self.commit <= self.through <= slots.last
        assert len(slots.ops) == len(slots.ballots) == len(slots.handles)
        assert [ballot == NOTHING for ballot in slots.ballots] == [op is None for op in slots.ops]
        assert max(slots.ballots, default=0) <= self.promised
        assert self._recorded <= self._noted <= self.commit
        if self.role == LEADER:
            assert self.promised % self._count == self._node == self.leader
            assert self.through == slots.last
        for progress in self._progress.values() if self.role == LEADER else ():
            assert slots.base <= progress.match < progress.next <= slots.last + 1

    @property
    def reign(self) -> int | None:
        return self.promised if self.role == LEADER else None

    @property
    def decided(self) -> int:
        return self.commit

    def held_after(self, position: int) -> tuple[int, Sequence[Op | None]]:
        base = self.slots.base
        position = max(position, base)
        return position + 1, self.slots.ops[position - base :]

    def contents(self) -> Mapping[bytes, Entry]:
        return self._state.contents()

    @staticmethod
    def candidates(params: Params, op: Op, view: ClusterView) -> Sequence[int]:
        if op.kind not in READING:
            return (view.writer,)
        return view.nodes if op.level in WEAK else (view.reader,)

    @staticmethod
    def claims(params: Params, context: ClaimContext) -> frozenset[str]:
        if context.restarts and context.durability != "fsync":
            return frozenset()
        return UNSURE if outrun(params.clock_bound, context) else frozenset({LINEARIZABLE})

    @staticmethod
    def read_levels(params: Params, context: ClaimContext) -> frozenset[str]:
        claimed = MultiPaxos.claims(params, context)
        return frozenset({SEQUENTIAL, EVENTUAL}) | claimed if claimed else claimed

    @staticmethod
    def why_not(params: Params, context: ClaimContext, level: str) -> str:
        if MultiPaxos.claims(params, context):
            bound = params.clock_bound
            return why(bound, context) if outrun(bound, context) else ""
        majority = context.replicas // 2 + 1
        return (
            f"under durability {context.durability!r} a node that restarts has forgotten what it"
            f" promised and accepted: {majority} of {context.replicas} no longer always meet in a"
            " node that remembers"
        )
