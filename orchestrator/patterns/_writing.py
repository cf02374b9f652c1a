"""What patterns share that pass each write on to the store before it is acknowledged.

While a write is under way its key is not kept: nobody here knows whether the store has it yet. What
the store never answers stays so for ever, since it may take effect at any time.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from orchestrator.core.faults import Hazards
from orchestrator.core.levels import LINEARIZABLE, NONE
from orchestrator.core.machine import OK, UNKNOWN, Effect, Mark, Op, Reply
from orchestrator.core.tier import Answer, TierContext
from orchestrator.patterns._asking import Asked
from orchestrator.patterns._reading import Reading, passed_on


@dataclass(slots=True)
class Writes:
    """Writes of a key under way. ``overlapped``: at some time there was more than one."""

    count: int = 0
    overlapped: bool = False


class Writing(Reading):
    """Reads and writes go through the tier, and a write is acknowledged once the store has it."""

    def __init__(self, context: TierContext, params: Any) -> None:
        super().__init__(context, params)
        self._handles: dict[int, Any] = {}
        self._under_way: dict[bytes, Writes] = {}

    @classmethod
    def keeps(cls, params: Any, hazards: Hazards) -> str:
        # A tier node that has crashed does not know of the writes that it had passed on.
        return NONE if hazards.cache_crashes else LINEARIZABLE

    @abstractmethod
    def _stored(self, op: Op, version: int, now_ns: int) -> None:
        """The store has the write, and no other one of its key was under way meanwhile."""

    def _may_keep(self, key: bytes) -> bool:
        return key not in self._under_way

    def _written(self, handle: Any, op: Op, now_ns: int, effects: list[Effect]) -> None:
        self._overtake(op.key)
        self.cached.drop(op.key)
        writes = self._under_way.setdefault(op.key, Writes())
        writes.count += 1
        writes.overlapped |= writes.count > 1
        self._handles[self._asker.ask(op, now_ns, effects)] = handle

    def _changed(self, answer: Answer, asked: Asked, now_ns: int, effects: list[Effect]) -> None:
        handle, op = self._handles.pop(answer.number), asked.op
        if answer.outcome == UNKNOWN:
            effects.append(Reply(handle, UNKNOWN))
            return
        self._overtake(op.key)
        writes = self._under_way[op.key]
        writes.count -= 1
        if not writes.count:
            del self._under_way[op.key]
            if writes.overlapped:
                effects.append(Mark("overlapping_writes"))
            # Of writes that overlapped nobody here knows which was the last.
            if answer.outcome == OK and not writes.overlapped:
                self._stored(op, answer.version, now_ns)
        effects.append(passed_on(answer, handle))

    def check(self) -> None:
        super().check()
        for key in self._under_way:
            assert key not in self.cached, f"{key!r} is cached while it is written"
