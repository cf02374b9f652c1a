"""The strongest levels that a history passes, whatever was claimed of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from orchestrator.core import levels
from orchestrator.core.history import History
from orchestrator.core.models import COUNTER, SET, TXN
from orchestrator.core.verdict import VALID, Evidence, check, models_of

OPERATIONS_MAX: Final = 100_000
"""Above so many operations nothing is checked that was not claimed, but for the quick levels."""
STEPS_MAX: Final = 200_000
_QUICK: Final = (levels.LINEARIZABLE, levels.REGULAR)
"""Levels whose check is a sort and a few passes, whatever the history."""


def strongest_passed(
    history: History, known: Mapping[str, str], evidence: Evidence
) -> tuple[str, ...]:
    """Walk down the lattice from its top, and below nothing that has passed.

    ``known``: verdicts on this whole history by level. A level that stays undecided has not
    passed. Convergence is only known where it was claimed, since nobody waited for it elsewhere.
    """
    held = set(levels.closure(level for level, found in known.items() if found == VALID))
    if history.values is None and evidence.model in (COUNTER, SET):
        # A run's history does not hold what reads of these returned as their checkers need it.
        return tuple(levels.strongest(held))
    bounded = replace(evidence, steps_max=min(evidence.steps_max, STEPS_MAX))
    for level in levels.LEVELS:
        if level in held or level in known or level == levels.EVENTUAL:
            continue
        if (level in levels.TRANSACTIONAL) != (evidence.model == TXN):
            continue
        if evidence.model not in models_of(level):
            continue
        if len(history) > OPERATIONS_MAX and level not in _QUICK:
            continue
        if check(history, level, bounded).verdict == VALID:
            held |= levels.implied(level)
    return tuple(levels.strongest(held))
