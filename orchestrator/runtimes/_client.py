"""The load generator: which operation starts when, in which session, on which node, and what
came of it. The same code drives simulated and real clients.

Latency is measured from the *intended* start, so a system that stalls is charged for every
operation that should have started meanwhile (no coordinated omission). A session has at most
one operation outstanding, so what is under way is kept in its session and no object is made
per operation; what is done becomes one row. Open load takes a free session or opens one; an
operation whose outcome is UNKNOWN ends its session.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

from orchestrator.core.history import NEVER, History
from orchestrator.core.levels import UNASKED
from orchestrator.core.load import (
    ABANDONED,
    LOST,
    REDIRECTED,
    REFUSED,
    RETURNED,
    SENT,
    OperationBlock,
    OperationStream,
    Timetable,
    Word,
)
from orchestrator.core.machine import FAIL, OK, READ, UNKNOWN, WRITE, Op
from orchestrator.core.models import REGISTER
from orchestrator.runtimes._payloads import Payloads
from orchestrator.runtimes._read_back import READERS, BackToBack, FinalReads
from orchestrator.runtimes._routing import LevelMix, Port, Router
from orchestrator.runtimes._session import Rows, Session

BLOCK: Final = 8192
RETRY_NS: Final = 5_000_000
"""Pause before an operation asks again while no node is known to serve it."""
NO_WAKE: Final = 2**63
_POLLING: Final = -(2**63)


class LoadDriver:
    """One client's load. The runtime hands in answers and calls ``poll`` when asked to."""

    def __init__(
        self,
        client: int,
        stream: OperationStream,
        key_names: Sequence[bytes],
        payload_bytes: int,
        timetable: Timetable,
        router: Router,
        nodes: int,
        port: Port,
        levels: LevelMix,
        *,
        model: str = REGISTER,
        connections: int,
        timeout_ns: int,
        warmup_ns: int,
        end_ns: int | None,
    ) -> None:
        self._client = client
        self._stream = stream
        self._key_names = key_names
        self._payloads = Payloads(model, payload_bytes, key_names)
        self._timetable = timetable
        self.router = router
        self._levels = levels
        self._port = port
        self._connections = connections
        self._timeout_ns = timeout_ns
        self._warmup_ns = warmup_ns
        self._end_ns = NO_WAKE if end_ns is None else end_ns
        self._closed = timetable.sessions > 0
        self._wake_ns = 0  # the runtime polls first at the start of the load
        self.outstanding, self.latest_return_ns = 0, NEVER
        self.lag_ns: list[int] = []
        self._lags_ns = self.lag_ns  # of what begins now; final reads are no load
        self._crashed = False
        self._final_ns, self._final_reads = NO_WAKE, FinalReads()
        self._rows = Rows()
        # (deadline, session, sequence), in order because the timeout is one for all.
        self._deadlines: deque[tuple[int, Session, int]] = deque()
        self._retries: list[tuple[int, int, Session]] = []
        self._last_return_ns = [[NEVER] * connections for _ in range(nodes)]
        self._open_sessions(timetable.sessions)
        self._fetch()

    # --- when -----------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Nothing is under way and nothing will start."""
        return self.outstanding == 0 and self._next_start_ns() == NO_WAKE

    @property
    def done(self) -> int:
        """Operations with an outcome."""
        return len(self._rows)

    def _next_start_ns(self) -> int:
        if not self._left:
            return NO_WAKE
        if self._closed:
            due_ns = self._waiting[0][0] if self._waiting else NO_WAKE
        else:
            due_ns = self._starts[-self._left]
        return due_ns if due_ns < self._end_ns else NO_WAKE

    def _wake_by(self, when_ns: int) -> None:
        if when_ns < self._wake_ns:
            self._wake_ns = when_ns
            self._port.wake_at(when_ns)

    def poll(self, now_ns: int) -> None:
        """Start what is due, give up what has timed out."""
        if now_ns < self._wake_ns:
            # Armed for later by now: a wake-up that an earlier one has overtaken.
            return
        # What begins in here need not arm anything: the next wake-up is settled at the end.
        self._wake_ns = _POLLING
        deadlines, retries = self._deadlines, self._retries
        while deadlines and deadlines[0][0] <= now_ns:
            _, session, sequence = deadlines.popleft()
            if session.busy and session.sequence == sequence:
                self._shun(session, now_ns)
                self._give_up(session, now_ns)
        while retries and retries[0][0] <= now_ns:
            session = heapq.heappop(retries)[2]
            if session.busy:
                self._send(session, now_ns)
        wake_ns = NO_WAKE
        if not self._crashed:
            (self._poll_closed if self._closed else self._poll_open)(now_ns)
            wake_ns = self._next_start_ns()
        # Answered operations at the head need no wake-up; the rest time out in order.
        while deadlines and not (
            deadlines[0][1].busy and deadlines[0][1].sequence == deadlines[0][2]
        ):
            deadlines.popleft()
        if deadlines and deadlines[0][0] < wake_ns:
            wake_ns = deadlines[0][0]
        if retries and retries[0][0] < wake_ns:
            wake_ns = retries[0][0]
        self._wake_ns = NO_WAKE
        if wake_ns != NO_WAKE:
            self._wake_by(wake_ns)

    def _poll_closed(self, now_ns: int) -> None:
        waiting = self._waiting
        while waiting and self._left:
            due_ns = waiting[0][0]
            if due_ns > now_ns or due_ns >= self._end_ns:
                return
            self._start(heapq.heappop(waiting)[2], due_ns, now_ns)

    def _poll_open(self, now_ns: int) -> None:
        while self._left:
            due_ns = self._starts[-self._left]
            if due_ns > now_ns or due_ns >= self._end_ns:
                return
            session = self._free.popleft() if self._free else self._open_session()
            self._start(session, due_ns, now_ns)

    def _fetch(self) -> None:
        """The next block of operations; an empty one says that there are no more."""
        block: OperationBlock = self._stream.block(BLOCK)
        columns = (block.follow_up, block.kind, block.key, block.size, block.count)
        # What _start takes of each operation.
        steps = [()] * len(block) if block.steps is None else block.steps.tolist()
        self._operations: Iterator[tuple[bool, int, int, int, int, int, Any]] = zip(
            *(column.tolist() for column in columns), self._levels.of(block), steps, strict=True
        )
        self._left = len(block)
        self._starts: list[int] = []
        if self._left and not self._closed:
            self._starts = self._timetable.starts_ns(block).tolist()

    def _open_sessions(self, count: int) -> None:
        """All sessions, free ones (open load), and waiting ones by due time (closed load)."""
        self.sessions: list[Session] = []
        self._free: deque[Session] = deque()
        self._await(count, 0)

    def _await(self, count: int, due_ns: int) -> None:
        """That many new sessions, and no others, begin at that time."""
        opened = [self._open_session() for _ in range(count)]
        self._waiting = [(due_ns, session.identity, session) for session in opened]

    def _open_session(self) -> Session:
        session = Session(self._client, len(self.sessions) + 1, self._connections)
        self.sessions.append(session)
        return session

    # --- an operation's way ---------------------------------------------------------------

    def _start(self, session: Session, due_ns: int, now_ns: int) -> None:
        """The next operation of the block begins in this session."""
        self._lags_ns.append(now_ns - due_ns)
        session.follow_up, kind, key, size, count, level, session.steps = next(self._operations)
        session.due_ns = due_ns
        self._left -= 1
        if not self._left:
            self._fetch()
        self._begin(session, kind, key, size, count, level, now_ns)

    def _begin(
        self, session: Session, kind: int, key: int, size: int, count: int, level: int, now_ns: int
    ) -> None:
        sequence = session.sequence + 1
        identity = session.identity
        value = None if kind == READ else self._payloads.stored(session, sequence, kind, key)
        session.sequence = sequence
        session.key = key
        session.invoked_ns = now_ns
        session.target = -1
        session.busy = True
        session.op = Op(
            identity,
            sequence,
            kind,
            self._key_names[key],
            value,
            size,
            session.seen,
            count,
            level,
            session.context,
        )
        deadline_ns = now_ns + self._timeout_ns
        self._deadlines.append((deadline_ns, session, sequence))
        if deadline_ns < self._wake_ns:
            self._wake_by(deadline_ns)
        self.outstanding += 1
        self._send(session, now_ns)

    def _send(self, session: Session, now_ns: int) -> None:
        node = self.router.pick(session, now_ns)
        if self._port.submit(session, node):
            session.target = node
            session.out = True
            self.router.observe(node, SENT, 0, now_ns)
        else:
            self.router.unreached(session, node, now_ns)
            self._retry(session, now_ns)

    def _retry(self, session: Session, now_ns: int) -> None:
        retry_ns = now_ns + RETRY_NS
        heapq.heappush(self._retries, (retry_ns, session.identity, session))
        self._wake_by(retry_ns)

    def returned(
        self,
        session: Session,
        sequence: int,
        outcome: int,
        value: bytes | None,
        version: int,
        now_ns: int,
        context: bytes = b"",
        word: Word | None = None,
    ) -> None:
        """The answer to an operation; too late a one is ignored."""
        if session.sequence != sequence or not session.busy:
            return
        if outcome == UNKNOWN:
            self._give_up(session, now_ns)
            return
        op, node = session.op, session.target
        value_id = self._payloads.answered(session, outcome, value)
        last_return_ns = self._last_return_ns[node]
        connection = session.connection
        self._rows.add(session.row(value_id, version, now_ns, last_return_ns[connection], outcome))
        last_return_ns[connection] = now_ns
        if now_ns < self._final_ns:
            self.latest_return_ns = now_ns
        if version > session.seen:
            session.seen = version
        if context:
            session.context = context
        self._ended(session, REFUSED if outcome == FAIL else RETURNED, now_ns, word)
        session.busy = False
        self.outstanding -= 1
        if session.follow_up and outcome == OK:
            session.follow_up = False
            session.due_ns = now_ns
            self._begin(session, WRITE, session.key, op.size, 1, UNASKED, now_ns)
        else:
            self._release(session, now_ns)

    def redirected(
        self, session: Session, sequence: int, node: int, now_ns: int, word: Word | None = None
    ) -> None:
        """Another node serves this operation (-1: nobody is known to)."""
        if session.sequence != sequence or not session.busy:
            return
        self._ended(session, REDIRECTED, now_ns, word)
        if node < 0:
            self.router.avoid(session, session.target, now_ns)
            self._retry(session, now_ns)
        else:
            self.router.learn(session.op, node)
            self._send(session, now_ns)

    def _ended(self, session: Session, what: int, now_ns: int, word: Word | None = None) -> None:
        """What is out at a node, if anything still is, has ended."""
        if session.out:
            session.out = False
            self.router.observe(session.target, what, now_ns - session.invoked_ns, now_ns)
        if word is not None:
            self.router.balancer.hear(session.target, *word, now_ns)

    def lost(self, session: Session, sequence: int, now_ns: int) -> None:
        """The connection broke while the operation was under way: it may have happened."""
        if session.sequence == sequence and session.busy:
            self.router.avoid(session, session.target, now_ns)
            self._give_up(session, now_ns)

    def _shun(self, session: Session, now_ns: int) -> None:
        """A node that has answered nobody since is not asked next: it may be paused, or cut off."""
        node = session.target
        silent = node >= 0 and max(self._last_return_ns[node]) < session.invoked_ns
        if silent and self.router.shuns_silent:
            self.router.avoid(session, node, now_ns)

    def _give_up(self, session: Session, now_ns: int) -> None:
        self.outstanding -= 1
        session.busy = False
        session.follow_up = False
        value_id = self._payloads.unanswered(session)
        if session.target < 0:
            # It was never sent: it definitely did not happen, and the session can go on.
            self._rows.add(session.row(value_id, 0, now_ns, NEVER, FAIL))
            self._release(session, now_ns)
            return
        self._rows.add(session.row(value_id, 0, NEVER, NEVER, UNKNOWN))
        self._ended(session, ABANDONED if self._crashed else LOST, now_ns)
        self._release(self._open_session(), now_ns)

    def _release(self, session: Session, now_ns: int) -> None:
        if not self._closed:
            self._free.append(session)
            return
        due_ns = now_ns + self._timetable.think_ns()
        if due_ns <= now_ns < self._end_ns and self._left and not self._crashed:
            self._start(session, due_ns, now_ns)
        else:
            heapq.heappush(self._waiting, (due_ns, session.identity, session))
            if due_ns < self._end_ns and self._left and not self._crashed:
                self._wake_by(due_ns)

    # --- crashes --------------------------------------------------------------------------

    def crash(self, now_ns: int) -> None:
        """The client dies: what is under way is lost to it, and nothing begins."""
        self._crashed = True
        for session in list(self.sessions):
            if session.busy:
                self._give_up(session, now_ns)

    def revive(self, now_ns: int) -> None:
        """Another takes its place; nobody was there to want what was due in between."""
        self._crashed = False
        self._free.clear()
        self._await(len(self._waiting), now_ns)
        while not self._closed and self._left and self._starts[-self._left] < now_ns:
            next(self._operations)
            self._left -= 1
            if not self._left:
                self._fetch()
        self._wake_by(now_ns)

    # --- after the load -------------------------------------------------------------------

    def read_back(self, now_ns: int) -> bool:
        """Begin to read what was written and not read back yet; False where nothing is left."""
        reads = self._final_reads.next_pass(self.history())
        if reads is None or self._payloads.values is not None:
            return False
        self._final_ns = min(self._final_ns, now_ns)
        self._end_ns = now_ns + reads.lasts_ns
        self._lags_ns = []
        self._stream, self._timetable = reads, BackToBack(READERS)
        self._closed = True
        self._await(READERS, now_ns)
        self._fetch()
        self._wake_by(now_ns)
        return True

    def history(self) -> History:
        """All rows in order of invocation."""
        found = self._rows.history(self._client, self._warmup_ns, self._final_ns, self._key_names)
        values = self._payloads.values
        return found if values is None else dataclasses.replace(found, values=values)
