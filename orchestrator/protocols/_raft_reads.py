"""Reads that need no entry in Raft's log.

A leader's strong reads (section 6.4 of Ongaro's dissertation): a read may be served once the
leader knows, by an answer of a majority to a message sent after the read came, that it still
was the leader then; with a lease (section 6.4.1) it knows so for a while after. Weak reads any
member serves, those of a session once it has applied what the session has seen.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Any, Final

from orchestrator.core.levels import CODES, EVENTUAL, LINEARIZABLE, NONE, REGULAR, UNASKED
from orchestrator.core.machine import Op

LOG, READ_INDEX, LEASE = "log", "read_index", "lease"

STRONG: Final = frozenset({UNASKED, CODES[LINEARIZABLE], CODES[REGULAR]})
"""Codes of levels whose reads the leader serves."""
AT_ONCE: Final = frozenset({CODES[EVENTUAL], CODES[NONE]})
"""Codes of levels whose reads wait for nothing."""

_NEVER_NS: Final = -(2**62)

Reads = list[tuple[Any, Op]]


class Confirmation:
    """Rounds of messages by whose answers a leader learns that it still was one, its lease, and
    the reads that wait for a round. At most ``rounds_max`` rounds with reads are under way at
    once; what comes meanwhile shares the next one. Made anew for every term.
    """

    def __init__(self, rounds_max: int, lease_ns: int) -> None:
        self.number = 0
        self._rounds_max = rounds_max
        self._lease_ns = lease_ns
        self._leased_until_ns = _NEVER_NS
        self._confirmed = 0
        # (number, when it began) of rounds that are not confirmed.
        self._under_way: deque[tuple[int, int]] = deque()
        # (number of the round, reads), and those that wait for a round to begin.
        self._waiting: deque[tuple[int, Reads]] = deque()
        self._next: Reads = []

    @property
    def open(self) -> bool:
        """Whether a round is under way."""
        return bool(self._under_way)

    def wait(self, reads: Reads) -> None:
        """These reads wait for a round that begins after now."""
        self._next += reads

    def begin(self, now_ns: int) -> None:
        """A round begins: whoever is sent its number from now on can confirm it."""
        self.number += 1
        self._under_way.append((self.number, now_ns))

    def begin_for_reads(self, now_ns: int) -> bool:
        """A round begins if reads wait for one and not too many are under way."""
        if not self._next or len(self._waiting) >= self._rounds_max:
            return False
        self.begin(now_ns)
        self._waiting.append((self.number, self._next))
        self._next = []
        return True

    def confirm(self, number: int) -> None:
        """A majority has answered round ``number``; the lease runs from when it began."""
        self._confirmed = max(self._confirmed, number)
        under_way = self._under_way
        while under_way and under_way[0][0] <= number:
            began_ns = under_way.popleft()[1]
            if self._lease_ns:
                self._leased_until_ns = max(self._leased_until_ns, began_ns + self._lease_ns)

    def take(self) -> Reads:
        """The reads whose round is confirmed."""
        taken: Reads = []
        while self._waiting and self._waiting[0][0] <= self._confirmed:
            taken += self._waiting.popleft()[1]
        return taken

    def leased(self, now_ns: int) -> bool:
        """Whether nobody else can lead yet."""
        return now_ns < self._leased_until_ns

    def revoke_lease(self) -> None:
        """No lease for the rest of the term."""
        self._lease_ns = 0
        self._leased_until_ns = _NEVER_NS

    def give_up(self) -> Reads:
        """All reads that wait."""
        given_up = [read for _, reads in self._waiting for read in reads] + self._next
        self._waiting.clear()
        self._next = []
        return given_up


class PatientReads:
    """Reads of sessions that have seen more than this node has applied."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Any, Op]] = []
        self._order = 0

    def __bool__(self) -> bool:
        return bool(self._heap)

    def wait(self, handle: Any, op: Op) -> None:
        """Until ``op.seen`` is applied."""
        self._order += 1
        heapq.heappush(self._heap, (op.seen, self._order, handle, op))

    def take(self, applied: int) -> Reads:
        """Those that need wait no longer."""
        taken: Reads = []
        while self._heap and self._heap[0][0] <= applied:
            _, _, handle, op = heapq.heappop(self._heap)
            taken.append((handle, op))
        return taken
