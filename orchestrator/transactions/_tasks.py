"""What a coordinator of two-phase commit keeps in memory: transactions under way, and who is
asked for what. None of it has to survive a crash.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import msgspec

from orchestrator.core.machine import ACKNOWLEDGE, REPLICATE, TRANSACTION, Op
from orchestrator.core.portions import ENTRY_BYTES, op_spans
from orchestrator.core.sharding import ENVELOPE_TAG
from orchestrator.core.transactions import Identity, MicroOperation, Part, Said, encode_reads

# What an answer may say besides what shards say (core.transactions).
ELSEWHERE: Final = 6  # another node has to be asked
DOUBT: Final = 7  # it may have happened, or happen yet

# What a task is about.
EXECUTING: Final = "executing"  # one shard, at once
FENCING: Final = "fencing"  # one shard: it must not happen any more
PREPARING: Final = "preparing"
DECIDING: Final = "deciding"  # the votes are in
RESOLVING: Final = "resolving"  # they are not: abort, unless it is decided already
CLOSING: Final = "closing"  # the other shards hear the decision, nobody waits for it


ShardOf = Callable[[bytes], int]
"""The shard of a key."""
_READ_BYTES: Final = 5  # of a read besides its value


class Submit(msgspec.Struct, array_like=True, tag=ENVELOPE_TAG + 1, gc=False):
    """Steps for shards that the receiver may be in charge of; ``ops[i]`` is for ``shards[i]``."""

    link: ClassVar[str] = REPLICATE
    shards: list[int]
    ops: list[Op]


def submitted(submit: Submit) -> Iterator[Submit]:
    """The message in portions."""
    for start, stop in op_spans(submit.ops):
        yield Submit(submit.shards[start:stop], submit.ops[start:stop])


class Answer(msgspec.Struct, array_like=True, gc=False):
    """What came of one step. ``node``: who is in charge, with ELSEWHERE (-1: not known)."""

    shard: int
    session: int
    sequence: int
    kind: int
    said: Said
    node: int = -1
    after: int = 0


def answer_bytes(answer: Answer) -> int:
    """What an answer takes in a message, or slightly more."""
    return ENTRY_BYTES + sum(_READ_BYTES + len(read or b"") for read in answer.said.reads)


class Answers(msgspec.Struct, array_like=True, tag=ENVELOPE_TAG + 2, gc=False):
    """Of one node."""

    link: ClassVar[str] = ACKNOWLEDGE
    answers: list[Answer]


@dataclass
class Ask:
    """A step that waits for an answer; asked again at ``due_ns``.

    ``silent``: because there was none, and not because of what it said. ``sent``: how often.
    """

    op: Op
    sent: int = 0
    due_ns: int = 0
    silent: bool = False


@dataclass
class Task:
    """One transaction under way on this node.

    ``handle``: of its client (None: nobody waits). ``parts``: by shard. ``asks``: by shard, what
    has not been answered. ``deadline_ns``: when its stage is given up. ``forgets``: once all
    shards have finished it, its home is to forget the decision.
    """

    of: Identity
    stage: str
    deadline_ns: int
    home: int = 0
    writes: bool = True
    handle: Any = None
    op: Op | None = None
    ops: list[MicroOperation] = field(default_factory=list)
    parts: dict[int, Part] = field(default_factory=dict)
    began_ns: int = 0
    asks: dict[int, Ask] = field(default_factory=dict)
    reads: dict[int, list[bytes | None]] = field(default_factory=dict)
    tries: int = 0
    after: int = 0
    forgets: bool = False

    def value(self, shard_of: ShardOf) -> Any:
        """What the client asked for, from what the shards' reads found."""
        assert self.op is not None
        found: dict[int, Iterator[bytes | None]] = {
            shard: iter(reads) for shard, reads in self.reads.items()
        }
        reads = [next(found[shard_of(key)]) for key in reading(self.ops)]
        if self.op.kind == TRANSACTION:
            return encode_reads(reads)
        return reads[0] if reads else None


def reading(ops: list[MicroOperation]) -> list[bytes]:
    """The keys that are read, in order."""
    return [key for _, key, new in ops if new is None]


def parts_of(ops: list[MicroOperation], shard_of: ShardOf) -> dict[int, Part]:
    """Each shard's part of a transaction; the lowest shard is its home."""
    by_shard: dict[int, list[MicroOperation]] = {}
    for op in ops:
        by_shard.setdefault(shard_of(op[1]), []).append(op)
    home = min(by_shard)
    others = sorted(shard for shard in by_shard if shard != home)
    writes = any(new is not None for _, _, new in ops)
    return {shard: Part(own, home, others, writes) for shard, own in sorted(by_shard.items())}


class Agenda:
    """When to ask again; what is not due any more at its time is passed over."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, Identity, int]] = []
        self._count = 0

    @property
    def next_ns(self) -> int | None:
        """When something may be due."""
        return self._entries[0][0] if self._entries else None

    def note(self, due_ns: int, of: Identity, shard: int) -> None:
        """Look at this ask then."""
        self._count += 1
        heapq.heappush(self._entries, (due_ns, self._count, of, shard))

    def take(self, now_ns: int) -> Iterator[tuple[int, Identity, int]]:
        """(time, transaction, shard) of all that may be due."""
        while self._entries and self._entries[0][0] <= now_ns:
            due_ns, _, of, shard = heapq.heappop(self._entries)
            yield due_ns, of, shard
