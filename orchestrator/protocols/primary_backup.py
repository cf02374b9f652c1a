"""Primary-backup replication: node 0 orders all writes and copies them to the others.

Alsberg and Day, "A principle for resilient sharing of distributed resources" (ICSE 1976);
the modes are those of MySQL and PostgreSQL: a write is answered after every backup has it
(``sync``), after one has it (``semi_sync``), or at once (``async``). There is no failover: while
the primary is away, writes wait.

A write is sent once the primary has persisted it, as PostgreSQL sends only flushed log: a
backup that is ahead of what its primary recovers after a crash would differ from it for good.
A backup applies writes in the primary's order as they arrive. Reads go to the primary, or to
any node (``read_from: any``); with ``session_wait`` a node holds a read back until it has
applied the newest version that the session has seen.

Cost per write with n nodes: 2(n-1) messages, one round trip from the primary to its backups
(none in async mode); a read costs no message.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from orchestrator.core.levels import (
    EVENTUAL,
    LINEARIZABLE,
    MONOTONIC_READS,
    READ_YOUR_WRITES,
)
from orchestrator.core.machine import (
    ACKNOWLEDGE,
    OK,
    REPLICATE,
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
from orchestrator.core.parameters import choice, duration
from orchestrator.core.registry import Family, register
from orchestrator.core.state import KeyValueState

PRIMARY = 0
SYNC, SEMI_SYNC, ASYNC = "sync", "semi_sync", "async"
_RESEND = "resend"
_RESEND_MAX = 8192  # writes in one message to a backup that fell behind


class Replicate(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Writes ``first``, ``first`` + 1, ... in the primary's order."""

    link: ClassVar[str] = REPLICATE
    first: int
    ops: list[Op]


class Acknowledge(msgspec.Struct, array_like=True, tag=2, gc=False):
    """The sender holds every write up to ``version``."""

    link: ClassVar[str] = ACKNOWLEDGE
    version: int


@dataclass(frozen=True)
class Params:
    mode: str = choice(SYNC, options=(SYNC, SEMI_SYNC, ASYNC))
    read_from: str = choice("primary", options=("primary", "any"))
    session_wait: bool = False
    resend: int = duration("200ms", help="writes unacknowledged for this long are sent again")


@register(
    Family.PROTOCOL,
    "primary_backup",
    params=Params,
    claims={
        LINEARIZABLE: "read_from: primary",
        READ_YOUR_WRITES: "read_from: any with sticky clients and mode: sync, or session_wait",
        MONOTONIC_READS: "read_from: any with sticky clients, or session_wait",
        EVENTUAL: "always",
    },
)
class PrimaryBackup(Machine):
    """One primary orders all writes and copies them to its backups."""

    Message: ClassVar[Any] = Replicate | Acknowledge
    Record: ClassVar[Any] = tuple[int, list[Op]]

    def __init__(self, context: MachineContext, params: Params) -> None:
        self._node = context.node
        self._backups = tuple(node for node in context.nodes if node != PRIMARY)
        self._params = params
        self.role = "primary" if context.node == PRIMARY else "backup"
        self._state = KeyValueState(context.preload, accesses=context.accesses)
        # Writes _base + 1 ... _base + len(_log) are kept until every backup has them.
        self._base = 0
        self._log: list[Op] = []
        self._handles: list[Any] = []
        self._applied = 0
        self._durable = 0
        self._acknowledged = dict.fromkeys(self._backups, 0)
        self._at_last_resend = dict(self._acknowledged)
        self._resend_armed = False
        # Where the last of several messages to a backup that fell behind ended, else 0.
        self._catching_up = dict.fromkeys(self._backups, 0)
        self._early: dict[int, list[Op]] = {}
        self._waiting: list[tuple[int, int, Any, Op]] = []
        self._waiting_order = 0

    @property
    def _last(self) -> int:
        return self._base + len(self._log)

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Requested(handles, ops):
                self._requested(handles, ops, effects)
            case Received(source, Replicate() as message):
                self._replicate(source, message, effects)
            case Received(source, Acknowledge(version)):
                self._acknowledge(source, version, effects)
            case Persisted(token):
                self._durable = max(self._durable, token)
                if self._node == PRIMARY:
                    self._commit(effects)
            case TimerFired():
                self._resend(effects)
            case Started(records):
                self._recover(records, effects)
        return effects

    # --- the primary ----------------------------------------------------------------------

    def _requested(self, handles: list[Any], ops: list[Op], effects: list[Effect]) -> None:
        if self._node != PRIMARY:
            self._requested_of_backup(handles, ops, effects)
            return
        first = self._last + 1
        written = []
        for handle, op in zip(handles, ops, strict=True):
            if op.kind == WRITE:
                written.append(op)
                self._handles.append(handle)
            else:
                self._read(handle, op, effects)
        if not written:
            return
        self._log.extend(written)
        effects.append(Persist((first, written), self._last))
        message = Replicate(first, written)
        for backup in self._backups:
            effects.append(Send(backup, message))
        if self._backups and not self._resend_armed:
            self._arm_resend(effects)

    def _acknowledge(self, source: int, version: int, effects: list[Effect]) -> None:
        if version > self._acknowledged[source]:
            self._acknowledged[source] = version
            self._commit(effects)
            if 0 < self._catching_up[source] <= version:
                self._send_missing(source, effects)

    def _committed(self) -> int:
        """The newest write that may be answered."""
        acknowledged = self._acknowledged.values()
        if self._params.mode == ASYNC or not acknowledged:
            return self._durable
        copied = min(acknowledged) if self._params.mode == SYNC else max(acknowledged)
        return min(self._durable, copied)

    def _commit(self, effects: list[Effect]) -> None:
        committed = self._committed()
        base, applied = self._base, self._applied
        if committed > applied:
            self._applied = committed
            ops = self._log[applied - base : committed - base]
            handles = self._handles[applied - base : committed - base]
            for version, (op, handle) in enumerate(zip(ops, handles, strict=True), applied + 1):
                took_effect_at = self._state.write(op, version)
                self._state.touch(op, effects)
                if handle is not None:
                    effects.append(Reply(handle, OK, None, took_effect_at))
            self._serve_waiting(effects)
        self._drop_prefix()

    def _drop_prefix(self) -> None:
        everywhere = min([self._applied, *self._acknowledged.values()])
        # In large steps, because cutting a list at its head copies the rest.
        if everywhere - self._base >= max(1024, len(self._log) // 2):
            del self._log[: everywhere - self._base]
            del self._handles[: everywhere - self._base]
            self._base = everywhere

    def _arm_resend(self, effects: list[Effect]) -> None:
        self._resend_armed = True
        self._at_last_resend = dict(self._acknowledged)
        effects.append(SetTimer(_RESEND, self._params.resend))

    def _resend(self, effects: list[Effect]) -> None:
        """Send again to backups that have not moved since the timer was set."""
        self._resend_armed = False
        for backup, acknowledged in self._acknowledged.items():
            if acknowledged < self._last and acknowledged == self._at_last_resend[backup]:
                self._send_missing(backup, effects)
        if min(self._acknowledged.values()) < self._last:
            self._arm_resend(effects)

    def _send_missing(self, backup: int, effects: list[Effect]) -> None:
        """What a backup lacks, in one message, or step by step as it acknowledges."""
        first = self._acknowledged[backup] + 1
        at = first - 1 - self._base
        ops = self._log[at : at + _RESEND_MAX]
        through = first - 1 + len(ops)
        self._catching_up[backup] = through if through < self._last else 0
        effects.append(Send(backup, Replicate(first, ops)))

    # --- the backups ----------------------------------------------------------------------

    def _requested_of_backup(
        self, handles: list[Any], ops: list[Op], effects: list[Effect]
    ) -> None:
        for handle, op in zip(handles, ops, strict=True):
            if op.kind == WRITE or self._params.read_from == "primary":
                effects.append(Redirect(handle, op, PRIMARY))
            else:
                self._read(handle, op, effects)

    def _replicate(self, source: int, message: Replicate, effects: list[Effect]) -> None:
        first_new = self._applied + 1
        written: list[Op] = []
        early = self._early
        first, ops = message.first, message.ops
        if first > first_new:
            # It overtook others, or they were lost: it waits here for them.
            if ops:
                early[first] = ops
        else:
            # What has arrived before is cut off.
            written.extend(ops[first_new - first :])
            while early and (first := min(early)) <= first_new + len(written):
                written.extend(early.pop(first)[first_new + len(written) - first :])
        for op in written:
            self._applied += 1
            self._state.write(op, self._applied)
            self._state.touch(op, effects)
        if written:
            effects.append(Persist((first_new, written), self._applied))
            self._serve_waiting(effects)
        effects.append(Send(source, Acknowledge(self._applied)))

    # --- both -----------------------------------------------------------------------------

    def _read(self, handle: Any, op: Op, effects: list[Effect]) -> None:
        if self._params.session_wait and op.seen > self._applied:
            self._waiting_order += 1
            heapq.heappush(self._waiting, (op.seen, self._waiting_order, handle, op))
        else:
            self._state.serve(handle, op, self._applied, effects)

    def _serve_waiting(self, effects: list[Effect]) -> None:
        while self._waiting and self._waiting[0][0] <= self._applied:
            _, _, handle, op = heapq.heappop(self._waiting)
            self._state.serve(handle, op, self._applied, effects)

    def _recover(self, records: list[Any], effects: list[Effect]) -> None:
        for first, ops in records:
            for version, op in enumerate(ops, first):
                # The primary shows all it recovers: reads may have seen any of it before.
                self._applied = version
                self._state.write(op, version)
            if self._node == PRIMARY:
                self._log.extend(ops)
                self._handles.extend([None] * len(ops))
        self._durable = self._applied
        if self._node == PRIMARY and self._log and self._backups:
            # Nothing is known of the backups: no write at the end makes each say what it holds.
            for backup in self._backups:
                effects.append(Send(backup, Replicate(self._last + 1, [])))
            self._arm_resend(effects)

    def check(self) -> None:
        assert len(self._handles) == len(self._log)
        if self._node == PRIMARY:
            assert self._base <= self._applied <= self._durable <= self._last
            assert all(version <= self._durable for version in self._acknowledged.values())
        else:
            assert not self._log
            assert all(first > self._applied + 1 for first in self._early)
        assert all(entry.version <= self._applied for entry in self._state.values.values())

    def contents(self) -> Mapping[bytes, Entry]:
        return self._state.contents()

    @staticmethod
    def candidates(params: Params, op: Op, view: ClusterView) -> Sequence[int]:
        return view.nodes if params.read_from == "any" and op.kind != WRITE else (PRIMARY,)

    @staticmethod
    def claims(params: Params, context: ClaimContext) -> frozenset[str]:
        if params.read_from == "primary" or context.replicas == 1:
            return frozenset({LINEARIZABLE})
        held = {EVENTUAL}
        if context.sticky or params.session_wait:
            held.add(MONOTONIC_READS)
        if params.session_wait or (context.sticky and params.mode == SYNC):
            held.add(READ_YOUR_WRITES)
        return frozenset(held)
