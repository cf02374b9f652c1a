"""The consistency levels and which implies which: a lattice, not a chain.

For single operations the order is that of Viotti and Vukolic, "Consistency in Non-Transactional
Distributed Storage Systems" (ACM Computing Surveys 2016); causal consistency comes in the two
incomparable forms of Bouajjani, Enea, Guerraoui and Hamza, "On Verifying Causal Consistency"
(POPL 2017): with convergence (CCv, here ``causal``) and causal memory (CM). ``regular`` is the
weak multi-writer regularity of Shao, Welch, Pierce and Lee, "Multiwriter Consistency Conditions
for Shared Memory Registers" (SIAM J. Comput. 2011). For transactions the levels are those of
Adya, Liskov and O'Neil, "Generalized Isolation Level Definitions" (ICDE 2000).

``strict`` is an alias of ``linearizable``: strict consistency proper asks every read to see
the last write of an absolute clock, which no system with delays can promise, and people who
write "strict" mean the strongest level that one can.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from orchestrator.errors import ConfigError, suggestion

LINEARIZABLE: Final = "linearizable"
REGULAR: Final = "regular"
SEQUENTIAL: Final = "sequential"
CAUSAL: Final = "causal"
CAUSAL_MEMORY: Final = "causal_memory"
SESSIONS: Final = "sessions"
READ_YOUR_WRITES: Final = "read_your_writes"
MONOTONIC_READS: Final = "monotonic_reads"
MONOTONIC_WRITES: Final = "monotonic_writes"
WRITES_FOLLOW_READS: Final = "writes_follow_reads"
EVENTUAL: Final = "eventual"
SERIALIZABLE: Final = "serializable"
SNAPSHOT_ISOLATION: Final = "snapshot_isolation"
REPEATABLE_READ: Final = "repeatable_read"
READ_COMMITTED: Final = "read_committed"
NONE: Final = "none"

# level -> the levels directly below it
_IMPLIES: dict[str, tuple[str, ...]] = {
    LINEARIZABLE: (REGULAR, SEQUENTIAL),
    REGULAR: (NONE,),
    SEQUENTIAL: (CAUSAL, CAUSAL_MEMORY),
    CAUSAL: (SESSIONS, EVENTUAL),
    CAUSAL_MEMORY: (SESSIONS,),
    SESSIONS: (READ_YOUR_WRITES, MONOTONIC_READS, MONOTONIC_WRITES, WRITES_FOLLOW_READS),
    READ_YOUR_WRITES: (NONE,),
    MONOTONIC_READS: (NONE,),
    MONOTONIC_WRITES: (NONE,),
    WRITES_FOLLOW_READS: (NONE,),
    EVENTUAL: (NONE,),
    SERIALIZABLE: (SNAPSHOT_ISOLATION, REPEATABLE_READ),
    SNAPSHOT_ISOLATION: (READ_COMMITTED,),
    REPEATABLE_READ: (READ_COMMITTED,),
    READ_COMMITTED: (NONE,),
    NONE: (),
}
ALIASES: Final = {"strict": LINEARIZABLE}
LEVELS: tuple[str, ...] = tuple(_IMPLIES)
TRANSACTIONAL: Final = (SERIALIZABLE, SNAPSHOT_ISOLATION, REPEATABLE_READ, READ_COMMITTED)

UNASKED: Final = 0
"""Code of an operation that asks for no level of its own: what the protocol claims holds."""
CODES: Mapping[str, int] = {level: code for code, level in enumerate(LEVELS, UNASKED + 1)}
"""Levels as the small integers that travel with operations."""


def canonical(level: str, *, path: str | None = None) -> str:
    """The level without alias; an unknown one raises ConfigError with a suggestion."""
    name = ALIASES.get(level, level)
    if name not in _IMPLIES:
        raise ConfigError(
            f"unknown consistency level {level!r}",
            path=path,
            hint=suggestion(str(level), (*ALIASES, *LEVELS)),
        )
    return name


def implied(level: str) -> frozenset[str]:
    """``level`` (without alias) and every level that it implies."""
    name = canonical(level)
    below = {name}
    for direct in _IMPLIES[name]:
        below |= implied(direct)
    return frozenset(below)


def closure(levels: Iterable[str]) -> frozenset[str]:
    """Everything that the levels imply together; ``none`` always holds."""
    held: frozenset[str] = frozenset({NONE})
    for level in levels:
        held |= implied(level)
    return held


def fitting(levels: Iterable[str], *, transactional: bool) -> frozenset[str]:
    """Those of the levels (without aliases) that are defined for histories of transactions, or
    for those of single operations.
    """
    return frozenset(level for level in levels if (level in TRANSACTIONAL) == transactional)


def strongest(levels: Iterable[str]) -> list[str]:
    """The levels (without aliases) that no other one of them implies, sorted."""
    held = {canonical(level) for level in levels}
    return sorted(
        level
        for level in held
        if not any(level in implied(other) for other in held if other != level)
    )
