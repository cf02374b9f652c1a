"""Scenarios with compare-and-sets: where they can be, and which writes they stand for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from orchestrator.core.machine import CAS, KIND_NAMES, WRITE, ClaimContext
from orchestrator.core.models import CAS_REGISTER
from orchestrator.core.verdict import models_of
from orchestrator.fuzzing.scenario import Step

SHARE: Final = 0.2
"""Of the simulations, where the protocol can."""


def possible(machine: Any, params: Any, context: ClaimContext) -> bool:
    """Whether it serves them, and what it claims is defined for them."""
    defined = all(map(_is_defined, machine.claims(params, context)))
    return defined and CAS in machine.kinds_of(params)


def _is_defined(level: str) -> bool:
    return CAS_REGISTER in models_of(level)


def comparing(chance: random.Random, steps: Sequence[Step]) -> list[Step]:
    """Half of the writes set only what they have found unchanged.

    Reads ask for no level that is not defined then.
    """
    made = []
    for step in steps:
        op, level = step.op, step.level
        if op == KIND_NAMES[WRITE] and chance.random() < 0.5:
            op = KIND_NAMES[CAS]
        if level and not _is_defined(level):
            level = ""
        made.append(msgspec.structs.replace(step, op=op, level=level))
    return made
