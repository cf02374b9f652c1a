"""The consistency levels and which implies which: a lattice, not a chain.

The order is that of Viotti and Vukolic, "Consistency in Non-Transactional Distributed Storage
Systems" (ACM Computing Surveys 2016), restricted to the levels that have a checker here.
``strict`` is an alias of ``linearizable``: strict consistency proper asks every read to see
the last write of an absolute clock, which no system with delays can promise, and people who
write "strict" mean the strongest level that one can.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.errors import ConfigError, suggestion

LINEARIZABLE = "linearizable"
READ_YOUR_WRITES = "read_your_writes"
MONOTONIC_READS = "monotonic_reads"
EVENTUAL = "eventual"
NONE = "none"

# level -> the levels directly below it
_IMPLIES: dict[str, tuple[str, ...]] = {
    LINEARIZABLE: (READ_YOUR_WRITES, MONOTONIC_READS, EVENTUAL),
    READ_YOUR_WRITES: (NONE,),
    MONOTONIC_READS: (NONE,),
    EVENTUAL: (NONE,),
    NONE: (),
}
ALIASES = {"strict": LINEARIZABLE}
LEVELS: tuple[str, ...] = tuple(_IMPLIES)


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


def strongest(levels: Iterable[str]) -> list[str]:
    """The levels (without aliases) that no other one of them implies, sorted."""
    held = {canonical(level) for level in levels}
    return sorted(
        level
        for level in held
        if not any(level in implied(other) for other in held if other != level)
    )
