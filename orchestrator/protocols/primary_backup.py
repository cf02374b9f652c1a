"""Primary-backup replication: one node orders all writes and copies them to the others.

Alsberg and Day, "A principle for resilient sharing of distributed resources" (ICSE 1976);
the modes are those of MySQL and PostgreSQL: a write is answered after every backup has it
(``sync``), after one has it (``semi_sync``), or at once (``async``).

With ``failover`` an authority replaces nodes that fall silent (:mod:`._views`); the most advanced
of those left becomes the primary. Why it then has every write that was answered: in ``sync`` mode
all members of a view have it, so any of them will do. In ``semi_sync`` mode the primary and one
backup have it, so a view is only followed by one with all its members but one; where two are gone
at once the service waits for one of them rather than lose a write. In ``async`` mode the primary
alone may have it: what the others lack is lost with it, so nothing but convergence is claimed.
Reads at the primary are linearizable because its lease has surely lapsed, or it has sealed its
view, before a successor serves. Backups show what they know to be committed, so that nothing seen
is lost: they hear of it with the next write, or at once where they are read (``read_from: any``).

Without ``failover`` node 0 is the primary for ever, no authority runs, and while it is away
writes wait. Then a backup shows a write as it arrives, and a read at the primary waits for what
its session has seen elsewhere.

A write is sent once the primary has persisted it, as PostgreSQL sends only flushed log: a
backup that is ahead of what its primary recovers after a crash would differ from it for good.
Reads go to the primary, or to any node (``read_from: any``); with ``session_wait`` a node holds a
read back until it shows the newest version that the session has seen. Versions are places in one
order of writes, of which every node shows a beginning, so such a history is sequentially
consistent.

Cost per write with n nodes: 2(n-1) messages, one round trip from the primary to its backups
(none in async mode), and as many again, which no write waits for, with ``failover`` where backups
are read; a read costs no message. A node and the authority exchange 2 messages a heartbeat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.demand import Demand, Demands, Log, Round, Step, everyone
from orchestrator.core.levels import (
    CODES,
    EVENTUAL,
    LINEARIZABLE,
    MONOTONIC_READS,
    READ_YOUR_WRITES,
    SEQUENTIAL,
)
from orchestrator.core.machine import (
    READING,
    ClaimContext,
    ClusterView,
    Effect,
    Machine,
    MachineContext,
    Op,
    Send,
)
from orchestrator.core.parameters import choice, duration, number
from orchestrator.core.registry import Family, register
from orchestrator.core.state import Snapshot
from orchestrator.core.units import NS_PER_S
from orchestrator.protocols._clock_bound import STALE, UNSURE, outrun, why
from orchestrator.protocols._copies import Copy
from orchestrator.protocols._order import Acknowledge, Replicate, Vow
from orchestrator.protocols._read_needs import ANY, OFFERED, ORDERED, STRONG, need_at, need_of
from orchestrator.protocols._views import (
    NOBODY,
    AnyOfThem,
    Configuration,
    OneMayBeMissing,
    ViewParams,
)

PRIMARY = 0
"""The primary of the first view, and where there is no failover of every view."""
SYNC, SEMI_SYNC, ASYNC = "sync", "semi_sync", "async"
_AUTHORITIES: dict[str, type[Configuration]] = {
    SYNC: Configuration,
    SEMI_SYNC: OneMayBeMissing,
    ASYNC: AnyOfThem,
}


@dataclass(frozen=True)
class Params(ViewParams):
    mode: str = choice(SYNC, options=(SYNC, SEMI_SYNC, ASYNC))
    read_from: str = choice("primary", options=("primary", "any"))
    session_wait: bool = False
    failover: bool = True
    resend: int = duration("200ms", help="writes unacknowledged for this long are sent again")
    keep: int = number(
        4096, low=1, help="committed writes kept for nodes that fell behind", probes=(4, 32)
    )

    @property
    def clock_bound(self) -> float:
        """How much faster one clock may run than another; without failover there is no lease."""
        return self.clock_drift if self.failover else math.inf

    @property
    def unasked(self) -> str:
        """What a read needs that asks for no level of its own."""
        if self.read_from == "primary":
            return STRONG
        return ORDERED if self.session_wait else ANY


@register(
    Family.PROTOCOL,
    "primary_backup",
    params=Params,
    claims={
        LINEARIZABLE: "read_from: primary; with failover in mode sync or semi_sync",
        SEQUENTIAL: "read_from: any with session_wait; with failover in mode sync or semi_sync",
        READ_YOUR_WRITES: "as sequential; without failover and crashes sticky and mode: sync",
        MONOTONIC_READS: "as sequential; without failover and crashes also sticky",
        EVENTUAL: "always, where crashed nodes stay away or keep what they persisted",
    },
)
class PrimaryBackup(Copy):
    """One primary orders all writes and copies them to its backups."""

    roles: ClassVar[tuple[str, str, str]] = ("primary", "backup", "backup")

    def __init__(self, context: MachineContext, params: Params) -> None:
        self._params = params
        static = not params.failover or len(context.nodes) == 1
        # A backup may show what it holds where no other order can come to be, or nobody minds.
        self._shows_all = static or params.mode == ASYNC
        self._tells_at_once = not self._shows_all and params.read_from == "any"
        # What each backup knows to be committed.
        self._knows: dict[int, int] = {}
        super().__init__(context, params, params.resend, params.keep, static=static)

    # --- who sends to whom ----------------------------------------------------------------

    def _neighbours(self, members: list[int], at: int) -> tuple[int, tuple[int, ...]]:
        return (members[0], ()) if at else (NOBODY, tuple(members[1:]))

    def _reader(self) -> int:
        return self._membership.view.members[0]

    def _need(self, op: Op) -> str:
        return need_of(op, self._params.unasked)

    def _read_strongly(self, handle: Any, op: Op, serving: bool, effects: list[Effect]) -> None:
        ahead = op.seen > self._order.committed and self._reader() == self._node
        if ahead and self._membership.static:
            # A backup has shown its session what is not committed yet.
            self._wait(handle, op)
        else:
            super()._read_strongly(handle, op, serving, effects)

    def _forgets(self) -> bool:
        return self._params.mode == ASYNC

    def _adopt(self, effects: list[Effect]) -> None:
        membership, order = self._membership, self._order
        if self._forgets() and membership.member and order.last > membership.view.start:
            # It has caught up on more than was left of that: it begins anew.
            nothing = Snapshot([], [], [], [], [], [])
            order.install(0, nothing, Vow(membership.view, False), effects)
        super()._adopt(effects)

    @property
    def decided(self) -> int:
        return 0 if self._forgets() else super().decided

    # --- what is committed ----------------------------------------------------------------

    def _committed_point(self) -> int:
        """The newest write that may be answered."""
        have, durable = self._have.values(), self._order.durable
        if self._params.mode == ASYNC or not have:
            return durable
        return min(durable, min(have) if self._params.mode == SYNC else max(have))

    def _commit(self, effects: list[Effect]) -> None:
        if self._upstream == NOBODY and self._membership.member:
            self._commit_through(self._committed_point(), effects)

    def _learn(self, committed: int, effects: list[Effect]) -> None:
        if self._upstream != NOBODY or not self._membership.member:
            super()._learn(committed, effects)

    def _news(self) -> int:
        return self._order.last if self._shows_all else self._order.committed

    def _committed_more(self, effects: list[Effect]) -> None:
        if self._tells_at_once and self._downstream:
            message = Replicate(
                self._membership.view.epoch, self._order.last + 1, self._order.committed, []
            )
            effects.extend(Send(target, message) for target in self._downstream)

    def _received_writes(self, source: int, new: bool, effects: list[Effect]) -> None:
        self._say_position(effects)

    def _acknowledge(self, source: int, message: Acknowledge, effects: list[Effect]) -> None:
        if source in self._have:
            self._knows[source] = message.committed
            super()._acknowledge(source, message, effects)
            if self._unsettled() and not self._resend_armed:
                self._arm_resend(effects)

    def _unsettled(self) -> bool:
        news, knows = self._news(), self._knows
        return super()._unsettled() or any(
            knows.get(target, 0) < news for target in self._downstream
        )

    # --- for clients ----------------------------------------------------------------------

    @staticmethod
    def authority_of(params: Params) -> type[Machine] | None:
        return _AUTHORITIES[params.mode] if params.failover else None

    @staticmethod
    def candidates(params: Params, op: Op, view: ClusterView) -> Sequence[int]:
        reads = op.kind in READING
        if reads and need_of(op, params.unasked) != STRONG:
            return view.nodes
        if not params.failover:
            return (PRIMARY,)
        return (view.reader if reads else view.writer,)

    @staticmethod
    def claims(params: Params, context: ClaimContext) -> frozenset[str]:
        if _forgetting(context):
            return frozenset()
        if context.replicas == 1:
            return frozenset({LINEARIZABLE})
        if params.failover and params.mode == ASYNC:
            return frozenset({EVENTUAL})
        if params.read_from == "primary":
            return UNSURE if outrun(params.clock_bound, context) else frozenset({LINEARIZABLE})
        if params.session_wait:
            return frozenset({SEQUENTIAL})
        held = {EVENTUAL}
        if context.sticky and not params.failover and not context.crashes:
            held.add(MONOTONIC_READS)
            if params.mode == SYNC:
                held.add(READ_YOUR_WRITES)
        return frozenset(held)

    @staticmethod
    def demands(params: Params, replicas: int, level: str) -> Demands:
        anywhere = need_at(level, params.unasked) != STRONG
        read = Demand(everyone(replicas) if anywhere else (PRIMARY,))
        if replicas == 1:
            return Demands(read, Demand((PRIMARY,), (Log(),)))
        need = {SYNC: replicas - 1, SEMI_SYNC: 1, ASYNC: 0}[params.mode]
        steps: tuple[Step, ...] = (Log(), Round(need, logs=True))
        if params.failover and params.mode != ASYNC and params.read_from == "any":
            # Backups hear at once of what is committed.
            steps = (*steps, Round(0))
        beats = NS_PER_S / params.heartbeat if params.failover else 0.0
        return Demands(read, Demand((PRIMARY,), steps), (beats,) * replicas)

    @staticmethod
    def read_levels(params: Params, context: ClaimContext) -> frozenset[str]:
        if _forgetting(context):
            return frozenset()
        if params.failover and params.mode == ASYNC and context.replicas > 1:
            return frozenset({EVENTUAL})
        return OFFERED - STALE if outrun(params.clock_bound, context) else OFFERED

    @staticmethod
    def why_not(params: Params, context: ClaimContext, level: str) -> str:
        if _forgetting(context):
            return (
                "with durability: memory a crashed node comes back empty, and counts as one that"
                " holds what it acknowledged"
            )
        if level not in CODES or level == EVENTUAL or context.replicas == 1:
            return ""
        if params.failover and params.mode == ASYNC:
            return (
                "mode: async answers a write that 1 of"
                f" {context.replicas} nodes holds, and a failover may lose it"
            )
        if params.read_from == "any":
            return "read_from: any serves reads at backups, which may lack the newest write"
        bound = params.clock_bound
        return why(bound, context) if outrun(bound, context) else ""


def _forgetting(context: ClaimContext) -> bool:
    return context.restarts and context.durability == "memory"
