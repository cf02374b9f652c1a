"""Hostile bytes for the two ports of a node, drawn by a seed: what strangers send, and what a peer
or a client of the run sends that has gone mad. Nothing in it is a command or a message that a
node would rightly carry out: commands of strangers may be well formed, but strangers have no
password.
"""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field

import msgspec
from server_rig import command, greeting

from orchestrator.core.machine import READ, WRITE, Op
from orchestrator.core.waiting import Tie
from orchestrator.runtimes import _wire
from orchestrator.runtimes._handshake import (
    NONCE_BYTES,
    Credentials,
    client_proof,
    hello_proof,
    welcome_proof,
)
from orchestrator.runtimes._peers import HELLO, MACHINE, PROXIED, PROXY, WELCOME, Hello, frame

Address = tuple[str, int]
ANSWER_S = 10.0
FOREIGN_KEY = b"fuzz"
"""What keys begin with that a hostile command names."""
_GET = command(b"GET", FOREIGN_KEY)
_SET = command(b"SET", FOREIGN_KEY, b"v")
_REFUSED_SET = [
    command(b"SET", FOREIGN_KEY, b"v", b"EX", b"1"),
    command(b"SET", FOREIGN_KEY),
    b"*3\r\n$3\r\nSET\r\n$4\r\nfuzz\r\n$-1\r\n",
    b"*3\r\n$3\r\nSET\r\n$4\r\nfuzz\r\n*1\r\n$1\r\nv\r\n",
    b"*3\r\n$3\r\nSET\r\n$4\r\nfuzz\r\n:5\r\n",
    b"*3\r\n$3\r\nSET\r\n$99999999\r\nfuzz",
]
_BOMBS = [
    b"*4294967295\r\n",
    b"*99999999\r\n",
    b"*1\r\n>9999999\r\n",
    b"*1\r\n$4\r\nPING\r\n*1\r\n*999999999\r\n",
    b"*1\r\n" * 3000,
    b"*999\r\n" * 8,
    b"*99\r\n" + b"*0\r\n" * 98,
    b"%99999999\r\n",
    b"*2\r\n$3\r\nGET\r\n$9999999999999999999\r\n",
    b"*2\r\n$3\r\nGET\r\n$536870912\r\nx",
    b"*1\r\n$16000000\r\n" + bytes(60_000),
    b"x" * 70_000,
    b"*-9\r\n",
    b"$5\r\n",
]
_LINES = [
    b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET fuzz 1\r\n",
    b'SET "fuzz\r\n',
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"AUTH x\r\nAUTH x\r\nAUTH x\r\nAUTH x\r\n",
    b"HELLO 3 AUTH default\r\n",
    b"\r\n" * 500,
    b"AB 1 2 3\r\n",
    b"EVAL x\r\n",
]


@dataclass
class Fuzzer:
    """Sends frames until told to stop, and counts them.

    ``decodes``: whether bytes are a message of the run's machine; such are not sent.
    """

    clients: Sequence[Address]
    peers: Sequence[Address]
    credentials: Credentials
    decodes: Callable[[bytes], bool]
    chance: random.Random
    frames: int = 0
    # Connections that have proven themselves, and that were ended by the node while left open.
    trusted: int = 0
    dropped: int = 0
    lingering: list[tuple[socket.socket, float]] = field(default_factory=list)
    _unfinished: socket.socket | None = None
    _heard: list[bytes] = field(default_factory=list)

    def send(self, count: int, pace_per_s: float, limit_s: float) -> None:
        """That many frames, at that rate and for so long at most; some connections are left open
        half-way.
        """
        began_s, goal = time.monotonic(), self.frames + count
        first = self.frames
        ways = (self._strange_client, self._strange_peer, self._mad_peer, self._mad_client)
        while self.frames < goal and time.monotonic() - began_s < limit_s:
            node = self.chance.randrange(len(self.clients))
            try:
                self.chance.choice(ways)(node)
            except OSError:
                self._close_unfinished()
            else:
                self._unfinished = None
            self._drip()
            ahead_s = (self.frames - first) / pace_per_s - (time.monotonic() - began_s)
            if ahead_s > 0:
                time.sleep(ahead_s)

    def _close_unfinished(self) -> None:
        """Close the connection on which the node has said less than it should, if any."""
        if self._unfinished is not None:
            self._unfinished.close()
            self._unfinished = None

    def close(self) -> None:
        """Close what was left open."""
        self._close_unfinished()
        for connection, _ in self.lingering:
            connection.close()

    # --- who sends --------------------------------------------------------------------------

    def _strange_client(self, node: int) -> None:
        connection = self._connect(self.clients[node])
        self._talk(connection, (self._client_bytes() for _ in range(self.chance.randint(1, 8))))

    def _strange_peer(self, node: int) -> None:
        connection = self._connect(self.peers[node])
        challenge = _exactly(connection, 5 + NONCE_BYTES)[5:]
        self._heard = [*self._heard[-20:], challenge]
        said = (self._peer_bytes(node, challenge) for _ in range(self.chance.randint(1, 4)))
        self._talk(connection, said)

    def _mad_peer(self, node: int) -> None:
        """It knows the secret, and what it then says is no message."""
        connection = self._connect(self.peers[node])
        challenge = _exactly(connection, 5 + NONCE_BYTES)[5:]
        nonce, me = self.chance.randbytes(NONCE_BYTES), (node + 1) % len(self.peers)
        secret = self.credentials.secret
        connection.sendall(_hello(me, nonce, hello_proof(secret, challenge, nonce, me, node)))
        expected = frame(WELCOME, welcome_proof(secret, challenge, nonce, me, node))
        assert _exactly(connection, len(expected)) == expected
        self.frames += 1
        self.trusted += 1
        self._talk(connection, (self._message() for _ in range(self.chance.randint(1, 4))))

    def _mad_client(self, node: int) -> None:
        """It knows the secret, and sends commands that are none."""
        connection = self._connect(self.clients[node])
        proof = prove(connection, self.credentials, node, self.chance.randbytes(NONCE_BYTES))
        self.frames += 2
        self.trusted += 1
        whole = _wire.encode_request(Op(1, 1, WRITE, FOREIGN_KEY, b"v", 5))
        header = bytes(len(whole.split(b"\r\n")[4]))
        kinds = [
            whole[: self.chance.randrange(1, len(whole))],
            _wire.encode_request(Op(1, 1, 99, FOREIGN_KEY)),
            command(b"AB", header[:-1], FOREIGN_KEY),
            command(b"AB", header, FOREIGN_KEY, b"", b"", b""),
            b"*3\r\n$2\r\nAB\r\n:5\r\n$1\r\nk\r\n",
            _wire.encode_sampled(Op(1, 1, 99, FOREIGN_KEY), None, 0),
            _wire.encode_sampled(Op(1, 1, READ, FOREIGN_KEY), Tie(node, 1), 1 << 31),
            command(_wire.SPAN, bytes(4), b"", header[:-1], FOREIGN_KEY, b""),
            command(_wire.PROOF, proof),
            self.chance.choice(_BOMBS),
        ]
        self._talk(connection, [self.chance.choice(kinds)])

    # --- what is sent -----------------------------------------------------------------------

    def _client_bytes(self) -> bytes:
        chance = self.chance
        kinds: list[Callable[[], bytes]] = [
            lambda: chance.randbytes(chance.randint(1, 300)),
            lambda: chance.choice(_BOMBS),
            lambda: chance.choice(_LINES),
            lambda: chance.choice(_REFUSED_SET),
            lambda: _SET * chance.randint(1, 50),
            lambda: b"set fuzz v\r\n" * chance.randint(1, 50),
            lambda: _changed(_SET, chance),
            lambda: _GET * chance.randint(1, 50),
            lambda: _GET[: chance.randrange(1, len(_GET))],
            lambda: _changed(_GET, chance),
            lambda: _wire.encode_request(Op(1, 1, WRITE, FOREIGN_KEY, b"v", 5)),
            lambda: command(_wire.HELLO, chance.randbytes(chance.choice((0, 15, 16, 17)))),
            lambda: command(_wire.PROOF, chance.randbytes(chance.choice((0, 31, 32, 33)))),
            lambda: command(b"AUTH", chance.randbytes(8)),
            lambda: command(b"HELLO", b"3", b"AUTH", b"default"),
            lambda: command(b"CONFIG", b"SET", b"dir", b"x"),
        ]
        return chance.choice(kinds)()

    def _peer_bytes(self, node: int, challenge: bytes) -> bytes:
        chance, secret = self.chance, self.credentials.secret
        nonce, me = chance.randbytes(NONCE_BYTES), (node + 1) % len(self.peers)
        right = hello_proof(secret, challenge, nonce, me, node)
        kinds: list[Callable[[], bytes]] = [
            lambda: chance.randbytes(chance.randint(1, 300)),
            lambda: frame(chance.randrange(256), chance.randbytes(chance.randint(0, 200))),
            lambda: struct.pack("<IB", chance.choice((257, 64 << 20, 2**32 - 1)), HELLO),
            lambda: frame(MACHINE, msgspec.msgpack.encode(["vote", 1, 99])),
            lambda: frame(HELLO, chance.randbytes(chance.randint(0, 100))),
            lambda: _hello(me, nonce, chance.randbytes(32)),
            lambda: _hello(me, nonce, right[:-1]),
            lambda: _hello(node, nonce, hello_proof(secret, challenge, nonce, node, node)),
            lambda: _hello(99, nonce, hello_proof(secret, challenge, nonce, 99, node)),
            lambda: _hello(me, nonce, hello_proof(bytes(32), challenge, nonce, me, node)),
            lambda: _hello(me, nonce, welcome_proof(secret, challenge, nonce, me, node)),
            lambda: (
                _hello(me, nonce, hello_proof(secret, self._heard[0], nonce, me, node))
                if self._heard[0] != challenge
                else b"\0"
            ),
            lambda: _hello(me, nonce, right)[: chance.randrange(1, 30)],
        ]
        return chance.choice(kinds)()

    def _message(self) -> bytes:
        chance = self.chance
        payloads: list[Callable[[], bytes]] = [
            lambda: chance.randbytes(chance.randint(0, 200)),
            lambda: b"\x91" * chance.choice((10, 2000, 100_000)),
            lambda: b"\xdd\xff\xff\xff\xff",
            lambda: b"\xc6\xff\xff\xff\xff",
            lambda: b"\xdb\x7f\xff\xff\xff" + bytes(50),
            lambda: msgspec.msgpack.encode({"a": [1, None, "x" * 50]}),
            lambda: msgspec.msgpack.encode([2**64 - 1, -(2**63), 1e300]),
            lambda: msgspec.msgpack.encode([FOREIGN_KEY] * chance.randint(1, 30)),
            lambda: b"",
        ]
        payload = chance.choice(payloads)()
        kind = chance.choice((MACHINE, MACHINE, MACHINE, PROXY, PROXIED, HELLO, WELCOME, 77))
        if kind == MACHINE and self.decodes(payload):
            payload = b"\xc1"
        whole = frame(kind, payload)
        if chance.random() < 0.2:
            return struct.pack("<IB", chance.choice((65 << 20, 2**31, 2**32 - 1)), kind)
        return whole[: chance.randrange(1, len(whole))] if chance.random() < 0.2 else whole

    # --- connections ------------------------------------------------------------------------

    def _connect(self, address: Address) -> socket.socket:
        connection = socket.create_connection(address, ANSWER_S)
        # A reset at the end, so that no used port stays behind.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._unfinished = connection
        return connection

    def _talk(self, connection: socket.socket, said: Sequence[bytes] | Iterator[bytes]) -> None:
        """Send until the other side has had enough, which some never notice."""
        lingers = len(self.lingering) < 40 and self.chance.random() < 0.05
        if lingers:
            self.lingering.append((connection, time.monotonic()))
            connection.sendall(b"*2\r\n$3\r\n"[: self.chance.randint(1, 4)])
            self.frames += 1
            return
        with closing(connection):
            for data in said:
                connection.sendall(data)
                self.frames += 1
                connection.settimeout(0.0005)
                with suppress(TimeoutError):
                    if not connection.recv(1 << 16):
                        return
                connection.settimeout(ANSWER_S)

    def _drip(self) -> None:
        """A byte on one of those that were left open; forget those that the node has ended."""
        if not self.lingering or self.chance.random() > 0.1:
            return
        index = self.chance.randrange(len(self.lingering))
        connection, _ = self.lingering[index]
        try:
            connection.sendall(b"1")
            self.frames += 1
        except OSError:
            connection.close()
            del self.lingering[index]
            self.dropped += 1

    def overstayed(self, limit_s: float) -> int:
        """How many connections stand that were left half-way longer ago than that."""
        count = 0
        for connection, since_s in self.lingering:
            if time.monotonic() - since_s < limit_s:
                continue
            connection.settimeout(0.2)
            try:
                while connection.recv(1 << 16):
                    pass
            except TimeoutError:
                count += 1
            except OSError:
                continue
        return count


def prove(connection: socket.socket, known: Credentials, node: int, nonce: bytes) -> bytes:
    """Greet a node as a client of the run does; returns the proof that was given."""
    connection.sendall(command(_wire.HELLO, nonce))
    node_nonce, _ = greeting(_exactly(connection, 66))
    proof = client_proof(known.secret, nonce, node_nonce, node)
    connection.sendall(command(_wire.PROOF, proof))
    assert _exactly(connection, 5) == b"+OK\r\n"
    return proof


def _hello(node: int, nonce: bytes, proof: bytes) -> bytes:
    return frame(HELLO, msgspec.msgpack.encode(Hello(node, nonce, proof)))


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionResetError("the node closed the connection")
        data += piece
    return data


def _changed(data: bytes, chance: random.Random) -> bytes:
    """Some bytes of it are others."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)
