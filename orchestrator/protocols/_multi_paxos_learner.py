"""Multi-Paxos' learners: what is chosen is executed in the order of the slots, and may be read
on any node.
"""

from __future__ import annotations

import heapq
from typing import Any, Final

from orchestrator.core.demand import Demand, Demands, Round, everyone, majority_of_others
from orchestrator.core.levels import CODES, EVENTUAL, SEQUENTIAL
from orchestrator.core.machine import CAS, OK, WRITE, Effect, Machine, MachineContext, Op, Reply
from orchestrator.core.state import OTHER_CHANGES, state_for
from orchestrator.core.units import NS_PER_S
from orchestrator.protocols._multi_paxos_election import Elector

LOG, LEASE = "log", "lease"
WEAK: Final = {CODES[SEQUENTIAL]: True, CODES[EVENTUAL]: False}
"""Levels that any node serves, and whether it waits for what the session has seen."""


class Learner(Elector):
    """A node as the one who executes; ``applied``: up to that slot."""

    kinds = Machine.kinds | {CAS}

    def __init__(self, context: MachineContext, election_timeout_ns: int) -> None:
        super().__init__(context, election_timeout_ns)
        self.applied = 0
        self._state = state_for(context)
        # Reads that wait: (slot, order of arrival, handle, operation).
        self._waiting: list[tuple[int, int, Any, Op]] = []
        self._waiting_order = 0

    def _commit_through(self, commit: int, effects: list[Effect]) -> None:
        """Everything up to ``commit`` is chosen, and here: execute it."""
        if commit <= self.commit:
            return
        self.commit = commit
        slots, state = self.slots, self._state
        start, stop = self.applied - slots.base, commit - slots.base
        write, touches = state.write, state.accesses
        version = self.applied
        for op, handle in zip(slots.ops[start:stop], slots.handles[start:stop], strict=True):
            version += 1
            assert op is not None
            if op.kind == WRITE:
                took_effect_at = write(op, version)
                if touches:
                    state.touch(op, effects)
                if handle is not None:
                    effects.append(Reply(handle, OK, None, took_effect_at))
            elif op.kind in OTHER_CHANGES:
                state.change(handle, op, version, effects)
            elif handle is not None:
                state.serve(handle, op, version, effects)
        self.applied = commit
        while self._waiting and self._waiting[0][0] <= commit:
            _, _, handle, op = heapq.heappop(self._waiting)
            state.serve(handle, op, commit, effects)

    @staticmethod
    def demands(params: Any, replicas: int, level: str) -> Demands:
        beats = NS_PER_S / params.heartbeat
        background = ((replicas - 1) * beats, *[beats] * (replicas - 1))
        write = Demand((0,), (Round(majority_of_others(replicas), logs=True, own=True),))
        if CODES.get(level) in WEAK:
            return Demands(Demand(everyone(replicas)), write, background)
        return Demands(write if params.reads == LOG else Demand((0,)), write, background)

    def _read_weakly(self, handle: Any, op: Op, effects: list[Effect]) -> None:
        if WEAK[op.level] and op.seen > self.applied:
            self._waiting_order += 1
            heapq.heappush(self._waiting, (op.seen, self._waiting_order, handle, op))
        else:
            self._state.serve(handle, op, self.applied, effects)
