"""The operations of a scenario as the load of a run."""

from __future__ import annotations

from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.keys import KeyRange, NumberedKeys
from orchestrator.core.levels import CODES, UNASKED
from orchestrator.core.load import OperationBlock
from orchestrator.core.machine import CAS, KIND_NAMES, READ, READING, Preload
from orchestrator.core.models import CAS_REGISTER, COUNTER, REGISTER, SET, TXN
from orchestrator.fuzzing.scenario import Scenario

PAYLOAD_BYTES = 8
_MODELS: Final = {"incr": COUNTER, "add": SET, "cas": CAS_REGISTER}
"""What the keys of a scenario are that has such an operation."""


class ScenarioLoad:
    """Workload, arrival and timetable in one: each client's share of the operations."""

    closed = False
    rate_per_s = None
    payload_bytes = PAYLOAD_BYTES
    sessions = 0

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self.total = len(scenario.operations)
        kinds = {step.op for step in scenario.operations}
        self.model = next((model for op, model in _MODELS.items() if op in kinds), REGISTER)
        if scenario.system.get("transactions"):
            self.model = TXN
        self.key_names = NumberedKeys(scenario.keys)

    def preload(self) -> Preload:
        """Every key is there, or none of those of transactions."""
        return KeyRange(0 if self.model == TXN else self._scenario.keys, PAYLOAD_BYTES)

    def stream(self, seed: int, client: int, clients: int) -> ScenarioStream:
        """Every ``clients``-th operation."""
        return ScenarioStream(self._scenario, client, clients)

    def timetable(self, seed: int, client: int, clients: int) -> ScenarioLoad:
        """The times are in the blocks."""
        return self

    def starts_ns(self, operations: OperationBlock) -> NDArray[numpy.int64]:
        """When they are to start."""
        assert operations.time_ns is not None
        return operations.time_ns

    def think_ns(self) -> int:
        return 0


class ScenarioStream:
    """One client's operations."""

    def __init__(self, scenario: Scenario, client: int, clients: int) -> None:
        self._left = list(scenario.operations[client::clients])

    def block(self, count: int) -> OperationBlock:
        """The next ones."""
        steps, self._left = self._left[:count], self._left[count:]
        kind = numpy.array([KIND_NAMES.index(step.op) for step in steps], dtype=numpy.uint8)
        comparing = kind == CAS
        parts = numpy.empty(len(steps), dtype=numpy.object_)
        for row, step in enumerate(steps):
            parts[row] = step.micro_operations
        return OperationBlock(
            kind=numpy.where(comparing, READ, kind).astype(numpy.uint8),
            key=numpy.array([step.key for step in steps], dtype=numpy.int64),
            size=numpy.full(len(steps), 2 * PAYLOAD_BYTES, dtype=numpy.int32),
            count=numpy.array([max(1, len(one)) for one in parts], dtype=numpy.int32),
            follow_up=numpy.where(comparing, CAS, READ).astype(numpy.uint8),
            time_ns=numpy.array([step.at_ns for step in steps], dtype=numpy.int64),
            level=numpy.array([_code(step.op, step.level) for step in steps], dtype=numpy.uint8),
            steps=parts,
        )


def _code(op: str, level: str) -> int:
    return CODES[level] if level and KIND_NAMES.index(op) in READING else UNASKED
