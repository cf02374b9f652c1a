"""Durability: what was acknowledged is still there at the end.

No consistency level says this: a store that loses everything may be consistent in what it still
shows. It is judged by the reads of phase ``final``, which run after the load has stopped and the
system has healed, key by key, with what the key's model makes of its acknowledged operations:

* **registers** (register, cas-register, kv): the value read is not older than an acknowledged
  write, such as a compare-and-set that matched. An acknowledged write is newer than the value
  read beyond doubt where its version is higher and the key's acknowledged writes all have
  versions of their own; without versions, where it began after the value had been written or read.
* **set, append**: every acknowledged element is in the read, and no element more often than it
  was added by operations that may have happened.
* **counter**: the value lies between the sum of the acknowledged increments and the sums that
  unanswered ones make possible.

A value that nobody wrote is no acknowledged write either, and breaks durability too. An operation
without an answer binds nobody. A key with an acknowledged change that no final read has answered
leaves the verdict open, unless another key proves a loss.

``durability`` gives the verdict and ``survival`` the numbers. What can be counted is an element of
a set or list, and the only acknowledged write of a register: of several the last read shows one,
and which of the others had been there before nobody knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.history import NOTHING, PHASE_FINAL, PRELOADED, History
from orchestrator.core.machine import (
    ADD,
    APPEND,
    CAS,
    FAIL,
    INCREMENT,
    KIND_NAMES,
    OK,
    READ,
    WRITE,
)
from orchestrator.core.models import APPEND_LIST as LIST
from orchestrator.core.models import CAS_REGISTER, COUNTER, KV, REGISTER, SET
from orchestrator.core.verdict import (
    INVALID,
    UNDECIDED,
    VALID,
    Evidence,
    Verdict,
    key_text,
    operation,
)

DURABILITY: Final = "durability"
NO_EVIDENCE: Final = Evidence()
_MUTATORS: Final = {
    REGISTER: (WRITE,),
    CAS_REGISTER: (WRITE, CAS),
    KV: (WRITE,),
    LIST: (APPEND,),
    SET: (ADD,),
    COUNTER: (INCREMENT,),
}


@dataclass(frozen=True)
class Survival:
    """What the final reads say of what was acknowledged, in numbers.

    ``lost``: rows of the operations that are gone for certain and can be counted; None: not known.
    ``unread``: keys with acknowledged changes that were not read in the end; None for models
    without a rule. ``least``: more may be lost than ``lost`` shows.
    """

    verdict: str
    lost: tuple[int, ...] | None
    unread: int | None
    least: bool


@dataclass(frozen=True)
class Loss:
    """A final read, the acknowledged operations that it does not show, and why.

    ``lost`` may be empty: then the read shows something that never was.
    """

    read: int
    lost: tuple[int, ...]
    support: tuple[int, ...]
    text: str


def durability(history: History, evidence: Evidence = NO_EVIDENCE) -> Verdict:
    """Whether every acknowledged operation shows in the final reads of its key.

    UNDECIDED without a final read, for models without a rule, for keys that were changed by
    operations of another kind than the model's own, and for keys that were not read.
    """
    finals, why = _judged(history, evidence)
    keys = len(finals)
    operations = int(numpy.isin(history.key, [*finals]).sum())
    if why:
        return Verdict(UNDECIDED, DURABILITY, operations, keys, (), why)
    losses = [*_losses(history, evidence, finals)]
    if not losses and (unread := len(_unread(history, evidence, finals))):
        text = (
            f"{_counted(unread, 'key')} with acknowledged changes could not be read in the end; "
            f"the reads of {_counted(keys, 'key')} show every acknowledged operation."
        )
        return Verdict(UNDECIDED, DURABILITY, operations, keys, (), text)
    if not losses:
        text = f"Every acknowledged operation shows in the final reads ({_counted(keys, 'key')})."
        return Verdict(VALID, DURABILITY, operations, keys, (), text)
    loss = losses[0]
    broken = len({int(history.key[one.read]) for one in losses})
    text = loss.text
    if broken > 1:
        text += f" Of {keys} keys, {broken} lost something; this is one of them."
    rows = dict.fromkeys([loss.read, *loss.lost[:1], *loss.support])
    ordered = sorted(rows, key=lambda row: (int(history.invoked_ns[row]), row))
    witness = tuple(operation(history, row) for row in ordered)
    text = text[0].upper() + text[1:]
    return Verdict(INVALID, DURABILITY, operations, keys, witness, text)


def survival(history: History, evidence: Evidence = NO_EVIDENCE) -> Survival:
    """How many acknowledged operations are gone, and how many keys did not say."""
    finals, why = _judged(history, evidence)
    unread = None
    if evidence.model in _MUTATORS:
        unread = len(_unread(history, evidence, finals))
    if why:
        return Survival(UNDECIDED, None, unread, least=False)
    losses = [*_losses(history, evidence, finals)]
    gone = {row for loss in losses for row in loss.lost}
    changes = _changes(history, _MUTATORS[evidence.model], finals)
    lost = tuple(sorted(row for row in gone if _countable(history, evidence, changes, row)))
    verdict = INVALID if losses else UNDECIDED if unread else VALID
    uncounted = len(lost) < len(gone) or (evidence.model == COUNTER and verdict == INVALID)
    least = bool(unread) or uncounted
    return Survival(verdict, None if least and not lost else lost, unread, least and bool(lost))


def _countable(
    history: History, evidence: Evidence, changes: dict[int, list[int]], row: int
) -> bool:
    """Whether the operation, if it is gone, is one loss and no more and no less."""
    rivals = changes[int(history.key[row])]
    return evidence.model in (LIST, SET) or sum(history.outcome[each] == OK for each in rivals) == 1


def _unread(
    history: History, evidence: Evidence, finals: dict[int, list[int]]
) -> NDArray[numpy.int64]:
    """Keys with acknowledged changes that no final read has answered."""
    acknowledged = numpy.isin(history.kind, _MUTATORS[evidence.model]) & (history.outcome == OK)
    keys = numpy.unique(history.key[acknowledged])
    return keys[~numpy.isin(keys, [*finals])]


def _judged(history: History, evidence: Evidence) -> tuple[dict[int, list[int]], str]:
    """Final reads by key, and why they cannot be judged (empty: they can)."""
    is_final = (history.phase == PHASE_FINAL) & (history.kind == READ) & (history.outcome == OK)
    finals: dict[int, list[int]] = {}
    for row in numpy.flatnonzero(is_final).tolist():
        finals.setdefault(int(history.key[row]), []).append(row)
    if evidence.model not in _MUTATORS:
        return finals, f"Nothing is defined about the durability of model {evidence.model!r}."
    if not finals:
        return finals, "There is no read of phase 'final' to show what is still there."
    if evidence.model not in (REGISTER, CAS_REGISTER, KV) and history.values is None:
        return finals, "The history does not say what its values are."
    changing = ~numpy.isin(history.kind, [READ, *_MUTATORS[evidence.model]])
    changing &= (history.outcome != FAIL) & numpy.isin(history.key, [*finals])
    if changing.any():
        name = _of_key(history, int(numpy.argmax(changing)))
        return finals, f"{name} changes the key in a way that the model does not know."
    return finals, ""


def _losses(history: History, evidence: Evidence, finals: dict[int, list[int]]) -> Iterator[Loss]:
    judge = {LIST: _elements, SET: _elements, COUNTER: _counts}.get(evidence.model, _register)
    changes = _changes(history, _MUTATORS[evidence.model], finals)
    for key in sorted(finals):
        yield from judge(history, changes.get(key, []), finals[key])


def _changes(
    history: History, kinds: Sequence[int], finals: dict[int, list[int]]
) -> dict[int, list[int]]:
    """Rows by key of the operations that may have changed it."""
    chosen = numpy.isin(history.kind, kinds) & (history.outcome != FAIL)
    chosen &= numpy.isin(history.key, [*finals])
    found: dict[int, list[int]] = {}
    for row in numpy.flatnonzero(chosen).tolist():
        found.setdefault(int(history.key[row]), []).append(row)
    return found


# --- registers --------------------------------------------------------------------------


def _register(history: History, writes: list[int], reads: list[int]) -> Iterator[Loss]:
    done = [row for row in writes if history.outcome[row] == OK]
    versions = [int(history.version[row]) for row in done]
    ordered = min(versions, default=0) > 0 and len({*versions}) == len(versions)
    by_value = {int(history.value_id[row]): row for row in writes}
    for read in reads:
        value = int(history.value_id[read])
        source = by_value.get(value)
        before = [row for row in done if history.returned_ns[row] < history.invoked_ns[read]]
        if value > PRELOADED and source is None:
            text = f"{_of_key(history, read)} returned a value that nobody wrote."
            yield Loss(read, (), (), text)
        elif source is None:
            if before:
                yield _told_loss(history, read, "the initial value", before, None)
        elif history.outcome[source] == OK and ordered:
            newer = [row for row in before if history.version[row] > history.version[source]]
            if newer:
                yield _told_loss(history, read, _value(history, source), newer, source)
        elif not ordered and before != [source]:
            shown = _shown_ns(history, source)
            newer = [row for row in before if history.invoked_ns[row] > shown]
            if newer:
                yield _told_loss(history, read, _value(history, source), newer, source)


def _shown_ns(history: History, source: int) -> int:
    """When a write, or a read of its value that was no final one, had first returned."""
    same = (history.value_id == history.value_id[source]) & (history.key == history.key[source])
    same &= (history.outcome == OK) & (history.phase != PHASE_FINAL)
    return int(numpy.min(history.returned_ns[same], initial=numpy.iinfo(numpy.int64).max))


def _value(history: History, source: int) -> str:
    return f"the value of {_name(history, source)}"


def _told_loss(
    history: History, read: int, value: str, lost: list[int], source: int | None
) -> Loss:
    newest = max(lost, key=lambda row: (int(history.version[row]), int(history.invoked_ns[row])))
    text = (
        f"{_of_key(history, read)} returned {value} at the end, though "
        f"{_name(history, newest)} was acknowledged and is newer."
    )
    rest = [row for row in lost if row != newest]
    return Loss(read, (newest, *rest), () if source is None else (source,), text)


# --- sets, lists, counters --------------------------------------------------------------


def _elements(history: History, additions: list[int], reads: list[int]) -> Iterator[Loss]:
    tried = Counter(_content(history, row) for row in additions)
    for read in reads:
        content = _content(history, read)
        shown = Counter(content if isinstance(content, tuple) else ())
        name = f"{_of_key(history, read)}"
        lacking = [
            row
            for row in additions
            if history.outcome[row] == OK
            and history.returned_ns[row] < history.invoked_ns[read]
            and _content(history, row) not in shown
        ]
        if lacking:
            element = _content(history, lacking[0])
            text = (
                f"{name} lacks {element!r} at the end, which {_name(history, lacking[0])} "
                "had added with an acknowledgement."
            )
            if len(lacking) > 1:
                text += f" So it does {_counted(len(lacking) - 1, 'other element')}."
            yield Loss(read, tuple(lacking), (), text)
        for element, count in shown.items():
            if count > tried[element]:
                times = _counted(tried[element], "time")
                text = (
                    f"{name} shows {element!r} {_counted(count, 'time')} at the end, which was "
                    f"added {times} at most."
                )
                support = [row for row in additions if _content(history, row) == element]
                yield Loss(read, (), tuple(support), text)


def _counts(history: History, increments: list[int], reads: list[int]) -> Iterator[Loss]:
    for read in reads:
        value = _content(history, read) or 0
        sure = [row for row in increments if history.outcome[row] == OK]
        doubtful = [_content(history, row) for row in increments if history.outcome[row] != OK]
        total = sum(_content(history, row) for row in sure)
        low = total + sum(amount for amount in doubtful if amount < 0)
        high = total + sum(amount for amount in doubtful if amount > 0)
        if low <= value <= high:
            continue
        bounds = str(low) if low == high else f"between {low} and {high}"
        text = (
            f"{_of_key(history, read)} returned {value} at the end; the increments "
            f"of key {key_text(history, int(history.key[read]))} make it {bounds}."
        )
        yield Loss(read, (), tuple(increments), text)


def _content(history: History, row: int) -> Any:
    """The value itself; an increment without one counts 1."""
    value = int(history.value_id[row])
    if history.values is None or value == NOTHING:
        return 1 if history.kind[row] == INCREMENT else None
    return history.values[value]


# --- words ------------------------------------------------------------------------------


def _name(history: History, row: int) -> str:
    kind = KIND_NAMES[int(history.kind[row])]
    return f"session {int(history.session[row])}'s {kind} #{int(history.sequence[row])}"


def _of_key(history: History, row: int) -> str:
    preposition = "of" if history.kind[row] == READ else "to"
    key = key_text(history, int(history.key[row]))
    return f"{_name(history, row)} {preposition} key {key}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
