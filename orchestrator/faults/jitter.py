"""Messages take longer by times that vary; links that keep their order bunch them up."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.parameters import slot
from orchestrator.core.registry import Family, Slot, register
from orchestrator.faults.delay import Delay, DelayParams


@dataclass(frozen=True)
class JitterParams(DelayParams):
    by: Slot = slot(Family.DISTRIBUTION, {"name": "exponential", "mean": "10ms"})


@register(Family.FAULT, "jitter", params=JitterParams)
class Jitter(Delay):
    """Adds a random time to every message from and to a node."""
