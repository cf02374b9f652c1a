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
from collections.abc import Sequence
from typing import Final

from orchestrator.core.history import NEVER, History
from orchestrator.core.levels import UNASKED
from orchestrator.core.load import (
    ABANDONED,
    LEAVES,
    LOST,
    REDIRECTED,
    REFUSED,
    RETURNED,
    SENT,
    JoiningTimetable,
    OperationStream,
    Timetable,
    Word,
)
from orchestrator.core.machine import FAIL, OK, READ, UNKNOWN, WRITE, Op
from orchestrator.core.models import REGISTER
from orchestrator.runtimes._agenda import NO_WAKE, Agenda
from orchestrator.runtimes._ahead import draw
from orchestrator.runtimes._payloads import Payloads
from orchestrator.runtimes._port import Port
from orchestrator.runtimes._read_back import READERS, BackToBack, FinalReads
from orchestrator.runtimes._routing import LevelMix, Router
from orchestrator.runtimes._session import Rows, Session
from orchestrator.runtimes._session_pool import SessionPool

RETRY_NS: Final = 5_000_000
"""Pause before an operation asks again while no node is known to serve it."""
_POLLING: Final = -(2**63)


class LoadDriver:
    """One client's load. The runtime hands in answers and calls ``poll`` when asked to."""

    def __init__(
        self,
        client: int,
        stream: OperationStream,
        key_names: Sequence[bytes],
        payload_bytes: int | None,
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
        self._timeout_ns = timeout_ns
        self._warmup_ns = warmup_ns
        self._end_ns = NO_WAKE if end_ns is None else end_ns
        joining = timetable if isinstance(timetable, JoiningTimetable) else None
        self._pool = SessionPool(client, connections, joining)
        self.sessions = self._pool.all
        self._closed = timetable.sessions > 0 or joining is not None
        self._wake_ns = 0  # the runtime polls first at the start of the load
        self.outstanding = self.attempts = 0
        self.latest_return_ns = NEVER
        self.lag_ns: list[int] = []
        self._lags_ns = self.lag_ns  # of what begins now; final reads are no load
        self._crashed = False
        self._final_ns, self._final_reads = NO_WAKE, FinalReads()
        self._rows = Rows()
        self._agenda = Agenda()
        self._last_return_ns = [[NEVER] * connections for _ in range(nodes)]
        self._pool.begin(timetable.sessions, 0)
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
            waiting = self._pool.waiting
            due_ns = waiting[0][0] if waiting else NO_WAKE
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
        agenda = self._agenda
        while (session := agenda.overdue(now_ns)) is not None:
            self._shun(session, now_ns)
            self._give_up(session, now_ns)
        while (session := agenda.due(now_ns)) is not None:
            self._send(session, now_ns)
        wake_ns = NO_WAKE
        if not self._crashed:
            (self._poll_closed if self._closed else self._poll_open)(now_ns)
            wake_ns = self._next_start_ns()
        wake_ns = min(wake_ns, agenda.next_ns)
        self._wake_ns = NO_WAKE
        if wake_ns != NO_WAKE:
            self._wake_by(wake_ns)

    def _poll_closed(self, now_ns: int) -> None:
        pool = self._pool
        while pool.waiting and self._left:
            due_ns = pool.waiting[0][0]
            if due_ns > now_ns or due_ns >= self._end_ns:
                return
            self._start(pool.next(), due_ns, now_ns)

    def _poll_open(self, now_ns: int) -> None:
        while self._left:
            due_ns = self._starts[-self._left]
            if due_ns > now_ns or due_ns >= self._end_ns:
                return
            self._start(self._pool.take(), due_ns, now_ns)

    def _fetch(self) -> None:
        """The next block of operations; an empty one says that there are no more."""
        self._operations, self._starts, self._left = draw(
            self._stream, self._timetable, self._levels, planned=not self._closed
        )

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
        value = None if kind == READ else self._payloads.stored(session, sequence, kind, key, size)
        session.sequence = sequence
        session.key = key
        session.invoked_ns = now_ns
        session.target = -1
        session.busy = True
        name, seen, context = self._key_names[key], session.seen, session.context
        session.op = Op(identity, sequence, kind, name, value, size, seen, count, level, context)
        deadline_ns = now_ns + self._timeout_ns
        self._agenda.expect(deadline_ns, session)
        if deadline_ns < self._wake_ns:
            self._wake_by(deadline_ns)
        self.outstanding += 1
        self.attempts += self._warmup_ns <= session.due_ns < self._final_ns
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
        self._agenda.remind(retry_ns, session)
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

    def refused(
        self,
        session: Session,
        sequence: int,
        wait_ns: int,
        now_ns: int,
        word: Word | None = None,
    ) -> None:
        """The node turned the operation away, so it did not happen."""
        if session.sequence != sequence or not session.busy:
            return
        self._ended(session, REFUSED, now_ns, word)
        self._fail(session, now_ns)

    def _fail(self, session: Session, now_ns: int) -> None:
        """The operation definitely did not happen, and the session can go on."""
        value_id = self._end(session)
        self._rows.add(session.row(value_id, 0, now_ns, NEVER, FAIL))
        self._release(session, now_ns)

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
        if session.target < 0:
            self._fail(session, now_ns)  # it was never sent
            return
        value_id = self._end(session)
        self._rows.add(session.row(value_id, 0, NEVER, NEVER, UNKNOWN))
        self._ended(session, ABANDONED if self._crashed else LOST, now_ns)
        self._release(self._pool.open(), now_ns)

    def _end(self, session: Session) -> int:
        """Nothing more comes of the session's operation; the identity of what it wrote."""
        self.outstanding -= 1
        session.busy = False
        session.follow_up = False
        return self._payloads.unanswered(session)

    def _release(self, session: Session, now_ns: int) -> None:
        pause_ns = self._timetable.think_ns() if self._closed else LEAVES
        if pause_ns == LEAVES:
            self._pool.free.append(session)
            return
        due_ns = now_ns + pause_ns
        if due_ns <= now_ns < self._end_ns and self._left and not self._crashed:
            self._start(session, due_ns, now_ns)
        else:
            self._pool.wait(session, due_ns)
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
        self._pool.begin_again(now_ns)
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
        self._closed, self._pool.joining = True, None
        self._pool.begin(READERS, now_ns)
        self._fetch()
        self._wake_by(now_ns)
        return True

    def history(self) -> History:
        """All rows in order of invocation."""
        found = self._rows.history(self._client, self._warmup_ns, self._final_ns, self._key_names)
        values = self._payloads.values
        return found if values is None else dataclasses.replace(found, values=values)
