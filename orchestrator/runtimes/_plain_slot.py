"""The answers to plain Redis clients, which leave in the order of their commands."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Final, Protocol

from orchestrator.core.machine import FAIL, OK, UNKNOWN, WRITE, Op, Redirect, Reply
from orchestrator.core.units import NS_PER_US
from orchestrator.core.waiting import Refusal
from orchestrator.runtimes import _wire
from orchestrator.runtimes._administration import RESP2, Failure, encode
from orchestrator.runtimes._overdue import Overdue
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
TOO_LARGE: Final = encode(Failure(f"ERR string exceeds maximum allowed size {_LIMITS}"), RESP2)
TOO_MANY_OVERDUE: Final = encode(
    Failure("TRYAGAIN too many operations that nobody waits for are still under way"), RESP2
)


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
    overdue: Overdue

    @abstractmethod
    def proxy(self, handle: Any, redirect: Redirect) -> None:
        """Let another node serve a plain client's operation."""

    @abstractmethod
    def new_session(self) -> int:
        """A session id for plain operations."""


class Line(Protocol):
    """Where answers wait for those before them: a connection."""

    protocol: int
    queued_bytes: int
    """Of answers that the transport has not got yet."""

    @abstractmethod
    def fill(self) -> None:
        """Let the answers at the head leave, in order."""


class _Nowhere:
    """The line of slots that are in none, so that they keep no connection alive."""

    class _AtOnce:
        instant = True

    protocol = RESP2
    queued_bytes = 0
    link = _AtOnce()

    def fill(self) -> None:
        """There is nobody to answer."""


_NOWHERE: Final = _Nowhere()


class Said:
    """Place of an answer that is known already, behind others that are not."""

    __slots__ = ("data", "since")

    def __init__(self, data: bytes, since: int) -> None:
        self.data = data
        self.since = since

    def release(self) -> None:
        """The answer has left."""


class PlainSlot:
    """Place of one plain operation's answer in the order of its connection.

    It comes with a session, which is one operation's until that is answered. Slots are used
    again, unless the outcome of their last operation is in doubt. ``op``: the operation, as long
    as it is out and waited for. ``since``: the sweep before it came. ``expired``: nobody waits
    for the answer any more.
    """

    __slots__ = (
        "_in_doubt",
        "_late",
        "_service",
        "connection",
        "data",
        "expired",
        "op",
        "sequence",
        "session",
        "since",
    )

    connection: Line

    def __init__(self, service: SlotService) -> None:
        self.data: bytes | None = None
        self.since = 0
        self.expired = False
        self.connection = _NOWHERE
        self._service = service
        self.session = service.new_session()
        self.sequence = 0
        self.op: Op | None = None
        # One that is still out when nobody waits for it any more.
        self._late: Op | None = None
        self._in_doubt = False

    def answer(self, handle: Any, reply: Reply) -> None:
        """Fill the slot."""
        op, outcome = self.op, reply.outcome
        if op is None:
            self._let_go(outcome)
            return
        self.op = None
        line = self.connection
        if outcome == OK:
            if op.kind == WRITE:
                data = DONE
            elif reply.value is None:
                data = encode(None, line.protocol)
            else:
                data = _wire.encode_bulk(reply.value)
                line.queued_bytes += len(data)
        else:
            self._in_doubt = outcome != FAIL
            data = _NOT_DONE if outcome == FAIL else _IN_DOUBT
        self.data = data
        line.fill()

    def redirect(self, handle: Any, redirect: Redirect) -> None:
        """A plain client knows one node only: another one serves it through this one."""
        self._service.proxy(handle, redirect)

    def refuse(self, handle: Any, refusal: Refusal) -> None:
        """The node turns it away."""
        self.answer(handle, Reply(handle, FAIL))

    def unheard(self, handle: Any) -> None:
        """The answer was lost on its way: nothing else will come."""
        self._let_go(UNKNOWN)
        self.op = None

    def expire(self) -> bytes:
        """Nobody waits any more for an answer that is not here; returns what to say instead."""
        self.expired = True
        self.connection = _NOWHERE
        self._late, self.op = self.op, None
        if self._late is not None:
            self._service.overdue.add(self._late.size)
        return _IN_DOUBT

    def _let_go(self, outcome: int) -> None:
        """An answer that nobody waits for: where it says what happened, the session is free."""
        op, self._late = self._late, None
        if op is not None:
            self._service.overdue.settle(op.size)
            if outcome in (OK, FAIL):
                self.expired = False
                self._service.idle_slots.append(self)

    def release(self) -> None:
        """The answer has left."""
        self.data = None
        self.connection = _NOWHERE
        if not self._in_doubt:
            self._service.idle_slots.append(self)
