"""Transactions over shards: two-phase commit between replicated groups.

Gray, "Notes on Data Base Operating Systems" (1978); Bernstein, Hadzilacos and Goodman,
"Concurrency Control and Recovery in Database Systems" (1987), chapter 7; over groups that do not
fail as a whole, as in Gray and Lamport, "Consensus on Transaction Commit" (ACM TODS 2006,
section 1 names the weakness of a single coordinator) and in Spanner (Corbett et al., OSDI 2012,
section 4.2.1).

The node that a client asks coordinates, and keeps nothing: votes, locks and the decision are
operations in the logs of the shards' groups (:mod:`orchestrator.core.transactions`). All parts
are prepared side by side. A part that meets a lock votes no (no-wait, so nothing deadlocks); a
vote is for good. Once all have voted yes, the home shard (the lowest of them) decides: its
applied answer is the commit point, and the client hears it. The others are told afterwards, and
once all have heard it, the home shard forgets it. What touches one shard needs none of this: one
operation there checks locks, reads and writes; one that meets a lock is tried again for a while.

**Why it is serializable,** even strictly: all locks of a transaction are held at once, from the
last vote to the decision, and a shard gives up its own only after the decision (strict two-phase
locking); so transactions take effect in the order of their decisions. Reads respect locks, too:
what was decided and has not reached a shard yet is behind a lock there.

**Why nothing is decided twice or left behind.** Only the home shard decides, and the first to
ask it does. Whoever finds a prepared part that is older than it should be asks the home shard to
abort, and does in its own shard what the home shard answers, be it that the transaction had been
committed. A part that comes after its transaction is over finds the fence of its session.
A transaction that only reads may be answered once all have voted, without a decision, if no node
can have grown impatient yet: parts are resolved ``recover_after`` after a node has seen them at
the earliest, and clocks run within a factor of two of each other.

Cost of a transaction over s > 1 shards of n nodes, in operations of the inner protocol: s to
prepare and 1 to decide before the answer (two round trips between the nodes in charge, and two
operations of the protocol one after the other), s to finish and forget after it; one that only
reads saves the decision; one over a single shard costs 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.core.levels import LINEARIZABLE, SERIALIZABLE
from orchestrator.core.machine import (
    READ,
    TRANSACTION,
    WRITE,
    ClaimContext,
    ClusterView,
    Effect,
    Event,
    Op,
    Received,
    Requested,
    SetTimer,
    Started,
    TimerFired,
)
from orchestrator.core.parameters import ParameterError, duration, number
from orchestrator.core.registry import Family, register
from orchestrator.core.sharding import Shards
from orchestrator.transactions._asking import RETRY
from orchestrator.transactions._coordinator import RECOVER, Coordinator
from orchestrator.transactions._tasks import Answers, Submit


@dataclass(frozen=True)
class Params:
    retry: int = duration(
        "2ms", help="pause before trying again what found nobody in charge, or met a lock"
    )
    retries: int = number(
        12, low=0, help="how often what touches one shard and met a lock is tried again"
    )
    resend: int = duration(
        "200ms", help="a shard that has not answered is asked again; longest pause at a lock"
    )
    give_up: int = duration("2s", help="for the votes, and again for the decision")
    recover_after: int = duration(
        "2s", help="parts that are prepared for so long, to its double, are resolved by any node"
    )

    def __post_init__(self) -> None:
        if min(self.retry, self.resend, self.give_up, self.recover_after) <= 0:
            raise ParameterError("all durations must be above 0")


@register(
    Family.TRANSACTIONS,
    "two_phase_commit",
    params=Params,
    claims={SERIALIZABLE: "where the protocol below is linearizable and applies in one order"},
)
class TwoPhaseCommit(Coordinator):
    """Two-phase commit between the shards' replicated groups, with locks and recovery."""

    own_messages: ClassVar[Any] = Submit | Answers

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Received() if type(event.message) is self.envelope:
                effects = super().handle(event, now_ns)
            case Requested():
                for handle, op in zip(event.handles, event.ops, strict=True):
                    self._begin(handle, op, now_ns, effects)
            case Received(source, Submit(shards, ops)):
                for shard, op in zip(shards, ops, strict=True):
                    self._hand(source, shard, op, now_ns)
            case Received(source, Answers(answers)):
                for answer in answers:
                    self._heard(source, answer, now_ns, effects)
            case TimerFired(timer) if timer == RETRY:
                self._armed_ns = None
                self._ask_again(now_ns, effects)
            case TimerFired(timer) if timer == RECOVER:
                self._recover(now_ns, effects)
                effects.append(SetTimer(RECOVER, self._params.recover_after // 2))
            case _:
                effects = super().handle(event, now_ns)
                if type(event) is Started:
                    effects.append(SetTimer(RECOVER, self._params.recover_after // 2))
        self._settle(now_ns, effects)
        return effects

    # --- about it -------------------------------------------------------------------------

    @property
    def unfinished(self) -> int:
        """Prepared parts and decisions that somebody has not heard of."""
        return sum(
            len(known.prepared) + len(known.decisions)
            for shard, machine in self.machines.items()
            if (known := self._known_in(shard)) is not None and machine.holds_copy
        )

    def check(self) -> None:
        for shard in self.reached:
            if (parts := self._known_in(shard)) is not None:
                parts.check()
        super().check()
        for task in self._tasks.values():
            assert task.asks, "a task waits for nothing"

    # --- for clients ----------------------------------------------------------------------

    @classmethod
    def kinds_of(cls, params: Shards) -> frozenset[int]:
        return frozenset({READ, WRITE, TRANSACTION})

    @classmethod
    def candidates(cls, params: Shards, op: Op, view: ClusterView) -> tuple[int, ...]:
        return view.nodes

    @classmethod
    def claims(cls, params: Shards, context: ClaimContext) -> frozenset[str]:
        """Together that is strict serializability: each is checked where it is defined."""
        below = cls.inner.claims(params.own, context)
        return frozenset({LINEARIZABLE, SERIALIZABLE}) if LINEARIZABLE in below else frozenset()

    @classmethod
    def read_levels(cls, params: Shards, context: ClaimContext) -> frozenset[str]:
        return frozenset()

    @classmethod
    def validate(cls, params: Shards, replicas: int, nodes: int) -> str | None:
        if nodes != replicas:
            return "every node holds a copy of every shard: nodes equals replicas"
        return super().validate(params, replicas, nodes)

    @classmethod
    def why_not(cls, params: Shards, context: ClaimContext, level: str) -> str:
        return cls.inner.why_not(params.own, context, LINEARIZABLE)
