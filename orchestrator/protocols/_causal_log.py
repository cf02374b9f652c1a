"""What nodes tell each other of their writes, and one node's writes as another knows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final

import msgspec

from orchestrator.core.machine import ACKNOWLEDGE, REPLICATE, Op
from orchestrator.core.portions import op_bytes, portion_end, spans
from orchestrator.core.state import Snapshot

ALL: Final = -1
NONE: Final = -2


class Writes(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Writes ``first``, ``first`` + 1, ... of node ``origin``; a message and a durable record.

    Each depends on what its operation's context names. ``more``: the sender has further ones.
    """

    link: ClassVar[str] = REPLICATE
    origin: int
    first: int
    versions: list[int]
    ops: list[Op]
    more: bool = False


def published(message: Writes) -> Iterator[Writes]:
    """New writes in portions: many may have waited for their past."""
    for start, stop in spans(message.ops, op_bytes):
        if stop - start == len(message.ops):
            yield message
        else:
            part = slice(start, stop)
            first = message.first + start
            yield Writes(message.origin, first, message.versions[part], message.ops[part])


class Have(msgspec.Struct, array_like=True, tag=2, gc=False):
    """How many writes of each node the sender has applied, to be sent what it lacks.

    ``only``: of that node alone (ALL; or NONE, while it fetches a state). ``asks``: it would also
    like to know what it can send. ``lost``: what is missing was lost and is not under way.
    """

    link: ClassVar[str] = ACKNOWLEDGE
    counts: list[int]
    only: int = ALL
    asks: bool = False
    lost: bool = False


class State(msgspec.Struct, array_like=True, tag=3, gc=False):
    """Everything that the sender has applied, for a node too far behind for its logs; sent in
    pieces, and a durable record. ``versions[i]``: the newest one of node i.
    """

    counts: list[int]
    versions: list[int]
    snapshot: Snapshot


class Piece(msgspec.Struct, array_like=True, tag=4, gc=False):
    """A piece of the sender's encoded state of that ``number``; it is whole with the ``last``."""

    link: ClassVar[str] = REPLICATE
    number: int
    offset: int
    data: bytes
    last: bool


class Continue(msgspec.Struct, array_like=True, tag=5, gc=False):
    """Of the state of that ``number`` the sender has the first ``offset`` bytes, and wants more."""

    link: ClassVar[str] = ACKNOWLEDGE
    number: int
    offset: int


class Log:
    """One node's writes as another node knows them.

    Those up to ``count`` are applied; of these, the ones behind ``base`` are kept for nodes that
    lack them. ``blocked``: the next ones in order, whose dependencies are missing. ``early``:
    messages by their first number that overtook others. ``stuck_at``: the count at which
    something was found missing at the last look, else -1.
    """

    __slots__ = ("base", "blocked", "early", "ops", "origin", "stuck_at", "versions")

    def __init__(self, origin: int) -> None:
        self.origin = origin
        self.base = 0
        self.ops: list[Op] = []
        self.versions: list[int] = []
        self.blocked: list[tuple[Op, int]] = []
        self.early: dict[int, Writes] = {}
        self.stuck_at = -1

    @property
    def count(self) -> int:
        return self.base + len(self.ops)

    def from_number(self, first: int, most: int) -> Writes:
        """Up to ``most`` applied writes from that number on, which is above ``base``; a portion
        at the most.
        """
        at = first - self.base - 1
        stop = portion_end(self.ops, at, min(len(self.ops), at + most), op_bytes)
        ops, versions = self.ops[at:stop], self.versions[at:stop]
        return Writes(self.origin, first, versions, ops, stop < len(self.ops))

    def receive(self, message: Writes) -> None:
        """Line up what is new behind ``blocked``, with what had overtaken it."""
        early, blocked = self.early, self.blocked
        same = early.get(message.first)
        if same is None or len(same.ops) < len(message.ops):
            early[message.first] = message
        while early and (first := min(early)) <= self.count + len(blocked) + 1:
            found = early.pop(first)
            skip = self.count + len(blocked) + 1 - first
            blocked.extend(zip(found.ops[skip:], found.versions[skip:], strict=True))

    def applied(self, count: int) -> Writes:
        """The first ``count`` blocked ones are applied by now; returns them."""
        first = self.count + 1
        done = self.blocked[:count]
        del self.blocked[:count]
        ops, versions = [op for op, _ in done], [version for _, version in done]
        self.ops += ops
        self.versions += versions
        return Writes(self.origin, first, versions, ops)

    def jump(self, count: int) -> None:
        """Everything up to ``count`` came as a state."""
        behind = count - self.count
        self.base = count
        self.ops.clear()
        self.versions.clear()
        del self.blocked[:behind]
        for first in [first for first in self.early if first <= count]:
            del self.early[first]

    def drop_through(self, number: int) -> None:
        """Forget the writes up to that number."""
        del self.ops[: number - self.base], self.versions[: number - self.base]
        self.base = number
