"""From a scenario that fails to a smaller one that fails in the same way.

Delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input",
IEEE TSE 2002) over faults, operations and nodes, in rounds until nothing more can go. What is
kept is what it takes to break the same property; its explanation may change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from orchestrator.errors import ArchbenchError
from orchestrator.fuzzing.scenario import Fault, Scenario
from orchestrator.fuzzing.simulation import Outcome, simulate

RUNS_MAX: Final = 600
"""Simulations that one minimisation may take."""
RESEEDS: Final = 3
"""Taking something out moves all chances behind it, so each try gets a few other ones."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Minimised:
    """The smallest scenario found, and what it showed."""

    scenario: Scenario
    outcome: Outcome
    runs: int


def minimise(
    scenario: Scenario,
    outcome: Outcome,
    machine: type[Any] | None = None,
    *,
    runs_max: int = RUNS_MAX,
) -> Minimised:
    """``outcome`` is what the scenario showed; its violation names the property to break."""
    search = _Search(scenario, outcome, machine, runs_max)
    size = None
    while size != search.size and search.runs < runs_max:
        size = search.size
        search.end_early()
        search.fewer_nodes()
        search.fewer_faults()
        search.fewer_operations()
        search.shorter()
    return Minimised(search.scenario, search.outcome, search.runs)


class _Search:
    def __init__(
        self, scenario: Scenario, outcome: Outcome, machine: type[Any] | None, runs_max: int
    ) -> None:
        assert outcome.violation is not None
        self.scenario = scenario
        self.outcome = outcome
        self.runs = 0
        self._property = outcome.violation.property
        self._machine = machine
        self._runs_max = runs_max

    @property
    def size(self) -> tuple[int, int, int]:
        return self.scenario.nodes, len(self.scenario.faults), len(self.scenario.operations)

    def _accept(self, candidate: Scenario) -> bool:
        """Take the candidate if it breaks the same property."""
        for reseed in range(RESEEDS):
            if self.runs >= self._runs_max:
                return False
            self.runs += 1
            tried = msgspec.structs.replace(candidate, seed=candidate.seed + reseed)
            try:
                outcome = simulate(tried, self._machine)
            except ArchbenchError:
                return False
            if outcome.violation is not None and outcome.violation.property == self._property:
                self.scenario, self.outcome = tried, outcome
                return True
        return False

    def end_early(self) -> None:
        """Nothing that comes after the property was broken."""
        violation = self.outcome.violation
        if violation is None or violation.at_ns is None:
            return
        end_ns = violation.at_ns + 1
        if end_ns >= self.scenario.final_ns:
            return
        candidate = msgspec.structs.replace(
            self.scenario,
            heal_ns=min(self.scenario.heal_ns, end_ns),
            final_ns=end_ns,
            operations=tuple(step for step in self.scenario.operations if step.at_ns < end_ns),
            faults=tuple(fault for fault in self.scenario.faults if fault.at_ns < end_ns),
        )
        self._accept(candidate)

    def fewer_nodes(self) -> None:
        """One replica less, as long as it fails all the same."""
        while self.scenario.nodes > 1:
            replicas, nodes = self.scenario.system["replicas"], self.scenario.nodes
            spare = nodes > replicas
            fewer = replicas if spare else replicas - 1
            system = self.scenario.system | {"replicas": fewer, "nodes": nodes - 1}
            moved = [_without_last(fault, nodes) for fault in self.scenario.faults]
            faults = tuple(fault for fault in moved if fault is not None)
            if not self._accept(
                msgspec.structs.replace(self.scenario, system=system, faults=faults)
            ):
                return

    def fewer_faults(self) -> None:
        self._thin(
            self.scenario.faults,
            lambda faults: msgspec.structs.replace(self.scenario, faults=tuple(faults)),
        )

    def fewer_operations(self) -> None:
        self._thin(
            self.scenario.operations,
            lambda steps: msgspec.structs.replace(self.scenario, operations=tuple(steps)),
        )

    def shorter(self) -> None:
        """Faults that end sooner."""
        for index in range(len(self.scenario.faults)):
            fault = self.scenario.faults[index]
            if fault.until_ns - fault.at_ns < 2_000_000:
                continue
            half_ns = fault.at_ns + (fault.until_ns - fault.at_ns) // 2
            faults = list(self.scenario.faults)
            faults[index] = msgspec.structs.replace(fault, until_ns=half_ns)
            self._accept(msgspec.structs.replace(self.scenario, faults=tuple(faults)))

    def _thin(self, items: Sequence[Item], made: Callable[[Sequence[Item]], Scenario]) -> None:
        """Take out ever smaller chunks as long as what is left fails."""
        kept = list(items)
        chunk = max(1, len(kept) // 2)
        while kept and self.runs < self._runs_max:
            at, removed = 0, False
            while at < len(kept):
                fewer = kept[:at] + kept[at + chunk :]
                if self._accept(made(fewer)):
                    kept, removed = fewer, True
                else:
                    at += chunk
            if chunk == 1 and not removed:
                return
            chunk = max(1, chunk // 2)


def _without_last(fault: Fault, nodes: int) -> Fault | None:
    """The fault where the last of ``nodes`` nodes is gone; None: it was about that one.

    The authority, where there is one, stays the one behind the last node.
    """
    if fault.node == nodes - 1:
        return None
    behind = {nodes: nodes - 1}
    others = tuple(behind.get(other, other) for other in fault.others if other != nodes - 1)
    return msgspec.structs.replace(fault, others=others)
