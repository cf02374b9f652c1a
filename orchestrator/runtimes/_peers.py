"""Links between nodes: length-framed MessagePack over TCP, batched per tick of the event loop.

Each node opens one connection to every other node and sends on it; it receives on those that
the others opened. A frame is ``length | kind | payload``. Besides the machine's messages,
nodes carry operations of plain Redis clients for each other (``PROXY``) and the answers, and tell
each other which copies of operations may be dropped (``CANCEL``). Between nodes that read one clock
what is on its way waits where it arrives: a ``STAMP`` before a frame says until when.

Whoever accepts a connection sends a ``CHALLENGE``; the node that opened it says ``HELLO`` with
its number and its proof, and sends nothing else before it was told ``WELCOME`` with the proof
of the other (``_handshake``). What does not keep to that, or is no frame of a kind that exists,
ends its connection and nothing else.
"""

from __future__ import annotations

import asyncio
import struct
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

import msgspec

from orchestrator.errors import EnvironmentFailure
from orchestrator.runtimes import _handshake
from orchestrator.runtimes._clock import RealClock
from orchestrator.runtimes._handshake import GREETING_S, NONCE_BYTES, PROOF_BYTES, Credentials
from orchestrator.runtimes._network import Link
from orchestrator.runtimes._watch import Watch, Watched

MACHINE, HELLO, PROXY, PROXIED, CHALLENGE, WELCOME, PROBE, PROBED, CANCEL, STAMP = range(10)
PROBES: Final = (PROBE, PROBED)
FOR_SHELL: Final = (MACHINE, CANCEL)
FRAME_MAX_BYTES: Final = 64 << 20
GREETING_MAX_BYTES: Final = 256
"""Length of a frame before both sides have proven themselves."""
RECONNECT_S: Final = 0.05
MALFORMED: Final = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, MemoryError)
"""What decoding raises for bytes that are no message."""

_HEADER = struct.Struct("<IB")
_STAMPED = struct.Struct("<IBq")
_STAMP = struct.Struct("<q")
_encode = msgspec.msgpack.Encoder().encode


class Hello(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The node that connects, its nonce and its proof."""

    node: int
    nonce: bytes
    proof: bytes


_decode_hello = msgspec.msgpack.Decoder(Hello).decode


def frame(kind: int, payload: bytes) -> bytes:
    """One frame as bytes."""
    return _HEADER.pack(len(payload), kind) + payload


def stamp(at_ns: int) -> bytes:
    """When the frame after it is to be taken up, by the host's clock."""
    return _STAMPED.pack(_STAMP.size, STAMP, at_ns)


def framed(kind: int, message: Any) -> bytes:
    """A message as a frame.

    One that no receiver would take raises, since it would be sent again and again: a node whose
    code raises is taken for lost, with this as the reason.
    """
    payload = _encode(message)
    if len(payload) > FRAME_MAX_BYTES:
        # Of a shard's message the envelope says nothing.
        name = type(getattr(message, "message", message)).__name__
        raise EnvironmentFailure(
            f"a message {name} of {len(payload)} bytes is too large: frames between nodes hold"
            f" {FRAME_MAX_BYTES}"
        )
    return frame(kind, payload)


class Service(Protocol):
    """What links need of their node."""

    flushing: bool
    """Whether :meth:`flush` comes at the end of what is being done."""
    node: int
    clock: RealClock
    machines: int
    """How many nodes the run has."""
    credentials: Credentials
    peer_watch: Watch

    @abstractmethod
    def decode(self, kind: int, payload: memoryview) -> Any:
        """The message of a frame; raises one of MALFORMED where it is none."""

    @abstractmethod
    def received(self, peer: int, kind: int, message: Any) -> None:
        """A message of a peer."""

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
        peer: int,
        address: tuple[str, int],
    ) -> None:
        self._service = service
        self._loop = loop
        self._clock = clock
        self.link = link
        self._peer = peer
        self._address = address
        # Set once both sides have proven themselves, the other from the first byte on.
        self._transport: asyncio.WriteTransport | None = None
        self._raw: asyncio.WriteTransport | None = None
        self._heard = bytearray()
        self._said: tuple[bytes, bytes] | None = None
        self._settled = asyncio.Event()
        self._lost = asyncio.Event()
        self._pending: list[bytes] = []
        self._task = loop.create_task(self._keep_connected())

    async def _keep_connected(self) -> None:
        while True:
            self._lost.clear()
            self._settled.clear()
            try:
                await self._loop.create_connection(lambda: self, *self._address)
            except OSError:
                await asyncio.sleep(RECONNECT_S)
                continue
            try:
                async with asyncio.timeout(GREETING_S):
                    await self._settled.wait()
            except TimeoutError:
                self._abort()
            refused = self._transport is None
            await self._lost.wait()
            if refused:
                await asyncio.sleep(RECONNECT_S)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's.
        self._raw = cast("asyncio.WriteTransport", transport)
        self._heard.clear()
        self._said = None

    def connection_lost(self, exc: Exception | None) -> None:
        # At once: a write to a closed transport would raise, and cut off a node's other links.
        self._transport = self._raw = None
        self._settled.set()
        self._lost.set()

    def data_received(self, data: bytes) -> None:
        """The greeting; a peer says nothing else here."""
        heard = self._heard
        heard += data
        if len(heard) < _HEADER.size:
            return
        length, kind = _HEADER.unpack_from(heard)
        expected = PROOF_BYTES if self._said else NONCE_BYTES
        stop = _HEADER.size + expected
        if (
            self._transport is not None
            or (length, kind) != (expected, WELCOME if self._said else CHALLENGE)
            or len(heard) > stop
        ):
            self._abort()
        elif len(heard) == stop:
            payload = bytes(heard[_HEADER.size :])
            heard.clear()
            self._greeted(payload)

    def _greeted(self, payload: bytes) -> None:
        service, raw = self._service, self._raw
        secret, node = service.credentials.secret, service.node
        if raw is None:
            return
        if self._said is None:
            nonce = _handshake.nonce()
            self._said = (payload, nonce)
            proof = _handshake.hello_proof(secret, payload, nonce, node, self._peer)
            raw.write(frame(HELLO, _encode(Hello(node, nonce, proof))))
        elif _handshake.same(
            payload, _handshake.welcome_proof(secret, *self._said, node, self._peer)
        ):
            self._transport = raw
            self._settled.set()
        else:
            self._abort()

    def _abort(self) -> None:
        if self._raw is not None:
            self._raw.abort()

    @property
    def connected(self) -> bool:
        """Whether messages can leave: both sides have proven themselves."""
        return self._transport is not None

    def send(self, data: bytes, kind: str) -> None:
        """Send a frame, after the emulated delay of the link."""
        link, clock = self.link, self._clock
        if link.instant:
            self.write(data)
        else:
            link.carry(clock.at, clock.moment_ns(), kind, len(data), self.write, data)

    def write(self, data: bytes) -> None:
        """Queue a frame for the end of this tick."""
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
        self._abort()


class Incoming(Watched, asyncio.Protocol):
    """The receiving side of a peer's link."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._peer = -1
        self._challenge = _handshake.nonce()
        # The beginning of a frame, and how much must be here before it is looked at again.
        self._buffer = bytearray()
        self._wanted_bytes = 0
        # When the next frame is to be taken up, by this host's clock; None: now.
        self._due_ns: int | None = None
        self._frame_max_bytes = GREETING_MAX_BYTES
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.WriteTransport", transport)
        if self._service.peer_watch.admit(self):
            self._transport.write(frame(CHALLENGE, self._challenge))
        else:
            self.cut()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._service.peer_watch.leave(self)

    @property
    def begun(self) -> bool:
        return bool(self._buffer)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted_bytes:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        service = self._service
        service.flushing = True
        try:
            self._frames(data)
        finally:
            service.flush()

    def _frames(self, data: bytes) -> None:
        """Take up all frames that are complete by now, and keep the rest."""
        view = memoryview(data)
        at, end = 0, len(data)
        self._wanted_bytes = _HEADER.size
        while end - at >= _HEADER.size:
            length, kind = _HEADER.unpack_from(data, at)
            if length > self._frame_max_bytes:
                self.cut()
                return
            stop = at + _HEADER.size + length
            if stop > end:
                self._wanted_bytes = stop - at
                break
            if not self._frame(kind, view[at + _HEADER.size : stop]):
                self.cut()
                return
            at = stop
        if at < end:
            self._buffer += view[at:]
            if at:
                self.sweeps = 0

    def _frame(self, kind: int, payload: memoryview) -> bool:
        """Whether it was one that may come now."""
        service = self._service
        if not self.proven:
            return kind == HELLO and self._greeted(payload)
        if kind == STAMP:
            return self._stamped(payload)
        try:
            message = service.decode(kind, payload)
        except MALFORMED:
            return False
        due_ns = self._due_ns
        if due_ns is None:
            service.received(self._peer, kind, message)
        else:
            self._due_ns = None
            clock, frame = service.clock, (kind, message)
            clock.arrive(due_ns - clock.origin_ns, self._arrived, frame)
        return True

    def _stamped(self, payload: memoryview) -> bool:
        if len(payload) != _STAMP.size or self._due_ns is not None:
            return False
        (self._due_ns,) = _STAMP.unpack(payload)
        return True

    def _arrived(self, frame: tuple[int, Any]) -> None:
        self._service.received(self._peer, *frame)

    def _greeted(self, payload: memoryview) -> bool:
        service = self._service
        try:
            hello = _decode_hello(payload)
        except MALFORMED:
            return False
        node, transport = hello.node, self._transport
        if transport is None or not 0 <= node < service.machines or node == service.node:
            return False
        said = (service.credentials.secret, self._challenge, hello.nonce, node, service.node)
        if len(hello.nonce) != NONCE_BYTES:
            return False
        if not _handshake.same(hello.proof, _handshake.hello_proof(*said)):
            return False
        self._peer = node
        self._frame_max_bytes = FRAME_MAX_BYTES
        service.peer_watch.prove(self)
        transport.write(frame(WELCOME, _handshake.welcome_proof(*said)))
        return True

    def cut(self) -> None:
        self._frame_max_bytes = -1
        if self._transport is not None:
            self._transport.abort()


def machine_decoder(message_type: Any) -> Callable[[memoryview], Any]:
    """Decoder of a protocol's messages."""
    decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(message_type)
    return decoder.decode
