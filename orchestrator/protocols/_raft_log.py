"""Raft's log in memory, the messages and the record that carry its entries, and what a leader
knows of each follower's copy.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import Any, ClassVar, Final

import msgspec

from orchestrator.core.machine import ACKNOWLEDGE, REPLICATE, Op

APPEND_MAX: Final = 8192
"""Entries of one append where the runtime sets no bound."""
PIPELINING: Final = -1


class Append(msgspec.Struct, array_like=True, tag=1, gc=False):
    """AppendEntries; all ``ops`` are of ``entries_term``. ``everywhere``: applied by all."""

    link: ClassVar[str] = REPLICATE
    term: int
    prev_index: int
    prev_term: int
    commit: int
    everywhere: int
    entries_term: int
    ops: list[Op]


class Appended(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Answer to the append after ``prev_index``.

    ``index``: matched up to, or where the logs may meet when it was refused.
    """

    link: ClassVar[str] = ACKNOWLEDGE
    term: int
    success: bool
    prev_index: int
    index: int
    applied: int


class Entries(msgspec.Struct, array_like=True, tag=6, gc=False):
    """Durable record: the log is cut after ``prev_index``, then these follow."""

    prev_index: int
    term: int
    ops: list[Op]


class Log:
    """Entries ``base`` + 1 ... ``last``; lists side by side, so that batches are slices."""

    __slots__ = ("base", "base_term", "handles", "ops", "terms")

    def __init__(self) -> None:
        self.base = 0
        self.base_term = 0
        self.ops: list[Op] = []
        self.terms: list[int] = []
        self.handles: list[Any] = []

    @property
    def last(self) -> int:
        return self.base + len(self.ops)

    @property
    def last_term(self) -> int:
        return self.terms[-1] if self.terms else self.base_term

    def term_at(self, index: int) -> int:
        """Of an entry at or behind ``base``."""
        return self.base_term if index == self.base else self.terms[index - self.base - 1]

    def before_term_of(self, index: int) -> int:
        """The last index whose term is below that of the entry at ``index``."""
        return self.base + bisect_left(self.terms, self.term_at(index))

    def extend(self, term: int, ops: list[Op], handles: list[Any] | None = None) -> None:
        self.ops.extend(ops)
        self.terms.extend([term] * len(ops))
        self.handles.extend(handles if handles is not None else [None] * len(ops))

    def cut_after(self, index: int) -> list[Any]:
        """Forget all entries behind ``index``; returns the handles that waited for them."""
        keep = index - self.base
        waiting = [handle for handle in self.handles[keep:] if handle is not None]
        del self.ops[keep:], self.terms[keep:], self.handles[keep:]
        return waiting

    def drop_through(self, index: int) -> None:
        """Forget the prefix up to ``index``."""
        count = index - self.base
        self.base_term = self.terms[count - 1]
        del self.ops[:count], self.terms[:count], self.handles[:count]
        self.base = index

    def run_from(self, index: int, count_max: int) -> tuple[int, list[Op]]:
        """Entries from ``index`` on that share a term: (term, ops)."""
        start = index - self.base - 1
        stop = min(len(self.ops), start + (count_max or APPEND_MAX))
        if start >= stop:
            return 0, []
        term = self.terms[start]
        if self.terms[stop - 1] != term:
            # Terms never fall along the log, so the run ends where a greater one begins.
            while self.terms[stop - 1] != term:
                stop = start + max(1, (stop - start) // 2)
        return term, self.ops[start:stop]


class Progress:
    """What the leader knows of one follower.

    ``match``: its log equals the leader's up to there. ``next``: first entry of the next
    append. ``window``: last entry of each append under way. While the follower answers well,
    appends are pipelined; after a refusal or a long silence one append at a time ``probe``s
    where the logs meet (its previous index; PIPELINING otherwise), because the answers to what
    was sent before say nothing new. ``applied``: applied there. ``silent``: heartbeats since
    its last answer.
    """

    __slots__ = ("applied", "match", "next", "probe", "silent", "window")

    def __init__(self, match: int, next_index: int) -> None:
        self.match = match
        self.next = next_index
        self.window: deque[int] = deque()
        self.probe = PIPELINING
        self.applied = 0
        self.silent = 0

    def room(self, in_flight: int) -> bool:
        """Whether another append may be sent before an answer comes."""
        return len(self.window) < (in_flight if self.probe == PIPELINING else 1)

    def probe_from(self, index: int) -> None:
        """Forget what is under way and try one append that starts at ``index``."""
        self.next = max(index, self.match + 1)
        self.probe = self.next - 1
        self.window.clear()

    def matched(self, index: int) -> None:
        """An append up to ``index`` was accepted, and with it all before."""
        self.match = max(self.match, index)
        self.next = max(self.next, index + 1)
        window = self.window
        while window and window[0] <= index:
            window.popleft()
        if index >= self.probe:
            self.probe = PIPELINING

    def refused(self, prev_index: int, look_at: int) -> None:
        """An append after ``prev_index`` was refused; the logs may meet at ``look_at``."""
        out_of_date = prev_index < self.match or self.probe not in (PIPELINING, prev_index)
        if not out_of_date:
            self.probe_from(min(prev_index, look_at + 1))

    def dropped(self, base: int) -> None:
        """Everybody has applied the log up to ``base``."""
        self.match = max(self.match, base)
        self.next = max(self.next, base + 1)
