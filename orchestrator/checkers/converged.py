"""Eventual consistency, as far as the end of a run shows it: all replicas hold the same.

Eventual consistency (Vogels, "Eventually Consistent", CACM 2009) speaks of the time after the
last write; a run ends with the load stopped and the network whole, so that replicas whose
contents still differ then have not converged. The cost is one comparison a replica.

A history file has no replicas to compare, but reads of phase ``final``: those of one key have to
agree. Where an operation never got an answer it may take effect between two of them, so its value
(of a register), its element (of a set or list) or its amount (of a counter) may differ.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import numpy

from orchestrator.checkers._clusters import counted, name_of
from orchestrator.core.history import NOTHING, PHASE_FINAL, PRELOADED, History
from orchestrator.core.levels import EVENTUAL
from orchestrator.core.machine import OK, READ, READING, UNKNOWN
from orchestrator.core.models import APPEND_LIST, CAS_REGISTER, COUNTER, KV, REGISTER, SET
from orchestrator.core.registry import Family, register
from orchestrator.core.verdict import (
    INVALID,
    UNDECIDED,
    VALID,
    Evidence,
    Verdict,
    key_text,
    operation,
)


@register(Family.CHECKER, EVENTUAL)
class Converged:
    """All replicas hold the same contents at the end."""

    models: ClassVar[frozenset[str]] = frozenset(
        {REGISTER, CAS_REGISTER, KV, APPEND_LIST, COUNTER, SET}
    )
    unique_values: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, params: Any) -> None:
        pass

    def check(self, history: History, evidence: Evidence) -> Verdict:
        """Compare the digests of the replicas, where they differ there is no witness, and the
        final reads, where two that differ are the witness.
        """
        replicas = _compare_replicas(history, evidence) if evidence.digests else None
        if replicas is not None and replicas.verdict == INVALID:
            return replicas
        reads = _compare_reads(history, evidence)
        if reads is not None and (reads.verdict == INVALID or replicas is None):
            return reads
        if replicas is not None:
            return replicas
        text = "The contents of the replicas at the end are not known."
        return Verdict(UNDECIDED, EVENTUAL, len(history), 0, (), text)


def _compare_replicas(history: History, evidence: Evidence) -> Verdict:
    groups: dict[str, list[int]] = {}
    for replica, digest in enumerate(evidence.digests):
        groups.setdefault(digest, []).append(replica)
    silent = groups.pop("", [])
    # The largest group is the norm, the earliest of equals.
    norm = max(groups.values(), key=len, default=[])
    strays = [replica for group in groups.values() if group is not norm for replica in group]
    if strays:
        found = INVALID
        text = (
            f"After the run the contents of {_replicas(strays)} differ from those of "
            f"{_replicas(norm)}."
        )
    elif silent:
        found = UNDECIDED
        text = f"The contents of {_replicas(silent)} at the end are not known."
    else:
        found = VALID
        text = f"The contents of {_replicas(norm)} are equal after the run."
    return Verdict(found, EVENTUAL, len(history), 0, (), text)


def _replicas(replicas: list[int]) -> str:
    names = ", ".join(str(replica) for replica in sorted(replicas))
    return f"replica{'s' if len(replicas) > 1 else ''} {names}"


def _compare_reads(history: History, evidence: Evidence) -> Verdict | None:
    """Whether the final reads of each key agree; None where there are none."""
    final = (history.phase == PHASE_FINAL) & (history.kind == READ) & (history.outcome == OK)
    reads = numpy.flatnonzero(final)
    if len(reads) == 0:
        return None
    by_key: dict[int, list[int]] = {}
    for row in reads.tolist():
        by_key.setdefault(int(history.key[row]), []).append(row)
    excused = _unanswered(history)
    for key, rows in sorted(by_key.items()):
        seen: dict[Any, int] = {}
        for row in rows:
            content = _content(history, row, evidence.model, excused.get(key, []))
            if content is not None:
                seen.setdefault(content, row)
        if len(seen) > 1:
            one, two = sorted(seen.values())[:2]
            text = (
                f"{name_of(history, one)} and {name_of(history, two)} returned different values "
                f"of key {key_text(history, key)} at the end."
            )
            witness = tuple(operation(history, row) for row in (one, two))
            text = text[0].upper() + text[1:]
            return Verdict(INVALID, EVENTUAL, len(reads), len(by_key), witness, text)
    size = f"{counted(len(reads), 'read')}, {counted(len(by_key), 'key')}"
    text = f"The final reads of each key agree ({size})."
    return Verdict(VALID, EVENTUAL, len(reads), len(by_key), (), text)


def _unanswered(history: History) -> dict[int, list[int]]:
    """Value ids by key of changes that may still take effect."""
    changing = ~numpy.isin(history.kind, sorted(READING)) & (history.outcome == UNKNOWN)
    found: dict[int, list[int]] = {}
    for row in numpy.flatnonzero(changing).tolist():
        found.setdefault(int(history.key[row]), []).append(int(history.value_id[row]))
    return found


def _content(history: History, row: int, model: str, late: list[int]) -> Any:
    """What a final read has to share with the others of its key; None: nothing."""
    value = int(history.value_id[row])
    if model in (REGISTER, CAS_REGISTER) or history.values is None:
        return None if value in late else max(value, PRELOADED)
    held = () if value == NOTHING else history.values[value]
    if model == COUNTER:
        return None if late else held or 0
    if not isinstance(held, tuple):
        return None if late else held
    pending = {history.values[one] for one in late if one != NOTHING}
    shared = [element for element in held if element not in pending]
    # The order of a set says nothing.
    return frozenset(Counter(shared).items()) if model == SET else tuple(shared)
