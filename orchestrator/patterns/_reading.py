"""What patterns share that fetch what is missing: reads go through the tier.

**What may be kept.** A value that was fetched is kept unless its key was written in between, as far
as this node knows: where a write begins, ends, or is told of while the fetch is under way, what the
fetch brings may be older than that write. It still answers those who had waited for it by then.

**Single flight.** Whoever misses a key while it is being fetched waits for that fetch, unless the
key was written meanwhile: a reader that came after the write must not get what is older.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from orchestrator.core.machine import (
    FAIL,
    OK,
    READ,
    Effect,
    Event,
    Mark,
    Op,
    Received,
    Reply,
    Requested,
    Started,
    TimerFired,
)
from orchestrator.core.parameters import duration, flag
from orchestrator.core.tier import REFUSED, Answer, Pattern, TierContext
from orchestrator.patterns._asking import TIMER, Asked, Asker


@dataclass(frozen=True)
class ReadingParams:
    single_flight: bool = flag(True, help="who misses what is being fetched waits for that")
    resend: int = duration(
        "200ms", low="1ms", help="the store is asked again where that does no harm"
    )
    give_up: int = duration("1s", low="1ms", help="after which a fetch has failed")


@dataclass(slots=True)
class Flight:
    """A fetch under way. ``overtaken``: its key was written meanwhile."""

    key: bytes
    number: int
    since_ns: int
    waiting: list[Any]
    overtaken: bool = False


class Reading(Pattern):
    """Reads are answered from what is cached; what is missing is fetched."""

    def __init__(self, context: TierContext, params: Any) -> None:
        super().__init__(context, params)
        self._params = params
        self._asker = Asker(context, params.resend)
        # Fetches under way: by number, and of each key those that may bring its newest value.
        self._flights: dict[int, Flight] = {}
        self._open: dict[bytes, list[Flight]] = {}

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Requested(handles, ops):
                for handle, op in zip(handles, ops, strict=True):
                    if op.kind == READ:
                        self._read(handle, op, now_ns, effects)
                    else:
                        self._written(handle, op, now_ns, effects)
            case Received(source, Answer() as answer):
                asked = self._asker.answered(source, answer, now_ns, effects)
                if asked is not None:
                    self._answered(answer, asked, now_ns, effects)
            case TimerFired(timer) if timer == TIMER:
                self._give_up(now_ns, effects)
                self._asker.see_to(now_ns, effects)
            case TimerFired(timer):
                self._rang(timer, now_ns, effects)
            case Started():
                self._asker.begin(now_ns)
        return effects

    # --- what patterns add ----------------------------------------------------------------

    @abstractmethod
    def _written(self, handle: Any, op: Op, now_ns: int, effects: list[Effect]) -> None:
        """A write through the tier, or word of one that went to the store."""

    @abstractmethod
    def _changed(self, answer: Answer, asked: Asked, now_ns: int, effects: list[Effect]) -> None:
        """The store has answered a write."""

    def _rang(self, timer: str, now_ns: int, effects: list[Effect]) -> None:
        """A timer of the pattern's own; where it has none, none rings."""

    def _may_keep(self, key: bytes) -> bool:
        """Whether no write of the key is under way."""
        return True

    # --- reads ----------------------------------------------------------------------------

    def _read(self, handle: Any, op: Op, now_ns: int, effects: list[Effect]) -> None:
        held = self.cached.look(op.key, op.size, now_ns)
        if held is None:
            flights = self._open.get(op.key)
            if flights and self._params.single_flight:
                flights[-1].waiting.append(handle)
                effects.append(Mark("joined_fetch"))
            else:
                self._fetch([handle], op, now_ns, effects)
            return
        effects.append(Reply(handle, OK, held.value, held.version))
        if self.cached.wants_refresh(held, now_ns) and op.key not in self._open:
            effects.append(Mark("early_refresh"))
            self._fetch([], op, now_ns, effects)

    def _fetch(self, waiting: list[Any], op: Op, now_ns: int, effects: list[Effect]) -> None:
        number = self._asker.ask(op, now_ns, effects)
        flight = self._flights[number] = Flight(op.key, number, now_ns, waiting)
        self._open.setdefault(op.key, []).append(flight)

    def _overtake(self, key: bytes) -> None:
        """The key was written: what is being fetched may be older than that."""
        for flight in self._open.pop(key, ()):
            flight.overtaken = True

    def _answered(self, answer: Answer, asked: Asked, now_ns: int, effects: list[Effect]) -> None:
        flight = self._flights.get(answer.number)
        if flight is None:
            self._changed(answer, asked, now_ns, effects)
            return
        self._land(flight)
        op, value = asked.op, answer.value
        if flight.overtaken:
            effects.append(Mark("overtaken_fetch"))
        is_newest = not flight.overtaken and self._may_keep(op.key)
        if answer.outcome == OK and value is not None and is_newest:
            fetch_ns = now_ns - asked.since_ns
            self.cached.keep(op.key, value, answer.version, op.size, fetch_ns, now_ns)
        for handle in flight.waiting:
            effects.append(passed_on(answer, handle))

    def _land(self, flight: Flight) -> None:
        """It is no longer under way."""
        del self._flights[flight.number]
        flights = self._open.get(flight.key)
        if flights is not None and flight in flights:
            flights.remove(flight)
            if not flights:
                del self._open[flight.key]

    def _give_up(self, now_ns: int, effects: list[Effect]) -> None:
        """Fetches that have taken too long have failed."""
        begun_ns = now_ns - self._params.give_up
        # In the order in which they began.
        late = itertools.takewhile(lambda each: each.since_ns <= begun_ns, self._flights.values())
        for flight in list(late):
            self._asker.forget(flight.number)
            self._land(flight)
            effects.extend(Reply(handle, FAIL) for handle in flight.waiting)

    def check(self) -> None:
        super().check()
        for key, flights in self._open.items():
            assert flights, f"no fetch of {key!r} is open"
            for flight in flights:
                assert not flight.overtaken, f"an overtaken fetch of {key!r} is open"
                assert flight.number in self._flights, f"a fetch of {key!r} has landed"


def passed_on(answer: Answer, handle: Any) -> Reply:
    """What the store has answered, for a client that waits for it."""
    outcome = FAIL if answer.outcome == REFUSED else answer.outcome
    return Reply(handle, outcome, answer.value, answer.version, 0, answer.context)
