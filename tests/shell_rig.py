"""A node's shell with a fake clock, a fake machine and a fake way out: what a test needs to see
one rule at a time.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from orchestrator.config.load import load_mapping
from orchestrator.core.load import CacheParams
from orchestrator.core.machine import (
    OK,
    READ,
    Effect,
    Event,
    Machine,
    Op,
    Received,
    Redirect,
    Reply,
    Requested,
    TimerFired,
)
from orchestrator.core.parameters import Capacity
from orchestrator.core.registry import Family, plugin
from orchestrator.core.waiting import Refusal
from orchestrator.runtimes._costs import Costs
from orchestrator.runtimes._node import NodeShell

MS = 1_000_000
SYNC_NS = 10 * MS
FREE: dict[str, Any] = {"cpu": {"read": "0s", "write": "0s", "message": "0s"}}


class Clock:
    """Virtual time in a few lines, so that these tests do not rest on the simulator."""

    origin_ns = 0
    late_ns = 0

    def __init__(self) -> None:
        self.time_ns = 0
        self._heap: list[tuple[int, int, Callable[[Any], None], Any]] = []
        self._order = itertools.count()

    def now_ns(self) -> int:
        return self.time_ns

    moment_ns = now_ns

    def at(self, when_ns: int, callback: Callable[[Any], None], argument: Any) -> None:
        heapq.heappush(self._heap, (when_ns, next(self._order), callback, argument))

    arrive = at

    def not_made_up(self, usual_ns: int) -> None:
        self.late_ns -= usual_ns

    def run(self, until_ns: int) -> None:
        while self._heap and self._heap[0][0] <= until_ns:
            when_ns, _, callback, argument = heapq.heappop(self._heap)
            self.time_ns = max(self.time_ns, when_ns)
            callback(argument)
        self.time_ns = until_ns


class Script:
    """A machine that does what a test says, and notes when it was asked to."""

    Message = Record = None
    role = "only"

    def __init__(self, clock: Clock, answer: Callable[[Event], list[Effect]]) -> None:
        self._clock = clock
        self.answer = answer
        self.heard: list[tuple[int, Event]] = []

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        assert now_ns == self._clock.time_ns
        self.heard.append((now_ns, event))
        return self.answer(event)

    def times_ns(self, kind: type[Event]) -> list[int]:
        return [when_ns for when_ns, event in self.heard if isinstance(event, kind)]

    def check(self) -> None: ...

    def contents(self) -> dict[bytes, tuple[bytes, int]]:
        return {}


class Outlet:
    """Notes what leaves the node, and when."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.left: list[tuple[int, Any]] = []
        self.records: list[Any] = []
        self.syncs = 0

    def _leave(self, what: Any) -> None:
        self.left.append((self._clock.time_ns, what))

    def send(self, target: int, message: Any) -> None:
        self._leave(message)

    def reply(self, reply: Reply) -> None:
        self._leave(reply.handle)

    def redirect(self, redirect: Redirect) -> None:
        self._leave(redirect.handle)

    def refuse(self, refusal: Refusal) -> None:
        self._leave(refusal)

    def append(self, record: Any, replaces: bool, group: int) -> None:
        self.records.append(record)

    def sync(self, done: Callable[[], None]) -> None:
        self.syncs += 1
        self._clock.at(self._clock.time_ns + SYNC_NS, lambda _: done(), None)

    def note(self, kind: str, detail: str) -> None:
        self._leave(detail)


class Rig:
    """A shell with everything around it under a test's control."""

    def __init__(
        self,
        answers: Mapping[Any, Sequence[Any]] | None = None,
        *,
        batch: Mapping[str, Any] | None = None,
        cache: int = 0,
        **node: Any,
    ) -> None:
        system = {"name": "replicated_store", "node": FREE | node, "batch": dict(batch or {})}
        store = load_mapping({"system": system}).system.params
        self.clock = Clock()
        self.outlet = Outlet(self.clock)
        self.answers = answers or {}
        self.machine = Script(self.clock, self._answer)
        lru = plugin(Family.CACHE, "lru").implementation
        self.cache: Any = lru(CacheParams(Capacity(cache, False))) if cache else None
        self.shell = NodeShell(
            cast(Machine, self.machine),
            store.node,
            Costs.of(store.node, 1, "node/0"),
            store.batch,
            self.cache,
            self.clock,
            self.outlet,
        )

    def _answer(self, event: Event) -> list[Effect]:
        match event:
            case Requested(handles):
                return [effect for handle in handles for effect in self.answers.get(handle, [])]
            case Received(_, message):
                return list(self.answers.get(message, []))
            case TimerFired(timer):
                return list(self.answers.get(timer, []))
            case _:
                return []

    def ask(self, *handles: Any, kind: int = READ, count: int = 1) -> None:
        ops = [Op(1, 1, kind, b"k", count=count) for _ in handles]
        self.shell.requested(list(handles), ops)

    def run(self, until_ms: float) -> list[tuple[float, Any]]:
        """All that has left by then: (ms, what)."""
        self.clock.run(round(until_ms * MS))
        return [(when_ns / MS, what) for when_ns, what in self.outlet.left]


def ok(handle: Any, after: int = 0) -> Reply:
    return Reply(handle, OK, after=after)


def elsewhere(handle: Any) -> Redirect:
    return Redirect(handle, Op(1, 1, READ, b"k"), 1)
