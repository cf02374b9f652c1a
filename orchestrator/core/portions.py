"""How much goes into one message between nodes.

Links bound their frames (``runtimes/_peers.py``), and a receiver refuses what is longer. So
whatever grows with how far somebody is behind, or with the state, is cut into portions of about
``PORTION_BYTES``; what cannot be cut, one operation or entry, is a portion of its own. That is
far enough below the bound for what a message holds besides, and for one entry of the largest
size that plain clients may store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Final, TypeVar

from orchestrator.core.machine import Op, Requested

PORTION_BYTES: Final = 8 << 20
ENTRY_BYTES: Final = 64
"""What an operation or an entry takes at the most besides its key, value and context."""

_size: Final = attrgetter("size")

Item = TypeVar("Item")


def op_bytes(op: Op | None) -> int:
    """What an operation takes in a message, or slightly more; its ``size`` is its weight in the
    model, which may be more and leaves out its context.
    """
    if op is None:
        return 1
    value = op.value
    return ENTRY_BYTES + len(op.key) + len(op.context) + (0 if value is None else len(value))


def ops_end(ops: Sequence[Op], start: int, stop: int) -> int:
    """Where a portion of operations ends that begins at ``start``: at ``stop``, or where it is
    full.

    Each operation passes here on its way, so as a rule they are not looked at: what they say to
    weigh together is believed where that is little, since a frame holds 32 times as much.
    """
    claimed = sum(map(_size, ops[start:stop])) + ENTRY_BYTES * (stop - start)
    return stop if claimed <= PORTION_BYTES // 4 else portion_end(ops, start, stop, op_bytes)


def portion_end(
    items: Sequence[Item], start: int, stop: int, bytes_of: Callable[[Item], int]
) -> int:
    """Where the portion ends that begins at ``start``: at ``stop``, or where it is full."""
    left = PORTION_BYTES
    for at in range(start, stop):
        left -= bytes_of(items[at])
        if left < 0:
            return max(at, start + 1)
    return stop


def spans(items: Sequence[Item], bytes_of: Callable[[Item], int]) -> Iterator[tuple[int, int]]:
    """(start, stop) of each portion; none of an empty sequence."""
    start, count = 0, len(items)
    while start < count:
        stop = portion_end(items, start, count, bytes_of)
        yield start, stop
        start = stop


def op_spans(ops: Sequence[Op]) -> Iterator[tuple[int, int]]:
    """(start, stop) of each portion of operations."""
    start, count = 0, len(ops)
    while start < count:
        stop = ops_end(ops, start, count)
        yield start, stop
        start = stop


def portions(items: list[Item], bytes_of: Callable[[Item], int]) -> Iterator[list[Item]]:
    """The items in portions; the list itself where it is one."""
    for start, stop in spans(items, bytes_of):
        yield items if stop - start == len(items) else items[start:stop]


def requests(event: Requested) -> Iterator[Requested]:
    """The event in portions, since a machine may pass on in one message what came in one."""
    for start, stop in op_spans(event.ops):
        if stop - start == len(event.ops):
            yield event
        else:
            yield Requested(event.handles[start:stop], event.ops[start:stop])
