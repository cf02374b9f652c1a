"""Smaller histories that are just as impossible: what remains is the witness.

Leaving operations out must not create the contradiction that it is to show. So a change goes
only together with everything that may have seen it: if the whole history were linearizable, what
is left of it would be, too. Chunks are tried from large to small, as in Zeller and Hildebrandt,
"Simplifying and Isolating Failure-Inducing Input" (TSE 2002), until no single operation can go.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final

from orchestrator.checkers._moments import Item
from orchestrator.checkers._register_moves import needed
from orchestrator.checkers._search import search
from orchestrator.core.machine import DEQUEUE, FAIL, OK, READ
from orchestrator.core.models import CAS_REGISTER, COUNTER, KV, QUEUE, REGISTER, Call

WORK_MAX: Final = 300_000
"""Operations looked at and steps searched, all in all."""


def shrink(items: Sequence[Item], model: str, initial: object, stuck_ns: int) -> list[Item]:
    """A subset that is not linearizable; ``stuck_ns`` as the search of ``items`` found it."""
    work = WORK_MAX
    left = [item for item in items if item.invoked_ns <= stuck_ns]
    if search(left, model, initial, work).linearizable is not False:
        left = list(items)  # it was seen to be hopeless by what came later
    size = max(1, len(left) // 2)
    while True:
        at, smaller = 0, False
        while at < len(left) and work > 0:
            rest = _without(left, range(at, min(at + size, len(left))), model)
            found = search(rest, model, initial, work) if rest else None
            work -= len(rest) + (found.steps if found else 0)
            if found is not None and found.linearizable is False:
                left, smaller = rest, True
            else:
                at += size
        if work <= 0 or (size == 1 and not smaller):
            return left
        size = max(1, size // 2)


def _without(items: Sequence[Item], chosen: Iterable[int], model: str) -> list[Item]:
    """Without the chosen ones and, again and again, what may have seen what is gone."""
    gone = set(chosen)
    news = [items[at] for at in gone]
    while news:
        relies = _relying_on(news, model)
        more = [at for at, item in enumerate(items) if at not in gone and relies(item)]
        gone.update(more)
        news = [items[at] for at in more]
    return [item for at, item in enumerate(items) if at not in gone]


def _relying_on(gone: Sequence[Item], model: str) -> Callable[[Item], bool]:
    """Tells what may not stay when these are gone: what was over before a change did not see it."""
    since: dict[Hashable, int] = {}
    for item in gone:
        if not item.call.reads_only:
            value = item.call.value
            since[value] = min(item.invoked_ns, since.get(value, item.invoked_ns))
    if model == QUEUE:
        # Both ends of an element go together; what a lost dequeue took is not known.
        lost = any(item.call.kind == DEQUEUE and item.call.outcome != OK for item in gone)
        return lambda item: lost or (item.call.value in since and not item.call.reads_only)
    sees = _sight(model)
    return lambda item: any(
        at_ns <= item.returned_ns and sees(item.call, value) for value, at_ns in since.items()
    )


def _sight(model: str) -> Callable[[Call, Hashable], bool]:
    """Whether an operation may have needed that a change to or by the value happened."""
    if model in {REGISTER, CAS_REGISTER}:
        return lambda call, value: (
            value in needed(call) or (call.outcome == FAIL and value != call.expected)
        )
    if model == COUNTER:
        return lambda call, value: call.kind == READ
    if model == KV:
        return lambda call, value: (
            call.kind == READ and ("" if value is None else str(value)) in str(call.value)
        )
    return lambda call, value: call.kind == READ and value in _elements(call)


def _elements(call: Call) -> tuple[Hashable, ...]:
    return call.value if isinstance(call.value, tuple) else ()
