"""Read-through: the tier fetches what is missing; clients write to the store themselves.

Invalidated by write, a client tells the tier once the store has its write, and its write is over
when the tier has answered. A fetch that is under way then is not kept, so what the tier serves
after a write is no older than that; while the write is under way, one reader may get the new value
and a later one the old value still. Invalidated by time alone, entries are as old as ``ttl``.

A write costs a request and an answer more than without the tier, one after the other; a read that
misses costs one of each more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.core.faults import Hazards
from orchestrator.core.levels import NONE, REGULAR
from orchestrator.core.machine import OK, Effect, Op, Reply
from orchestrator.core.parameters import choice
from orchestrator.core.registry import Family, register
from orchestrator.core.tier import BY_TIME, BY_WRITE, Answer
from orchestrator.patterns._asking import Asked
from orchestrator.patterns._reading import Reading, ReadingParams


@dataclass(frozen=True)
class Params(ReadingParams):
    invalidation: str = choice(BY_WRITE, options=(BY_WRITE, BY_TIME))


@register(
    Family.PATTERN,
    "read_through",
    params=Params,
    claims={REGULAR: "over a linearizable store, invalidated by write"},
)
class ReadThrough(Reading):
    """The tier fetches what is missing; clients write to the store"""

    takes_writes = False

    @classmethod
    def invalidates(cls, params: Params) -> bool:
        return params.invalidation == BY_WRITE

    @classmethod
    def insists(cls, params: Params) -> bool:
        return params.invalidation == BY_WRITE

    @classmethod
    def needs_ttl(cls, params: Params) -> bool:
        return params.invalidation == BY_TIME

    @classmethod
    def keeps(cls, params: Params, hazards: Hazards) -> str:
        return REGULAR if params.invalidation == BY_WRITE else NONE

    def _written(self, handle: Any, op: Op, now_ns: int, effects: list[Effect]) -> None:
        self._overtake(op.key)
        self.cached.drop(op.key)
        effects.append(Reply(handle, OK))

    def _changed(self, answer: Answer, asked: Asked, now_ns: int, effects: list[Effect]) -> None:
        """It asks for reads alone, and has given up this one."""
