"""What EPaxos does with instances that are committed: execute them, answer, forget."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from orchestrator.core.machine import (
    CAS,
    OK,
    WRITE,
    Effect,
    Machine,
    MachineContext,
    Mark,
    Op,
    Reply,
)
from orchestrator.core.state import KeyValueState
from orchestrator.protocols._epaxos_graph import Graph
from orchestrator.protocols._epaxos_instances import Instance, context_of
from orchestrator.protocols._epaxos_messages import COMMITTED, EXECUTED, Choice, Executed
from orchestrator.protocols._epaxos_recovery import Recovery


class Execution(Recovery):
    """A node as the one who executes."""

    kinds = Machine.kinds | {CAS}

    def __init__(self, context: MachineContext, recovery_ns: int, resend_ns: int) -> None:
        super().__init__(context, recovery_ns, resend_ns)
        self._state = KeyValueState(context.preload, accesses=context.accesses)
        self._graph = Graph(self._rows)
        # Commits that need not be durable at once: others have the value too.
        self._unsaved: dict[Instance, bool] = {}
        # Up to where each row is executed here, and durably so.
        self._durable = [0] * self._count

    @abstractmethod
    def _propose(self, handles: list[Any], ops: list[Op], effects: list[Effect]) -> None:
        """Put operations into an instance of this node's row."""

    def _learn(self, choice: Choice, effects: list[Effect]) -> None:
        instance = self._find(choice.row, choice.number)
        if instance is None:
            return
        if instance.phase >= COMMITTED:
            chosen = instance.void, instance.deps
            assert chosen == (choice.void, choice.deps), "two values are chosen for one instance"
            return
        if not choice.void and not choice.ops and not instance.ops:
            instance.early = choice.deps
            return
        self._keep_ops(instance, choice.ops)
        instance.void, instance.deps = choice.void, choice.deps
        instance.phase = COMMITTED
        instance.lead = instance.quest = instance.accepts = None
        self._unsaved[instance] = True
        self._execute(instance, effects)
        if instance.void and instance.handles is not None:
            # Its operations were never chosen, here or anywhere: they begin again.
            handles, instance.handles = instance.handles, None
            self._propose(handles, instance.ops, effects)

    def _execute(self, committed: Instance, effects: list[Effect]) -> None:
        for component in self._graph.committed(committed):
            if len(component) > 1:
                effects.append(Mark("cycle"))
            for instance in component:
                if not instance.void:
                    self._apply(instance, effects)
                    instance.handles = None
                instance.phase = EXECUTED
                self._rows[instance.row].advance()

    def _version(self, op: Op) -> int:
        """How often the key was written."""
        entry = self._state.values.get(op.key)
        return 0 if entry is None else entry.version

    def _apply(self, instance: Instance, effects: list[Effect]) -> None:
        state, handles = self._state, instance.handles
        touches = state.accesses
        context = b""
        if handles is not None:
            context = context_of(instance.row, instance.number, self._count)
        for at, op in enumerate(instance.ops):
            if op.kind == WRITE:
                took_effect_at = state.write(op, self._version(op) + 1)
                if touches:
                    state.touch(op, effects)
                if handles is not None:
                    effects.append(Reply(handles[at], OK, None, took_effect_at, 0, context))
                continue
            if op.kind == CAS:
                handle = None if handles is None else handles[at]
                state.change(handle, op, self._version(op) + 1, effects)
            elif handles is not None:
                state.serve(handles[at], op, self._version(op), effects)
            if handles is not None:
                answer = effects[-1]
                assert isinstance(answer, Reply)
                answer.context = context

    def _executed(self, source: int, message: Executed) -> None:
        known = self._executed_at.get(source, message.through)
        through = [max(pair) for pair in zip(known, message.through, strict=True)]
        self._executed_at[source] = through
        for row, number in zip(self._rows, through, strict=True):
            row.top = max(row.top, number)
        if message.answer:
            self._post(source, None, Executed(self._durable, False))
        self._forget()

    def _forget(self) -> None:
        """Drop what every node has executed and durably knows."""
        if len(self._executed_at) < len(self._peers) or not self._peers:
            return
        everywhere = map(min, zip(self._durable, *self._executed_at.values(), strict=True))
        for row, through in zip(self._rows, everywhere, strict=True):
            row.forget(through)
