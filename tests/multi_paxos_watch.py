"""Multi-Paxos' safety watched across all nodes of a simulation or a bench."""

from __future__ import annotations

from typing import Any

from orchestrator.core.machine import (
    Effect,
    Event,
)
from orchestrator.protocols._multi_paxos_election import LEADER


class SlotWatch:
    """No slot is decided twice, and leaders of one ballot are one node."""

    def __init__(self) -> None:
        self.chosen: dict[int, tuple[int, int, int]] = {}
        self._known: dict[Any, int] = {}
        self._leaders: dict[int, int] = {}

    def __call__(self, machine: Any, event: Event, effects: list[Effect]) -> None:
        known = max(self._known.get(machine, 0), machine.slots.base)
        for slot in range(known + 1, machine.commit + 1):
            op = machine.slots.ops[slot - 1 - machine.slots.base]
            value = (op.session, op.sequence, op.kind)
            assert self.chosen.setdefault(slot, value) == value, f"slot {slot} is decided twice"
        self._known[machine] = machine.commit
        if machine.role == LEADER:
            assert self._leaders.setdefault(machine.promised, machine._node) == machine._node
