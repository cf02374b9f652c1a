"""A tier node alone, with a store that answers what the test says."""

from __future__ import annotations

import random
from typing import Any

from orchestrator.core.cached_values import CachedValues
from orchestrator.core.caching import build_cache
from orchestrator.core.machine import (
    OK,
    READ,
    WRITE,
    ClusterView,
    Effect,
    Op,
    Received,
    Reply,
    Requested,
    Send,
    SetTimer,
    Started,
    TimerFired,
)
from orchestrator.core.parameters import Capacity
from orchestrator.core.registry import Family, Slot, plugin
from orchestrator.core.tier import Answer, Ask, Pattern, TierContext

NODE = 3


class TierNode:
    """``replies``: what clients were told; ``asks``: what the store was asked and has not said."""

    def __init__(
        self,
        name: str,
        *,
        size: int = 100,
        ttl_ns: int | None = None,
        early: float = 0.0,
        known_again: bool = True,
        stores: int = 1,
        **params: Any,
    ) -> None:
        lru = plugin(Family.CACHE, "lru")
        slot = Slot(Family.CACHE, "lru", lru.params(size=Capacity(size, in_bytes=False)))
        policy = build_cache(slot, random.Random(1))
        context = TierContext(
            node=NODE,
            first_view=lambda group: ClusterView(tuple(range(stores))),
            candidates=lambda op, view: (view.reader if op.kind == READ else view.writer,),
            group_of=None,
            cached=CachedValues(policy, random.Random(2), ttl_ns=ttl_ns, early=early),
            known_again=known_again,
            client=9,
        )
        found = plugin(Family.PATTERN, name)
        self.machine: Pattern = found.implementation(context, found.params(**params))
        self.now_ns = 0
        self.replies: list[Reply] = []
        self.asks: list[tuple[int, Ask]] = []
        self.timers: dict[str, int] = {}
        self._sequence = 0
        self.handle(Started([]))

    def handle(self, event: Any) -> None:
        """An event, and its effects."""
        for effect in self.machine.handle(event, self.now_ns):
            self._take(effect)
        self.machine.check()

    def _take(self, effect: Effect) -> None:
        if isinstance(effect, Reply):
            self.replies.append(effect)
        elif isinstance(effect, Send):
            self.asks.append((effect.target, effect.message))
        elif isinstance(effect, SetTimer):
            self.timers[effect.timer] = self.now_ns + effect.delay_ns

    def _request(self, kind: int, key: bytes, value: bytes | None, context: bytes = b"") -> None:
        self._sequence += 1
        op = Op(1, self._sequence, kind, key, value, 10, context=context)
        self.handle(Requested([self._sequence], [op]))

    def read(self, key: bytes = b"k") -> int:
        """A client's; returns the handle of its answer."""
        self._request(READ, key, None)
        return self._sequence

    def write(self, value: bytes | None, key: bytes = b"k", lease: bytes = b"") -> int:
        """A client's, its filling, or its invalidation; returns the handle of its answer."""
        self._request(WRITE, key, value, lease)
        return self._sequence

    def said(self, handle: int) -> tuple[int, bytes | None] | None:
        """(outcome, value) of an answer; None where there is none yet."""
        found = [(each.outcome, each.value) for each in self.replies if each.handle == handle]
        assert len(found) < 2
        return found[0] if found else None

    def answer(self, value: bytes | None = None, at: int = 0, **said: Any) -> None:
        """The store answers what it was asked first, or ``at`` that place."""
        source, ask = self.asks.pop(at)
        answer = Answer(ask.number, said.pop("outcome", OK), value, **said)
        self.handle(Received(source, answer))

    def until(self, now_ns: int) -> None:
        """Time passes, and timers ring."""
        while self.timers and min(self.timers.values()) <= now_ns:
            timer = min(self.timers, key=lambda name: self.timers[name])
            self.now_ns = max(self.now_ns, self.timers.pop(timer))
            self.handle(TimerFired(timer))
        self.now_ns = now_ns
