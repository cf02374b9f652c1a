"""Invariants, checked after every event: those of each machine, and what machines agree on."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from orchestrator.core.machine import Effect, Event, Machine, MachineContext, Op


class Agreement:
    """What the nodes of a simulation agree on, as Ongaro and Ousterhout, "In Search of an
    Understandable Consensus Algorithm" (USENIX ATC 2014), figure 3, have it.

    Election Safety: no two lead in the same reign. State Machine Safety: no two take different
    operations for final at a position of their common order. Leader Completeness: whoever begins
    to lead has what was final under those who led before.
    """

    def __init__(self) -> None:
        # By position: the operation, and the newest reign that had begun when it was final.
        self._decided: dict[int, tuple[Hashable, int]] = {}
        self._leaders: dict[int, int] = {}
        self._newest = -1

    def check(self, node: int, machine: Machine, compared: int) -> int:
        """Compare what has become final here behind ``compared``; returns how far it has."""
        reign = machine.reign
        if reign is not None and self._leaders.get(reign) != node:
            leader = self._leaders.setdefault(reign, node)
            assert leader == node, f"nodes {leader} and {node} both lead in reign {reign}"
            self._check_completeness(node, machine, reign)
            self._newest = max(self._newest, reign)
        decided = machine.decided
        if decided > compared:
            first, ops = machine.held_after(compared)
            for position, op in enumerate(ops[: decided + 1 - first], first):
                here = _identity(op)
                known, _ = self._decided.setdefault(position, (here, self._newest))
                assert known == here, (
                    f"position {position} of the order is decided differently by two nodes:"
                    f" {_told(here)} and {_told(known)}"
                )
        return decided

    def _check_completeness(self, node: int, machine: Machine, reign: int) -> None:
        first, ops = machine.held_after(0)
        for position, (known, newest) in self._decided.items():
            if position >= first and newest < reign:
                at = position - first
                here = _identity(ops[at]) if at < len(ops) else None
                assert here == known, (
                    f"node {node} leads in reign {reign} with {_told(here)} at position"
                    f" {position}, where {_told(known)} had been decided"
                )


def _identity(op: Op | None) -> tuple[Any, ...] | None:
    return None if op is None else (op.kind, op.session, op.sequence, op.key, op.value)


def _told(identity: Any) -> str:
    if identity is None:
        return "nothing"
    _, session, sequence, key, _ = identity
    return f"operation {sequence} of session {session} on {key.decode(errors='replace')!r}"


def watched(machine: Any, agreement: Agreement | None) -> type[Any]:
    """The machine with its invariants checked after every event."""

    class Watched(machine):  # type: ignore[misc]
        def __init__(self, context: MachineContext, params: Any) -> None:
            super().__init__(context, params)
            # Names of their own, whatever the machine calls its attributes.
            self.__node, self.__compared = context.node, 0

        def handle(self, event: Event, now_ns: int) -> list[Effect]:
            effects: list[Effect] = super().handle(event, now_ns)
            self.check()
            if agreement is not None:
                self.__compared = agreement.check(self.__node, self, self.__compared)
            return effects

    return Watched
