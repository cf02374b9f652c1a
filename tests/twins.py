"""Known-bad twins: a machine that breaks one rule, and where the faults find it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Twin:
    """``protocol`` is what is fuzzed (it may be a layer), ``fixed`` the parameters not drawn.

    ``profiles``: those of the fuzzer that find it.
    """

    name: str
    machine: type[Any]
    protocol: str
    why: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    profiles: tuple[str, ...] = ("mixed", "recovery")
