"""Raft's configurations: which nodes are members, by entries of the log.

Single-server changes as in chapter 4 of Ongaro's dissertation. Two configurations that differ
by one node have no disjoint majorities, so a configuration is in force from the moment its
entry is in the log, committed or not, and out of force when the entry is cut off.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from orchestrator.core.machine import Op

CONFIGURATION: Final = 254
"""Kind of an entry that holds a configuration; no client sends it."""

_decode = msgspec.msgpack.Decoder(tuple[int, ...]).decode


def configuration(members: tuple[int, ...]) -> Op:
    """The entry that makes these nodes the members."""
    return Op(0, 0, CONFIGURATION, b"", msgspec.msgpack.encode(members))


def members_in(op: Op) -> tuple[int, ...]:
    """The members that an entry of that kind names."""
    return _decode(op.value or b"")


class Membership:
    """The configurations of a log, by the index of their entries.

    ``current`` is the last one, at ``index``, and ``majority`` how many of its members are one.
    """

    __slots__ = ("_changes", "current", "index", "majority")

    def __init__(self, members: tuple[int, ...]) -> None:
        self.restart_at(0, members)

    def restart_at(self, index: int, members: tuple[int, ...]) -> None:
        """What was in force at ``index`` is all that is known."""
        self._changes = [(index, members)]
        self._take_last()

    def _take_last(self) -> None:
        self.index, self.current = self._changes[-1]
        self.majority = len(self.current) // 2 + 1

    def append(self, index: int, members: tuple[int, ...]) -> None:
        """The entry at ``index`` is a configuration."""
        self._changes.append((index, members))
        self._take_last()

    def cut_after(self, index: int) -> None:
        """The entries behind ``index`` are gone."""
        while self._changes[-1][0] > index:
            self._changes.pop()
        self._take_last()

    def drop_through(self, index: int) -> None:
        """The entries up to ``index`` will not be asked for again."""
        while len(self._changes) > 1 and self._changes[1][0] <= index:
            del self._changes[0]

    def at(self, index: int) -> tuple[int, ...]:
        """What was in force when the log ended at ``index``."""
        return next(members for at, members in reversed(self._changes) if at <= index)

    def may_need(self, node: int, commit: int) -> bool:
        """Whether the node is a member by what is in force at ``commit``, or by anything later: by
        which of them it is, only who knows what is committed can tell.
        """
        for at, members in reversed(self._changes):
            if node in members:
                return True
            if at <= commit:
                return False
        return False

    def within(self, behind: int, last: int) -> bool:
        """Whether an entry behind the one index and up to the other is a configuration."""
        return any(behind < at <= last for at, _ in self._changes)


class Changes:
    """Changes that an operator has asked of this leader, done one after the other.

    A node that is to be added first catches up without a vote, in rounds that each bring what
    the log held when the round began (section 4.2.1).
    """

    def __init__(self) -> None:
        self.asked: deque[tuple[str, int]] = deque()
        self.learner = -1
        self.target = 0
        self.began_ns = 0
        self.rounds = 0

    def teach(self, learner: int) -> None:
        """The first round is next."""
        self.learner = learner
        self.rounds = 0

    def begin_round(self, target: int, now_ns: int) -> None:
        """The learner is to have the log up to ``target``."""
        self.target = target
        self.began_ns = now_ns
        self.rounds += 1

    def done(self) -> None:
        """The first change is over, one way or the other."""
        self.asked.popleft()
        self.learner = -1


class Transfer:
    """Leadership on its way to ``target``, until the deadline (section 3.10)."""

    def __init__(self, target: int, deadline_ns: int) -> None:
        self.target = target
        self.deadline_ns = deadline_ns
        self.told = False
