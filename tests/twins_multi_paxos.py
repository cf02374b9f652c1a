"""Twins of Multi-Paxos that each break one rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twins import Twin

from orchestrator.core.machine import Effect, MachineContext, Op, Persist
from orchestrator.protocols._multi_paxos_election import LEADER
from orchestrator.protocols._multi_paxos_log import NOTHING, Accepted, Found, Slots, Values
from orchestrator.protocols.multi_paxos import MultiPaxos, Params


class ForgetsItsPromise(MultiPaxos):
    """Comes back from a crash with what it accepted but not with what it promised."""

    def _started(self, records: list[Any], now_ns: int, effects: list[Effect]) -> None:
        kept = [record for record in records if isinstance(record, Values)]
        super()._started(kept, now_ns, effects)


class FindsNothing(Found):
    """Remembers in how many slots something was accepted, but not what."""

    __slots__ = ()

    def values(self, first: int) -> Iterator[Op | None]:
        return (None for _ in super().values(first))


class IgnoresAcceptedValues(MultiPaxos):
    """A new leader that takes every open slot for free."""

    def _take_office(self, found: Found, now_ns: int, effects: list[Effect]) -> None:
        nothing = FindsNothing()
        nothing.commits, nothing._best = found.commits, found._best
        super()._take_office(nothing, now_ns, effects)


class PersistsNoAcceptance(MultiPaxos):
    """Followers that answer without writing down what they accept."""

    def handle(self, event: Any, now_ns: int) -> list[Effect]:
        return [
            effect
            for effect in super().handle(event, now_ns)
            if self.role == LEADER
            or type(effect) is not Persist
            or not isinstance(effect.record, Values)
        ]


class CarelessSlots(Slots):
    """Tells which slots hold something, of whatever ballot."""

    __slots__ = ()

    def through(self, ballot: int, known: int) -> int:
        at = known - self.base
        while at < len(self.ballots) and self.ballots[at] != NOTHING:
            at += 1
        return self.base + at


class TakesAnyBallotForChosen(MultiPaxos):
    """Counts and learns values that it accepted in other ballots than the leader's."""

    def __init__(self, context: MachineContext, params: Params) -> None:
        super().__init__(context, params)
        self.slots = CarelessSlots()


class AnswersAnyPrepare(MultiPaxos):
    """Takes part in phase 1 although its leader may hold a lease."""

    def handle(self, event: Any, now_ns: int) -> list[Effect]:
        self._loyal_until_ns = 0
        return super().handle(event, now_ns)


class LeaseFromTheAnswer(MultiPaxos):
    """Counts its lease from when the answers came."""

    def _accepted(self, source: int, message: Any, now_ns: int, effects: list[Effect]) -> None:
        late = Accepted(
            message.promised, message.through, message.last, message.recorded, now_ns + 60_000_000
        )
        super()._accepted(source, late, now_ns, effects)


TWINS = [
    Twin(
        "forgets its promise",
        ForgetsItsPromise,
        "multi_paxos",
        "an old leader's value is accepted behind the back of a new one",
        profiles=("blinking",),
    ),
    Twin(
        "ignores accepted values",
        IgnoresAcceptedValues,
        "multi_paxos",
        "a slot that was decided is decided anew",
    ),
    Twin(
        "persists no acceptance",
        PersistsNoAcceptance,
        "multi_paxos",
        "a crash takes away an acceptance that was counted",
    ),
    Twin(
        "takes any ballot for chosen",
        TakesAnyBallotForChosen,
        "multi_paxos",
        "a value that lost against another is executed",
    ),
    Twin(
        "answers any prepare",
        AnswersAnyPrepare,
        "multi_paxos",
        "a leader reads under a lease while another one writes",
        {"reads": "lease"},
        ("isolation",),
    ),
    Twin(
        "lease from the answer",
        LeaseFromTheAnswer,
        "multi_paxos",
        "the lease outlives the loyalty that it rests on",
        {"reads": "lease"},
        ("isolation",),
    ),
]
