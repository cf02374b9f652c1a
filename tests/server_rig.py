"""A client's connection to a node without a socket, and a node that keeps values in a dict."""

from __future__ import annotations

from typing import Any

from shell_rig import Clock

from orchestrator.core.machine import OK, WRITE, Op, Redirect, Reply
from orchestrator.core.waiting import Tie
from orchestrator.runtimes import _server, _wire
from orchestrator.runtimes._handshake import Credentials, client_proof
from orchestrator.runtimes._overdue import Overdue
from orchestrator.runtimes._plain_line import PlainLine
from orchestrator.runtimes._plain_slot import PlainSlot
from orchestrator.runtimes._visits import Visit
from orchestrator.runtimes._watch import Watch

SECRET = bytes(range(32))
NONCE = b"n" * 16
PATIENCE = 3
HERE, ELSEWHERE = ("127.0.0.1", 7000), ("192.0.2.7", 7000)


class Transport:
    """Takes what is written until it is closed."""

    def __init__(self, address: tuple[str, int] = HERE) -> None:
        self.data = b""
        self.closed = False
        self.reading = True
        self.buffered_bytes = 0
        self._address = address

    def get_extra_info(self, name: str) -> tuple[str, int]:
        assert name == "sockname"
        return self._address

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.data += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def get_write_buffer_size(self) -> int:
        return self.buffered_bytes

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Node:
    """A node that keeps values in a dict and serves when told to."""

    node = 1

    def __init__(self, password: str | None = None, *, plain_clients: bool = True) -> None:
        self.credentials = Credentials(SECRET, password, plain_clients)
        self.watch = Watch()
        self.pending_handles: list[Any] = []
        self.pending_ops: list[Op] = []
        self.values: dict[bytes, bytes] = {}
        self.idle_slots: list[PlainSlot] = []
        self.overdue = Overdue()
        self.patience = PATIENCE
        self.opened = 0
        self.copies: list[tuple[Op, Tie]] = []
        self.proxied: list[Redirect] = []
        self._dirty: list[PlainLine] = []
        self.clock: Any = Clock()

    def wake(self) -> None:
        pass

    serve_arrived = wake

    def arrived(self, request: tuple[Any, Op]) -> None:
        self.pending_handles.append(request[0])
        self.pending_ops.append(request[1])

    def flush_later(self, connection: PlainLine) -> None:
        self._dirty.append(connection)

    def proxy(self, handle: Any, redirect: Redirect) -> None:
        self.proxied.append(redirect)

    def new_session(self) -> int:
        self.opened += 1
        return self.opened

    def probed(self, connection: Any, request: bytes) -> None:
        raise ValueError("nothing to probe here")

    def load_asked(self, connection: Any, session: int) -> None:
        connection.write(_wire.encode_load_response((len(self.pending_ops), session)))

    def tied(self, handle: Any, op: Op, tie: Tie) -> None:
        self.copies.append((op, tie))

    def sampled(self, handle: Any, op: Op, tie: Tie | None, number: int) -> None:
        self.pending_handles.append(Visit(handle, number, 0))
        self.pending_ops.append(op)

    def info(self) -> bytes:
        return b"role:leader\r\n"

    def serve(self, *, backwards: bool = False, outcome: int = OK) -> None:
        """Answer everything that is pending, then end the tick."""
        pairs = list(zip(self.pending_handles, self.pending_ops, strict=True))
        self.pending_handles.clear()
        self.pending_ops.clear()
        for handle, op in reversed(pairs) if backwards else pairs:
            if op.kind == WRITE and outcome == OK:
                self.values[op.key] = op.value or b""
            value = None if op.kind == WRITE else self.values.get(op.key)
            handle[0].answer(handle, Reply(handle, outcome, value, 7))
        self.flush()

    def flush(self) -> None:
        """End the tick."""
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()


def connect(
    node: Node, address: tuple[str, int] = HERE, *, own: bool = False
) -> tuple[_server.Connection, Transport]:
    """A client's connection to a node; ``own``: that has proven itself."""
    transport = Transport(address)
    connection = _server.Connection(node)
    connection.connection_made(transport)  # type: ignore[arg-type]
    if own:
        connection.data_received(command(_wire.HELLO, NONCE))
        node.flush()
        node_nonce = greeting(transport.data)[0]
        proof = client_proof(SECRET, NONCE, node_nonce, node.node)
        connection.data_received(command(_wire.PROOF, proof))
        node.flush()
        assert transport.data.endswith(b"+OK\r\n")
        transport.data = b""
    return connection, transport


def greeting(said: bytes) -> tuple[bytes, bytes]:
    """The node's nonce and proof in its answer to a greeting."""
    assert said.startswith(b"*2\r\n$16\r\n"), said
    assert said[25:32] == b"\r\n$32\r\n", said
    return said[9:25], said[32:64]


def command(*words: bytes) -> bytes:
    """A command as clients send it."""
    return b"*%d\r\n" % len(words) + b"".join(_wire.encode_bulk(word) for word in words)
