"""Asking shards: the own machine of a shard, or the node that seems to be in charge of it.

Every step may be asked for any number of times: shards take it once and repeat their answer
(:mod:`orchestrator.core.transactions`). So whatever is lost is asked for again.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Final

from orchestrator.core.machine import (
    OK,
    Effect,
    MachineContext,
    Op,
    Redirect,
    Reply,
    Requested,
    Send,
    SetTimer,
)
from orchestrator.core.portions import portions
from orchestrator.core.sharding import Sharded, Shards
from orchestrator.core.transactions import Identity, Said, Transactions
from orchestrator.transactions._tasks import (
    DOUBT,
    ELSEWHERE,
    Agenda,
    Answer,
    Answers,
    Ask,
    Submit,
    Task,
    answer_bytes,
    submitted,
)

RETRY = "retry"
_LOST: Final = 8
"""After so many times ``give_up`` an own shard is asked again: it may have lost the question."""

Which = tuple[int, int, int, int, bytes | None]
"""Shard, session, sequence, kind and value of a step."""


class Asker(Sharded):
    """A node that has shards take steps, for its own tasks and for those of others."""

    def __init__(self, context: MachineContext, params: Shards) -> None:
        super().__init__(context, params)
        self._params = params.layer
        self._tasks: dict[Identity, Task] = {}
        self._agenda = Agenda()
        self._armed_ns: int | None = None
        # By shard: the node that seems to be in charge.
        self._charged = [self.node] * self.count
        # What is to be handed to own shards, and to leave, at the end of this event.
        self._asked_here: dict[int, Requested] = {}
        self._answered_here: list[Answer] = []
        self._submits: dict[int, Submit] = {}
        self._answers: dict[int, list[Answer]] = {}
        # Steps that own shards are at -> since when, and who asks.
        self._at: dict[Which, tuple[int, list[int]]] = {}

    @abstractmethod
    def _go_on(
        self, task: Task, shard: int, said: Said, now_ns: int, effects: list[Effect]
    ) -> None:
        """A shard has answered."""

    @abstractmethod
    def _expire(self, task: Task, now_ns: int, effects: list[Effect]) -> None:
        """The time of its stage is over."""

    def _known_in(self, shard: int) -> Transactions | None:
        """What a shard's state here knows of transactions."""
        known: Transactions | None = self.machines[shard]._state.transactions
        return known

    # --- asking shards --------------------------------------------------------------------

    def _ask(self, task: Task, shard: int, op: Op, now_ns: int) -> None:
        """Ask, and again until there is an answer."""
        ask = task.asks[shard] = Ask(op)
        self._send(ask, task.of, shard, now_ns)

    def _send(self, ask: Ask, of: Identity, shard: int, now_ns: int) -> None:
        node = self._charged[shard]
        if node == self.node:
            self._hand(node, shard, ask.op, now_ns)
        else:
            submit = self._submits.setdefault(node, Submit([], []))
            submit.shards.append(shard)
            submit.ops.append(ask.op)
        # Twice as long each time: where answers are late, asking more makes them later.
        ask.sent += 1
        self._later(ask, of, shard, now_ns + (self._params.resend << min(ask.sent - 1, 8)))
        ask.silent = True

    def _later(self, ask: Ask, of: Identity, shard: int, due_ns: int) -> None:
        ask.due_ns = due_ns
        ask.silent = False
        self._agenda.note(due_ns, of, shard)

    def _hand(self, source: int, shard: int, op: Op, now_ns: int) -> None:
        """Let the shard's machine here take a step, once for all who ask while it is at it."""
        which = (shard, op.session, op.sequence, op.kind, op.value)
        since_ns, sources = self._at.get(which, (now_ns, []))
        if source not in sources:
            sources.append(source)
        if which in self._at and now_ns < since_ns + _LOST * self._params.give_up:
            return
        self._at[which] = (now_ns, sources)
        batch = self._asked_here.setdefault(shard, Requested([], []))
        batch.handles.append(op)
        batch.ops.append(op)

    def _forget_lost(self, now_ns: int) -> None:
        """Forget steps that own shards will not answer any more."""
        since_ns = now_ns - _LOST * self._params.give_up
        self._at = {which: at for which, at in self._at.items() if at[0] > since_ns}

    def _ask_again(self, now_ns: int, effects: list[Effect]) -> None:
        for due_ns, of, shard in self._agenda.take(now_ns):
            task = self._tasks.get(of)
            ask = None if task is None else task.asks.get(shard)
            if task is None or ask is None or ask.due_ns != due_ns:
                continue
            if now_ns >= task.deadline_ns:
                self._expire(task, now_ns, effects)
                continue
            if ask.silent:
                # Whoever was asked did not answer: the own machine may know who leads now.
                self._charged[shard] = self.node
            self._send(ask, of, shard, now_ns)

    def _settle(self, now_ns: int, effects: list[Effect]) -> None:
        """Let the own shards take their steps, and send the rest."""
        while self._asked_here or self._answered_here:
            asked, self._asked_here = self._asked_here, {}
            for shard, batch in asked.items():
                self.run(shard, batch, now_ns, effects)
            answered, self._answered_here = self._answered_here, []
            for answer in answered:
                self._heard(self.node, answer, now_ns, effects)
        if self._submits:
            for node, submit in self._submits.items():
                effects += [Send(node, part) for part in submitted(submit)]
            self._submits = {}
        if self._answers:
            for node, answers in self._answers.items():
                effects += [Send(node, Answers(each)) for each in portions(answers, answer_bytes)]
            self._answers = {}
        next_ns = self._agenda.next_ns
        if next_ns is not None and (self._armed_ns is None or next_ns < self._armed_ns):
            self._armed_ns = next_ns
            effects.append(SetTimer(RETRY, max(0, next_ns - now_ns)))

    # --- what own shards answer -----------------------------------------------------------

    def replied(self, shard: int, reply: Reply, now_ns: int, effects: list[Effect]) -> None:
        said = reply.value if reply.outcome == OK else Said(DOUBT)
        self._answer(shard, reply.handle, said, -1, self._outer(shard, reply.after), effects)

    def redirected(
        self, shard: int, redirect: Redirect, now_ns: int, effects: list[Effect]
    ) -> None:
        node = self.outside(redirect.node, shard)
        self._answer(shard, redirect.handle, Said(ELSEWHERE), node, 0, effects)

    def _answer(
        self, shard: int, op: Op, said: Said, node: int, after: int, effects: list[Effect]
    ) -> None:
        """Tell everybody who has asked for this step."""
        which = (shard, op.session, op.sequence, op.kind, op.value)
        _, sources = self._at.pop(which, (0, []))
        for source in sources:
            answer = Answer(shard, op.session, op.sequence, op.kind, said, node)
            if source == self.node:
                answer.after = after
                self._answered_here.append(answer)
            elif after:
                # It waits for what it has read; others need not wait with it.
                effects.append(Send(source, Answers([answer]), after=after))
            else:
                self._answers.setdefault(source, []).append(answer)

    # --- what shards answer ---------------------------------------------------------------

    def _heard(self, source: int, answer: Answer, now_ns: int, effects: list[Effect]) -> None:
        of, shard = (answer.session, answer.sequence), answer.shard
        task = self._tasks.get(of)
        ask = None if task is None else task.asks.get(shard)
        if task is None or ask is None or ask.op.kind != answer.kind:
            return
        status = answer.said.status
        # It was not lost.
        ask.sent = 0
        if status == ELSEWHERE:
            self._redirect(task, ask, shard, source, answer.node, now_ns)
            return
        self._charged[shard] = source
        if status == DOUBT:
            self._later(ask, of, shard, now_ns + self._params.retry)
            return
        task.after = answer.after or task.after
        self._go_on(task, shard, answer.said, now_ns, effects)
        if not task.asks:
            del self._tasks[of]

    def _redirect(
        self, task: Task, ask: Ask, shard: int, source: int, node: int, now_ns: int
    ) -> None:
        if node not in (-1, source):
            self._charged[shard] = node
            self._send(ask, task.of, shard, now_ns)
            return
        # Nobody is known to be in charge; perhaps the next node knows more.
        self._charged[shard] = (source + 1) % len(self.nodes)
        self._later(ask, task.of, shard, now_ns + self._params.retry)
