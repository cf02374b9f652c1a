"""What a client has to look after without being told to, and when: time-outs, retries, hedges."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from typing import Final

from orchestrator.runtimes._session import Session

NO_WAKE: Final = 2**63

AGAIN: Final = 0
"""The session's operation is to be sent again."""
SLOW: Final = 1
"""Its attempt has had its time."""
HEDGE: Final = 2
"""Another node may be asked, too, or is to have the other copy."""


class Agenda:
    """Deadlines of operations, and alarms of sessions. What is over meanwhile is skipped.

    ``soonest_ns``: nothing is to be seen to before; NO_WAKE where there is nothing at all.
    """

    __slots__ = ("_alarms", "_deadlines", "_order", "soonest_ns")

    def __init__(self) -> None:
        # (deadline, session, sequence), in order because the time-out is one for all.
        self._deadlines: deque[tuple[int, Session, int]] = deque()
        # (due, identity, order, session, sequence, attempt, what).
        self._alarms: list[tuple[int, int, int, Session, int, int, int]] = []
        self._order = itertools.count()
        self.soonest_ns = NO_WAKE

    def expect(self, deadline_ns: int, session: Session) -> None:
        """The session's operation is answered by then, or given up."""
        self._deadlines.append((deadline_ns, session, session.sequence))
        if deadline_ns < self.soonest_ns:
            self.soonest_ns = deadline_ns

    def remind(self, due_ns: int, session: Session, what: int) -> None:
        """See then to the session's operation, if this is still its last attempt."""
        place = (due_ns, session.identity, next(self._order))
        alarm = (*place, session, session.sequence, session.attempt, what)
        heapq.heappush(self._alarms, alarm)
        self.soonest_ns = min(self.soonest_ns, due_ns)

    def overdue(self, now_ns: int) -> Session | None:
        """The next session whose operation was to be answered by now; it is taken off."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now_ns:
            _, session, sequence = deadlines.popleft()
            if session.busy and session.sequence == sequence:
                return session
        return None

    def due(self, now_ns: int) -> tuple[Session, int] | None:
        """The next session that is to be seen to by now, and why; it is taken off."""
        alarms = self._alarms
        while alarms and alarms[0][0] <= now_ns:
            _, _, _, session, sequence, attempt, what = heapq.heappop(alarms)
            current = session.busy and session.sequence == sequence and session.attempt == attempt
            # Only what is out can be slow.
            if current and (session.out or what == AGAIN):
                return session, what
        return None

    def settle(self) -> int:
        """Forget what is over; returns ``soonest_ns``."""
        deadlines, alarms = self._deadlines, self._alarms
        # Answered operations at the head need no wake-up; the rest time out in order.
        while deadlines and not (
            deadlines[0][1].busy and deadlines[0][1].sequence == deadlines[0][2]
        ):
            deadlines.popleft()
        soonest_ns = deadlines[0][0] if deadlines else NO_WAKE
        if alarms and alarms[0][0] < soonest_ns:
            soonest_ns = alarms[0][0]
        self.soonest_ns = soonest_ns
        return soonest_ns
