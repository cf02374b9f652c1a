"""Linearizability by search, for what no faster algorithm decides.

The search of Wing and Gong ("Testing and Verifying Concurrent Objects", JPDC 1993) with the
memory of failed configurations of Lowe ("Testing for Linearizability", CCPE 2017), in the order
of Lowe's just-in-time variant: it walks over the returns in time, and lets operations take
effect only to make the next one that returns take effect before it does. Nothing later can need
them earlier. A configuration is what then matters: which open operations took effect, which of
those without an answer did, and the state. What keeps their number small:

* An operation that only reads takes effect as soon as the state allows: it harms nothing.
* Of open operations that do the same, the one that returns first takes effect first; those
  without an answer come last, in the order of their invocations. In any linearization two such
  may change places.
* A configuration that has used up a subset of the unanswered operations of another one, all
  else equal, can do whatever that one can. So only those with the smallest sets are visited.
* Some configurations are seen to be hopeless early: see ``_lookahead``.
* Of registers, few operations are worth a try: see ``_register_moves``.

The sets are integers used as sets of bits. Slots of answered operations are used again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from orchestrator.checkers._lookahead import lookahead
from orchestrator.checkers._moments import (
    Item,
    Moment,
    Move,
    Problem,
    Unanswered,
    available,
    first_open,
)
from orchestrator.checkers._register_moves import register_moves
from orchestrator.core.models import CAS_REGISTER, ILLEGAL, REGISTER, State, initial_state

Moves = Callable[[Moment, Unanswered, int, int, State], Iterable[Move]]


class Found(NamedTuple):
    """``linearizable`` is None where the steps ran out.

    ``stuck_ns``: no linearization of what was invoked by then lets the operations take effect
    that returned by then.
    """

    linearizable: bool | None
    steps: int
    stuck_ns: int


class Searcher:
    """The search for a linearization of one object's operations; ``initial``: its first value."""

    def __init__(self, items: Sequence[Item], model: str, initial: object) -> None:
        problem = Problem(items, model)
        self._moments, self._unanswered = problem.moments, problem.unanswered
        self._start = initial_state(model, initial)
        self._moves: Moves = register_moves if model in {REGISTER, CAS_REGISTER} else _moves
        self._lookahead = lookahead(items, model)

    def run(self, steps_max: int) -> Found:
        """Depth first, so that a linearization that exists is usually met soon."""
        moments = self._moments
        visited: dict[tuple[int, int, State], list[int]] = {}
        # (moment, slots that took effect, unanswered that did, state, whether the target was tried)
        stack = [(0, 0, 0, self._start, False)]
        steps = furthest = 0
        while stack:
            at, done, used, state, tried = stack.pop()
            if not tried:
                at, done = _advance(moments, at, done, state)
                if at == len(moments):
                    return Found(True, steps, 0)
                if _is_dominated(visited.setdefault((at, done, state), []), used):
                    continue
                furthest = max(furthest, at)
                steps += 1
                if steps > steps_max:
                    return Found(None, steps, moments[furthest].at_ns)
                target = moments[at].target
                after = ILLEGAL if target.need & ~done else target.kind.step(state)
                if after is not ILLEGAL:
                    stack.append((at, done, used, state, True))
                    if self._has_hope(at, done | target.bit, used, state, Move(0, 0, after)):
                        stack.append((at, done | target.bit, used, after, False))
                    continue
            for move in self._moves(moments[at], self._unanswered, done, used, state):
                after_done, after_used = done | move.bit, used | move.unanswered
                if self._has_hope(at, after_done, after_used, state, move):
                    stack.append((at, after_done, after_used, move.state, False))
        return Found(False, steps, moments[furthest].at_ns)

    def _has_hope(self, at: int, done: int, used: int, state: State, move: Move) -> bool:
        return self._lookahead is None or self._lookahead.has_hope(
            self._moments[at], self._unanswered, done, used, state, move
        )


def search(items: Sequence[Item], model: str, initial: object, steps_max: int) -> Found:
    """Whether the operations of one object are linearizable."""
    return Searcher(items, model, initial).run(steps_max)


def _advance(moments: Sequence[Moment], at: int, done: int, state: State) -> tuple[int, int]:
    """On to the next return that is still owed, taking every read on the way that is legal."""
    while at < len(moments):
        moment = moments[at]
        for bit, need, kind, _ in moment.readers:
            if not (done & bit or need & ~done) and kind.step(state) is not ILLEGAL:
                done |= bit
        if not done & moment.target.bit:
            break
        done &= ~moment.target.bit
        at += 1
    return at, done


def _is_dominated(smallest: list[int], used: int) -> bool:
    """Whether a subset of ``used`` was here before; else it replaces its supersets."""
    if any(not one & ~used for one in smallest):
        return True
    smallest[:] = [one for one in smallest if used & ~one]
    smallest.append(used)
    return False


def _moves(
    moment: Moment, unanswered: Unanswered, done: int, used: int, state: State
) -> Iterator[Move]:
    """Every legal operation but the target, the most promising last."""
    answered = list(first_open(moment.groups, done))
    spare = available(moment, unanswered, done, used)
    found = [Move(0, bit, kind.step(state)) for kind, bit in spare]
    found = [move for move in found if move.state != state]
    found += [
        Move(one.bit, 0, one.kind.step(state))
        for one in reversed(answered)
        if one.bit != moment.target.bit
    ]
    found = [move for move in found if move.state is not ILLEGAL]
    enabling = moment.target.kind.step
    yield from (move for move in found if enabling(move.state) is ILLEGAL)
    yield from (move for move in found if enabling(move.state) is not ILLEGAL)
