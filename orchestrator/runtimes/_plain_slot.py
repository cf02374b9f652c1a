"""The answers to plain Redis clients, which leave in the order of their commands."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Final, Protocol

from orchestrator.core.machine import FAIL, OK, WRITE, Op, Redirect, Reply
from orchestrator.core.units import NS_PER_US
from orchestrator.runtimes import _wire
from orchestrator.runtimes._administration import RESP2, Failure, encode
from orchestrator.runtimes._parser import WORDS_MAX_BYTES

PLAIN_SESSIONS: Final = 1 << 62
"""Sessions of plain clients: this bit, above those of all own clients, then 10 bits of node, then
52 bits of number.
"""
_NUMBER_BITS: Final = 52
ENTRY_MAX_BYTES: Final = 8 << 20
"""Key and value of a plain SET; frames between nodes are bounded too."""
DONE: Final = b"+OK\r\n"

_NOT_DONE: Final = encode(Failure("TRYAGAIN the operation was not carried out"), RESP2)
_IN_DOUBT: Final = encode(Failure("UNKNOWN the operation may have been carried out"), RESP2)
_LIMITS: Final = f"({ENTRY_MAX_BYTES} bytes with its key, {WORDS_MAX_BYTES} bytes for a key)"
_TOO_LARGE: Final = encode(Failure(f"ERR string exceeds maximum allowed size {_LIMITS}"), RESP2)


def plain_sessions(node: int, born_ns: int) -> Iterator[int]:
    """Session ids of a node that was born at that time of the world's clock.

    A log remembers the sessions of earlier births, and would take a first write for a repetition.
    So numbers count on from the microseconds of the birth: nobody opens as many sessions.
    """
    number = born_ns // NS_PER_US % (1 << _NUMBER_BITS)
    return itertools.count(PLAIN_SESSIONS | node << _NUMBER_BITS | number)


class SlotService(Protocol):
    """What slots need of their node."""

    pending_handles: list[Any]
    pending_ops: list[Op]
    idle_slots: list[PlainSlot]

    @abstractmethod
    def proxy(self, handle: Any, redirect: Redirect) -> None:
        """Let another node serve a plain client's operation."""

    @abstractmethod
    def new_session(self) -> int:
        """A session id for plain operations."""


class Line(Protocol):
    """Where answers wait for those before them: a connection."""

    protocol: int

    @abstractmethod
    def fill(self) -> None:
        """Let the answers at the head leave, in order."""


class PlainSlot:
    """Place of one plain command's answer in the order of its connection.

    It comes with a session, which is one operation's until that is answered. Slots are used
    again, unless the outcome of their last operation is in doubt.
    """

    __slots__ = (
        "_handle",
        "_in_doubt",
        "_sequence",
        "_service",
        "_session",
        "_write",
        "connection",
        "data",
    )

    connection: Line

    def __init__(self, service: SlotService) -> None:
        self.data: bytes | None = None
        self._service = service
        self._session = service.new_session()
        self._sequence = 0
        self._write = False
        self._in_doubt = False
        self._handle = (self,)

    def submit(self, kind: int, key: bytes, value: bytes | None) -> None:
        """Make the operation."""
        size = len(key) + (0 if value is None else len(value))
        if size > WORDS_MAX_BYTES and (len(key) > WORDS_MAX_BYTES or size > ENTRY_MAX_BYTES):
            self.fill(_TOO_LARGE)
            return
        service = self._service
        self._sequence = sequence = self._sequence + 1
        self._write = kind == WRITE
        service.pending_handles.append(self._handle)
        service.pending_ops.append(Op(self._session, sequence, kind, key, value, size))

    def answer(self, handle: Any, reply: Reply) -> None:
        """Fill the slot."""
        outcome = reply.outcome
        if outcome == OK:
            if self._write:
                data = DONE
            elif reply.value is None:
                data = encode(None, self.connection.protocol)
            else:
                data = _wire.encode_bulk(reply.value)
        else:
            self._in_doubt = outcome != FAIL
            data = _NOT_DONE if outcome == FAIL else _IN_DOUBT
        self.fill(data)

    def redirect(self, handle: Any, redirect: Redirect) -> None:
        """A plain client knows one node only: another one serves it through this one."""
        self._service.proxy(handle, redirect)

    def fill(self, data: bytes) -> None:
        """The answer is there; it leaves when those before it have left."""
        self.data = data
        self.connection.fill()

    def release(self) -> None:
        """The answer has left."""
        self.data = None
        if not self._in_doubt:
            self._service.idle_slots.append(self)
