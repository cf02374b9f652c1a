"""What a search for a linearization walks over: the returns, each with what is open then.

Answered operations have slots, bits of an integer, from their invocation to their return; slots
are used again. Operations without an answer have bits of another integer, in the order of their
invocations, for ever.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right, insort
from collections.abc import Hashable, Iterable, Iterator
from typing import Final, NamedTuple

from orchestrator.core.machine import READ
from orchestrator.core.models import KV, Call, State, Step, initial_state, step

NEVER_NS: Final = 1 << 63
"""The return of an operation without an answer."""
NO_ROW: Final = -1


OVERWRITTEN_TEXT: Final = "\0overwritten"
"""Every text that begins no read is one: it can only be written over."""


class Item(NamedTuple):
    """One operation of the object; ``row`` is its identity.

    ``returned_ns`` is NEVER_NS where it may take effect at any later time or never. ``after``:
    row of the operation that its session did before it, where the times do not show that
    (NO_ROW: they do).
    """

    row: int
    invoked_ns: int
    returned_ns: int
    call: Call
    after: int = NO_ROW


class Kind(NamedTuple):
    """Operations that do the same."""

    call: Call
    step: Step
    reads_only: bool


class Open(NamedTuple):
    """An answered operation in its slot; ``need``: the slot of ``Item.after``, where open."""

    bit: int
    need: int
    kind: Kind
    returned_ns: int


class Moment(NamedTuple):
    """What is open when ``target`` returns.

    ``present``: all of them in the order of their returns; ``readers``: those that only read;
    ``groups``: the others, in groups that do the same. ``invoked``: the unanswered operations
    invoked by then, and ``needs``: their kinds that wait for a slot.
    """

    at_ns: int
    target: Open
    present: list[Open]
    readers: list[Open]
    groups: list[list[Open]]
    invoked: int
    needs: dict[Kind, int]


class Move(NamedTuple):
    """One operation takes effect: slot or unanswered operation, and the state after it.

    ``skipped``: values that it gives up besides the state before it.
    """

    bit: int
    unanswered: int
    state: State
    skipped: tuple[Hashable, ...] = ()


Unanswered = list[tuple[Kind, int]]
"""Kinds of unanswered operations with the bits of them, all or one."""


def _text(call: Call) -> str:
    return str(initial_state(KV, call.value))


class Problem:
    """The moments of one object's history, made from its items."""

    def __init__(self, items: Iterable[Item], model: str) -> None:
        self._model = model
        self._kinds: dict[object, Kind] = {}
        ordered = sorted(items, key=lambda item: (item.invoked_ns, item.row))
        self._bound = {item.after for item in ordered if item.after != NO_ROW}
        self._bound |= {item.row for item in ordered if item.after != NO_ROW}
        self._slots: dict[int, int] = {}
        texts = [_text(item.call) for item in ordered if item.call.kind == READ]
        self._wanted = tuple(texts) if model == KV else ()
        self._settled: dict[State, State] = {}
        lost = [item for item in ordered if item.returned_ns == NEVER_NS]
        lost = [item for item in lost if not item.call.reads_only]
        self._lost_ns = [item.invoked_ns for item in lost]
        self._waiting = [(self._kind(item), item.after) for item in lost if item.after != NO_ROW]
        masks: dict[Kind, int] = {}
        for at, item in enumerate(lost):
            kind = self._kind(item)
            masks[kind] = masks.get(kind, 0) | 1 << at
        self.unanswered: Unanswered = list(masks.items())
        self.moments = list(self._walk([item for item in ordered if item.returned_ns != NEVER_NS]))

    def _kind(self, item: Item) -> Kind:
        # Operations that are bound to others do not change places, so they are of their own kind.
        key = (item.call, item.row if item.row in self._bound else NO_ROW)
        kind = self._kinds.get(key)
        if kind is None:
            call = item.call
            does = step(self._model, call)
            if self._model == KV and not call.reads_only:
                does = self._overwriting(does)
            kind = self._kinds[key] = Kind(call, does, call.reads_only)
        return kind

    def _overwriting(self, does: Step) -> Step:
        settled, wanted = self._settled, self._wanted

        def step_and_settle(state: State) -> State:
            after = does(state)
            if after not in settled:
                seen = any(text.startswith(after) for text in wanted)
                settled[after] = after if seen else OVERWRITTEN_TEXT
            return settled[after]

        return step_and_settle

    def _walk(self, answered: list[Item]) -> Iterator[Moment]:
        free, slots_made = list[int](), 0
        present: list[tuple[int, int, Open]] = []
        coming = iter(answered)
        item = next(coming, None)
        for leaving in sorted(answered, key=lambda item: (item.returned_ns, item.row)):
            while item is not None and item.invoked_ns <= leaving.returned_ns:
                if not free:
                    free.append(slots_made)
                    slots_made += 1
                bit = 1 << heapq.heappop(free)
                self._slots[item.row] = bit
                made = Open(bit, self._slots.get(item.after, 0), self._kind(item), item.returned_ns)
                insort(present, (item.returned_ns, item.row, made), key=lambda entry: entry[:2])
                item = next(coming, None)
            yield self._moment(leaving.returned_ns, [entry[2] for entry in present])
            bit = self._slots.pop(leaving.row)
            heapq.heappush(free, bit.bit_length() - 1)
            del present[0]
            if leaving.row in self._bound:
                present = [
                    (at_ns, row, made._replace(need=0) if made.need == bit else made)
                    for at_ns, row, made in present
                ]

    def _moment(self, at_ns: int, present: list[Open]) -> Moment:
        target = present[0]
        groups: dict[Kind, list[Open]] = {}
        for one in present:
            if not one.kind.reads_only:
                groups.setdefault(one.kind, []).append(one)
        return Moment(
            at_ns,
            target,
            present,
            [one for one in present if one.kind.reads_only],
            list(groups.values()),
            (1 << bisect_right(self._lost_ns, at_ns)) - 1,
            {kind: self._slots.get(after, 0) for kind, after in self._waiting},
        )


def first_open(groups: list[list[Open]], done: int) -> Iterator[Open]:
    """Of each group, the operation that is to take effect first."""
    for group in groups:
        for one in group:
            if not done & one.bit:
                if not one.need & ~done:
                    yield one
                break


def available(moment: Moment, unanswered: Unanswered, done: int, used: int) -> Unanswered:
    """Each kind of unanswered operation with the one to use next, as a bit."""
    found = []
    for kind, mask in unanswered:
        left = mask & moment.invoked & ~used
        if left and not (moment.needs and moment.needs.get(kind, 0) & ~done):
            found.append((kind, left & -left))
    return found
