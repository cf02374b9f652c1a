"""Gossip with one rule broken each."""

from __future__ import annotations

from typing import Any, ClassVar

from twins import Twin

from orchestrator.core.machine import Effect, SetTimer
from orchestrator.protocols._gossip_data import (
    COUNTER,
    DATA,
    REGISTER,
    SET,
    Counter,
    Register,
)
from orchestrator.protocols._gossip_tree import Cell, Store
from orchestrator.protocols.gossip import Gossip


class AddsTotals(Counter):
    """Adds what another copy has counted to its own."""

    def join(self, cell: Cell) -> None:
        mine = self.store.get(cell.key, cell.part)
        if mine is not None and cell.version > mine.version:
            count, total, sequence = cell.value.split()
            total = b"%d" % (int(total) + int(mine.value.split()[1]))
            cell = Cell(cell.key, cell.part, cell.version, b" ".join((count, total, sequence)))
        super().join(cell)


class AddsInsteadOfJoining(Gossip):
    """Joins of its counter are not idempotent."""

    data_types: ClassVar[dict[str, Any]] = {**DATA, COUNTER: AddsTotals}


class StaleStore(Store):
    """Leaves the tree as it is where a cell replaces another."""

    def put(self, cell: Cell) -> None:
        before = self.cells.get((cell.key, cell.part))
        super().put(cell)
        if before is not None:
            after = self.cells[cell.key, cell.part]
            self._mix(after.name % len(self._buckets), after.digest ^ before.digest)
            after.digest = before.digest

    def check(self) -> None:
        """What is broken should show in the replicas."""


class StaleRegister(Register):
    """Registers over a tree that is not kept up to date."""

    store_type = StaleStore


class KeepsStaleBuckets(Gossip):
    """Its tree does not show that a value was replaced."""

    data_types: ClassVar[dict[str, Any]] = {**DATA, REGISTER: StaleRegister}


class OnlyRumours(Gossip):
    """Never compares its state with another's."""

    def _start(self, records: list[Any], effects: list[Effect]) -> None:
        super()._start(records, effects)
        effects[:] = [effect for effect in effects if not isinstance(effect, SetTimer)]


def _twin(machine: type[Gossip], data: str, why: str, *, push: bool = True) -> Twin:
    return Twin(machine.__name__, machine, "gossip", why, {"data": data, "push": push})


TWINS = [
    _twin(AddsInsteadOfJoining, COUNTER, "increments are counted again with every exchange"),
    _twin(
        KeepsStaleBuckets, REGISTER, "replicas that differ take themselves for equal", push=False
    ),
    _twin(OnlyRumours, SET, "what a lost message carried is never made up for"),
]
