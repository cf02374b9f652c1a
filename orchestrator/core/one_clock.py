"""Levels that speak of real time, on what the clients of one clock saw.

Times of several hosts are compared up to an uncertainty, which may forgive what one host alone
proves: a read of a value that the same host knows to be superseded. So what each clock has seen
is looked at once more, exactly. Operations of others count as writes that may have happened at
any time, which takes constraints away and adds none: what is found broken is broken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.core import levels
from orchestrator.core.history import NEVER, History
from orchestrator.core.machine import FAIL, READING, UNKNOWN

OF_REAL_TIME: Final = frozenset({levels.LINEARIZABLE, levels.REGULAR})


def views(history: History, clocks: Sequence[str]) -> Iterator[History]:
    """The history as seen by each clock; ``clocks[i]`` names that of client i."""
    for name in sorted({*clocks}):
        clients = [client for client, clock in enumerate(clocks) if clock == name]
        yield _seen(history, numpy.isin(history.client, clients))


def _seen(history: History, own: NDArray[numpy.bool_]) -> History:
    changed = ~numpy.isin(history.kind, sorted(READING)) & (history.outcome != FAIL)
    rows = numpy.flatnonzero(own | changed)
    seen = history.select(rows)
    foreign = ~own[rows]
    before_all_ns = int(history.invoked_ns.min(initial=0)) - 1
    return replace(
        seen,
        invoked_ns=numpy.where(foreign, before_all_ns, seen.invoked_ns),
        returned_ns=numpy.where(foreign, NEVER, seen.returned_ns),
        outcome=numpy.where(foreign, UNKNOWN, seen.outcome).astype(seen.outcome.dtype),
    )
