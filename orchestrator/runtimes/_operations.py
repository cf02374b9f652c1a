"""An operation's way from its beginning to its outcome: attempts out, answers in, one row of
history. The same code carries simulated and real operations.

An operation is usually one attempt at one node. Where the client insists (:mod:`._attempts`) there
may be several, one after the other or at once; they carry its identity, and the first answer
counts. It FAILed where every attempt was turned away, and is UNKNOWN where one may have happened.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from orchestrator.core.history import NEVER
from orchestrator.core.levels import UNASKED
from orchestrator.core.load import (
    ABANDONED,
    LOST,
    OVERTAKEN,
    REDIRECTED,
    REFUSED,
    RETURNED,
    Word,
)
from orchestrator.core.machine import FAIL, OK, READ, UNKNOWN, Op
from orchestrator.runtimes._agenda import AGAIN, HEDGE, NO_WAKE, SLOW
from orchestrator.runtimes._attempts import Attempts
from orchestrator.runtimes._batching import BatchingPort
from orchestrator.runtimes._payloads import Payloads
from orchestrator.runtimes._port import Port
from orchestrator.runtimes._routing import Router
from orchestrator.runtimes._sending import RETRY_NS, Sending
from orchestrator.runtimes._session import Rows, Session
from orchestrator.runtimes._session_pool import SessionPool


class Operations(Sending):
    """One client's operations under way, and the rows of what is done. ``batching``: where those
    for one node travel together.
    """

    batching: BatchingPort | None = None

    def __init__(
        self,
        router: Router,
        port: Port,
        pool: SessionPool,
        payloads: Payloads,
        key_names: Sequence[bytes],
        nodes: int,
        *,
        connections: int,
        timeout_ns: int,
        warmup_ns: int,
        end_ns: int | None,
        again: Attempts | None,
    ) -> None:
        super().__init__(router, port, warmup_ns=warmup_ns, again=again)
        self._rows = Rows()
        self._pool = pool
        pool.port, pool.record = port, self._rows.add
        self.sessions = pool.all
        self._payloads = payloads
        self._key_names = key_names
        self._timeout_ns = timeout_ns
        self._end_ns = NO_WAKE if end_ns is None else end_ns
        self.outstanding = 0
        self.follow_ups = 0
        """Operations that began within the measured window because a read had returned."""
        self.answers_in_vain = 0
        """That came when nobody waited for them any more, over the whole load."""
        self.latest_return_ns = NEVER
        self._crashed = False
        self._last_return_ns = [[NEVER] * connections for _ in range(nodes)]

    @property
    def done(self) -> int:
        """Operations with an outcome."""
        return len(self._rows)

    @property
    def carried(self) -> tuple[int, int]:
        """(requests, operations in them) so far; nothing where each travels by itself."""
        batching = self.batching
        return (0, 0) if batching is None else (batching.requests, batching.operations)

    @abstractmethod
    def _release(self, session: Session, now_ns: int) -> None:
        """The session may begin its next operation."""

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
        if self._again is not None:
            self._again.begin(session, now_ns)
        self._send(session, now_ns)

    def _ring(self, session: Session, what: int, now_ns: int) -> None:
        """An alarm about the session's operation."""
        if what != SLOW:
            self._send(session, now_ns, hedging=what == HEDGE)
        else:
            self._shun(session, now_ns)
            self._ended(session, LOST, now_ns)
            self._leave(session, LOST, now_ns)
            session.doubt = True
            self._missed(session, 0, now_ns)

    def _missed(self, session: Session, wait_ns: int, now_ns: int) -> bool:
        """Nothing came of an attempt; whether the operation goes on.

        What may have happened goes on until its time is over, since an answer may still come.
        """
        if self._again is None:
            return False
        self._most = self._again.dropped(self.outstanding, now_ns)
        again_ns = self._again.again_ns(session, wait_ns, now_ns)
        if again_ns is not None:
            self._remind(again_ns, session, AGAIN)
        elif not session.doubt:
            self._fail(session, now_ns)
        return True

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
        source: int = -1,
    ) -> None:
        """The answer to an operation, by node ``source`` (-1: who was asked last); too late a one
        is ignored.
        """
        if session.sequence != sequence or not session.busy:
            self.answers_in_vain += outcome == OK
            return
        if self._again is not None:
            self._turn_to(session, source)
        if outcome == UNKNOWN:
            self._lose(session, now_ns)
            return
        op, node = session.op, session.target
        value_id = self._payloads.answered(session, outcome, value)
        last_return_ns = self._last_return_ns[node]
        connection = session.connection
        session.record(session.row(value_id, version, now_ns, last_return_ns[connection], outcome))
        last_return_ns[connection] = now_ns
        if now_ns < self._final_ns:
            self.latest_return_ns = now_ns
        if version > session.seen:
            session.seen = version
        if context:
            session.context = context
        self._ended(session, REFUSED if outcome == FAIL else RETURNED, now_ns, word)
        if self._again is not None:
            self._leave(session, OVERTAKEN, now_ns)
            self._most = self._again.answered(session, self.outstanding, now_ns)
        session.busy = False
        self.outstanding -= 1
        if session.follow_up and outcome == OK:
            kind, session.follow_up = session.follow_up, READ
            session.found = value
            session.due_ns = now_ns
            self.follow_ups += self._warmup_ns <= now_ns < self._end_ns
            self._begin(session, kind, session.key, op.size, 1, UNASKED, now_ns)
        else:
            self._release(session, now_ns)

    def redirected(
        self,
        session: Session,
        sequence: int,
        node: int,
        now_ns: int,
        word: Word | None = None,
        source: int = -1,
    ) -> None:
        """Another node serves this operation (-1: nobody is known to)."""
        if session.sequence != sequence or not session.busy:
            return
        if self._came_to_nothing(session, REDIRECTED, now_ns, source, word):
            return
        if self._again is not None:
            # It is the same attempt still. A copy of it may have been served elsewhere.
            self.extra_attempts -= session.attempt > 1 and self._is_measured(session)
            session.attempt -= 1
            session.doubt = True
        if node < 0:
            self.router.avoid(session, session.target, now_ns)
            self._remind(now_ns + RETRY_NS, session, AGAIN)
        else:
            self.router.learn(session.op, node)
            self._send(session, now_ns)

    def unsent(self, session: Session, node: int, now_ns: int) -> None:
        """The operation waited for others, and its node cannot be reached any more."""
        self.redirected(session, session.sequence, -1, now_ns, None, node)

    def refused(
        self,
        session: Session,
        sequence: int,
        wait_ns: int,
        now_ns: int,
        word: Word | None = None,
        source: int = -1,
    ) -> None:
        """The node turned the operation away, so it did not happen there; in ``wait_ns`` there may
        be room again.
        """
        if session.sequence != sequence or not session.busy:
            return
        if self._came_to_nothing(session, REFUSED, now_ns, source, word):
            return
        if not self._missed(session, wait_ns, now_ns):
            self._fail(session, now_ns)

    def _fail(self, session: Session, now_ns: int) -> None:
        """The operation definitely did not happen, and the session can go on."""
        if session.target < 0:
            self.extra_attempts -= self._is_measured(session)
        value_id = self._end(session)
        session.record(session.row(value_id, 0, now_ns, NEVER, FAIL))
        self._release(session, now_ns)

    def lost(self, session: Session, sequence: int, now_ns: int, source: int = -1) -> None:
        """The connection broke while the operation was under way: it may have happened."""
        if session.sequence == sequence and session.busy:
            self.router.avoid(session, session.target if source < 0 else source, now_ns)
            self._lose(session, now_ns, source)

    def _lose(self, session: Session, now_ns: int, source: int = -1) -> None:
        """What became of the attempt nobody will say."""
        if self._again is None:
            self._give_up(session, now_ns)
            return
        session.doubt = True
        if not self._came_to_nothing(session, LOST, now_ns, source):
            self._missed(session, 0, now_ns)

    def _shun(self, session: Session, now_ns: int) -> None:
        """A node that has answered nobody since is not asked next: it may be paused, or cut off."""
        node = session.target
        silent = node >= 0 and max(self._last_return_ns[node]) < session.invoked_ns
        if silent and self.router.shuns_silent:
            self.router.avoid(session, node, now_ns)

    def _give_up(self, session: Session, now_ns: int) -> None:
        what = ABANDONED if self._crashed else LOST
        if self._again is not None:
            session.doubt |= session.out or bool(session.others)
            self._leave(session, what, now_ns)
        if session.target < 0 or (self._again is not None and not session.doubt):
            self._fail(session, now_ns)  # it was never sent, or turned away
            return
        value_id = self._end(session)
        session.record(session.row(value_id, 0, NEVER, NEVER, UNKNOWN))
        self._ended(session, what, now_ns)
        self._release(self._pool.open(), now_ns)

    def _end(self, session: Session) -> int:
        """Nothing more comes of the session's operation; the identity of what it wrote."""
        self.outstanding -= 1
        session.busy = False
        session.follow_up = READ
        return self._payloads.unanswered(session)
