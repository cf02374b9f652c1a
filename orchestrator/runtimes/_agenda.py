"""What a client has to look after without being told to, and when: time-outs and retries."""

from __future__ import annotations

import heapq
from collections import deque
from typing import Final

from orchestrator.runtimes._session import Session

NO_WAKE: Final = 2**63


class Agenda:
    """Deadlines of operations, and alarms of sessions. What is answered meanwhile is skipped."""

    __slots__ = ("_alarms", "_deadlines")

    def __init__(self) -> None:
        # (deadline, session, sequence), in order because the time-out is one for all.
        self._deadlines: deque[tuple[int, Session, int]] = deque()
        self._alarms: list[tuple[int, int, Session, int]] = []

    def expect(self, deadline_ns: int, session: Session) -> None:
        """The session's operation is answered by then, or given up."""
        self._deadlines.append((deadline_ns, session, session.sequence))

    def remind(self, due_ns: int, session: Session) -> None:
        """See to the session's operation then."""
        heapq.heappush(self._alarms, (due_ns, session.identity, session, session.sequence))

    def overdue(self, now_ns: int) -> Session | None:
        """The next session whose operation was to be answered by now; it is taken off."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now_ns:
            _, session, sequence = deadlines.popleft()
            if session.busy and session.sequence == sequence:
                return session
        return None

    def due(self, now_ns: int) -> Session | None:
        """The next session that is to be seen to by now; it is taken off."""
        alarms = self._alarms
        while alarms and alarms[0][0] <= now_ns:
            _, _, session, sequence = heapq.heappop(alarms)
            if session.busy and session.sequence == sequence:
                return session
        return None

    @property
    def next_ns(self) -> int:
        """When there is something to look after next; NO_WAKE where there is nothing."""
        deadlines, alarms = self._deadlines, self._alarms
        # Answered operations at the head need no wake-up; the rest time out in order.
        while deadlines and not (
            deadlines[0][1].busy and deadlines[0][1].sequence == deadlines[0][2]
        ):
            deadlines.popleft()
        next_ns = deadlines[0][0] if deadlines else NO_WAKE
        return alarms[0][0] if alarms and alarms[0][0] < next_ns else next_ns
