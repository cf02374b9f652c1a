"""What operations carry, and what a history keeps of their values: names instead of bytes.

Every stored value begins with its identity, (session, sequence) in 8 bytes, so values are unique
and a history holds numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.compare_and_set import encode_exchange
from orchestrator.core.history import NOTHING, VALUE_ID_BYTES, History
from orchestrator.core.machine import ADD, CAS, READ, TRANSACTION, UNKNOWN, WRITE
from orchestrator.core.models import COUNTER, SET, TXN
from orchestrator.runtimes._session import Session
from orchestrator.runtimes._transacted import Transacted, register_value, transaction_value

_IDENTIFIED: Final = (WRITE, ADD, CAS)
"""Kinds that bring a value of their own."""


class Payloads:
    """One client's values. ``values``: those of transactions, else None.

    ``payload_bytes``: of each value; None where an entry's size says it.
    """

    def __init__(self, model: str, payload_bytes: int | None, key_names: Sequence[bytes]) -> None:
        self._model = model
        self._sized = payload_bytes is None
        self._padding = bytes(max(0, (payload_bytes or 0) - VALUE_ID_BYTES))
        self._key_names = key_names
        self._transacted = Transacted() if model == TXN else None
        # Of each compare-and-set the identity of what it expects, by that of what it stores.
        self._expected: dict[int, int] = {}

    @property
    def values(self) -> list[Any] | None:
        return None if self._transacted is None else self._transacted.values

    def expected_in(self, history: History) -> NDArray[numpy.int64] | None:
        """What the compare-and-sets of the client's history expected; None where it has none."""
        rows = numpy.flatnonzero(history.kind == CAS)
        if not len(rows):
            return None
        found = numpy.full(len(history), NOTHING, dtype=numpy.int64)
        found[rows] = [self._expected[stored] for stored in history.value_id[rows].tolist()]
        return found

    def stored(
        self, session: Session, sequence: int, kind: int, key: int, size: int
    ) -> bytes | None:
        """What the operation that the session begins carries; ``size`` is its entry's."""
        identity, padding = session.identity, self._padding
        if self._transacted is not None:
            if kind == TRANSACTION:
                steps = session.steps
                return transaction_value(identity, sequence, steps, self._key_names, padding)
            return register_value(identity, sequence, 0, padding) if kind == WRITE else None
        if kind in _IDENTIFIED:
            if self._sized:
                padding = bytes(size - len(self._key_names[key]) - VALUE_ID_BYTES)
            value_id = identity << 32 | sequence
            stored = value_id.to_bytes(VALUE_ID_BYTES, "big") + padding
            if kind != CAS:
                return stored
            found = session.found
            expected = NOTHING if found is None else int.from_bytes(found[:VALUE_ID_BYTES])
            self._expected[value_id] = expected
            return encode_exchange(found, stored)
        return None

    def answered(self, session: Session, outcome: int, value: bytes | None) -> int:
        """The ``value_id`` of an operation that returned with this value."""
        op = session.op
        if self._transacted is not None:
            return self._transacted.note(op, outcome, value)
        if value is None:
            return self._identity(session)
        # A set has no identity; a counter is its number.
        if op.kind != READ or self._model == SET:
            return NOTHING
        return int(value) if self._model == COUNTER else int.from_bytes(value[:VALUE_ID_BYTES])

    def unanswered(self, session: Session) -> int:
        """The ``value_id`` of an operation that nothing came back from."""
        if self._transacted is not None:
            return self._transacted.note(session.op, UNKNOWN, None)
        return self._identity(session)

    def _identity(self, session: Session) -> int:
        """Of what the session's operation stores; NOTHING where it stores no value."""
        if session.op.kind in _IDENTIFIED:
            return session.identity << 32 | session.sequence
        return NOTHING
