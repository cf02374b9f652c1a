"""Who may give a node commands: passwords of plain clients, proofs of own ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from server_rig import ELSEWHERE, HERE, NONCE, SECRET, Node, Transport, command, connect, greeting

from orchestrator.core.machine import WRITE, Op
from orchestrator.runtimes import _wire
from orchestrator.runtimes._gate import FAILURES_MAX, is_loopback
from orchestrator.runtimes._handshake import client_proof, node_proof
from orchestrator.runtimes._parser import PIECE_BYTES
from orchestrator.runtimes._server import (
    STRANGER_COMMAND_BYTES,
    STRANGER_MAX_BYTES,
    Connection,
)

PASSWORD = "s3cret ü"
WORD = PASSWORD.encode()
REQUEST = _wire.encode_request(Op(9, 1, WRITE, b"k", b"v", 2))
NO_AUTH = b"-NOAUTH Authentication required.\r\n"
WRONG = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
PLAIN = [
    [b"GET", b"k"],
    [b"get", b"k"],
    [b"SET", b"k", b"v"],
    [b"sEt", b"k", b"v"],
    [b"PING"],
    [b"INFO"],
    [b"CONFIG", b"GET", b"*"],
    [b"NOTHING"],
]
WAYS_IN = [
    [b"AUTH", WORD],
    [b"auth", b"default", WORD],
    [b"HELLO", b"3", b"AUTH", b"default", WORD, b"SETNAME", b"me"],
]


def talk(
    *commands: bytes,
    password: str | None = None,
    address: tuple[str, int] = HERE,
    plain_clients: bool = True,
) -> tuple[bytes, bool, Node]:
    """(what was answered, whether the connection was closed, the node)."""
    node = Node(password, plain_clients=plain_clients)
    connection, transport = connect(node, address)
    for each in commands:
        connection.data_received(each)
        node.serve()
    return transport.data, transport.closed, node


# --- passwords --------------------------------------------------------------------------


@pytest.mark.parametrize("words", PLAIN, ids=repr)
def test_without_the_password_nothing_is_served_wherever_it_comes_from(words: list[bytes]) -> None:
    for address in (HERE, ELSEWHERE):
        said, closed, node = talk(command(*words), password=PASSWORD, address=address)
        assert (said, closed, node.values) == (NO_AUTH, False, {})


@pytest.mark.parametrize("way", WAYS_IN, ids=repr)
@pytest.mark.parametrize("together", [False, True])
def test_with_the_password_all_is_served(way: list[bytes], together: bool) -> None:
    asked = [command(*way), command(b"SET", b"k", b"v"), command(b"GET", b"k")]
    asked = [b"".join(asked)] if together else asked
    said, closed, node = talk(*asked, password=PASSWORD, address=ELSEWHERE)
    assert said.endswith(b"+OK\r\n$1\r\nv\r\n"), said
    assert (closed, node.values) == (False, {b"k": b"v"})


def test_an_inline_command_needs_the_password_too() -> None:
    said, _, node = talk(b"SET a 1\r\nAUTH nothing\r\nSET a 2\r\n", password=PASSWORD)
    assert said == NO_AUTH + WRONG + NO_AUTH
    assert node.values == {}


@pytest.mark.parametrize(
    "words",
    [
        [b"AUTH", b""],
        [b"AUTH", WORD + b"x"],
        [b"AUTH", WORD[:-1]],
        [b"AUTH", b"root", WORD],
        [b"HELLO", b"3", b"AUTH", b"default", b"x"],
        [b"HELLO", b"3", b"AUTH", b"root", WORD],
    ],
    ids=repr,
)
def test_a_wrong_password_is_told_and_ends_the_connection_after_some(words: list[bytes]) -> None:
    attempts = [command(*words)] * (FAILURES_MAX + 2)
    said, closed, _ = talk(*attempts, password=PASSWORD)
    assert (said, closed) == (WRONG * FAILURES_MAX, True)
    once, closed, node = talk(attempts[0], command(b"SET", b"k", b"v"), password=PASSWORD)
    assert (once, closed, node.values) == (WRONG + NO_AUTH, False, {})


def test_hello_without_the_password_changes_nothing() -> None:
    said, closed, _ = talk(command(b"HELLO", b"3"), command(b"PING"), password=PASSWORD)
    assert said.startswith(b"-NOAUTH HELLO must be called with the client already authenticated")
    assert said.endswith(b"\r\n" + NO_AUTH)
    assert not closed


def test_a_node_without_a_password_serves_plain_clients_of_its_machine_only() -> None:
    asked = [command(b"SET", b"k", b"v"), command(b"AUTH", b"x"), command(b"AUTH", b"default", b"")]
    said, _, node = talk(*asked, command(b"SET", b"k", b"w"))
    assert node.values == {b"k": b"w"}
    assert said.startswith(b"+OK\r\n-ERR AUTH <password> called without any password configured")
    said, closed, node = talk(*asked, command(b"SET", b"k", b"w"), address=ELSEWHERE)
    assert node.values == {}
    assert said.count(b"-NOAUTH Authentication required. ") == len(asked) + 1
    assert b"set ARCHBENCH_PASSWORD" in said
    assert not closed


@pytest.mark.parametrize("password", [None, PASSWORD])
@pytest.mark.parametrize("words", [*PLAIN, *WAYS_IN], ids=repr)
def test_a_node_of_a_run_serves_no_plain_clients(words: list[bytes], password: str | None) -> None:
    asked = [command(*words), command(b"SET", b"k", b"v"), b"SET k w\r\n"]
    for address in (HERE, ELSEWHERE):
        said, closed, node = talk(*asked, password=password, address=address, plain_clients=False)
        assert said.count(b"serves the clients of its run only") == len(asked)
        assert said.count(b"-NOAUTH ") == len(asked)
        assert (closed, node.values, node.opened) == (False, {}, 0)


@pytest.mark.parametrize("data", [command(b"PING"), b"PING\r\n", b"\n", b"AUTH 'x\\y'\r\n"])
@pytest.mark.parametrize("step", [1, 300, None])
def test_a_stranger_may_not_send_much_in_all(data: bytes, step: int | None) -> None:
    node = Node(PASSWORD)
    connection, transport = connect(node)
    sent = data * (2 * STRANGER_MAX_BYTES // len(data))
    if data.startswith(b"AUTH"):
        # Wrong passwords end it before.
        sent = data + b"\n" * 2 * STRANGER_MAX_BYTES
    size = step or len(sent)
    fed_bytes = 0
    while not transport.closed and fed_bytes < len(sent):
        connection.data_received(sent[fed_bytes : fed_bytes + size])
        node.flush()
        fed_bytes += size
    assert transport.closed
    assert transport.data.endswith(b"-ERR Protocol error: too much before a password or proof\r\n")
    commands = transport.data.count(b"\r\n") - 1
    assert commands <= STRANGER_MAX_BYTES // STRANGER_COMMAND_BYTES
    if step and not commands:
        assert STRANGER_MAX_BYTES < fed_bytes <= STRANGER_MAX_BYTES + max(step, PIECE_BYTES)


def test_who_has_proven_itself_may_send_more() -> None:
    asked = [command(b"AUTH", WORD) + command(b"ECHO", b"x" * 900) * 100]
    said, closed, _ = talk(*asked, password=PASSWORD)
    assert (said.count(b"$900\r\n"), closed) == (100, False)


def test_a_stranger_may_not_send_much() -> None:
    for data in (b"*2\r\n$3\r\nGET\r\n$100000\r\n" + bytes(8000), b"x" * 8000, b"*1\r\n" * 1500):
        said, closed, _ = talk(data, password=PASSWORD)
        assert said.startswith(b"-ERR Protocol error: ")
        assert closed
    # Nor is a command looked at that follows what ended the connection.
    tail = command(b"AUTH", WORD) + command(b"SET", b"k", b"v")
    assert talk(b"*x\r\n" + bytes(2000) + tail, password=PASSWORD)[2].values == {}


@pytest.mark.parametrize(
    ("host", "loops"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_loopback_addresses_are_known(host: str, loops: bool) -> None:
    assert is_loopback((host, 1)) is loops
    assert is_loopback("") is is_loopback(None) is False


# --- own clients ------------------------------------------------------------------------


Ends = tuple[Connection, Transport]


def greeted(password: str | None = None) -> tuple[Node, Ends, bytes, bytes]:
    """A node, a connection to it, and the nonce and the proof that it has said there."""
    node = Node(password)
    connection, transport = connect(node, ELSEWHERE)
    connection.data_received(command(_wire.HELLO, NONCE))
    node.flush()
    return node, (connection, transport), *greeting(transport.data)


def answered(node: Node, ends: Ends, *words: bytes) -> tuple[bytes, bool]:
    """What a proof is answered with, and whether that closed the connection."""
    connection, transport = ends
    transport.data = b""
    connection.data_received(command(*words))
    node.flush()
    return transport.data, transport.closed


def test_a_client_of_the_run_needs_no_password() -> None:
    node, ends, node_nonce, proof = greeted(PASSWORD)
    assert proof == node_proof(SECRET, NONCE, node_nonce, node.node)
    right = client_proof(SECRET, NONCE, node_nonce, node.node)
    assert answered(node, ends, _wire.PROOF, right) == (b"+OK\r\n", False)
    ends[0].data_received(REQUEST)
    node.serve()
    assert node.values == {b"k": b"v"}
    # It is no plain client by that.
    assert answered(node, ends, b"GET", b"k")[0] == NO_AUTH


def test_a_private_command_without_a_proof_ends_the_connection() -> None:
    for address in (HERE, ELSEWHERE):
        for asked in ([REQUEST], [command(_wire.HELLO, NONCE), REQUEST], [b"AB x y\r\n"]):
            said, closed, node = talk(*asked, address=address)
            assert b"-NOPROOF " in said
            assert (closed, node.values) == (True, {})


def test_a_proof_is_good_for_its_own_place_only() -> None:
    _, _, _, nodes_own = greeted()
    wrong: list[tuple[str, Callable[[bytes], bytes]]] = [
        ("another run", lambda n: client_proof(bytes(32), NONCE, n, 1)),
        ("another node", lambda n: client_proof(SECRET, NONCE, n, 2)),
        ("another client's nonce", lambda n: client_proof(SECRET, b"m" * 16, n, 1)),
        ("nonces swapped", lambda n: client_proof(SECRET, n, NONCE, 1)),
        ("what the node said", lambda n: node_proof(SECRET, NONCE, n, 1)),
        ("another connection", lambda n: nodes_own),
        ("an old nonce", lambda n: client_proof(SECRET, NONCE, b"o" * 16, 1)),
        ("nothing", lambda n: b""),
        ("cut short", lambda n: client_proof(SECRET, NONCE, n, 1)[:-1]),
    ]
    for why, make in wrong:
        node, ends, node_nonce, _ = greeted()
        said, closed = answered(node, ends, _wire.PROOF, make(node_nonce))
        assert said.startswith(b"-NOPROOF "), why
        assert closed, why


def test_a_proof_is_looked_at_once() -> None:
    node, ends, node_nonce, _ = greeted()
    right = client_proof(SECRET, NONCE, node_nonce, node.node)
    other = Node()
    connection, transport = connect(other, ELSEWHERE)
    connection.data_received(command(_wire.PROOF, right))
    other.flush()
    assert transport.closed, "replayed on a connection that was not greeted"
    assert answered(node, ends, _wire.PROOF, right) == (b"+OK\r\n", False)
    assert answered(node, ends, _wire.PROOF, right)[1], "replayed on its own"


def test_a_nonce_has_its_length() -> None:
    for nonce in (b"", b"n" * 15, b"n" * 17):
        assert talk(command(_wire.HELLO, nonce), address=ELSEWHERE)[1]
