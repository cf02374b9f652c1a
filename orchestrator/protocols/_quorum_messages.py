"""What the nodes of a quorum send and log, and what a coordinator keeps of an operation.

``boot`` is the start time of the node that asks, and comes back with the answer: answers to
questions from before a crash are not counted. ``ids`` name operations of the coordinator by
session and sequence; below 0 they are numbers of hints, and 0 wants no answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final

import msgspec

from orchestrator.core.machine import (
    ACKNOWLEDGE,
    READ_COPY,
    READ_REPLY,
    REPLICATE,
    WRITE,
    Effect,
    Op,
    Send,
)
from orchestrator.core.portions import ENTRY_BYTES, spans
from orchestrator.protocols._quorum_copies import Copy, Identity
from orchestrator.protocols._quorum_siblings import State

NO_ANSWER: Final = 0
"""Id of a copy that need not be acknowledged."""


class Store(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Copies to keep; ``owners``, where not empty, names the node that each one is meant for."""

    link: ClassVar[str] = REPLICATE
    boot: int
    ids: list[Identity]
    copies: list[Copy | State]
    owners: list[int]


class Stored(msgspec.Struct, array_like=True, tag=2, gc=False):
    """The sender has made these durable."""

    link: ClassVar[str] = ACKNOWLEDGE
    boot: int
    ids: list[Identity]


class Fetch(msgspec.Struct, array_like=True, tag=3, gc=False):
    """Asks for copies of keys; ``writing``: for the version of a write, not for a reader."""

    link: ClassVar[str] = READ_COPY
    boot: int
    ids: list[Identity]
    keys: list[bytes]
    sizes: list[int]
    writing: bool


class Fetched(msgspec.Struct, array_like=True, tag=4, gc=False):
    """The sender's copies (None: nothing written); ``known``: what it knows of each write."""

    link: ClassVar[str] = READ_REPLY
    boot: int
    ids: list[Identity]
    copies: list[Copy | State | None]
    known: list[int]


class Kept(msgspec.Struct, array_like=True, gc=False):
    """A record: copies that the node coordinated, that it was sent, and that it keeps for others.

    ``entrusted[i]`` is meant for node ``owners[i]``.
    """

    coordinated: list[Copy | State]
    received: list[Copy | State]
    owners: list[int]
    entrusted: list[Copy | State]


def copy_bytes(copy: Copy | State | None) -> int:
    """What a copy takes in a message beside its id and owner, or slightly more."""
    match copy:
        case None:
            return ENTRY_BYTES
        case Copy():
            return 2 * ENTRY_BYTES + len(copy.key) + len(copy.value)
        case State():
            siblings = sum(ENTRY_BYTES + len(each.value) for each in copy.siblings)
            return 2 * ENTRY_BYTES + len(copy.key) + ENTRY_BYTES * len(copy.clock) + siblings


def fetched(
    message: Fetch, copies: list[Copy | State | None], known: list[int]
) -> Iterator[Fetched]:
    """The answer in portions."""
    for at in _slices(copies, copy_bytes):
        yield Fetched(message.boot, message.ids[at], copies[at], known[at])


def _stores(message: Store) -> Iterator[Store]:
    copies, owners = message.copies, message.owners
    for at in _slices(copies, copy_bytes):
        yield Store(message.boot, message.ids[at], copies[at], owners[at])


def _fetches(message: Fetch) -> Iterator[Fetch]:
    keys, sizes = message.keys, message.sizes
    for at in _slices(keys, _key_bytes):
        yield Fetch(message.boot, message.ids[at], keys[at], sizes[at], message.writing)


def _slices(items: Sequence[Any], bytes_of: Callable[[Any], int]) -> Iterator[slice]:
    return (slice(start, stop) for start, stop in spans(items, bytes_of))


def _key_bytes(key: bytes) -> int:
    return ENTRY_BYTES + len(key)


Result = tuple[int, Any, int, bytes]
"""What a client is told: outcome, value, version, context."""


class Pending:
    """An operation that a node coordinates.

    ``answered`` has a bit for each node that answered the round under way, ``count`` of them;
    ``needed`` answers end it. ``copy`` is what the write stores, None in a round that asks.
    ``result`` is set once the client has its answer.
    """

    __slots__ = (
        "answered",
        "answers",
        "asked_ns",
        "context",
        "copy",
        "count",
        "found",
        "handles",
        "identity",
        "needed",
        "op",
        "replicas",
        "replicas_mask",
        "result",
        "started_ns",
    )

    def __init__(
        self, identity: Identity, handle: Any, op: Op, replicas: tuple[int, ...], now_ns: int
    ) -> None:
        self.identity = identity
        self.handles = [handle]
        self.op = op
        self.replicas = replicas
        self.replicas_mask = 0
        for node in replicas:
            self.replicas_mask |= 1 << node
        self.started_ns = now_ns
        self.result: Result | None = None
        self.context = b""
        self.found: Any = None
        self.answers: list[tuple[int, Any]] = []
        self.begin_round(None, 0, now_ns)

    def begin_round(self, copy: Any, needed: int, now_ns: int) -> None:
        """Count answers anew."""
        self.copy = copy
        self.needed = needed
        self.answered = 0
        self.count = 0
        self.asked_ns = now_ns

    def counts(self, node: int) -> bool:
        """Count a node's answer; False where it has answered before."""
        bit = 1 << node
        if self.answered & bit:
            return False
        self.answered |= bit
        self.count += 1
        return True

    @property
    def complete(self) -> bool:
        """Every replica has answered this round."""
        return not self.replicas_mask & ~self.answered

    def silent(self) -> tuple[int, ...]:
        """The replicas that have not answered this round."""
        return tuple(node for node in self.replicas if not self.answered >> node & 1)


class Outbox:
    """Messages of one ``handle`` call, put together: nodes that are told the same share one."""

    __slots__ = ("_at_most", "_entrusts", "_fetches", "_stores", "boot")

    def __init__(self, at_most: int) -> None:
        """``at_most``: copies or questions in one message; 0: no limit."""
        self.boot = 0
        self._at_most = at_most
        self._stores: dict[tuple[int, ...], list[Store]] = {}
        self._entrusts: dict[tuple[int, ...], list[Store]] = {}
        self._fetches: dict[tuple[tuple[int, ...], bool], list[Fetch]] = {}

    def store(self, targets: tuple[int, ...], number: Identity, copy: Copy | State) -> None:
        """The copy goes to these replicas of its key."""
        self._store_message(self._stores.setdefault(targets, []), number, copy)

    def entrust(self, target: int, owner: int, number: Identity, copy: Copy | State) -> None:
        """The copy goes to a node that stands in for a silent replica."""
        messages = self._entrusts.setdefault((target,), [])
        self._store_message(messages, number, copy).owners.append(owner)

    def _store_message(self, messages: list[Store], number: Identity, copy: Copy | State) -> Store:
        if not messages or len(messages[-1].ids) == self._at_most:
            messages.append(Store(self.boot, [], [], []))
        message = messages[-1]
        message.ids.append(number)
        message.copies.append(copy)
        return message

    def fetch(self, targets: tuple[int, ...], number: Identity, op: Op) -> None:
        """These nodes are asked for their copies of the operation's key."""
        writing = op.kind == WRITE
        messages = self._fetches.setdefault((targets, writing), [])
        if not messages or len(messages[-1].ids) == self._at_most:
            messages.append(Fetch(self.boot, [], [], [], writing))
        message = messages[-1]
        message.ids.append(number)
        message.keys.append(op.key)
        message.sizes.append(op.size)

    def leave(self, effects: list[Effect], overlap: bool) -> None:
        """Everything goes out; ``overlap``: copies need not wait for the node's own log."""
        if self._fetches:
            for (targets, _), fetches in self._fetches.items():
                for fetch in [part for each in fetches for part in _fetches(each)]:
                    effects += [Send(node, fetch, overlap=True) for node in targets]
            self._fetches.clear()
        for waiting in (self._stores, self._entrusts):
            if waiting:
                for targets, messages in waiting.items():
                    for store in [part for each in messages for part in _stores(each)]:
                        effects += [Send(node, store, overlap) for node in targets]
                waiting.clear()
