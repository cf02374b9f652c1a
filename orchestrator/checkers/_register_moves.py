"""Which operations of a register are worth a try before the next one that returns.

A value is wanted when an open operation needs it: a read of it, a cas from it, or an unanswered
cas from it to a wanted value. In a shortest linearization of what is open,

* an unanswered operation takes effect only to make a wanted value: else leave it out;
* where an unanswered cas does the step, no unanswered write does it: the write can stand in for
  the cas later, the cas not for the write;
* an answered write of an unwanted value is followed by another write before anything sees it,
  so what it left does not matter: the state is OVERWRITTEN, whichever of them came last.

A failed cas wants any value but one, so where one waits for a change, any change will do.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Final

from orchestrator.checkers._moments import (
    Moment,
    Move,
    Open,
    Unanswered,
    available,
    first_open,
)
from orchestrator.core.machine import CAS, FAIL, READ, WRITE
from orchestrator.core.models import Call, State


class _Overwritten:
    """Differs from every value, so nothing but a write is legal."""


OVERWRITTEN: Final = _Overwritten()


def register_moves(
    moment: Moment, unanswered: Unanswered, done: int, used: int, state: State
) -> Iterator[Move]:
    """Operations but the target, the most promising last."""
    answered = [one for one in first_open(moment.groups, done) if one is not moment.target]
    spare = available(moment, unanswered, done, used)
    changes = [(kind.call, bit) for kind, bit in spare if kind.call.kind == CAS]
    writes = [(kind.call.value, bit) for kind, bit in spare if kind.call.kind == WRITE]
    wanted, anything = _wanted(moment, answered, done, state)
    _want_what_leads_there(wanted, [call for call, _ in changes])
    found = []
    reached = set()
    for call, bit in changes:
        if call.expected == state and (anything or call.value in wanted):
            reached.add(call.value)
            found.append(Move(0, bit, call.value))
    for value, bit in writes:
        if value != state and value not in reached and (anything or value in wanted):
            found.append(Move(0, bit, value))
    for one in reversed(answered):
        call = one.kind.call
        if call.kind == CAS:
            if call.expected == state:
                found.append(Move(one.bit, 0, call.value))
        elif anything or call.value in wanted or call.value == state:
            found.append(Move(one.bit, 0, call.value))
        else:
            found.append(Move(one.bit, 0, OVERWRITTEN, (call.value,)))
    goal = needed(moment.target.kind.call)
    yield from (move for move in found if move.state not in goal)
    yield from (move for move in found if move.state in goal)


def needed(call: Call) -> tuple[Hashable, ...]:
    """The value that the register must have for this operation, if it must have one."""
    if call.kind == READ:
        return (call.value,)
    return (call.expected,) if call.kind == CAS and call.outcome != FAIL else ()


def _wanted(
    moment: Moment, answered: list[Open], done: int, state: State
) -> tuple[set[Hashable], bool]:
    """The values that open operations need, and whether one needs any change of the state."""
    wanted = set[Hashable]()
    anything = False
    for one in moment.readers:
        if not done & one.bit:
            call = one.kind.call
            wanted.update(needed(call))
            anything |= call.outcome == FAIL and call.expected == state
    for one in (*answered, moment.target):
        wanted.update(needed(one.kind.call))
    return wanted, anything


def _want_what_leads_there(wanted: set[Hashable], changes: list[Call]) -> None:
    todo = list(wanted)
    while todo:
        value = todo.pop()
        for call in changes:
            if call.value == value and call.expected not in wanted:
                wanted.add(call.expected)
                todo.append(call.expected)
