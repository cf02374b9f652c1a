"""Known-bad twins: a machine that breaks one rule, and where the faults find it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Twin:
    """``system`` holds protocol parameters and replicas, ``overrides`` the rest of the config.

    ``profiles``: those of the fuzzer that find it.
    """

    name: str
    machine: type[Any]
    system: dict[str, Any]
    overrides: tuple[str, ...]
    why: str
    profiles: tuple[str, ...] = ("mixed", "recovery")
