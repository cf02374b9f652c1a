"""Write-back: the tier acknowledges a write at once and stores it later.

A value that the store does not have yet is dirty. It is written after ``flush_after``, or sooner
where the cache has no room for it any more; what overwrites it meanwhile is absorbed, which is what
the pattern is for. A key has one write under way at a time, so the store gets its values in order;
they are the tier's own writes, in sessions of its own. Where ``dirty_max`` keys are dirty, a write
waits until its value is stored.

What is dirty lives in this node's memory alone: if the node crashes, acknowledged writes are lost.

A write costs what its flush costs, shared by all that it absorbed; a read that misses costs one
more request and answer.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any, Final

from orchestrator.core.faults import Hazards
from orchestrator.core.levels import LINEARIZABLE, NONE
from orchestrator.core.machine import OK, WRITE, Effect, Event, Mark, Op, Reply, SetTimer, Started
from orchestrator.core.parameters import duration, number
from orchestrator.core.registry import Family, register
from orchestrator.core.tier import Answer, TierContext
from orchestrator.core.units import NS_PER_MS
from orchestrator.patterns._asking import Asked
from orchestrator.patterns._reading import Reading, ReadingParams

FLUSH: Final = "flush"
_PAUSE_NS: Final = 50 * NS_PER_MS
"""Before a value is written again that the store did not take."""
_SESSION_BITS: Final = 22


@dataclass(frozen=True)
class Params(ReadingParams):
    flush_after: int = duration("500ms", help="for which a value may be dirty")
    dirty_max: int = number(
        10_000, low=1, probes=(1, 3), help="keys; beyond, a write waits for the store"
    )


@dataclass(slots=True)
class Dirty:
    """A key's newest value, which the store does not have. ``waiting``: who waits until it has;
    ``session``: in which it is written, once there is one.
    """

    op: Op
    due_ns: int
    waiting: list[Any] = field(default_factory=list)
    session: int | None = None


@register(
    Family.PATTERN,
    "write_back",
    params=Params,
    claims={LINEARIZABLE: "over a linearizable store, while no tier node crashes"},
)
class WriteBack(Reading):
    """The tier acknowledges a write at once and stores it later"""

    needs_known_again = True

    def __init__(self, context: TierContext, params: Params) -> None:
        super().__init__(context, params)
        self._flush_after_ns, self._dirty_max = params.flush_after, params.dirty_max
        self._dirty: dict[bytes, Dirty] = {}
        self._flushing: dict[bytes, tuple[int, Dirty]] = {}
        self._due: list[tuple[int, bytes]] = []
        self._armed_ns: int | None = None
        self._first_session = (context.client + 1) << _SESSION_BITS
        self._idle: list[int] = []
        self._sessions = 0
        self._sequence = 0
        self.cached.left = []

    @classmethod
    def keeps(cls, params: Params, hazards: Hazards) -> str:
        return NONE if hazards.cache_crashes else LINEARIZABLE

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects = super().handle(event, now_ns)
        if type(event) is Started:
            # The store must not take what comes after a crash for what came before.
            self._sequence = max(0, now_ns)
        if self.cached.left:
            self._let_go(now_ns, effects)
        return effects

    def _let_go(self, now_ns: int, effects: list[Effect]) -> None:
        """What has no room any more is stored now."""
        for key in self.cached.left or ():
            dirty = self._dirty.get(key)
            if dirty is not None and dirty.due_ns > now_ns:
                dirty.due_ns = now_ns
                self._flush(key, dirty, now_ns, effects)
        self.cached.left = []

    # --- reads and writes -----------------------------------------------------------------

    def _may_keep(self, key: bytes) -> bool:
        return key not in self._dirty

    def _read(self, handle: Any, op: Op, now_ns: int, effects: list[Effect]) -> None:
        dirty = self._dirty.get(op.key)
        if dirty is None:
            super()._read(handle, op, now_ns, effects)
            return
        self.cached.serve(op.key, op.size, now_ns)
        effects.append(Reply(handle, OK, dirty.op.value))

    def _written(self, handle: Any, op: Op, now_ns: int, effects: list[Effect]) -> None:
        key = op.key
        self._overtake(key)
        dirty = self._dirty.get(key)
        if dirty is None:
            dirty = self._dirty[key] = Dirty(op, now_ns + self._flush_after_ns)
            self._later(key, dirty, now_ns, effects)
        else:
            dirty.op = op
            effects.append(Mark("absorbed_write"))
        self.cached.keep(key, op.value or b"", 0, op.size, 0, now_ns)
        if len(self._dirty) > self._dirty_max:
            dirty.waiting.append(handle)
            self._flush(key, dirty, now_ns, effects)
        else:
            effects.append(Reply(handle, OK))

    # --- flushing -------------------------------------------------------------------------

    def _later(self, key: bytes, dirty: Dirty, now_ns: int, effects: list[Effect]) -> None:
        heapq.heappush(self._due, (dirty.due_ns, key))
        if self._armed_ns is None or self._due[0][0] < self._armed_ns:
            self._armed_ns = self._due[0][0]
            effects.append(SetTimer(FLUSH, self._armed_ns - now_ns))

    def _rang(self, timer: str, now_ns: int, effects: list[Effect]) -> None:
        self._armed_ns = None
        while self._due and self._due[0][0] <= now_ns:
            _, key = heapq.heappop(self._due)
            dirty = self._dirty.get(key)
            if dirty is not None and dirty.due_ns <= now_ns:
                self._flush(key, dirty, now_ns, effects)
        if self._due:
            self._armed_ns = self._due[0][0]
            effects.append(SetTimer(FLUSH, self._armed_ns - now_ns))

    def _flush(self, key: bytes, dirty: Dirty, now_ns: int, effects: list[Effect]) -> None:
        if key in self._flushing:
            return  # the rest follows
        if dirty.session is None:
            dirty.session = self._idle.pop() if self._idle else self._new_session()
        self._sequence += 1
        op = dirty.op
        own = Op(dirty.session, self._sequence, WRITE, key, op.value, op.size)
        flushed, dirty.waiting = Dirty(op, dirty.due_ns, dirty.waiting), []
        self._flushing[key] = (self._asker.ask(own, now_ns, effects), flushed)

    def _new_session(self) -> int:
        self._sessions += 1
        return self._first_session | self._sessions

    def _changed(self, answer: Answer, asked: Asked, now_ns: int, effects: list[Effect]) -> None:
        key = asked.op.key
        flushing = self._flushing.get(key)
        if flushing is None or flushing[0] != answer.number:
            return
        del self._flushing[key]
        flushed, dirty = flushing[1], self._dirty[key]
        if answer.outcome != OK:
            # In the same session, so that what may happen yet cannot happen after it.
            dirty.waiting = flushed.waiting + dirty.waiting
            dirty.due_ns = now_ns + _PAUSE_NS
            self._later(key, dirty, now_ns, effects)
            return
        effects.extend(Reply(handle, OK) for handle in flushed.waiting)
        if dirty.op is flushed.op:
            del self._dirty[key]
            self._idle.append(asked.op.session)
        elif dirty.waiting or key not in self.cached:
            self._flush(key, dirty, now_ns, effects)
        else:
            dirty.due_ns = max(now_ns, flushed.due_ns + self._flush_after_ns)
            self._later(key, dirty, now_ns, effects)

    @property
    def unfinished(self) -> int:
        """Keys that the store has not got yet."""
        return len(self._dirty)

    def check(self) -> None:
        super().check()
        for key in self._flushing:
            assert key in self._dirty, f"{key!r} is flushed and not dirty"
