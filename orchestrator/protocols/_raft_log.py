"""Raft's log in memory, the messages and the record that carry its entries, and what a leader
knows of each follower's copy.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec

from orchestrator.core.machine import ACKNOWLEDGE, REPLICATE, Op
from orchestrator.core.portions import ops_end

APPEND_MAX: Final = 8192
"""Entries of one append where the runtime sets no bound."""
PIPELINING: Final = -1


class Append(msgspec.Struct, array_like=True, tag=1, gc=False):
    """AppendEntries; all ``ops`` are of ``entries_term``.

    ``base``: the sender keeps no entry up to there. ``round``: newest round of confirmation that
    the sender has begun. ``configures``: a configuration is among the entries.
    """

    link: ClassVar[str] = REPLICATE
    term: int
    prev_index: int
    prev_term: int
    commit: int
    base: int
    round: int
    entries_term: int
    configures: bool
    ops: list[Op]


class Appended(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Answer to the append after ``prev_index``, or to a snapshot up to there.

    ``index``: matched up to, or where the logs may meet when it was refused. ``round``: of the
    message that is answered.
    """

    link: ClassVar[str] = ACKNOWLEDGE
    term: int
    success: bool
    prev_index: int
    index: int
    applied: int
    round: int


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

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry at ``index``, at or behind ``base``, is there and of ``term``."""
        at = index - self.base
        if at > 0:
            return at <= len(self.terms) and self.terms[at - 1] == term
        return at == 0 and self.base_term == term

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

    def restart_at(self, index: int, term: int) -> list[Any]:
        """Forget all entries, go on behind ``index``; returns the handles that waited."""
        waiting = self.cut_after(self.base)
        self.base, self.base_term = index, term
        return waiting

    def run_from(self, index: int, count_max: int) -> tuple[int, list[Op]]:
        """Entries from ``index`` on that share a term, one portion at the most: (term, ops)."""
        start = index - self.base - 1
        stop = min(len(self.ops), start + (count_max or APPEND_MAX))
        if start >= stop:
            return 0, []
        term = self.terms[start]
        if self.terms[stop - 1] != term:
            # Terms never fall along the log, so the run ends where a greater one begins.
            while self.terms[stop - 1] != term:
                stop = start + max(1, (stop - start) // 2)
        return term, self.ops[start : ops_end(self.ops, start, stop)]


@dataclass(frozen=True)
class Image:
    """A snapshot to send: what the log up to ``index`` amounts to, whose entry is of ``term``."""

    index: int
    term: int
    data: bytes


class Progress:
    """What the leader knows of one node's copy of the log.

    ``match``: it equals the leader's up to there. ``next``: first entry of the next append.
    ``window``: last entry of each append under way. While the node answers well, appends are
    pipelined; after a refusal or a long silence one append at a time ``probe``s where the logs
    meet (its previous index; PIPELINING otherwise), because the answers to what was sent before
    say nothing new. ``image``: a snapshot that is being sent instead, and the node has its first
    ``offset`` bytes; the logs will meet where it ends. ``applied``: applied there. ``silent``:
    heartbeats since its last answer. ``told``, ``confirmed``: newest round of confirmation that
    was sent to it and that it answered.
    """

    __slots__ = (
        "applied",
        "confirmed",
        "image",
        "match",
        "next",
        "offset",
        "probe",
        "silent",
        "told",
        "window",
    )

    def __init__(self, match: int, next_index: int) -> None:
        self.match = match
        self.next = next_index
        self.window: deque[int] = deque()
        self.probe = PIPELINING
        self.image: Image | None = None
        self.offset = 0
        self.applied = 0
        self.silent = 0
        self.told = 0
        self.confirmed = 0

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
            self.image = None

    def refused(self, prev_index: int, look_at: int) -> None:
        """An append after ``prev_index`` was refused; the logs may meet at ``look_at``."""
        out_of_date = prev_index < self.match or self.probe not in (PIPELINING, prev_index)
        if not out_of_date and self.image is None:
            self.probe_from(min(prev_index, look_at + 1))

    def install(self, image: Image) -> None:
        """Send this snapshot from its first byte on, and no append meanwhile."""
        self.image, self.offset = image, 0
        self.next = image.index + 1
        self.probe = image.index
        self.window = deque((image.index,))

    def dropped(self, base: int) -> None:
        """Everybody has applied the log up to ``base``."""
        self.match = max(self.match, base)
        self.next = max(self.next, base + 1)
