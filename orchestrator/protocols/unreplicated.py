"""No replication: one node, the baseline that every protocol is compared with.

Claims linearizability: one node applies every operation in one order. It loses everything
with its node unless storage is durable. Cost: no message between nodes, one round trip
between client and node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from orchestrator.core.demand import Demand, Demands, Log
from orchestrator.core.levels import LINEARIZABLE
from orchestrator.core.machine import (
    CAS,
    OK,
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
    Reply,
    Requested,
    Started,
)
from orchestrator.core.registry import Family, NoParams, register
from orchestrator.core.state import OTHER_CHANGES, state_for


@register(Family.PROTOCOL, "unreplicated", claims={LINEARIZABLE: "always: there is one copy"})
class Unreplicated(Machine):
    """One node without replication, the baseline."""

    Message: ClassVar[Any] = None
    Record: ClassVar[Any] = list[Op]
    kinds = Machine.kinds | {CAS}
    ordered: ClassVar[bool] = True

    def __init__(self, context: MachineContext, params: NoParams) -> None:
        self.role = "primary"
        self._state = state_for(context)
        self._version = 0

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        match event:
            case Requested(handles, ops):
                return self._requested(handles, ops)
            case Started(records):
                for ops in records:
                    for op in ops:
                        self._version += 1
                        if op.kind == WRITE:
                            self._state.write(op, self._version)
                        else:
                            self._state.change(None, op, self._version, [])
                return []
            case _:
                return []

    def _requested(self, handles: list[Any], ops: list[Op]) -> list[Effect]:
        effects: list[Effect] = []
        written = []
        state = self._state
        for handle, op in zip(handles, ops, strict=True):
            if op.kind == WRITE:
                self._version += 1
                version = state.write(op, self._version)
                state.touch(op, effects)
                written.append(op)
                effects.append(Reply(handle, OK, None, version))
            elif op.kind in OTHER_CHANGES:
                self._version += 1
                state.change(handle, op, self._version, effects)
                written.append(op)
            else:
                state.serve(handle, op, self._version, effects)
        if written:
            effects.append(Persist(written, self._version))
        return effects

    def check(self) -> None:
        assert all(entry.version <= self._version for entry in self._state.values.values())

    def contents(self) -> Mapping[bytes, Entry]:
        return self._state.contents()

    @staticmethod
    def candidates(params: NoParams, op: Op, view: ClusterView) -> Sequence[int]:
        return view.nodes

    @staticmethod
    def claims(params: NoParams, context: ClaimContext) -> frozenset[str]:
        return frozenset({LINEARIZABLE})

    @staticmethod
    def demands(params: NoParams, replicas: int, level: str) -> Demands:
        return Demands(Demand((0,)), Demand((0,), (Log(),)))

    @staticmethod
    def validate(params: NoParams, replicas: int, nodes: int) -> str | None:
        return None if replicas == nodes == 1 else "unreplicated runs on exactly 1 replica"
