"""The machine under a node stops at once, and comes back after a while.

A killed process leaves what it wrote in the kernel's page cache, so killing it proves nothing
about a disk; and the kernel breaks its connections, which a machine that is gone does not. Here
clients hear nothing until it is there again. The log is cut at its last sync, and behind that a
random piece of what was written is left, its end torn or zeros, as a disk may have written some
blocks on its own (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014). What was
acknowledged has to be there nevertheless wherever the protocol says so.
"""

from __future__ import annotations

from orchestrator.core.registry import Family, register
from orchestrator.faults.crash import Crash, CrashParams


@register(Family.FAULT, "power_loss", params=CrashParams)
class PowerLoss(Crash):
    """Stops the machine of a node: what was not synced is lost, but for a torn piece."""

    emulated_only = True
    power = True
