"""The load generator with a cache of its own: what it has read of late it need not ask for.

All sessions of a client share its cache. It hears of no other client's writes, so what it serves
may be as old as its time to live. Its own writes it keeps or forgets once they are acknowledged; a
read that had begun before then brings nothing into the cache, as it may be older than that write.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from orchestrator.core.cached_values import CachedValues
from orchestrator.core.load import Word
from orchestrator.core.machine import OK, READ, WRITE, Op
from orchestrator.core.units import NS_PER_US
from orchestrator.runtimes._agenda import AGAIN
from orchestrator.runtimes._client import LoadDriver
from orchestrator.runtimes._session import Session
from orchestrator.runtimes._tiered_client import TieredDriver

LOOKUP_NS: Final = NS_PER_US
"""What a look into the own memory takes, about; in no time at all a closed load would never end."""


class Own(NamedTuple):
    """A client's cache: ``keeps_writes``, or forgets what it wrote."""

    cached: CachedValues
    keeps_writes: bool


class CachingDriver(LoadDriver):
    """One client's load. ``cache_hits`` of ``cache_lookups`` are those of the measured window."""

    def __init__(self, own: Own, *arguments: Any, **options: Any) -> None:
        self._cached, self._keeps_writes = own
        # By session: what it was found to be, and is about to be told.
        self._found: dict[int, tuple[bytes, int]] = {}
        # Of every key that it wrote: the newest version, and when the last answer came.
        self._written: dict[bytes, tuple[int, int]] = {}
        self.cache_hits = self.cache_lookups = 0
        super().__init__(*arguments, **options)

    def _send(self, session: Session, now_ns: int, *, hedging: bool = False) -> None:
        found = self._found.pop(session.identity, None)
        if found is not None:
            LoadDriver.returned(self, session, session.sequence, OK, *found, now_ns)
            return
        op = session.op
        if op.kind == READ and session.target < 0 and not hedging:
            held = self._cached.look(op.key, op.size, now_ns)
            if self._is_measured(session):
                self.cache_lookups += 1
                self.cache_hits += held is not None
            if held is not None:
                self._found[session.identity] = (held.value, held.version)
                self._remind(now_ns + LOOKUP_NS, session, AGAIN)
                return
        super()._send(session, now_ns, hedging=hedging)

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
        """An answer, of which the cache learns before the session goes on."""
        op = session.op
        if session.sequence == sequence and session.busy and outcome == OK:
            if op.kind == WRITE:
                self._wrote(op, version, now_ns)
            elif value is not None and version >= 0:  # below, it is no answer yet
                self._read(op, value, version, session.invoked_ns, now_ns)
        super().returned(session, sequence, outcome, value, version, now_ns, context, word, source)

    def _read(self, op: Op, value: bytes, version: int, begun_ns: int, now_ns: int) -> None:
        if begun_ns >= self._written.get(op.key, (0, begun_ns))[1]:
            self._cached.keep(op.key, value, version, op.size, now_ns - begun_ns, now_ns)

    def _wrote(self, op: Op, version: int, now_ns: int) -> None:
        # Of two sessions' writes the answer to the newer one may have come first.
        newest = self._written.get(op.key, (version, 0))[0]
        self._written[op.key] = (max(newest, version), now_ns)
        if version < newest:
            return
        if self._keeps_writes and op.value is not None:
            self._cached.keep(op.key, op.value, version, op.size, 0, now_ns)
        else:
            self._cached.drop(op.key)

    def _end(self, session: Session) -> int:
        self._found.pop(session.identity, None)
        if session.op.kind == WRITE:
            self._cached.drop(session.op.key)
        return super()._end(session)

    def crash(self, now_ns: int) -> None:
        """The client dies, and its cache with it."""
        super().crash(now_ns)
        self._cached.clear()


class CachingTieredDriver(CachingDriver, TieredDriver):
    """One client's load, with a cache of its own in front of a cache tier."""
