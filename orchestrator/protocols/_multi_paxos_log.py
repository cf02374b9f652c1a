"""Multi-Paxos' slots in memory, its messages and records, and what a leader knows of each
follower.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, ClassVar, Final

import msgspec

from orchestrator.core.machine import ACKNOWLEDGE, REPLICATE, Op
from orchestrator.core.portions import op_bytes, ops_end, portion_end

ACCEPT_MAX: Final = 8192
"""Slots of one message where the runtime sets no bound."""
NOTHING: Final = 0
"""Ballot of a slot in which nothing was accepted; real ballots are above it."""
PIPELINING: Final = -1
NEVER_NS: Final = -(2**62)


class Prepare(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Phase 1a for every slot from ``first`` on; what an answer had no room for is asked for in
    the same way.
    """

    link: ClassVar[str] = REPLICATE
    ballot: int
    first: int


class Promise(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Phase 1b: ``ballots[i]`` and ``ops[i]`` were accepted in slot ``first`` + i (None: nothing).

    ``promised``: the sender's newest ballot; above ``ballot`` it is a refusal. ``commit``: the
    sender knows what is chosen up to there. ``last``: its last slot, for which this message may
    have had no room.
    """

    link: ClassVar[str] = ACKNOWLEDGE
    ballot: int
    promised: int
    commit: int
    first: int
    ballots: list[int]
    ops: list[Op | None]
    last: int


class Accept(msgspec.Struct, array_like=True, tag=3, gc=False):
    """Phase 2a for the slots from ``first`` on; without ``ops`` it is a heartbeat.

    ``commit``: chosen up to there. ``everywhere``: chosen, and durably known to be, on all
    nodes. ``sent_ns``: the leader's clock.
    """

    link: ClassVar[str] = REPLICATE
    ballot: int
    first: int
    commit: int
    everywhere: int
    sent_ns: int
    ops: list[Op]


class Accepted(msgspec.Struct, array_like=True, tag=4, gc=False):
    """Phase 2b, cumulative: every slot up to ``through`` is accepted in ``promised`` or known to
    be chosen.

    ``promised`` above the leader's ballot is a refusal. ``last``: of the message that this
    answers, and ``sent_ns`` its time. ``recorded``: durably known to be chosen.
    """

    link: ClassVar[str] = ACKNOWLEDGE
    promised: int
    through: int
    last: int
    recorded: int
    sent_ns: int


class Promised(msgspec.Struct, array_like=True, tag=5, gc=False):
    """Durable record: the newest ballot that the node has promised or begun, and what it knew to
    be chosen then. What it reports to that ballot's leader, which will not send it again, must
    not fall behind after a restart.
    """

    ballot: int
    commit: int


class Values(msgspec.Struct, array_like=True, tag=6, gc=False):
    """Durable record: ``ops`` are accepted in ``ballot`` from slot ``first`` on, and everything
    up to ``commit`` was known to be chosen then.
    """

    ballot: int
    first: int
    commit: int
    ops: list[Op]


class Slots:
    """Slots ``base`` + 1 ... ``last``; lists side by side, so that batches are slices.

    A slot in which nothing was accepted has ballot NOTHING and no operation. ``handles``: who
    waits here for the operation in the slot.
    """

    __slots__ = ("ballots", "base", "handles", "ops")

    def __init__(self) -> None:
        self.base = 0
        self.ballots: list[int] = []
        self.ops: list[Op | None] = []
        self.handles: list[Any] = []

    @property
    def last(self) -> int:
        return self.base + len(self.ops)

    def append(self, ballot: int, ops: list[Op], handles: list[Any] | None = None) -> None:
        """Fill the slots behind ``last``."""
        self.ops.extend(ops)
        self.ballots.extend([ballot] * len(ops))
        self.handles.extend(handles if handles is not None else [None] * len(ops))

    def put(self, ballot: int, first: int, ops: list[Op]) -> list[Any]:
        """Fill slots anywhere behind ``base``; returns the handles of operations that others
        took the place of.
        """
        missing = first - 1 - self.last
        if missing > 0:
            self.ballots.extend([NOTHING] * missing)
            self.ops.extend([None] * missing)
            self.handles.extend([None] * missing)
        displaced = []
        at = first - 1 - self.base
        overlap = min(len(self.ops) - at, len(ops))
        for index, op in enumerate(ops[:overlap], at):
            handle, before = self.handles[index], self.ops[index]
            if handle is not None and not same(before, op):
                displaced.append(handle)
                self.handles[index] = None
            self.ballots[index] = ballot
            self.ops[index] = op
        self.append(ballot, ops[overlap:])
        return displaced

    def through(self, ballot: int, known: int) -> int:
        """The end of the run of slots of this ballot behind slot ``known``."""
        at = known - self.base
        ballots = self.ballots
        while at < len(ballots) and ballots[at] == ballot:
            at += 1
        return self.base + at

    def run_from(self, first: int, count_max: int) -> list[Op]:
        """Operations from slot ``first`` on, all there, one portion at the most."""
        start = first - 1 - self.base
        stop = min(len(self.ops), start + (count_max or ACCEPT_MAX))
        ops = [op for op in self.ops[start:stop] if op is not None]
        end = ops_end(ops, 0, len(ops))
        return ops if end == len(ops) else ops[:end]

    def accepted_from(self, first: int) -> tuple[list[int], list[Op | None]]:
        """Ballots and operations of slot ``first`` and all behind it."""
        start = first - 1 - self.base
        return self.ballots[start:], self.ops[start:]

    def promised_from(self, first: int) -> tuple[list[int], list[Op | None], int]:
        """The same as far as a portion goes, and the last slot of all."""
        start = first - 1 - self.base
        stop = portion_end(self.ops, start, len(self.ops), op_bytes)
        return self.ballots[start:stop], self.ops[start:stop], self.last

    def drop_through(self, slot: int) -> None:
        """Forget the prefix up to ``slot``."""
        count = slot - self.base
        del self.ballots[:count], self.ops[:count], self.handles[:count]
        self.base = slot


def same(first: Op | None, second: Op) -> bool:
    """Whether two proposals are the same operation."""
    return first is second or (
        first is not None
        and (first.session, first.sequence, first.kind, first.value)
        == (second.session, second.sequence, second.kind, second.value)
    )


class Found:
    """What phase 1 has found from slot ``first`` on: per slot the value of the highest ballot.

    ``commits``: of those who have told all they accepted.
    """

    __slots__ = ("_best", "_first", "_told", "commits")

    def __init__(self, first: int = 0) -> None:
        self._best: dict[int, tuple[int, Op]] = {}
        self._first = first
        # The slot that an acceptor is to go on from.
        self._told: dict[int, int] = {}
        self.commits: dict[int, int] = {}

    def add(
        self, source: int, commit: int, first: int, ballots: list[int], ops: list[Op | None]
    ) -> None:
        """All that an acceptor has accepted, or the rest of it."""
        self.commits[source] = commit
        self._note(first, ballots, ops)

    def _note(self, first: int, ballots: list[int], ops: list[Op | None]) -> None:
        best = self._best
        for slot, (ballot, op) in enumerate(zip(ballots, ops, strict=True), first):
            if op is not None and (slot not in best or best[slot][0] < ballot):
                best[slot] = (ballot, op)

    def heard(self, source: int, message: Promise) -> int:
        """An acceptor's answer; returns the slot from which the rest is wanted (0: none is)."""
        first = message.first
        if first != self._told.get(source, self._first):
            # A repetition.
            return 0
        following = first + len(message.ops)
        if following > message.last:
            self.add(source, message.commit, first, message.ballots, message.ops)
            return 0
        self._note(first, message.ballots, message.ops)
        self._told[source] = following
        return following

    @property
    def last(self) -> int:
        """The last slot in which something was found (0: none)."""
        return max(self._best, default=0)

    def values(self, first: int) -> Iterator[Op | None]:
        """The value to propose in slot ``first`` and each behind it; None where all are free."""
        for slot in range(first, self.last + 1):
            found = self._best.get(slot)
            yield None if found is None else found[1]


class Progress:
    """What the leader knows of one follower.

    ``match``: it holds everything up to there (what Accepted says). ``next``: first slot of the
    next message. ``window``: last slot of each message under way. While the follower answers
    well, messages are pipelined; after a gap or a long silence one at a time goes out until the
    follower has everything before ``probe`` (PIPELINING otherwise). ``recorded``: durably known
    to be chosen there. ``silent``: heartbeats since its last answer. ``echo_ns``: when the
    newest message that it has answered was sent.
    """

    __slots__ = ("echo_ns", "match", "next", "probe", "recorded", "silent", "window")

    def __init__(self, match: int, next_slot: int) -> None:
        self.match = match
        self.next = next_slot
        self.window: deque[int] = deque()
        self.probe = PIPELINING
        self.recorded = 0
        self.silent = 0
        self.echo_ns = NEVER_NS

    def room(self, in_flight: int) -> bool:
        """Whether another message may be sent before an answer comes."""
        return len(self.window) < (in_flight if self.probe == PIPELINING else 1)

    def repair(self) -> None:
        """Take what is under way for lost: begin again where the follower's knowledge ends."""
        self.probe = max(self.probe, self.next - 1, self.match + 1)
        self.next = self.match + 1
        self.window.clear()

    def accepted(self, through: int, last: int) -> None:
        """A message that ended in slot ``last`` was answered."""
        self.match = max(self.match, through)
        window = self.window
        while window and window[0] <= max(through, last):
            window.popleft()
        if self.match >= self.probe:
            self.probe = PIPELINING
        self.next = max(self.next, self.match + 1)
        if through < last and self.probe == PIPELINING:
            self.repair()
        elif self.probe != PIPELINING and not window:
            self.next = self.match + 1
