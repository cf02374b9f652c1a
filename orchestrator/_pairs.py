"""Pairs of runs: how many are made where some are not valid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

Pair = tuple[dict[str, Any], dict[str, Any]]
"""Result objects of two runs of the same seed, one after the other."""

PAIRS_MAX: Final = 2
"""For each that is wanted."""
FIRST: Final = 2
"""One alone that is not valid may have met a bad moment."""


def valid_pairs(
    make: Callable[[int], Pair], valid: Callable[[Pair], bool], wanted: int
) -> tuple[list[Pair], list[Pair]]:
    """So many valid ones of ``make(0)``, ``make(1)``, ...; and those that are not.

    One that is not valid says nothing, and another is made instead, up to PAIRS_MAX for each that
    is wanted. Where not one of the first is valid, of two at least, none are made again: it is no
    bad moment of the host then, but something that would be there the next time, too.
    """
    kept: list[Pair] = []
    others: list[Pair] = []
    for number in range(PAIRS_MAX * wanted):
        if len(kept) == wanted or (number == max(wanted, FIRST) and not kept):
            break
        pair = make(number)
        (kept if valid(pair) else others).append(pair)
    return kept, others
