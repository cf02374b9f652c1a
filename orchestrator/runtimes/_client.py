"""The load generator: which operation starts when, and in which session. The same code drives
simulated and real clients; :mod:`._operations` sees an operation through.

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
from orchestrator.core.load import (
    LEAVES,
    JoiningTimetable,
    OperationStream,
    Timetable,
)
from orchestrator.core.models import REGISTER
from orchestrator.core.spans import Spans
from orchestrator.core.units import format_duration
from orchestrator.errors import ConfigError
from orchestrator.runtimes._agenda import NO_WAKE, Agenda
from orchestrator.runtimes._ahead import Ahead
from orchestrator.runtimes._attempts import Attempts
from orchestrator.runtimes._operations import Operations
from orchestrator.runtimes._payloads import Payloads
from orchestrator.runtimes._port import Port
from orchestrator.runtimes._read_back import READERS, BackToBack, FinalReads
from orchestrator.runtimes._routing import LevelMix, Router
from orchestrator.runtimes._sampling import NONE_LEFT, Sampling
from orchestrator.runtimes._session import Session
from orchestrator.runtimes._session_pool import SessionPool
from orchestrator.runtimes._spans import ClientSpans

_POLLING: Final = -(2**63)
_INSTANT_MAX: Final = 100_000
"""Operations of a closed load in a row that may begin and end at one time."""


class LoadDriver(Operations):
    """One client's load. The runtime hands in answers and calls ``poll`` when asked to."""

    # Of a cache of its own, which this one has not.
    cache_hits = cache_lookups = 0
    # Index of the operation behind the block, and how many are left of it when one is sampled.
    _block_end = 0
    _left_at_sample = NONE_LEFT

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
        again: Attempts | None = None,
        sampling: Sampling | None = None,
    ) -> None:
        joining = timetable if isinstance(timetable, JoiningTimetable) else None
        super().__init__(
            router,
            port,
            SessionPool(client, connections, joining),
            Payloads(model, payload_bytes, key_names),
            key_names,
            nodes,
            connections=connections,
            timeout_ns=timeout_ns,
            warmup_ns=warmup_ns,
            end_ns=end_ns,
            again=again,
        )
        self._client = client
        self._timetable = timetable
        self._levels = levels
        self._closed = timetable.sessions > 0 or joining is not None
        self._ahead = Ahead(stream, timetable, levels, planned=not self._closed)
        self._full_until_ns = NEVER
        self._instant = (NEVER, 0)
        self.lag_ns: list[int] = []
        self._lags_ns = self.lag_ns  # of what begins now; final reads are no load
        self._final_reads = FinalReads()
        self.spans = None if sampling is None else ClientSpans(port, self._rows.add, sampling)
        self._pool.begin(timetable.sessions, 0)
        self._fetch()

    # --- when -----------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Nothing is under way and nothing will start."""
        return self.outstanding == 0 and self._next_start_ns() == NO_WAKE

    def _next_start_ns(self) -> int:
        if not self._left or self.outstanding >= self._most:
            return NO_WAKE
        if self._closed:
            waiting = self._pool.waiting
            due_ns = waiting[0][0] if waiting else NO_WAKE
        else:
            due_ns = self._starts[-self._left]
        return due_ns if due_ns < self._end_ns else NO_WAKE

    def poll(self, now_ns: int) -> None:
        """Start what is due, give up what has timed out."""
        if now_ns < self._wake_ns:
            # Armed for later by now: a wake-up that an earlier one has overtaken.
            return
        # What begins in here need not arm anything: the next wake-up is settled at the end.
        self._wake_ns = _POLLING
        if self._agenda.soonest_ns <= now_ns:
            self._see_to(self._agenda, now_ns)
        wake_ns = NO_WAKE
        if not self._crashed:
            (self._poll_closed if self._closed else self._poll_open)(now_ns)
            wake_ns = self._next_start_ns()
        soonest_ns = self._agenda.settle()
        if soonest_ns < wake_ns:
            wake_ns = soonest_ns
        self._wake_ns = NO_WAKE
        if wake_ns != NO_WAKE:
            self._wake_by(wake_ns)

    def _see_to(self, agenda: Agenda, now_ns: int) -> None:
        """Give up what has timed out, and ring the alarms that are due."""
        while (session := agenda.overdue(now_ns)) is not None:
            self._shun(session, now_ns)
            self._give_up(session, now_ns)
        while (alarm := agenda.due(now_ns)) is not None:
            self._ring(*alarm, now_ns)

    def _poll_closed(self, now_ns: int) -> None:
        pool = self._pool
        while pool.waiting and self._left and self.outstanding < self._most:
            due_ns = pool.waiting[0][0]
            if due_ns > now_ns or due_ns >= self._end_ns:
                return
            self._start(pool.next(), due_ns, now_ns)

    def _poll_open(self, now_ns: int) -> None:
        while self._left and self.outstanding < self._most:
            due_ns = self._starts[-self._left]
            if due_ns > now_ns or due_ns >= self._end_ns:
                return
            self._start(self._pool.take(), due_ns, now_ns)

    def _fetch(self) -> None:
        """The next few operations; none says that there are no more."""
        self._operations, self._starts, self._left = self._ahead.take()
        self._block_end += self._left
        self._find_sample()

    def draw_ahead(self, seconds: float) -> None:
        """Have the next operations ready; what that takes, at most, is spent before the load."""
        self._ahead.draw_ahead(seconds)

    def _find_sample(self) -> None:
        if self.spans is not None:
            sampling = self.spans.sampling
            self._left_at_sample = sampling.place_in(self._block_end, self._left)

    def _sample(self, session: Session, due_ns: int) -> None:
        """The operation that the session is about to begin is to be sampled."""
        assert self.spans is not None
        place = self.spans.sampling.take(self._block_end - self._left, due_ns)
        if place is not None and due_ns < self._final_ns:
            self.spans.follow(session, place)
        self._find_sample()

    def _start(self, session: Session, due_ns: int, now_ns: int) -> None:
        """The next operation of the block begins in this session."""
        # Whoever had to wait for room is not late.
        full_until_ns = self._full_until_ns
        self._lags_ns.append(now_ns - (due_ns if due_ns > full_until_ns else full_until_ns))
        session.follow_up, kind, key, size, count, level, session.steps = next(self._operations)
        session.due_ns = due_ns
        if self._left == self._left_at_sample:
            self._sample(session, due_ns)
        self._left -= 1
        if not self._left:
            self._fetch()
        self._begin(session, kind, key, size, count, level, now_ns)

    def _release(self, session: Session, now_ns: int) -> None:
        if self.outstanding + 1 >= self._most:
            self._full_until_ns = now_ns
            self._wake_by(now_ns)
        pause_ns = self._timetable.think_ns() if self._closed else LEAVES
        if pause_ns == LEAVES:
            self._pool.free.append(session)
            return
        due_ns = now_ns + pause_ns
        ready = self._left and not self._crashed and self.outstanding < self._most
        if due_ns <= session.invoked_ns:
            self._check_progress(now_ns)
        if due_ns <= now_ns < self._end_ns and ready:
            self._start(session, due_ns, now_ns)
        else:
            self._pool.wait(session, due_ns)
            if due_ns < self._end_ns and self._left and not self._crashed:
                self._wake_by(due_ns)

    def _check_progress(self, now_ns: int) -> None:
        """An operation took no time, and its session goes on at once: if all do, time never passes.

        Raises ConfigError where that is so.
        """
        since_ns, count = self._instant
        self._instant = (now_ns, count + 1 if since_ns == now_ns else 1)
        if count > _INSTANT_MAX:
            raise ConfigError(
                f"at {format_duration(now_ns)} operations end (or are turned away) at the time at"
                " which they begin, and their sessions go on at once, so that time stands still",
                path="arrival.think_time",
                hint="let sessions think, or give system.network.delay",
            )

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
        self._find_sample()
        self._wake_by(now_ns)

    # --- after the load -------------------------------------------------------------------

    def read_back(self, now_ns: int) -> bool:
        """Begin to read what was written and not read back yet; False where nothing is left."""
        reads = self._final_reads.next_pass(self.history())
        if reads is None or self._payloads.values is not None:
            return False
        # A load whose last operation came early has not ended: what it says is of its whole time.
        ends = self._final_ns == NO_WAKE != self._end_ns
        start_ns = max(now_ns, self._end_ns) if ends else now_ns
        self._final_ns = min(self._final_ns, start_ns)
        self._end_ns = start_ns + reads.lasts_ns
        self._lags_ns = []
        self._timetable = BackToBack(READERS)
        self._ahead = Ahead(reads, self._timetable, self._levels, planned=False)
        self._closed, self._pool.joining = True, None
        self._pool.begin(READERS, start_ns)
        self._fetch()
        self._wake_by(start_ns)
        return True

    def sampled(self) -> Spans | None:
        """Where the time of sampled operations went; None where none are."""
        return None if self.spans is None else self.spans.found()

    def history(self) -> History:
        """All rows in order of invocation."""
        found = self._rows.history(self._client, self._warmup_ns, self._final_ns, self._key_names)
        expected_id = self._payloads.expected_in(found)
        values = self._payloads.values
        return dataclasses.replace(found, expected_id=expected_id, values=values)
