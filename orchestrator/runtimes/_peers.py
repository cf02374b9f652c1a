"""Links between nodes: length-framed MessagePack over TCP, batched per tick of the event loop.

Each node opens one connection to every other node and sends on it; it receives on those that
the others opened. A frame is ``length | kind | payload``. Besides the machine's messages,
nodes carry operations of plain Redis clients for each other (``PROXY``) and the answers.
"""

from __future__ import annotations

import asyncio
import struct
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

import msgspec

from orchestrator.runtimes._clock import RealClock
from orchestrator.runtimes._network import Link

MACHINE, HELLO, PROXY, PROXIED = 0, 1, 2, 3
FRAME_MAX_BYTES: Final = 64 << 20
RECONNECT_S: Final = 0.05

_HEADER = struct.Struct("<IB")
_encode = msgspec.msgpack.Encoder().encode


def frame(kind: int, payload: bytes) -> bytes:
    """One frame as bytes."""
    return _HEADER.pack(len(payload), kind) + payload


class Service(Protocol):
    """What links need of their node."""

    flushing: bool
    """Whether :meth:`flush` comes at the end of what is being done."""

    @abstractmethod
    def received(self, peer: int, kind: int, payload: memoryview) -> None:
        """A frame of a peer."""

    @abstractmethod
    def flush_link_later(self, link: Outgoing) -> None:
        """Write out what the link has to say at the end of this tick."""

    @abstractmethod
    def flush(self) -> None:
        """Write out what everybody has to say."""


class Outgoing(asyncio.Protocol):
    """The sending side of the link to one peer; messages are dropped while it is down."""

    def __init__(
        self,
        service: Service,
        loop: asyncio.AbstractEventLoop,
        clock: RealClock,
        link: Link,
        node: int,
        address: tuple[str, int],
    ) -> None:
        self._service = service
        self._loop = loop
        self._clock = clock
        self.link = link
        self._node = node
        self._address = address
        self._transport: asyncio.WriteTransport | None = None
        self._lost = asyncio.Event()
        self._pending: list[bytes] = []
        self._task = loop.create_task(self._keep_connected())

    async def _keep_connected(self) -> None:
        while True:
            self._lost.clear()
            try:
                await self._loop.create_connection(lambda: self, *self._address)
            except OSError:
                await asyncio.sleep(RECONNECT_S)
                continue
            await self._lost.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.write(frame(HELLO, _encode(self._node)))

    def connection_lost(self, exc: Exception | None) -> None:
        # At once: a write to a closed transport would raise, and cut off a node's other links.
        self._transport = None
        self._lost.set()

    @property
    def connected(self) -> bool:
        """Whether messages can leave."""
        return self._transport is not None

    def send(self, data: bytes, kind: str) -> None:
        """Send a frame, after the emulated delay of the link."""
        link, clock = self.link, self._clock
        if link.instant:
            self._write(data)
        else:
            link.carry(clock.at, clock.now_ns(), kind, len(data), self._write, data)

    def _write(self, data: bytes) -> None:
        if not self._pending:
            self._service.flush_link_later(self)
        self._pending.append(data)

    def flush(self) -> None:
        """Write out what is queued."""
        pending = self._pending
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        pending.clear()
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        self._task.cancel()
        if self._transport is not None:
            self._transport.abort()


class Incoming(asyncio.Protocol):
    """The receiving side of a peer's link."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._peer = -1
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        service = self._service
        service.flushing = True
        try:
            self._frames(self._buffer + data if self._buffer else data)
        finally:
            service.flush()

    def _frames(self, buffer: bytes) -> None:
        """Take up all frames that are complete by now."""
        view = memoryview(buffer)
        at, end = 0, len(buffer)
        while end - at >= _HEADER.size:
            length, kind = _HEADER.unpack_from(buffer, at)
            if length > FRAME_MAX_BYTES:
                self._abort()
                return
            stop = at + _HEADER.size + length
            if stop > end:
                break
            self._frame(kind, view[at + _HEADER.size : stop])
            at = stop
        self._buffer = buffer[at:]

    def _frame(self, kind: int, payload: memoryview) -> None:
        try:
            if kind == HELLO:
                self._peer = msgspec.msgpack.decode(payload, type=int)
            elif self._peer >= 0:
                self._service.received(self._peer, kind, payload)
        except msgspec.DecodeError:
            self._abort()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def machine_decoder(message_type: Any) -> Callable[[memoryview], Any]:
    """Decoder of a protocol's messages."""
    decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(message_type)
    return decoder.decode
