"""The verdict on a run whose operations ask for levels of their own.

Strong reads with all writes have to satisfy the strong level, weak reads theirs: level L is
checked on everything that changes something and on the reads that asked for L or for a level
that implies it. An operation that asked for nothing asked for what the protocol claims. Leaving
out reads never makes a history break a level, so what is found broken is broken.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.core import levels
from orchestrator.core.history import History
from orchestrator.core.machine import READING
from orchestrator.core.verdict import (
    INVALID,
    UNDECIDED,
    VALID,
    ClaimsVerdict,
    Evidence,
    check,
    check_claims,
)

NO_EVIDENCE: Final = Evidence()
_NAMES: Final = {code: level for level, code in levels.CODES.items()}


def check_levels(
    history: History, claimed: Iterable[str], evidence: Evidence = NO_EVIDENCE
) -> ClaimsVerdict:
    """Check every level that is claimed or asked for, each on the operations that it covers.

    ``strongest`` lists what all reads together have passed: in a run that mixes linearizable
    and eventual reads, what an eventual read has. Where no read asks for a level of its own this
    is ``check_claims``. Raises ConfigError for a word that is no level.
    """
    default = frozenset(levels.canonical(level) for level in claimed)
    reading = numpy.isin(history.kind, sorted(READING))
    groups = _groups(history, reading, default)
    if all(code == levels.UNASKED for code, _ in groups):
        return check_claims(history, default, evidence)
    asked = default.union(*(wanted for _, wanted in groups)) - {levels.NONE}
    verdicts = []
    for level in levels.LEVELS:
        if level in asked:
            covered = _covered(history, reading, groups, level)
            rows = history if covered.all() else history.select(numpy.flatnonzero(covered))
            verdicts.append(check(rows, level, evidence))
    said = [verdict.verdict for verdict in verdicts]
    overall = next((worst for worst in (INVALID, UNDECIDED) if worst in said), VALID)
    passed = {verdict.level for verdict in verdicts if verdict.verdict == VALID}
    held = levels.closure(levels.LEVELS)
    for _, wanted in groups:
        held &= levels.closure(wanted & passed)
    return ClaimsVerdict(overall, tuple(levels.strongest(held)), tuple(verdicts))


Group = tuple[int, frozenset[str]]


def _groups(
    history: History, reading: NDArray[numpy.bool_], default: frozenset[str]
) -> list[Group]:
    """The level codes that reads carry, each with the levels that it stands for."""
    codes = numpy.unique(history.level[reading]).tolist()
    return [
        (code, default if code == levels.UNASKED else frozenset({_NAMES[code]})) for code in codes
    ]


def _covered(
    history: History, reading: NDArray[numpy.bool_], groups: list[Group], level: str
) -> NDArray[numpy.bool_]:
    """Everything that is no read, and the reads that asked for ``level`` or more."""
    strong = [code for code, wanted in groups if level in levels.closure(wanted)]
    covered: NDArray[numpy.bool_] = ~reading | numpy.isin(history.level, strong)
    return covered
