"""RESP as a node speaks it, byte by byte and without a socket."""

from __future__ import annotations

import pytest
from server_rig import Node, command, connect

from orchestrator.core.machine import FAIL, OK, UNKNOWN, WRITE, Op, Redirect
from orchestrator.runtimes import _wire
from orchestrator.runtimes._administration import RESP2, RESP3, Failure, Simple, encode


def say(data: bytes, *, step: int | None = None) -> tuple[bytes, bool]:
    """(what a fresh node answers to ``data``, whether it closed); in pieces of ``step`` bytes."""
    node = Node()
    connection, transport = connect(node)
    for at in range(0, len(data), step or len(data)):
        connection.data_received(data[at : at + (step or len(data))])
        node.serve()
    return transport.data, transport.closed


def answer(*words: bytes, protocol: int = RESP2) -> bytes:
    """The answer to one command; the connection stays open."""
    node = Node()
    connection, transport = connect(node)
    if protocol == RESP3:
        connection.data_received(command(b"HELLO", b"3"))
        node.serve()
        transport.data = b""
    connection.data_received(command(*words))
    node.serve()
    assert not transport.closed
    return transport.data


# --- commands ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([b"PING"], b"+PONG\r\n"),
        ([b"ping", b"hi"], b"$2\r\nhi\r\n"),
        ([b"Echo", b"a\r\nb\0"], b"$5\r\na\r\nb\0\r\n"),
        ([b"SET", b"k", b"v"], b"+OK\r\n"),
        ([b"sEt", b"k", b""], b"+OK\r\n"),
        ([b"GET", b"k"], b"$-1\r\n"),
        ([b"GeT", b"k"], b"$-1\r\n"),
        ([b"CONFIG", b"GET", b"save"], b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
        ([b"config", b"get", b"nothing"], b"*0\r\n"),
        ([b"CONFIG", b"GET", b"*"], b"*6\r\n"),
        ([b"CONFIG", b"GET", b"[ms]a?e*", b"\xff"], b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
        ([b"CONFIG", b"GET", *[b"x" * 64] * 15, b"SAVE"], b"*2\r\n$4\r\nsave\r\n"),
        ([b"COMMAND", b"COUNT"], b":12\r\n"),
        ([b"COMMAND", b"DOCS", b"get"], b"*0\r\n"),
        ([b"COMMAND", b"INFO", b"get", b"lpush"], b"*2\r\n*10\r\n$3\r\nget\r\n:2\r\n"),
        ([b"COMMAND"], b"*12\r\n*10\r\n"),
        ([b"INFO"], b"$13\r\nrole:leader\r\n\r\n"),
        ([b"INFO", b"server"], b"$13\r\nrole:leader\r\n\r\n"),
        ([b"SELECT", b"0"], b"+OK\r\n"),
        ([b"CLIENT", b"SETNAME", b"me"], b"+OK\r\n"),
        ([b"CLIENT", b"SETINFO", b"LIB-NAME", b"x"], b"+OK\r\n"),
        ([b"CLIENT", b"GETNAME"], b"$-1\r\n"),
        ([b"HELLO"], b"*14\r\n$6\r\nserver\r\n"),
        ([b"HELLO", b"2", b"AUTH", b"default", b"x", b"SETNAME", b"me"], b"*14\r\n"),
    ],
)
def test_commands_are_served(words: list[bytes], said: bytes) -> None:
    assert answer(*words).startswith(said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([b"GET"], b"-ERR wrong number of arguments for 'get' command\r\n"),
        ([b"GET", b"a", b"b"], b"-ERR syntax error"),
        ([b"SET", b"a"], b"-ERR wrong number of arguments for 'set' command\r\n"),
        ([b"SET", b"a", b"b", b"EX", b"5"], b"-ERR syntax error"),
        ([b"PING", b"a", b"b"], b"-ERR wrong number of arguments for 'ping' command\r\n"),
        ([b"ECHO"], b"-ERR wrong number of arguments for 'echo' command\r\n"),
        ([b"CONFIG"], b"-ERR wrong number of arguments for 'config' command\r\n"),
        ([b"CONFIG", b"GET"], b"-ERR wrong number of arguments for 'config|get' command\r\n"),
        ([b"CONFIG", b"GET", *[b"*"] * 17], b"-ERR too many or too long patterns"),
        ([b"CONFIG", b"GET", b"*" * 65], b"-ERR too many or too long patterns"),
        ([b"CONFIG", b"SET", b"a", b"b"], b"-ERR unknown subcommand 'SET' of CONFIG\r\n"),
        ([b"COMMAND", b"x"], b"-ERR unknown subcommand 'x' of COMMAND\r\n"),
        ([b"CLIENT", b"ID", b"x"], b"-ERR wrong number of arguments for 'client|id' command\r\n"),
        ([b"CLIENT", b"KILL"], b"-ERR unknown subcommand 'KILL' of CLIENT\r\n"),
        ([b"SELECT", b"1"], b"-ERR DB index is out of range\r\n"),
        ([b"HELLO", b"4"], b"-NOPROTO unsupported protocol version\r\n"),
        ([b"HELLO", b"x"], b"-ERR Protocol version is not an integer or out of range\r\n"),
        ([b"HELLO", b"2" * 5000], b"-ERR Protocol version is not an integer or out of range\r\n"),
        ([b"HELLO", b"2", b"AUTH", b"x"], b"-ERR Syntax error in HELLO option 'AUTH'\r\n"),
        ([b"AUTH"], b"-ERR wrong number of arguments for 'auth' command\r\n"),
        ([b"SET", b"k" * 70_000, b"v"], b"-ERR string exceeds maximum allowed size"),
        (
            [b"LPUSH", b"a", b"1"],
            b"-ERR unknown command 'LPUSH', with args beginning with: 'a' '1'",
        ),
        (
            [b"a\r\n+OK", b"\xff"],
            b"-ERR unknown command 'a  +OK', with args beginning with: '\\xff'",
        ),
        ([b"SET", b"k", b"v" * (9 << 20)], b"-ERR string exceeds maximum allowed size"),
        ([b""], b"-ERR unknown command ''"),
    ],
)
def test_errors_say_what_is_wrong(words: list[bytes], said: bytes) -> None:
    said_now = answer(*words)
    assert said_now.startswith(said)
    assert said_now.count(b"\r\n") == 1


def test_hello_switches_to_maps_and_a_null_of_its_own() -> None:
    assert answer(b"GET", b"k", protocol=RESP3) == b"_\r\n"
    assert answer(b"CONFIG", b"GET", b"save", protocol=RESP3) == b"%1\r\n$4\r\nsave\r\n$0\r\n\r\n"
    assert answer(b"COMMAND", b"DOCS", protocol=RESP3) == b"%0\r\n"
    assert say(command(b"HELLO", b"3"))[0].startswith(b"%7\r\n$6\r\nserver\r\n")
    back = command(b"HELLO", b"3") + command(b"HELLO", b"2") + command(b"GET", b"k")
    assert say(back)[0].endswith(b"$-1\r\n")


def test_a_refused_hello_changes_nothing() -> None:
    data = command(b"HELLO", b"3", b"SETNAME", b"me", b"x") + command(b"GET", b"k")
    assert say(data + command(b"CLIENT", b"GETNAME"))[0].endswith(b"'x'\r\n$-1\r\n$-1\r\n")


def test_values_become_resp() -> None:
    value = [b"a", 1, None, Simple("x\r\ny"), Failure("ERR z"), {b"k": [2]}]
    two = b"*6\r\n$1\r\na\r\n:1\r\n$-1\r\n+x  y\r\n-ERR z\r\n*2\r\n$1\r\nk\r\n*1\r\n:2\r\n"
    assert encode(value, RESP2) == two
    assert encode(value, RESP3) == two.replace(b"$-1", b"_").replace(b"*2", b"%1")


# --- the stream -------------------------------------------------------------------------

MIXED = (
    command(b"SET", b"a", b"1")
    + command(b"GET", b"a")
    + command(b"PING")
    + command(b"GET", b"*$\r\n*3\r\n")
    + command(b"SET", b"b", b"*1\r\n$4\r\nPING\r\n")
    + command(b"GET", b"b")
)
MIXED_ANSWER = b"+OK\r\n$1\r\n1\r\n+PONG\r\n$-1\r\n+OK\r\n$14\r\n*1\r\n$4\r\nPING\r\n\r\n"


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 11, 13, 64, None])
def test_it_does_not_matter_how_bytes_are_cut(step: int | None) -> None:
    assert say(MIXED, step=step) == (MIXED_ANSWER, False)


INLINE = b'\r\nSET k "a b"\r\nget k\nPING\r\n' + command(b"PING") + b"*0\r\n*-1\r\n"


@pytest.mark.parametrize("step", [1, 2, 3, 64, None])
def test_lines_are_commands_too(step: int | None) -> None:
    assert say(INLINE, step=step) == (b"+OK\r\n$3\r\na b\r\n+PONG\r\n+PONG\r\n", False)


def test_answers_leave_in_order_whatever_order_they_come_in() -> None:
    node = Node()
    node.values = {b"a": b"1", b"b": b"2"}
    connection, transport = connect(node)
    connection.data_received(command(b"GET", b"a") + command(b"PING") + command(b"GET", b"b"))
    node.flush()
    assert transport.data == b""
    node.serve(backwards=True)
    assert transport.data == b"$1\r\n1\r\n+PONG\r\n$1\r\n2\r\n"


def test_operations_of_one_connection_use_separate_sessions_and_return_them() -> None:
    node = Node()
    connection, _ = connect(node)
    connection.data_received(command(b"SET", b"a", b"1") * 3)
    assert len({op.session for op in node.pending_ops}) == 3
    node.serve()
    connection.data_received(command(b"SET", b"a", b"1"))
    assert [(op.session <= 3, op.sequence) for op in node.pending_ops] == [(True, 2)]


def test_an_outcome_in_doubt_is_said_and_its_session_is_not_used_again() -> None:
    node = Node()
    connection, transport = connect(node)
    for outcome, said in ((FAIL, b"-TRYAGAIN "), (UNKNOWN, b"-UNKNOWN ")):
        connection.data_received(command(b"SET", b"a", b"1"))
        node.serve(outcome=outcome)
        assert said in transport.data
    assert node.idle_slots == []
    assert node.opened == 1


def test_a_plain_operation_for_another_node_is_passed_on() -> None:
    node = Node()
    connection, _ = connect(node)
    connection.data_received(command(b"SET", b"a", b"1"))
    handle, op = node.pending_handles[0], node.pending_ops[0]
    handle[0].redirect(handle, Redirect(handle, op, 2))
    assert [(redirect.node, redirect.op.key) for redirect in node.proxied] == [(2, b"a")]


def test_own_clients_are_answered_out_of_order_with_their_tags() -> None:
    node = Node()
    connection, transport = connect(node, own=True)
    for sequence in (1, 2):
        op = Op(9, sequence, WRITE, b"k%d" % sequence, b"v", 3)
        connection.data_received(_wire.encode_request(op))
    node.serve(backwards=True)
    expected = [_wire.encode_response(9, sequence, OK, 7, None) for sequence in (2, 1)]
    assert transport.data == b"".join(expected)


def test_a_client_that_does_not_read_is_not_read_from() -> None:
    connection, transport = connect(Node())
    seen = []
    for change in (connection.pause_writing, connection.resume_writing):
        change()
        seen.append(transport.reading)
    transport.close()
    connection.pause_writing()
    assert [*seen, transport.reading] == [False, True, True]


# --- what is no RESP --------------------------------------------------------------------

KEY_LIST = b"*2\r\n$3\r\nGET\r\n*1\r\n$1\r\nk\r\n"
PING = b"*1\r\n$4\r\nPING\r\n"
AB_HEADER = _wire.encode_request(Op(1, 1, WRITE, b"k", b"v"))


@pytest.mark.parametrize(
    "data",
    [
        b"*1\r\n:5\r\n",
        b"*2\r\n$3\r\nGET\r\n:5\r\n",
        KEY_LIST,
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$-1\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n*1\r\n$1\r\nb\r\n",
        b"*2\r\n$3\r\nGET\r\nfoo\r\n",
        b"$3\r\nGET\r\n",
        b"*x\r\n",
        b"*1000000000\r\n",
        b"*4294967295\r\n",
        b"*99999999999999999999\r\n",
        b"*1\r\n" * 2000,
        b"*3\r\n$3\r\nSET\r\n$70000\r\n" + bytes(70_000) + b"\r\n$3\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET a 9\r\n",
        b'SET "a\r\n',
        b"x" * (65 << 10),
        b"*1\r\n$20000000\r\n" + b"x" * (17 << 20),
    ],
    ids=lambda data: repr(data[:24]),
)
def test_malformed_input_is_answered_and_ends_only_its_connection(data: bytes) -> None:
    node = Node()
    connection, transport = connect(node)
    other, others = connect(node)
    other.data_received(command(b"SET", b"k", b"v")[:9])
    connection.data_received(command(b"SET", b"a", b"1") + command(b"PING"))
    connection.data_received(data)
    node.flush()
    assert (transport.data, transport.closed) == (b"", False), "earlier commands come first"
    node.serve()
    assert transport.data.startswith(b"+OK\r\n+PONG\r\n-ERR Protocol error: ")
    assert transport.data.endswith(b"\r\n")
    assert transport.closed
    connection.data_received(command(b"SET", b"a", b"2"))
    other.data_received(command(b"SET", b"k", b"v")[9:])
    node.serve()
    assert others.data == b"+OK\r\n"
    assert node.values == {b"a": b"1", b"k": b"v"}


@pytest.mark.parametrize(
    "data",
    [
        b"*2\r\n$2\r\nAB\r\n$1\r\na\r\n",
        b"*1\r\n$2\r\nAB\r\n",
        AB_HEADER.replace(b"$1\r\nk\r\n", b":77\r\n"),
        AB_HEADER.replace(b"$1\r\nv\r\n", b"*0\r\n"),
        _wire.encode_request(Op(1, 1, 99, b"k")),
    ],
    ids=lambda data: repr(data[:24]),
)
def test_a_malformed_private_command_ends_the_connection(data: bytes) -> None:
    node = Node()
    connection, transport = connect(node, own=True)
    connection.data_received(data)
    node.serve()
    assert transport.data.startswith(b"-ERR Protocol error: ")
    assert transport.closed
    assert node.values == {}


BOMBS = [
    b"*1000000000\r\n",
    b"*1\r\n>99999999\r\n",
    b"*2\r\n$1\r\n*\r\n*99999\r\n",
    b"*2\r\n$5\r\n*9999\r\n*99999\r\n",
]


@pytest.mark.parametrize("step", [1, 2, 3, 5, None])
@pytest.mark.parametrize("bomb", BOMBS, ids=repr)
def test_a_long_array_is_refused_wherever_it_stands(bomb: bytes, step: int | None) -> None:
    said, closed = say(PING + bomb, step=step)
    assert said.startswith(b"+PONG\r\n-ERR Protocol error: ")
    assert closed


@pytest.mark.parametrize("step", [1, 2, 3, 5, None])
def test_what_looks_like_a_long_array_may_stand_in_a_string(step: int | None) -> None:
    value = b"*9999\r\n>99999\r\n*"
    data = command(b"SET", b"*12345", value) + command(b"GET", b"*12345") + command(b"ECHO", b"*1")
    said = b"+OK\r\n" + _wire.encode_bulk(value) + b"$2\r\n*1\r\n"
    assert say(data, step=step) == (said, False)


def test_elements_without_end_are_refused() -> None:
    """What hiredis has taken up waits in no buffer, and yet is there."""
    node = Node()
    connection, transport = connect(node)
    fed_bytes = 0
    while not transport.closed and fed_bytes < 1 << 20:
        piece = b"*99\r\n" + b"*0\r\n" * 98 if fed_bytes else b"*999\r\n"
        connection.data_received(piece)
        node.flush()
        fed_bytes += len(piece)
    assert transport.data.startswith(b"-ERR Protocol error: ")
    assert fed_bytes < 80_000


def test_quit_answers_what_was_asked_before_and_nothing_after() -> None:
    data = command(b"SET", b"a", b"1") + command(b"QUIT") + command(b"PING")
    assert say(data) == (b"+OK\r\n+OK\r\n", True)
    assert say(b"QUIT\r\nPING\r\n") == (b"+OK\r\n", True)


def test_answers_for_a_client_that_has_gone_are_dropped() -> None:
    node = Node()
    connection, transport = connect(node)
    connection.data_received(command(b"SET", b"a", b"1"))
    connection.connection_lost(None)
    node.serve()
    assert transport.data == b""
    assert len(node.idle_slots) == 1
