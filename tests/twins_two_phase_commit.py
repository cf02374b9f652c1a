"""Twins of two-phase commit that each break one rule; the fuzzer draws what they run on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from twins import Twin

from orchestrator.core.machine import OK, READ, Effect, MachineContext, Mark, Op
from orchestrator.core.sharding import Shards
from orchestrator.core.steps import PREPARE
from orchestrator.core.transactions import (
    ABORTED,
    YES,
    Identity,
    LockTable,
    MicroOperation,
    Part,
    Said,
    Store,
    Transactions,
    outcome,
)
from orchestrator.transactions._tasks import Task
from orchestrator.transactions.two_phase_commit import TwoPhaseCommit


class Careless(Transactions):
    """Transactions whose broken rule is to be found by what it leads to."""

    def check(self) -> None:
        pass


class Carelessly(TwoPhaseCommit):
    """The layer over shards whose states break a rule."""

    careless: ClassVar[type[Transactions]]

    def __init__(self, context: MachineContext, params: Shards) -> None:
        super().__init__(context, params)
        for machine in self.machines.values():
            machine._state.transactions = self.careless()


# --- of the coordinator -----------------------------------------------------------------


class VotesFromMemory(TwoPhaseCommit):
    """Whoever leads a shard votes without telling the others of its group."""

    def _hand(self, source: int, shard: int, op: Op, now_ns: int) -> None:
        state = self.machines[shard]._state
        leads = self.machines[shard].role in ("leader", "primary", "head")
        if op.kind == PREPARE and leads and state.transactions is not None:
            said = state.transactions.take(state, op, 0)
            self._at[shard, op.session, op.sequence, op.kind, op.value] = (now_ns, [source])
            self._answer(shard, op, said, -1, 0, [])
        else:
            super()._hand(source, shard, op, now_ns)


class DecidesInMemory(TwoPhaseCommit):
    """The coordinator keeps its decision to itself, and tells all shards what to do."""

    def _all_prepared(self, task: Task, now_ns: int, effects: list[Effect]) -> None:
        effects.append(Mark("commit"))
        self._reply(task, OK, effects)
        self._close(task, list(task.parts), True, now_ns)


# --- of the shards ----------------------------------------------------------------------


class UnlocksAtVote(Careless):
    """Gives the locks up as soon as it has voted."""

    def _prepare(self, store: Store, of: Identity, part: Part) -> Said:
        said = super()._prepare(store, of, part)
        if said.status == YES:
            self.locks.release(of, part.ops)
        return said


class PreparesLate(Careless):
    """Votes on what is over."""

    def _prepare(self, store: Store, of: Identity, part: Part) -> Said:
        if of not in self.prepared:
            if self.locks.refuses(of, part.ops):
                return self._end(of, Said(ABORTED))
            self.locks.take(of, part.ops)
            self.prepared[of] = part
        return Said(YES, outcome(store, part.ops)[0])


class ResolvesWithoutRecord(Careless):
    """Says that nothing is decided, and may decide otherwise later."""

    def _decide(self, store: Store, of: Identity, commit: bool, version: int) -> Said:
        if not commit and of in self.prepared:
            return Said(ABORTED)
        return super()._decide(store, of, commit, version)


class ForgetsDecisions(Careless):
    """Takes a session's next transaction for a sign that all have heard of the last one."""

    def _end(self, of: Identity, said: Said) -> Said:
        for earlier in [each for each in self.decisions if each[0] == of[0] and each[1] < of[1]]:
            del self.decisions[earlier]
        return super()._end(of, said)


class BlindReaders(LockTable):
    """Locks that readers do not see."""

    def refuses(self, of: Identity, ops: Iterable[MicroOperation]) -> bool:
        return super().refuses(of, [op for op in ops if op[0] != READ])


class ReadsThroughLocks(Careless):
    """Reads what is locked as it was before."""

    def __init__(self) -> None:
        super().__init__()
        self.locks = BlindReaders()


def with_state(careless: type[Transactions]) -> type[Any]:
    """The layer over such states."""
    return type(f"With{careless.__name__}", (Carelessly,), {"careless": careless})


def twin(name: str, machine: type[Any], why: str) -> Twin:
    return Twin(name, machine, "two_phase_commit", why)


TWINS = [
    twin(
        "votes from memory",
        VotesFromMemory,
        "a vote is lost with its leader, and the group goes apart",
    ),
    twin(
        "decides in memory",
        DecidesInMemory,
        "a coordinator is lost, and those that have not heard it abort",
    ),
    twin(
        "unlocks at the vote",
        with_state(UnlocksAtVote),
        "others read and write between the vote and the decision",
    ),
    twin(
        "prepares late",
        with_state(PreparesLate),
        "a vote that was asked for twice is given again after the end, and writes again",
    ),
    twin(
        "resolves without a record",
        with_state(ResolvesWithoutRecord),
        "a part is given up, and then the coordinator commits",
    ),
    twin(
        "forgets decisions",
        with_state(ForgetsDecisions),
        "a part that has not heard of its commit is told to abort",
    ),
    twin(
        "reads through locks",
        with_state(ReadsThroughLocks),
        "a reader sees one shard before and another one after a commit",
    ),
]
