"""The session guarantees (Terry, Demers, Petersen, Spreitzer, Theimer and Welch, "Session
Guarantees for Weakly Consistent Replicated Data", PDIS 1994), by the values that reads returned.

=====================  ================================================================
read_your_writes       a session's reads see its own writes, or newer ones
monotonic_reads        a session's reads of a key never go back to an older value
monotonic_writes       whoever sees a write sees its session's earlier writes, too
writes_follow_reads    whoever sees a write sees what its session had read before it
=====================  ================================================================

A session is sequential, so its own order needs no clock, and these levels know none: the order
of writes need not be that of time (it is not where timestamps decide). A read breaks a guarantee
when its value is *known* to be older than one that it must not be older than:

* The initial value is older than any written one.
* A value is older than what was written by a session that had seen it (read or written it).
* Where the versions of a key's acknowledged writes can be trusted, they order those writes.
  Versions are claims of the system under test, so they are trusted only where they are all
  there, unique, and never contradict a definite order in time.
* Returning to a value after another one goes back somewhere between, whichever of the two is
  older (monotonic reads only).

``_session_writes`` tells how the last two guarantees are judged. Without that knowledge a read
is given the benefit of the doubt: valid means that no violation can be shown. A system whose
versions are wrong in a way that time does not reveal may be found to break a guarantee by them;
then its versions are what is broken. An unacknowledged write binds nobody, and may be read at any
time. The first two guarantees are sorting and running maxima: O(n log n).

``sessions`` is the four together, which is more than each by itself: then every read sees all
that causally precedes it (Brzezinski, Sobaniec and Wawrzyniak, "From Session Causality to Causal
Consistency", PDP 2004), so the patterns of ``_causal_patterns`` are forbidden; the explanation
names the guarantees that the knowledge went through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from orchestrator.checkers._causal_patterns import Pattern, weakly_causal
from orchestrator.checkers._causality import too_big
from orchestrator.checkers._operations import (
    Operations,
    operations_of,
    settled,
    shrunk,
    told,
    valid,
)
from orchestrator.checkers._session_reads import broken_by_reads, broken_by_writes
from orchestrator.checkers._session_writes import (
    broken_by_earlier_reads,
    broken_by_earlier_writes,
)
from orchestrator.checkers._write_orders import is_sequential
from orchestrator.core.history import History
from orchestrator.core.levels import (
    MONOTONIC_READS,
    MONOTONIC_WRITES,
    READ_YOUR_WRITES,
    SESSIONS,
    WRITES_FOLLOW_READS,
)
from orchestrator.core.models import KV, REGISTER
from orchestrator.core.registry import Family, register
from orchestrator.core.verdict import INVALID, UNDECIDED, Evidence, Verdict

Finder = Callable[[Operations, int], Pattern | None]


class _Guarantee:
    """One guarantee: ``_find`` shows a violation, where one is known."""

    models: ClassVar[frozenset[str]] = frozenset({REGISTER, KV})
    unique_values: ClassVar[frozenset[str]] = models
    level: ClassVar[str]

    def __init__(self, params: Any) -> None:
        pass

    def check(self, history: History, evidence: Evidence) -> Verdict:
        """See the module; the uncertainty weakens what time says against versions."""
        ops = operations_of(history)
        early = settled(ops, self.level)
        if early is not None:
            return early
        try:
            found = self._find(ops, evidence.uncertainty_ns)
        except _TooBig as error:
            return told(ops, self.level, UNDECIDED, str(error))
        if found is None:
            return valid(ops, self.level, f"No read is known to break {self.level}")
        witness = shrunk(
            ops,
            found.witness,
            lambda less: self._find(less, evidence.uncertainty_ns) is not None,
        )
        return told(ops, self.level, INVALID, found.text, witness=witness)

    def _find(self, ops: Operations, uncertainty_ns: int) -> Pattern | None:
        raise NotImplementedError


@register(Family.CHECKER, READ_YOUR_WRITES)
class ReadYourWrites(_Guarantee):
    """A session's reads see its own acknowledged writes, or newer ones."""

    level = READ_YOUR_WRITES

    def _find(self, ops: Operations, uncertainty_ns: int) -> Pattern | None:
        return broken_by_writes(ops, uncertainty_ns)


@register(Family.CHECKER, MONOTONIC_READS)
class MonotonicReads(_Guarantee):
    """A session's reads of a key never go back to an older value."""

    level = MONOTONIC_READS

    def _find(self, ops: Operations, uncertainty_ns: int) -> Pattern | None:
        return broken_by_reads(ops, uncertainty_ns)


class _TooBig(Exception):
    """The causal order of the history would not fit."""


def _plain(ops: Operations, uncertainty_ns: int) -> bool:
    """Whether the history is sequential, which settles it; if not, raises what else does."""
    if is_sequential(ops, uncertainty_ns):
        return True
    why = too_big(ops)
    if why is not None:
        raise _TooBig(why)
    return False


@register(Family.CHECKER, MONOTONIC_WRITES)
class MonotonicWrites(_Guarantee):
    """Whoever sees a write sees the earlier writes of its session, too."""

    level = MONOTONIC_WRITES

    def _find(self, ops: Operations, uncertainty_ns: int) -> Pattern | None:
        return broken_by_earlier_writes(ops)


@register(Family.CHECKER, WRITES_FOLLOW_READS)
class WritesFollowReads(_Guarantee):
    """Whoever sees a write sees what its session had read before it."""

    level = WRITES_FOLLOW_READS

    def _find(self, ops: Operations, uncertainty_ns: int) -> Pattern | None:
        return None if _plain(ops, uncertainty_ns) else broken_by_earlier_reads(ops)


@register(Family.CHECKER, SESSIONS)
class Sessions(_Guarantee):
    """The four session guarantees together."""

    level = SESSIONS

    def _find(self, ops: Operations, uncertainty_ns: int) -> Pattern | None:
        singles: tuple[tuple[str, Finder], ...] = (
            (READ_YOUR_WRITES, broken_by_writes),
            (MONOTONIC_READS, broken_by_reads),
        )
        for level, find in singles:
            found = find(ops, uncertainty_ns)
            if found is not None:
                return _naming(found, level)
        if _plain(ops, uncertainty_ns):
            return None
        found = broken_by_earlier_writes(ops)
        if found is not None:
            return _naming(found, MONOTONIC_WRITES)
        found = broken_by_earlier_reads(ops)
        if found is not None:
            return _naming(found, WRITES_FOLLOW_READS)
        causal = weakly_causal(ops)
        if not isinstance(causal, Pattern):
            return None
        names = causal.guarantees
        text = f"Of the four guarantees {' or '.join(names)} is broken: " if names else ""
        return Pattern(text + causal.text[0].lower() + causal.text[1:], causal.witness, names)


def _naming(found: Pattern, level: str) -> Pattern:
    text = f"Of the four guarantees {level} is broken: {found.text[0].lower()}{found.text[1:]}"
    return Pattern(text, found.witness, (level,))
