"""The side of a node that clients talk to: RESP over TCP, parsed by hiredis.

Own clients use the private command of ``_wire`` and take answers in any order. Plain Redis
clients (redis-cli, redis-benchmark, redis-py) may use GET, SET, PING, ECHO, CONFIG GET,
COMMAND, HELLO and INFO, pipelined; anything else is answered with an error. Their answers
leave in the order of their commands. Each of their operations borrows a session of the node,
since a pipelining connection is no sequential process.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

import hiredis

from orchestrator.core.machine import FAIL, OK, READ, WRITE, Op, Redirect, Reply
from orchestrator.runtimes import _wire
from orchestrator.runtimes._network import Link

PLAIN_SESSIONS: Final = 1 << 30
"""Sessions of plain clients: this bit, then 10 bits of node, then 20 bits of number."""


class Service(Protocol):
    """What connections need of their node."""

    pending_handles: list[Any]
    pending_ops: list[Op]

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
    def borrow_session(self) -> list[int]:
        """[session id, sequence] for one plain operation."""

    @abstractmethod
    def give_back_session(self, session: list[int]) -> None:
        """After its answer."""

    @abstractmethod
    def info(self) -> bytes:
        """The text of INFO."""


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._reader = hiredis.Reader()
        self._transport: asyncio.WriteTransport | None = None
        self._out: list[bytes] = []
        self._slots: deque[PlainSlot] = deque()
        self.dirty = False
        self.link: Link | None = None

    @property
    def connection(self) -> Connection:
        """Where the order of answers is kept."""
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        reader, service = self._reader, self._service
        reader.feed(data)
        handles, ops = service.pending_handles, service.pending_ops
        try:
            while (command := reader.gets()) is not False:
                if type(command) is not list or not command or type(command[0]) is not bytes:
                    raise ValueError("a command is an array of strings")
                name = command[0]
                if name == _wire.COMMAND:
                    op = _wire.decode_request(command)
                    handles.append((self, op.session, op.sequence))
                    ops.append(op)
                else:
                    self._plain(name.upper(), command)
        except (hiredis.ProtocolError, ValueError, TypeError) as error:
            self.write(b"-ERR Protocol error: %b\r\n" % str(error).encode())
            self.flush()
            if self._transport is not None:
                self._transport.close()
        if ops:
            service.wake()

    # --- answers --------------------------------------------------------------------------

    def answer(self, handle: Any, reply: Reply) -> None:
        """To an own client."""
        _, session, sequence = handle
        self.write(
            _wire.encode_response(session, sequence, reply.outcome, reply.version, reply.value)
        )

    def redirect(self, handle: Any, redirect: Redirect) -> None:
        """Tell an own client whom to ask."""
        _, session, sequence = handle
        self.write(
            _wire.encode_response(session, sequence, _wire.REDIRECTED, redirect.node, None)
        )

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
        if self._transport is not None and data:
            self._transport.write(data)

    # --- plain clients --------------------------------------------------------------------

    def _plain(self, name: bytes, command: list[bytes]) -> None:
        slot = PlainSlot(self)
        self._slots.append(slot)
        if name == b"SET" and len(command) == 3:
            slot.submit(WRITE, command[1], command[2])
        elif name == b"GET" and len(command) == 2:
            slot.submit(READ, command[1], None)
        else:
            answer = _ADMINISTRATION.get(name, _unknown)
            slot.fill(answer(self._service, command))

    def fill(self) -> None:
        """Let the answers at the head leave, in order."""
        slots = self._slots
        while slots and slots[0].data is not None:
            self.write(slots.popleft().data or b"")

    def plain_operation(self, slot: PlainSlot, op: Op) -> None:
        """Queue a plain client's operation."""
        self._service.pending_handles.append((slot,))
        self._service.pending_ops.append(op)


class PlainSlot:
    """Place of one plain command's answer in the order of its connection."""

    __slots__ = ("_session", "_write", "connection", "data")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.data: bytes | None = None
        self._session: list[int] = []
        self._write = False

    def submit(self, kind: int, key: bytes, value: bytes | None) -> None:
        """Make the operation, in a borrowed session."""
        service = self.connection._service
        session = self._session = service.borrow_session()
        session[1] += 1
        self._write = kind == WRITE
        size = len(key) + len(value or b"")
        op = Op(session[0], session[1], kind, key, value, size)
        self.connection.plain_operation(self, op)

    def answer(self, handle: Any, reply: Reply) -> None:
        """Fill the slot and give the session back, unless its outcome is in doubt."""
        outcome = reply.outcome
        if outcome == OK:
            data = b"+OK\r\n" if self._write else _wire.encode_bulk(reply.value)
        elif outcome == FAIL:
            data = b"-TRYAGAIN the operation was not carried out\r\n"
        else:
            data = b"-UNKNOWN the operation may have been carried out\r\n"
        if outcome in (OK, FAIL):
            self.connection._service.give_back_session(self._session)
        self.fill(data)

    def redirect(self, handle: Any, redirect: Redirect) -> None:
        """A plain client knows one node only: another one serves it through this one."""
        self.connection._service.proxy(handle, redirect)

    def fill(self, data: bytes) -> None:
        self.data = data
        self.connection.fill()


# --- commands that need no machine -------------------------------------------------------

Answer = Callable[[Service, list[bytes]], bytes]


def _wrong_number(command: list[bytes]) -> bytes:
    name = command[0].lower()
    return b"-ERR wrong number of arguments for '%b' command\r\n" % name


def _unknown(service: Service, command: list[bytes]) -> bytes:
    if command[0].upper() in (b"GET", b"SET"):
        if len(command) > 3:
            return b"-ERR syntax error\r\n"
        return _wrong_number(command)
    shown = b" ".join(b"'%b'" % argument[:64] for argument in command[1:4])
    name = command[0][:64].replace(b"\r", b" ").replace(b"\n", b" ")
    shown = shown.replace(b"\r", b" ").replace(b"\n", b" ")
    return b"-ERR unknown command '%b', with args beginning with: %b\r\n" % (name, shown)


def _ping(service: Service, command: list[bytes]) -> bytes:
    if len(command) > 2:
        return _wrong_number(command)
    return _wire.encode_bulk(command[1]) if len(command) == 2 else b"+PONG\r\n"


def _echo(service: Service, command: list[bytes]) -> bytes:
    return _wire.encode_bulk(command[1]) if len(command) == 2 else _wrong_number(command)


def _config(service: Service, command: list[bytes]) -> bytes:
    if len(command) < 3 or command[1].upper() != b"GET":
        return b"-ERR only CONFIG GET is served\r\n"
    known = {b"save": b"", b"appendonly": b"no", b"maxmemory": b"0"}
    found = [name.lower() for name in command[2:] if name.lower() in known]
    items = b"".join(_wire.encode_bulk(name) + _wire.encode_bulk(known[name]) for name in found)
    return b"*%d\r\n" % (2 * len(found)) + items


_SERVED: Final = {
    b"get": (2, b"readonly"),
    b"set": (3, b"write"),
    b"ping": (-1, b"fast"),
    b"echo": (2, b"fast"),
    b"config": (-2, b"admin"),
    b"command": (-1, b"random"),
    b"hello": (-1, b"fast"),
    b"info": (-1, b"random"),
}


def _command(service: Service, command: list[bytes]) -> bytes:
    if len(command) >= 2 and command[1].upper() == b"COUNT":
        return b":%d\r\n" % len(_SERVED)
    if len(command) >= 2 and command[1].upper() == b"DOCS":
        return b"*0\r\n"
    keyed = (b"get", b"set")
    rows = [
        b"*6\r\n%b:%d\r\n*1\r\n+%b\r\n:%d\r\n:%d\r\n:%d\r\n"
        % (_wire.encode_bulk(name), arity, flag, *((1, 1, 1) if name in keyed else (0, 0, 0)))
        for name, (arity, flag) in _SERVED.items()
    ]
    return b"*%d\r\n" % len(rows) + b"".join(rows)


def _hello(service: Service, command: list[bytes]) -> bytes:
    if len(command) >= 2 and command[1] != b"2":
        return b"-NOPROTO unsupported protocol version\r\n"
    fields = (b"server", b"archbench", b"version", b"7.0.0", b"proto", 2, b"mode", b"standalone")
    items = [b":%d\r\n" % f if isinstance(f, int) else _wire.encode_bulk(f) for f in fields]
    return b"*%d\r\n" % len(items) + b"".join(items)


def _info(service: Service, command: list[bytes]) -> bytes:
    return _wire.encode_bulk(service.info())


_ADMINISTRATION: Final[dict[bytes, Answer]] = {
    b"PING": _ping,
    b"ECHO": _echo,
    b"CONFIG": _config,
    b"COMMAND": _command,
    b"HELLO": _hello,
    b"INFO": _info,
}
