"""The coordinator of two-phase commit: from a client's transaction to steps in shards, and back.

It stands in memory alone; who is asked, and asked again, is the business of
:mod:`orchestrator.transactions._asking`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from orchestrator.core.machine import (
    FAIL,
    OK,
    READ,
    TRANSACTION,
    UNKNOWN,
    Effect,
    MachineContext,
    Mark,
    Op,
    Reply,
)
from orchestrator.core.sharding import Shards
from orchestrator.core.steps import DECIDE, EXECUTE, FINISH, FORGET, PREPARE
from orchestrator.core.transactions import (
    ABORTED,
    BUSY,
    COMMITTED,
    YES,
    Identity,
    Said,
    decode_ops,
    ruling,
    step,
)
from orchestrator.transactions._asking import Asker
from orchestrator.transactions._tasks import (
    CLOSING,
    DECIDING,
    EXECUTING,
    FENCING,
    PREPARING,
    RESOLVING,
    Task,
    parts_of,
)

RECOVER: Final = "recover"


class Coordinator(Asker):
    """A node as the coordinator of its clients' transactions, and of those left behind."""

    def __init__(self, context: MachineContext, params: Shards) -> None:
        super().__init__(context, params)
        self._chance = context.chance
        # (shard, transaction) left behind -> when this node resolves it.
        self._patience_ns: dict[tuple[int, Identity], int] = {}
        self._stages: dict[str, Callable[[Task, int, Said, int, list[Effect]], None]] = {
            EXECUTING: self._executed,
            FENCING: self._fenced,
            PREPARING: self._voted,
            DECIDING: self._decided,
            RESOLVING: self._decided,
            CLOSING: self._closed,
        }

    def _go_on(
        self, task: Task, shard: int, said: Said, now_ns: int, effects: list[Effect]
    ) -> None:
        self._stages[task.stage](task, shard, said, now_ns, effects)

    # --- a client's operation -------------------------------------------------------------

    def _begin(self, handle: Any, op: Op, now_ns: int, effects: list[Effect]) -> None:
        of = (op.session, op.sequence)
        if of in self._tasks:
            return
        try:
            ops = decode_ops(op.value) if op.kind == TRANSACTION else [_single(op)]
        except ValueError:
            effects.append(Reply(handle, FAIL))
            return
        parts = parts_of(ops, self.layouts.cell_of)
        home = min(parts)
        one = len(parts) == 1
        task = Task(
            of,
            EXECUTING if one else PREPARING,
            now_ns + self._params.give_up,
            home,
            parts[home].writes,
            handle,
            op,
            ops,
            parts,
            now_ns,
        )
        self._tasks[of] = task
        for shard, part in parts.items():
            self._ask(task, shard, step(EXECUTE if one else PREPARE, of, part), now_ns)

    def _reply(self, task: Task, outcome: int, effects: list[Effect]) -> None:
        """Answer the client, if one waits."""
        if task.handle is None:
            return
        value = task.value(self.layouts.cell_of) if outcome == OK else None
        effects.append(Reply(task.handle, outcome, value, 0, task.after))
        task.handle = None

    # --- what shards answer ---------------------------------------------------------------

    def _executed(
        self, task: Task, shard: int, said: Said, now_ns: int, effects: list[Effect]
    ) -> None:
        if said.status != BUSY:
            self._end_of_one(task, shard, said, effects)
            return
        effects.append(Mark("lock_conflict"))
        if task.tries < self._params.retries:
            # Each try is an operation of the shard: ever fewer of them while the lock stays.
            pause_ns = min(self._params.retry << min(task.tries, 16), self._params.resend)
            task.tries += 1
            self._later(task.asks[shard], task.of, shard, now_ns + pause_ns)
            return
        # A copy that is still on its way must not be carried out after this fails.
        task.stage = FENCING
        self._ask(task, shard, ruling(FINISH, task.of, False), now_ns)

    def _fenced(
        self, task: Task, shard: int, said: Said, now_ns: int, effects: list[Effect]
    ) -> None:
        self._end_of_one(task, shard, said, effects)

    def _end_of_one(self, task: Task, shard: int, said: Said, effects: list[Effect]) -> None:
        """A transaction over one shard is over."""
        committed = said.status == COMMITTED
        task.reads[shard] = said.reads
        task.asks.clear()
        effects.append(Mark("commit" if committed else "abort"))
        self._reply(task, OK if committed else FAIL, effects)

    def _voted(
        self, task: Task, shard: int, said: Said, now_ns: int, effects: list[Effect]
    ) -> None:
        del task.asks[shard]
        if said.status == YES:
            task.reads[shard] = said.reads
            if not task.asks:
                self._all_prepared(task, now_ns, effects)
        elif said.status == ABORTED:
            # For good, so nobody will ever have all votes.
            effects += (Mark("lock_conflict"), Mark("abort"))
            self._reply(task, FAIL, effects)
            self._close(task, [each for each in task.parts if each != shard], False, now_ns)
        else:
            # Somebody else has seen it through, and what it read is not known here.
            self._reply(task, UNKNOWN, effects)
            task.asks.clear()

    def _all_prepared(self, task: Task, now_ns: int, effects: list[Effect]) -> None:
        patience_ns = self._params.recover_after // 2
        if not task.writes and now_ns - task.began_ns < patience_ns:
            effects.append(Mark("commit"))
            self._reply(task, OK, effects)
            self._close(task, list(task.parts), False, now_ns)
            return
        task.stage = DECIDING
        task.deadline_ns = now_ns + self._params.give_up
        self._ask(task, task.home, ruling(DECIDE, task.of, True), now_ns)

    def _decided(
        self, task: Task, shard: int, said: Said, now_ns: int, effects: list[Effect]
    ) -> None:
        """The home shard has said what stands."""
        task.asks.clear()
        committed = said.status != ABORTED
        effects.append(Mark("commit" if committed else "abort"))
        known = committed and task.stage == DECIDING
        self._reply(task, OK if known else UNKNOWN if committed else FAIL, effects)
        task.forgets = said.status == COMMITTED and task.op is not None
        others = [each for each in task.parts if each != task.home]
        self._close(task, others, said.status == COMMITTED, now_ns)

    def _close(self, task: Task, shards: list[int], commit: bool, now_ns: int) -> None:
        """Tell these shards what came of it."""
        task.stage = CLOSING
        task.deadline_ns = now_ns + self._params.give_up
        task.asks.clear()
        for shard in shards:
            self._ask(task, shard, ruling(FINISH, task.of, commit), now_ns)

    def _closed(
        self, task: Task, shard: int, said: Said, now_ns: int, effects: list[Effect]
    ) -> None:
        del task.asks[shard]
        if not task.asks and task.forgets:
            task.forgets = False
            self._ask(task, task.home, ruling(FORGET, task.of, True), now_ns)

    def _expire(self, task: Task, now_ns: int, effects: list[Effect]) -> None:
        task.asks.clear()
        if task.stage == PREPARING:
            # Some may have voted yes: abort where it is decided.
            task.stage = RESOLVING
            task.deadline_ns = now_ns + self._params.give_up
            self._ask(task, task.home, ruling(DECIDE, task.of, False), now_ns)
            return
        if task.handle is not None:
            effects.append(Mark("in_doubt"))
            self._reply(task, UNKNOWN, effects)
        del self._tasks[task.of]

    # --- what others left behind ----------------------------------------------------------

    def _recover(self, now_ns: int, effects: list[Effect]) -> None:
        """See to transactions that are prepared, or decided and not forgotten, for too long."""
        self._forget_lost(now_ns)
        before, self._patience_ns = self._patience_ns, {}
        doubtful: dict[Identity, Task] = {}
        decided: dict[Identity, tuple[int, list[int]]] = {}
        for shard, machine in self.machines.items():
            known = self._known_in(shard)
            if known is None or not machine.holds_copy:
                continue
            for of, part in known.prepared.items():
                if self._grown_old((shard, of), before, now_ns):
                    until_ns = now_ns + self._params.give_up
                    task = doubtful.setdefault(of, Task(of, RESOLVING, until_ns, part.home))
                    task.parts[shard] = part
            for of, others in known.decisions.items():
                if self._grown_old((shard, of), before, now_ns):
                    decided[of] = (shard, others)
        for of, task in doubtful.items():
            if of not in decided:
                effects.append(Mark("resolve"))
                self._tasks[of] = task
                self._ask(task, task.home, ruling(DECIDE, of, False), now_ns)
        for of, (home, others) in decided.items():
            effects.append(Mark("resolve"))
            task = self._tasks[of] = Task(of, CLOSING, now_ns, home, forgets=True)
            self._close(task, others, True, now_ns)

    def _grown_old(
        self, which: tuple[int, Identity], before: dict[tuple[int, Identity], int], now_ns: int
    ) -> bool:
        """Whether this node has seen it long enough, and does not see to it already."""
        after_ns = self._params.recover_after
        due_ns = before.get(which, 0)
        old = which in before and now_ns >= due_ns
        if old or which not in before:
            due_ns = now_ns + after_ns + self._chance.randrange(after_ns + 1)
        self._patience_ns[which] = due_ns
        return old and which[1] not in self._tasks


def _single(op: Op) -> tuple[int, bytes, bytes | None]:
    """A read or write as a micro-operation."""
    return (op.kind, op.key, None if op.kind == READ else op.value or b"")
