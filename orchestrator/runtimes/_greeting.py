"""How a client's connection begins: it proves itself to an emulated node, which proves itself too,
or gives a real server the run's password. Then the connection goes to whoever carries the load.

Anybody may listen on a port that a node or a server has left. So the few answers that there are
are told by their form alone, and nothing else is taken up, nor for long.
"""

from __future__ import annotations

import asyncio
import re
from abc import abstractmethod
from collections.abc import Callable
from typing import Final, cast

from orchestrator.runtimes import _handshake, _wire
from orchestrator.runtimes._handshake import GREETING_S, NONCE_BYTES, PROOF_BYTES, Credentials

AGAIN_S: Final = 0.05
ANSWERS_MAX_BYTES: Final = 1 << 10
"""All that may be said to a client before the greeting is over."""

_OK: Final = b"+OK"
# A node's nonce and proof.
_HEAD: Final = b"*2\r\n$%d\r\n" % NONCE_BYTES
_MIDDLE: Final = b"\r\n$%d\r\n" % PROOF_BYTES
_NONCE_END: Final = len(_HEAD) + NONCE_BYTES
_PROOF_AT: Final = _NONCE_END + len(_MIDDLE)
_proof = re.compile(
    b"%b(.{%d})%b(.{%d})\r\n" % (re.escape(_HEAD), NONCE_BYTES, re.escape(_MIDDLE), PROOF_BYTES),
    re.DOTALL,
).match
_line = re.compile(rb"([+-][^\r\n]*+)\r\n").match


async def connect_greeted(
    loop: asyncio.AbstractEventLoop,
    address: tuple[str, int],
    greeting: Callable[[], Greeting],
    protocol: asyncio.Protocol,
    patience_s: float = 0.0,
) -> None:
    """A connection that is the ``protocol``'s once the greeting is over.

    Tries again for ``patience_s``. Raises OSError where nobody listens, or whoever does is not
    of this run, does not answer, or has no room.
    """
    give_up_s = loop.time() + patience_s
    while True:
        try:
            transport = await _greeted(loop, address, greeting())
        except OSError:
            if loop.time() >= give_up_s:
                raise
            await asyncio.sleep(AGAIN_S)
        else:
            transport.set_protocol(protocol)
            protocol.connection_made(transport)
            return


async def _greeted(
    loop: asyncio.AbstractEventLoop, address: tuple[str, int], greeting: Greeting
) -> asyncio.Transport:
    transport, _ = await loop.create_connection(lambda: greeting, *address)
    try:
        async with asyncio.timeout(GREETING_S):
            await greeting.done
    except BaseException:
        transport.abort()
        raise
    if transport.is_closing():
        raise ConnectionResetError("the connection ended after the greeting")
    return transport


class Greeting(asyncio.Protocol):
    """One client's side; ``done`` raises ConnectionError where it goes wrong."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self._heard = b""
        self._heard_bytes = 0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.WriteTransport", transport)
        self.say(*self.first_words())

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail("the connection ended during the greeting")

    def data_received(self, data: bytes) -> None:
        self._heard_bytes += len(data)
        if self._heard_bytes > ANSWERS_MAX_BYTES:
            self.fail("whoever listens there says too much")
        if not self.done.done():
            self._heard += data
        while self._heard and not self.done.done():
            found = _line(self._heard) or _proof(self._heard)
            if found is None:
                if not _may_go_on(self._heard):
                    self.fail("whoever listens there is no node or server of this run")
                return
            self._heard = self._heard[found.end() :]
            self.answered(found.groups())

    def say(self, *words: bytes) -> None:
        """Send a command."""
        assert self._transport is not None
        parts = [_wire.encode_bulk(word) for word in words]
        self._transport.write(b"*%d\r\n" % len(parts) + b"".join(parts))

    def succeed(self) -> None:
        """The greeting is over."""
        self.done.set_result(None)

    def fail(self, why: str) -> None:
        """Nothing is to be said to whoever this is."""
        if not self.done.done():
            self.done.set_exception(ConnectionError(why))

    @abstractmethod
    def first_words(self) -> tuple[bytes, ...]:
        """The command to begin with."""

    @abstractmethod
    def answered(self, answer: tuple[bytes, ...]) -> None:
        """The answer to the last command: a line with its sign, or a nonce and a proof."""


class NodeGreeting(Greeting):
    """To an emulated node; nothing is said to one that has not proven itself."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, credentials: Credentials, node: int
    ) -> None:
        super().__init__(loop)
        self._secret = credentials.secret
        self._node = node
        self._nonce = _handshake.nonce()
        self._proven = False

    def first_words(self) -> tuple[bytes, ...]:
        return _wire.HELLO, self._nonce

    def answered(self, answer: tuple[bytes, ...]) -> None:
        if self._proven:
            if answer == (_OK,):
                self.succeed()
            else:
                self.fail(f"the node refuses: {_shown(answer)}")
            return
        match answer:
            case (node_nonce, proof):
                said = (self._secret, self._nonce, node_nonce, self._node)
                if _handshake.same(proof, _handshake.node_proof(*said)):
                    self._proven = True
                    self.say(_wire.PROOF, _handshake.client_proof(*said))
                    return
        self.fail("whoever listens there is no node of this run")


class ServerGreeting(Greeting):
    """To a real server."""

    def __init__(self, loop: asyncio.AbstractEventLoop, credentials: Credentials) -> None:
        super().__init__(loop)
        self._password = credentials.server_password.encode()

    def first_words(self) -> tuple[bytes, ...]:
        return b"AUTH", self._password

    def answered(self, answer: tuple[bytes, ...]) -> None:
        if answer == (_OK,):
            self.succeed()
        else:
            self.fail(f"the server refuses: {_shown(answer)}")


def greeting_for(
    emulated: bool, loop: asyncio.AbstractEventLoop, credentials: Credentials
) -> Callable[[int], Greeting]:
    """Makes the greeting for a node."""
    if emulated:
        return lambda node: NodeGreeting(loop, credentials, node)
    return lambda node: ServerGreeting(loop, credentials)


def _may_go_on(heard: bytes) -> bool:
    """Whether it may be the beginning of an answer."""
    if heard.startswith((b"+", b"-")):
        return b"\n" not in heard
    head, middle = heard[: len(_HEAD)], heard[_NONCE_END:_PROOF_AT]
    whole_bytes = _PROOF_AT + PROOF_BYTES + len(b"\r\n")
    return len(heard) < whole_bytes and _HEAD.startswith(head) and _MIDDLE.startswith(middle)


def _shown(answer: tuple[bytes, ...]) -> str:
    return answer[0][1:].decode("utf-8", "backslashreplace")
