"""What a node's CPU takes for an event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.core.parameters import slot
from orchestrator.core.registry import Family, Slot


def law(default: str) -> Any:
    """A law of durations; as a default the constant one."""
    return slot(Family.DISTRIBUTION, {"name": "constant", "value": default})


@dataclass(frozen=True)
class Cpu:
    """CPU time per event, charged before the machine handles it; messages at the receiver."""

    read: Slot = law("100us")
    write: Slot = law("100us")
    message: Slot = law("20us")
