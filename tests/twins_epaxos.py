"""Twins of EPaxos that each break one rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from twins import Twin

from orchestrator.core.machine import CAS, READ, Effect, MachineContext, Op
from orchestrator.protocols._epaxos_graph import Graph
from orchestrator.protocols._epaxos_instances import Instance, Interference
from orchestrator.protocols._epaxos_messages import Candidate, Judgement, State
from orchestrator.protocols.epaxos import EPaxos, Params


class OneBallot(EPaxos):
    """Takes the ballot that it promised for the one in which it voted, as before Sutra's
    correction.
    """

    def _state_of(self, instance: Instance) -> State:
        state = instance.state()
        state.accepted = instance.ballot
        return state


class Impatient(Graph):
    """Executes what is committed, whatever it depends on."""

    def committed(self, instance: Instance) -> Iterator[list[Instance]]:
        yield [instance]


class ExecutesAtOnce(EPaxos):
    """Does not wait for dependencies."""

    def __init__(self, context: MachineContext, params: Params) -> None:
        super().__init__(context, params)
        self._graph = Impatient(self._rows)


class SmallFastQuorum(EPaxos):
    """Commits on the fast path with one vote less."""

    def __init__(self, context: MachineContext, params: Params) -> None:
        super().__init__(context, params)
        self._fast_quorum -= 1


class IgnoresRivals(EPaxos):
    """Recovers a candidate of the fast path without asking what interferes with it."""

    def _judgement(self, instance: Instance, candidate: Candidate) -> Judgement:
        found = super()._judgement(instance, candidate)
        return Judgement(found.row, found.number, found.ballot, [])


class ReadersOnly(Interference):
    """Knows no other change than a write."""

    def add(self, ops: list[Op], row: int, number: int) -> None:
        super().add([_as_read(op) for op in ops], row, number)


def _as_read(op: Op) -> Op:
    return msgspec.structs.replace(op, kind=READ) if op.kind == CAS else op


class TakesComparisonsForReads(EPaxos):
    """Lets compare-and-sets of one key stand in any order."""

    def __init__(self, context: MachineContext, params: Params) -> None:
        super().__init__(context, params)
        self._known = ReadersOnly(self._count)


class VouchesAfterARestart(EPaxos):
    """Says of its own instances that it did not commit them, which it may have forgotten."""

    def _started(self, records: list[Any], effects: list[Effect]) -> None:
        super()._started(records, effects)
        for instance in self._own.instances.values():
            instance.proposer = True


class AnswersBeforeItIsDurable(EPaxos):
    """Pre-accepts in memory only."""

    def _pre_accept(self, source: int, message: Any, effects: list[Effect]) -> None:
        before = dict(self._dirty)
        super()._pre_accept(source, message, effects)
        self._dirty = before


TWINS = [
    Twin(
        "one ballot",
        OneBallot,
        "epaxos",
        "a promise without a vote hides a value that was accepted",
    ),
    Twin(
        "executes at once",
        ExecutesAtOnce,
        "epaxos",
        "replicas execute interfering operations in different orders",
    ),
    Twin(
        "small fast quorum",
        SmallFastQuorum,
        "epaxos",
        "recovery cannot see that the fast path was taken",
    ),
    Twin(
        "ignores rivals",
        IgnoresRivals,
        "epaxos",
        "of two interfering instances neither depends on the other",
    ),
    Twin(
        "takes comparisons for reads",
        TakesComparisonsForReads,
        "epaxos",
        "replicas compare with different values",
    ),
    Twin(
        "vouches after a restart",
        VouchesAfterARestart,
        "epaxos",
        "what the proposer committed and told is made void",
    ),
    Twin(
        "answers before it is durable",
        AnswersBeforeItIsDurable,
        "epaxos",
        "a fast quorum has forgotten what it promised",
    ),
]
