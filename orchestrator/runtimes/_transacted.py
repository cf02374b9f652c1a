"""A client's transactions: what they carry, and what came of them as a history holds it.

What a transaction writes or appends is named by its session, its sequence and its place in it,
so that no two are alike. A list is its elements' names behind each other; what a register holds
begins with a byte that no name begins with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from orchestrator.core.history import ELEMENT_BYTES, element_id
from orchestrator.core.machine import KIND_NAMES, OK, READ, TRANSACTION, WRITE, Op
from orchestrator.core.transactions import MicroOperation, decode_ops, decode_reads, encode_ops

Steps = Sequence[tuple[int, int]]
"""(kind, index of the key) of each micro-operation."""
_REGISTER: Final = b"\xff"


def register_value(session: int, sequence: int, index: int, padding: bytes) -> bytes:
    """What a write stores."""
    name = element_id(session, sequence, index)
    return _REGISTER + name.to_bytes(ELEMENT_BYTES, "big") + padding


def transaction_value(
    session: int, sequence: int, steps: Steps, key_names: Sequence[bytes], padding: bytes
) -> bytes:
    """What a transaction's operation carries."""
    ops: list[MicroOperation] = []
    for index, (kind, key) in enumerate(steps):
        new = None
        if kind == WRITE:
            new = register_value(session, sequence, index, padding)
        elif kind != READ:
            new = element_id(session, sequence, index).to_bytes(ELEMENT_BYTES, "big")
        ops.append((kind, key_names[key], new))
    return encode_ops(ops)


class Transacted:
    """The values of a history of transactions: ``values[0]`` is that of a key never written, the
    others are what operations read and wrote.
    """

    def __init__(self) -> None:
        self.values: list[Any] = [None]

    def note(self, op: Op, outcome: int, value: bytes | None) -> int:
        """What came of an operation, as its ``value_id``."""
        noted: Any
        if op.kind == TRANSACTION:
            found = iter(decode_reads(value) if outcome == OK and value is not None else ())
            noted = tuple(
                (KIND_NAMES[kind], key.decode("utf-8", "backslashreplace"), _new(kind, new, found))
                for kind, key, new in decode_ops(op.value)
            )
        else:
            noted = _held(value if op.kind == READ else op.value)
        self.values.append(noted)
        return len(self.values) - 1


def _new(kind: int, new: bytes | None, found: Any) -> Any:
    """What a micro-operation read, wrote or appended."""
    if kind == READ:
        return _held(next(found, None))
    assert new is not None
    return _held(new) if kind == WRITE else int.from_bytes(new, "big")


def _held(value: bytes | None) -> Any:
    """A register's name, a list's names; None where nothing is there."""
    if value is None:
        return None
    if value[:1] == _REGISTER:
        return int.from_bytes(value[1 : 1 + ELEMENT_BYTES], "big")
    starts = range(0, len(value), ELEMENT_BYTES)
    return tuple(int.from_bytes(value[at : at + ELEMENT_BYTES], "big") for at in starts)
