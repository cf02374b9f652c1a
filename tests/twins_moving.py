"""Twins of moving data that each break one rule, in the state of a protocol below it."""

from __future__ import annotations

from typing import Any, ClassVar

from twins import Twin

from orchestrator.core.holdings import Cell, Holdings
from orchestrator.core.machine import MachineContext, Op
from orchestrator.core.state import KeyValueState, OwnedState
from orchestrator.protocols.raft import Raft


class Broken(Raft):
    """Raft over a state, and holdings, that break a rule."""

    state: ClassVar[type[OwnedState]] = OwnedState
    holdings: ClassVar[type[Holdings]] = Holdings

    def __init__(self, context: MachineContext, params: Any) -> None:
        super().__init__(context, params)
        held = context.holdings
        # The layer above has the very same object.
        held.__class__ = self.holdings
        self._state = self.state(context.preload, accesses=context.accesses, held=held)


class LateState(OwnedState):
    """Writes what comes behind the fence, and says so."""

    def write(self, op: Op, version: int) -> int:
        return KeyValueState.write(self, op, version)


class WritesBehindTheFence(Broken):
    state = LateState


class Credulous(Holdings):
    """Takes what a read found for the newest, wherever in the order it was."""

    def valid(self, cell: int, place: int) -> bool:
        return True


class ReadsBehindTheFence(Broken):
    holdings = Credulous


class Forgetful(OwnedState):
    """Gives away the value that a key had in the beginning."""

    def _fence(self, of: Cell, version: int) -> None:
        super()._fence(of, version)
        aside = self.holdings.aside.get(of.cell)
        if aside is not None and aside.values:
            aside.values[-1] = self._preload.get(aside.keys[-1]) or b""


class LosesTheLastKey(Broken):
    state = Forgetful


def twin(name: str, machine: type[Any], why: str) -> Twin:
    return Twin(name, machine, "raft", why, profiles=("moving",))


TWINS = [
    twin("moving: writes behind the fence", WritesBehindTheFence, "what was handed over lacks it"),
    twin("moving: reads behind the fence", ReadsBehindTheFence, "the new group may know better"),
    twin("moving: loses the last key", LosesTheLastKey, "a value does not come along"),
]
