"""EPaxos' agreement watched across all nodes of a simulation or a bench."""

from __future__ import annotations

from typing import Any

from orchestrator.core.machine import (
    Effect,
    Event,
)
from orchestrator.protocols._epaxos_instances import Instance
from orchestrator.protocols._epaxos_messages import (
    COMMITTED,
)


class InstanceWatch:
    """An instance has one value on all nodes, from commitment to the end."""

    def __init__(self) -> None:
        self._chosen: dict[tuple[int, int], Any] = {}

    def __call__(self, machine: Any, event: Event, effects: list[Effect]) -> None:
        for row in machine._rows:
            for found in row.instances.values():
                if found.phase >= COMMITTED:
                    self._agree(found)

    def _agree(self, found: Instance) -> None:
        ops = () if found.void else tuple((op.session, op.sequence) for op in found.ops)
        value = (ops, tuple(found.deps))
        name = (found.row, found.number)
        assert self._chosen.setdefault(name, value) == value, f"two values for {name}"
