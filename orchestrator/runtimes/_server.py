"""The side of a node that clients talk to: RESP over TCP, parsed by hiredis.

Own clients use the private command of ``_wire`` and take answers in any order. Plain Redis
clients (redis-cli, redis-benchmark, redis-py) may use GET, SET and the commands of
``_administration``, pipelined; anything else is answered with an error. Their answers leave in
the order of their commands. Each of their operations borrows a session of the node, since a
pipelining connection is no sequential process.

What is no RESP ends the connection, after everything asked before it is answered. A line
without RESP at the start of what arrives is a command too ("inline", for people with telnet).
"""

from __future__ import annotations

import asyncio
import itertools
import shlex
from abc import abstractmethod
from collections import deque
from typing import Any, Final, Protocol, cast

import hiredis

from orchestrator.core.machine import FAIL, OK, READ, WRITE, Op, Redirect, Reply
from orchestrator.runtimes import _administration, _wire
from orchestrator.runtimes._administration import RESP2, Failure, encode
from orchestrator.runtimes._network import Link

PLAIN_SESSIONS: Final = 1 << 30
"""Sessions of plain clients: this bit, then 10 bits of node, then 20 bits of number."""
ENTRY_MAX_BYTES: Final = 8 << 20
"""Key and value of a plain SET; frames between nodes are bounded too."""
COMMAND_MAX_BYTES: Final = 2 * ENTRY_MAX_BYTES
INLINE_MAX_BYTES: Final = 64 << 10

_ARRAY: Final = ord("*")
_COUNT_END: Final = len(b"*1234567\r")
"""Where the number of a command's words ends at the latest."""
_STRING: Final = ord("$")
_NEWLINE: Final = ord("\n")
_NO_COMMAND: Final = b"*0\r\n"
_DONE: Final = b"+OK\r\n"
_NOT_DONE: Final = encode(Failure("TRYAGAIN the operation was not carried out"), RESP2)
_IN_DOUBT: Final = encode(Failure("UNKNOWN the operation may have been carried out"), RESP2)
_TOO_LARGE: Final = encode(
    Failure(f"ERR string exceeds maximum allowed size ({ENTRY_MAX_BYTES} bytes with its key)"),
    RESP2,
)


class Service(Protocol):
    """What connections need of their node."""

    pending_handles: list[Any]
    pending_ops: list[Op]
    idle_slots: list[PlainSlot]

    @abstractmethod
    def wake(self) -> None:
        """Serve the pending operations at the end of this tick."""

    @abstractmethod
    def flush_later(self, connection: Connection) -> None:
        """Write out what the connection has to say at the end of this tick."""

    @abstractmethod
    def proxy(self, handle: Any, redirect: Redirect) -> None:
        """Let another node serve a plain client's operation."""

    @abstractmethod
    def new_session(self) -> int:
        """A session id for plain operations."""

    @abstractmethod
    def info(self) -> bytes:
        """The text of INFO."""


class Connection(asyncio.Protocol):
    """One client's connection."""

    _numbers = itertools.count(1)

    def __init__(self, service: Service) -> None:
        self._service = service
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._slots: deque[PlainSlot] = deque()
        self._line = b""
        self._cut = False
        self._ending = False
        self.dirty = False
        self.link: Link | None = None
        # What plain clients may ask for.
        self.protocol = RESP2
        self.name = b""
        self.number = next(self._numbers)

    @property
    def connection(self) -> Connection:
        """Where the order of answers is kept."""
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def pause_writing(self) -> None:
        """A client that does not read its answers is not read from either."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # --- commands in ----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return
        service, last = self._service, data[-1]
        try:
            if data[0] != _ARRAY or self._line:
                data = self._inline(data)
            elif data.find(b"\r", 1, _COUNT_END) < 0 and len(data) >= _COUNT_END:
                self._refuse_count()
            self._commands(data)
        except (hiredis.ProtocolError, ValueError, TypeError, MemoryError) as error:
            slot = self._new_slot()
            text = str(error).removeprefix("Protocol error, ") or type(error).__name__
            slot.fill(encode(Failure(f"ERR Protocol error: {text}"), RESP2))
            self.end()
        self._cut = last != _NEWLINE
        if service.pending_ops:
            service.wake()

    def _commands(self, data: bytes) -> None:
        """Take up all commands that are complete by now."""
        reader, service = self._reader, self._service
        reader.feed(data)
        handles, ops = service.pending_handles, service.pending_ops
        while (command := reader.gets()) is not False:
            if type(command) is not list:
                if command is None:
                    continue
                raise ValueError("a command is an array of strings")
            if not command:
                continue
            name = command[0]
            if name == _wire.COMMAND:
                op = _wire.decode_request(command)
                handles.append((self, op.session, op.sequence))
                ops.append(op)
            else:
                self._plain(command)
                if self._ending:
                    return
        if reader.len() > COMMAND_MAX_BYTES:
            raise ValueError("too big a command")

    def _refuse_count(self) -> None:
        """A parser makes room for all elements that an array announces."""
        if not self._cut and not self._reader.has_data():
            raise ValueError("invalid multibulk length")

    def _inline(self, data: bytes) -> bytes:
        """Carry out commands given as lines; returns what follows them."""
        reader = self._reader
        if not self._line:
            if data[0] == _STRING or self._cut or reader.has_data():
                return data
            # A reader within an array takes this for its next element.
            reader.feed(_NO_COMMAND)
            if reader.gets() != []:
                raise ValueError(f"expected '$', got {chr(data[0])!r}")
        data, self._line = self._line + data, b""
        while data and data[0] != _ARRAY and not self._ending:
            line, newline, rest = data.partition(b"\n")
            if len(line) > INLINE_MAX_BYTES:
                raise ValueError("too big inline request")
            if not newline:
                self._line = line
                return b""
            data = rest
            try:
                words = shlex.split(line.decode("latin-1"))
            except ValueError:
                raise ValueError("unbalanced quotes in request") from None
            if words:
                self._plain([word.encode("latin-1") for word in words])
        return b"" if self._ending else data

    # --- answers --------------------------------------------------------------------------

    def answer(self, handle: Any, reply: Reply) -> None:
        """To an own client."""
        _, session, sequence = handle
        self.write(
            _wire.encode_response(
                session, sequence, reply.outcome, reply.version, reply.value, reply.context
            )
        )

    def redirect(self, handle: Any, redirect: Redirect) -> None:
        """Tell an own client whom to ask."""
        _, session, sequence = handle
        self.write(_wire.encode_response(session, sequence, _wire.REDIRECTED, redirect.node, None))

    def write(self, data: bytes) -> None:
        """Queue bytes for the end of this tick."""
        self._out.append(data)
        if not self.dirty:
            self.dirty = True
            self._service.flush_later(self)

    def flush(self) -> None:
        """Write out what is queued."""
        self.dirty = False
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        if self._transport is not None:
            if data:
                self._transport.write(data)
            if self._ending and not self._slots:
                self._transport.close()

    # --- plain clients --------------------------------------------------------------------

    def _new_slot(self) -> PlainSlot:
        """A place at the end of the order of answers."""
        idle = self._service.idle_slots
        slot = idle.pop() if idle else PlainSlot(self._service)
        slot.connection = self
        self._slots.append(slot)
        return slot

    def _plain(self, command: list[bytes]) -> None:
        slot = self._new_slot()
        name, count = command[0], len(command)
        # Parsing lets anything stand in a command's place; only strings may go further.
        if (
            count == 3
            and name in (b"SET", b"set")
            and type(command[1]) is type(command[2]) is bytes
        ):
            slot.submit(WRITE, command[1], command[2])
        elif count == 2 and name in (b"GET", b"get") and type(command[1]) is bytes:
            slot.submit(READ, command[1], None)
        else:
            self._administer(slot, command)

    def _administer(self, slot: PlainSlot, command: list[bytes]) -> None:
        if not all(type(word) is bytes for word in command):
            self._slots.pop()
            raise ValueError("a command is an array of strings")
        folded = command[0].upper()
        if folded == b"GET" and len(command) == 2:
            slot.submit(READ, command[1], None)
        elif folded == b"SET" and len(command) == 3:
            slot.submit(WRITE, command[1], command[2])
        else:
            answer = _administration.answer(self, command)
            slot.fill(encode(answer, self.protocol))

    def fill(self) -> None:
        """Let the answers at the head leave, in order."""
        slots = self._slots
        while slots and (data := slots[0].data) is not None:
            self.write(data)
            slots.popleft().release()

    def info(self) -> bytes:
        """The text of INFO."""
        return self._service.info()

    def end(self) -> None:
        """Close once everything asked so far is answered; hear nothing any more."""
        self._ending = True
        self.write(b"")


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

    connection: Connection

    def __init__(self, service: Service) -> None:
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
        if size > ENTRY_MAX_BYTES:
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
                data = _DONE
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
