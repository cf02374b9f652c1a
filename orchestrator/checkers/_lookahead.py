"""Configurations of a search from which no linearization can follow, seen early."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Final, Protocol

from orchestrator.checkers._moments import NEVER_NS, Item, Moment, Move, Unanswered
from orchestrator.checkers._register_moves import needed
from orchestrator.core.machine import DEQUEUE, ENQUEUE, OK, READ, WRITE
from orchestrator.core.models import CAS_REGISTER, KV, QUEUE, REGISTER, State, growth, initial_state

READS_AHEAD: Final = 16


class Lookahead(Protocol):
    """Tells whether a move may lead anywhere."""

    def has_hope(
        self, moment: Moment, unanswered: Unanswered, done: int, used: int, state: State, move: Move
    ) -> bool:
        """``done`` and ``used`` are those after the move, ``state`` the one before it."""
        ...


def lookahead(items: Sequence[Item], model: str) -> Lookahead | None:
    """What is known of objects of this model with these operations."""
    if model in {REGISTER, CAS_REGISTER}:
        return RegisterLookahead(items)
    if model == KV and any(item.call.kind == WRITE for item in items):
        return TextLookahead(items)
    if model == QUEUE:
        return queue_lookahead(items)
    grows = growth(model, [item.call for item in items if item.call.kind != READ])
    return None if grows is None else GrowthLookahead(items, grows)


class GrowthLookahead:
    """An object that only grows must not outgrow what a later read returns.

    Of the reads that are not invoked yet, the smallest one will do: the others contain it, or
    there is no linearization.
    """

    def __init__(
        self, items: Sequence[Item], grows: Callable[[State], tuple[float, Callable[[State], bool]]]
    ) -> None:
        reads = sorted(
            (item for item in items if item.call.kind == READ), key=lambda item: item.invoked_ns
        )
        self._tests = {item.call.value: grows(item.call.value) for item in reads}
        self._invocations = [item.invoked_ns for item in reads]
        self._smallest: list[Callable[[State], bool] | None] = [None]
        size = float("inf")
        for item in reversed(reads):
            own, test = self._tests[item.call.value]
            self._smallest.append(test if own < size else self._smallest[-1])
            size = min(size, own)
        self._smallest.reverse()

    def has_hope(
        self, moment: Moment, unanswered: Unanswered, done: int, used: int, state: State, move: Move
    ) -> bool:
        """``done`` is that after the move."""
        coming = self._smallest[bisect_right(self._invocations, moment.at_ns)]
        if coming is not None and not coming(move.state):
            return False
        return all(
            done & one.bit or self._tests[one.kind.call.value][1](move.state)
            for one in moment.readers
        )


def queue_lookahead(items: Sequence[Item]) -> QueueLookahead | None:
    """None where values repeat, so that a dequeue does not tell which enqueue it saw."""
    entered = [item.call.value for item in items if item.call.kind == ENQUEUE]
    left = [
        item.call.value
        for item in items
        if item.call.kind == DEQUEUE and item.call.outcome == OK and item.call.value is not None
    ]
    unique = len(set(entered)) == len(entered) and len(set(left)) == len(left)
    return QueueLookahead(items) if unique else None


class QueueLookahead:
    """Elements enter in the order in which they leave, as far as that is known."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._leaves = {
            item.call.value: (item.invoked_ns, item.returned_ns)
            for item in items
            if item.call.kind == DEQUEUE and item.call.outcome == OK
        }
        lost = any(item.call.kind == DEQUEUE and item.call.outcome != OK for item in items)
        # What nobody is known to take stays for ever, or a lost dequeue may have taken it.
        self._stays = (0, NEVER_NS) if lost else (NEVER_NS, NEVER_NS)
        enters = sorted(
            (item.invoked_ns, self._left(item.call.value)[1])
            for item in items
            if item.call.kind == ENQUEUE
        )
        self._enters = _by_invocation(enters)
        self._empty = _by_invocation(
            [
                (item.invoked_ns, item.returned_ns)
                for item in items
                if item.call.reads_only and item.returned_ns != NEVER_NS
            ]
        )

    def _left(self, value: Hashable) -> tuple[int, int]:
        return self._leaves.get(value, self._stays)

    def has_hope(
        self, moment: Moment, unanswered: Unanswered, done: int, used: int, state: State, move: Move
    ) -> bool:
        """``done`` and ``used`` are those after the move, ``state`` the one before it."""
        if len(move.state) <= len(state):
            return True
        began_ns, gone_ns = self._left(move.state[-1])
        if any(self._left(value)[0] > gone_ns for value in state):
            return False  # one before it leaves only after it
        if began_ns > _earliest(self._empty, moment.at_ns) or any(
            began_ns > one.returned_ns for one in moment.readers if not done & one.bit
        ):
            return False  # it is there when somebody finds nothing
        earliest_ns = _earliest(self._enters, moment.at_ns)
        for group in moment.groups:
            for one in group:
                if one.kind.call.kind == ENQUEUE and not done & one.bit:
                    earliest_ns = min(earliest_ns, self._left(one.kind.call.value)[1])
        for kind, mask in unanswered:
            if kind.call.kind == ENQUEUE and mask & moment.invoked & ~used:
                earliest_ns = min(earliest_ns, self._left(kind.call.value)[1])
        return earliest_ns >= began_ns  # else one that enters later leaves before it


class TextLookahead:
    """A text that is written and appended to must begin what a later read returns, or a write
    that can still come must. Of the reads that are not invoked yet, the next few are tried.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        writes = [
            (item.invoked_ns, _text(item.call.value)) for item in items if item.call.kind == WRITE
        ]
        reads = sorted(
            (item for item in items if item.call.kind == READ), key=lambda item: item.invoked_ns
        )
        self._invocations = [item.invoked_ns for item in reads]
        self._reads = [(item.call.value, item.returned_ns) for item in reads]
        # When the last write that may have begun what was read was invoked.
        self._last_ns = {
            (value, returned_ns): max(
                (
                    at_ns
                    for at_ns, begun in writes
                    if at_ns <= returned_ns and _text(value).startswith(begun)
                ),
                default=0,
            )
            for value, returned_ns in self._reads
        }

    def has_hope(
        self, moment: Moment, unanswered: Unanswered, done: int, used: int, state: State, move: Move
    ) -> bool:
        """``done`` and ``used`` are those after the move."""
        coming = bisect_right(self._invocations, moment.at_ns)
        reads = self._reads[coming : coming + READS_AHEAD]
        reads += [
            (one.kind.call.value, one.returned_ns) for one in moment.readers if not done & one.bit
        ]
        wanted = [
            _text(read[0])
            for read in reads
            if self._last_ns[read] <= moment.at_ns and not _text(read[0]).startswith(move.state)
        ]
        if not wanted:
            return True
        begun = [
            _text(group[-1].kind.call.value)
            for group in moment.groups
            if group[0].kind.call.kind == WRITE and any(not done & one.bit for one in group)
        ]
        begun += [
            _text(kind.call.value)
            for kind, mask in unanswered
            if kind.call.kind == WRITE and mask & moment.invoked & ~used
        ]
        return all(any(text.startswith(one) for one in begun) for text in wanted)


def _text(value: Hashable) -> str:
    return str(initial_state(KV, value))


class RegisterLookahead:
    """Hopeless is what left a value that is still needed and that nobody can write in time."""

    def __init__(self, items: Sequence[Item]) -> None:
        writers = defaultdict[Hashable, list[int]](list)
        users = defaultdict[Hashable, list[tuple[int, int]]](list)
        for item in items:
            call = item.call
            if not call.reads_only:
                writers[call.value].append(item.invoked_ns)
            if item.returned_ns != NEVER_NS:
                for value in needed(call):
                    users[value].append((item.invoked_ns, item.returned_ns))
        self._writers = {value: sorted(times) for value, times in writers.items()}
        self._users = {value: _by_invocation(times) for value, times in users.items()}

    def has_hope(
        self, moment: Moment, unanswered: Unanswered, done: int, used: int, state: State, move: Move
    ) -> bool:
        """``done`` and ``used`` are those after the move, ``state`` the one before it."""
        left = move.skipped if move.state == state else (state, *move.skipped)
        return not any(self._is_lost(value, moment, unanswered, done, used) for value in left)

    def _is_lost(
        self, value: Hashable, moment: Moment, unanswered: Unanswered, done: int, used: int
    ) -> bool:
        if value not in self._users:
            return False
        deadline_ns = _earliest(self._users[value], moment.at_ns)
        for one in moment.present:
            if not done & one.bit and value in needed(one.kind.call):
                deadline_ns = min(deadline_ns, one.returned_ns)
        if deadline_ns == NEVER_NS:
            return False
        writers = self._writers.get(value, [])
        following = bisect_right(writers, moment.at_ns)
        if following < len(writers) and writers[following] <= deadline_ns:
            return False
        return not any(
            one.kind.call.value == value and not done & one.bit
            for group in moment.groups
            for one in group
        ) and not any(
            kind.call.value == value and mask & moment.invoked & ~used for kind, mask in unanswered
        )


def _earliest(times: tuple[list[int], list[int]], now_ns: int) -> int:
    """The earliest return of what is invoked after ``now_ns``."""
    invocations, earliest_returns = times
    return earliest_returns[bisect_right(invocations, now_ns)]


def _by_invocation(times: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Invocations in order, and the earliest return of those from each one on (then NEVER_NS)."""
    times.sort()
    earliest = [NEVER_NS]
    for _, returned_ns in reversed(times):
        earliest.append(min(earliest[-1], returned_ns))
    return [invoked_ns for invoked_ns, _ in times], earliest[::-1]
