"""What clients saw, as columns: one row an operation, over preload, warm-up and run.

Values are identified, not stored: a written value carries its session and sequence, and
``value_id`` is ``session << 32 | sequence``. 0 is the preloaded value of a key, -1 means that
nothing was there (or that nothing is known of it). So do elements that are added to sets; a read
of a counter has the counter's number, and a read of a set -1, since it has no single identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.machine import CAS, FAIL, OK

PRELOADED: Final = 0
NOTHING: Final = -1
NEVER: Final = -1

PHASE_WARMUP: Final = 0
PHASE_RUN: Final = 1
PHASE_LOAD: Final = 2
PHASE_FINAL: Final = 3
PHASE_NAMES: Final = ("warmup", "run", "load", "final")

VALUE_ID_BYTES: Final = 8
ELEMENT_BYTES: Final = 8
ELEMENT_BITS: Final = 7
"""Of an element's place in its transaction; 25 bits are left for the sequence."""


def element_id(session: int, sequence: int, index: int) -> int:
    """Identity of what the micro-operation ``index`` of a transaction writes or appends."""
    return session << 32 | sequence << ELEMENT_BITS | index


def value_id(session: int, sequence: int) -> int:
    """Identity of the value that this operation writes."""
    return session << 32 | sequence


def encode_value(session: int, sequence: int, padding: bytes) -> bytes:
    """The bytes that a write carries: its identity, then padding."""
    return (session << 32 | sequence).to_bytes(VALUE_ID_BYTES, "big") + padding


@dataclass(frozen=True)
class History:
    """Columns of equal length n.

    Times are nanoseconds of one clock; ``returned_ns`` is -1 where no answer came. ``key``
    indexes ``key_names``. ``intended_ns`` is when the schedule wanted the operation to start,
    ``invoked_ns`` when it did. ``previous_return_ns`` is the latest earlier return on the same
    connection (-1: none), for the uncorrected latency. ``size`` is the weight in bytes. ``level``
    is the code of the level that the operation asked for (``levels.CODES``; 0: none).

    ``expected_id`` is what a cas expected, -1 where the row is none (None: no row is one). A cas
    that FAILed and returned has found another value; one that compared nothing never returned.

    Histories of runs identify values as the module says. Those from files, and those of runs
    with transactions, intern them: ``values[value_id]`` is the value as the file has it
    (hashable: a list is a tuple; of a transaction its micro-operations (op, key, value)).
    There, 0 is the initial value of a key and -1 stands where the row has none; null is a value
    like any other.
    """

    session: NDArray[numpy.int64]
    sequence: NDArray[numpy.int64]
    client: NDArray[numpy.int16]
    node: NDArray[numpy.int16]
    kind: NDArray[numpy.uint8]
    key: NDArray[numpy.int64]
    value_id: NDArray[numpy.int64]
    version: NDArray[numpy.int64]
    size: NDArray[numpy.int32]
    intended_ns: NDArray[numpy.int64]
    invoked_ns: NDArray[numpy.int64]
    returned_ns: NDArray[numpy.int64]
    previous_return_ns: NDArray[numpy.int64]
    outcome: NDArray[numpy.uint8]
    phase: NDArray[numpy.uint8]
    level: NDArray[numpy.uint8]
    key_names: Sequence[bytes]
    expected_id: NDArray[numpy.int64] | None = None
    values: Sequence[Any] | None = None

    def __len__(self) -> int:
        return len(self.session)

    @property
    def unmatched(self) -> NDArray[numpy.bool_]:
        """Rows of compare-and-sets that found another value than they expected."""
        failed = (self.kind == CAS) & (self.outcome == FAIL)
        found: NDArray[numpy.bool_] = failed & (self.returned_ns != NEVER)
        return found

    @property
    def service_outcome(self) -> NDArray[numpy.uint8]:
        """``outcome``, but OK where a compare-and-set did not match: that is an answer, too."""
        return numpy.where(self.unmatched, OK, self.outcome).astype(self.outcome.dtype)

    def select(self, rows: Any) -> History:
        """The rows of a mask or an index array, in that order."""
        columns: dict[str, Any] = {name: getattr(self, name)[rows] for name in COLUMNS}
        return History(
            **columns,
            key_names=self.key_names,
            expected_id=None if self.expected_id is None else self.expected_id[rows],
            values=self.values,
        )

    def without_names(self) -> History:
        """The same columns without key names, to travel light."""
        return replace(self, key_names=())

    @staticmethod
    def concatenate(parts: Sequence[History]) -> History:
        """One history of several clients, ordered by invocation (ties: by client, then row)."""
        columns: dict[str, Any] = {
            name: numpy.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS
        }
        values = None
        if parts[0].values is not None:
            values = [parts[0].values[0]]
            moved = []
            for part in parts:
                ids, own = part.value_id, list(part.values or ())
                moved.append(numpy.where(ids > 0, ids + (len(values) - 1), ids))
                values += own[1:]
            columns["value_id"] = numpy.concatenate(moved)
        expected = None
        if any(part.expected_id is not None for part in parts):
            expected = numpy.concatenate([part._expected_or_nothing() for part in parts])
        names = parts[0].key_names
        merged = History(**columns, key_names=names, expected_id=expected, values=values)
        return merged.select(numpy.argsort(merged.invoked_ns, kind="stable"))

    def _expected_or_nothing(self) -> NDArray[numpy.int64]:
        if self.expected_id is not None:
            return self.expected_id
        return numpy.full(len(self), NOTHING, dtype=numpy.int64)


_BESIDE: Final = ("key_names", "expected_id", "values")
COLUMNS: Final = tuple(field.name for field in fields(History) if field.name not in _BESIDE)
DTYPES: Final = {
    "session": numpy.int64,
    "sequence": numpy.int64,
    "client": numpy.int16,
    "node": numpy.int16,
    "kind": numpy.uint8,
    "key": numpy.int64,
    "value_id": numpy.int64,
    "version": numpy.int64,
    "size": numpy.int32,
    "intended_ns": numpy.int64,
    "invoked_ns": numpy.int64,
    "returned_ns": numpy.int64,
    "previous_return_ns": numpy.int64,
    "outcome": numpy.uint8,
    "phase": numpy.uint8,
    "level": numpy.uint8,
}
