"""What plain clients may have asked for at a time, how long they wait, and what is left of them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from server_rig import ELSEWHERE, PATIENCE, Node, Transport, command, connect

from orchestrator.core.machine import FAIL, OK, UNKNOWN, WRITE, Op, Redirect, Reply
from orchestrator.runtimes import _overdue, _plain_line, _server, _wire
from orchestrator.runtimes._plain_line import OUTSTANDING_MAX, PlainLine
from orchestrator.runtimes._plain_slot import PlainSlot, Said
from orchestrator.runtimes._server import Connection
from orchestrator.runtimes._watch import REST_SWEEPS

GET = command(b"GET", b"k")
IN_DOUBT = b"-UNKNOWN the operation may have been carried out\r\n"
TRY_AGAIN = b"-TRYAGAIN too many operations that nobody waits for are still under way\r\n"


def sweep(node: Node, count: int) -> None:
    for _ in range(count):
        node.watch.sweep()
    node.flush()


def taken(node: Node) -> list[Any]:
    """The handles of all that is pending, which the machine holds from now on."""
    handles = node.pending_handles[:]
    node.pending_handles.clear()
    node.pending_ops.clear()
    return handles


def read_from(transport: Transport) -> bool:
    return transport.reading


def settle(handle: Any, outcome: int = OK, value: bytes | None = None) -> None:
    handle[0].answer(handle, Reply(handle, outcome, value))


# --- how much at a time -----------------------------------------------------------------


def test_who_asks_for_much_at_a_time_is_read_from_again_when_all_is_answered() -> None:
    node = Node()
    connection, transport = connect(node)
    connection.data_received(GET * OUTSTANDING_MAX)
    assert read_from(transport)
    connection.data_received(GET + GET[:9])
    assert not read_from(transport)
    handles = taken(node)
    for handle in handles[:-1]:
        settle(handle)
    assert not read_from(transport)
    settle(handles[-1])
    assert read_from(transport)
    connection.data_received(GET[9:])
    node.serve()
    assert transport.data == b"$-1\r\n" * (OUTSTANDING_MAX + 2)


def test_so_is_who_sends_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_server, "ASKED_MAX_BYTES", 10_000)
    node = Node()
    connection, transport = connect(node)
    large = command(b"SET", b"k", bytes(3000))
    for _ in range(3):
        connection.data_received(large)
    node.serve()
    for _ in range(3):
        connection.data_received(large)
        assert read_from(transport), "what was answered does not count"
    connection.data_received(large)
    assert not read_from(transport)
    node.serve()
    assert read_from(transport)


def test_the_two_reasons_not_to_read_do_not_undo_each_other() -> None:
    node = Node()
    connection, transport = connect(node)
    connection.data_received(GET * (OUTSTANDING_MAX + 1))
    connection.pause_writing()
    connection.resume_writing()
    assert not read_from(transport), "too much is under way"
    connection.pause_writing()
    node.serve()
    assert not read_from(transport), "answers are not taken"
    connection.resume_writing()
    assert read_from(transport)


def test_half_a_command_is_no_fault_of_a_client_that_is_not_read_from() -> None:
    node = Node()
    node.patience = 10 * REST_SWEEPS
    connection, transport = connect(node)
    connection.data_received(GET * (OUTSTANDING_MAX + 1) + GET[:9])
    sweep(node, 2 * REST_SWEEPS)
    assert not transport.closed
    node.serve()
    sweep(node, REST_SWEEPS + 1)
    assert transport.closed


def test_a_plain_client_for_which_too_much_waits_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plain_line, "QUEUED_MAX_BYTES", 100_000)
    for order, count, closed in ((1, 9, False), (1, 11, True), (-1, 9, False), (-1, 11, True)):
        node = Node()
        connection, transport = connect(node)
        connection.data_received(GET * count)
        # Whether they may leave, or wait behind the first.
        for handle in taken(node)[::order]:
            settle(handle, value=bytes(10_000))
        assert transport.closed is closed
        assert sum(map(len, connection._out)) <= 100_000
        node.flush()
        assert connection.queued_bytes == 0


def test_what_is_sent_waits_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plain_line, "QUEUED_MAX_BYTES", 100_000)
    node = Node()
    connection, transport = connect(node)
    connection.data_received(GET * 40)
    for number, handle in enumerate(taken(node)):
        settle(handle, value=bytes(10_000))
        if number % 5 == 4:
            node.flush()
    assert (transport.closed, len(transport.data)) == (False, 40 * 10_010)
    # Unless it does not go out: then the transport has it.
    connection.pause_writing()
    transport.buffered_bytes = 95_000
    connection.data_received(GET)
    settle(taken(node)[0], value=bytes(3000))
    node.flush()
    assert not transport.closed
    transport.buffered_bytes = 101_000
    connection.data_received(GET)
    settle(taken(node)[0], value=bytes(3000))
    node.flush()
    assert transport.closed


def test_answers_of_other_commands_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plain_line, "QUEUED_MAX_BYTES", 100_000)
    node = Node()
    connection, transport = connect(node)
    connection.data_received(command(b"COMMAND") * 1000)
    assert transport.closed
    assert connection._out == []


def test_clients_of_the_run_are_not_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plain_line, "QUEUED_MAX_BYTES", 10_000)
    node = Node()
    node.values[b"k"] = bytes(3000)
    connection, transport = connect(node, own=True)
    for sequence in range(10):
        connection.data_received(_wire.encode_request(Op(9, sequence, WRITE, b"k", bytes(3000))))
        connection.data_received(_wire.encode_request(Op(9, sequence, 0, b"k")))
    node.serve()
    assert not transport.closed
    assert len(transport.data) > 30_000


def test_a_connection_keeps_the_fast_form_of_objects() -> None:
    """Python keeps the values of up to 30 attributes in the object itself."""
    node = Node()
    connection, _ = connect(node, own=True)
    connection.data_received(GET[:9])
    sweep(node, 3)
    connection.pause_writing()
    assert 20 < len(vars(connection)) <= 30


# --- how long ---------------------------------------------------------------------------


def test_an_operation_that_takes_too_long_is_said_to_be_in_doubt() -> None:
    node = Node()
    connection, transport = connect(node)
    connection.data_received(GET)
    sweep(node, 1)
    connection.data_received(GET + command(b"PING") + GET)
    sweep(node, PATIENCE - 2)
    late = taken(node)
    settle(late[2], value=b"3")
    node.flush()
    assert transport.data == b""
    sweep(node, 1)
    assert transport.data == IN_DOUBT
    sweep(node, 1)
    assert transport.data == IN_DOUBT * 2 + b"+PONG\r\n$1\r\n3\r\n"
    for handle in late[:2]:
        settle(handle, value=b"late")
    connection.data_received(GET)
    settle(taken(node)[0], value=b"4")
    node.flush()
    assert transport.data.endswith(b"$1\r\n3\r\n$1\r\n4\r\n")


@pytest.mark.parametrize(("outcome", "again"), [(OK, True), (FAIL, True), (UNKNOWN, False)])
def test_a_session_is_used_again_once_it_is_known_what_happened(outcome: int, again: bool) -> None:
    node = Node()
    connection, _ = connect(node)
    connection.data_received(GET)
    first = node.pending_ops[0].session
    sweep(node, PATIENCE)
    assert node.idle_slots == []
    handle = taken(node)[0]
    settle(handle, outcome)
    settle(handle, OK)
    assert len(node.idle_slots) == again
    connection.data_received(GET)
    assert (node.pending_ops[0].session == first) is again
    node.serve()


def test_a_node_takes_no_more_while_too_much_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_overdue, "OPERATIONS_MAX", 3)
    monkeypatch.setattr(_overdue, "BYTES_MAX", 1000)
    for asked, gone in ((GET * 4, False), (command(b"SET", b"k", bytes(1000)), True)):
        node = Node()
        connection, _ = connect(node)
        connection.data_received(asked)
        late = taken(node)
        if gone:
            connection.connection_lost(None)
        else:
            sweep(node, PATIENCE)
        assert node.overdue.operations == len(late)
        other, transport = connect(node)
        other.data_received(GET + command(b"PING"))
        node.flush()
        assert (transport.data, node.pending_ops) == (TRY_AGAIN + b"+PONG\r\n", [])
        settle(late[0], UNKNOWN)
        other.data_received(GET)
        node.serve()
        assert transport.data.endswith(b"$-1\r\n")
        for handle in late[1:]:
            settle(handle)
        assert (node.overdue.operations, node.overdue.size_bytes) == (0, 0)


@pytest.mark.parametrize("first", ["lost", "expired"])
def test_an_answer_that_was_lost_on_its_way_is_not_waited_for(first: str) -> None:
    node = Node()
    connection, transport = connect(node)
    connection.data_received(GET)
    handle = taken(node)[0]
    if first == "expired":
        sweep(node, PATIENCE)
        assert node.overdue.operations == 1
    handle[0].unheard(handle)
    sweep(node, PATIENCE)
    assert transport.data == IN_DOUBT
    assert (node.overdue.operations, node.overdue.size_bytes) == (0, 0)
    assert node.idle_slots == []


# --- what is left -----------------------------------------------------------------------


@contextmanager
def uncollected() -> Iterator[None]:
    """As in the processes of a run, whose garbage collector is off."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def alive() -> dict[str, int]:
    """How many objects there are of each kind that belongs to connections."""
    kinds = (PlainLine, PlainSlot, Said)
    found = [type(each).__name__ for each in gc.get_objects() if isinstance(each, kinds)]
    return {name: found.count(name) for name in set(found)}


SECRET_FREE = [
    b"",
    GET,
    GET[:9],
    b"GET k\r\n",
    command(b"PING"),
    command(b"HELLO", b"3" * 3000),
    command(b"HELLO", b"3", b"AUTH", b"default", b"x"),
    command(b"AUTH", b"x") * 4,
    command(b"QUIT"),
    command(_wire.HELLO, b"n" * 16),
    command(_wire.PROOF, b"n" * 32),
    command(_wire.PROBE, bytes(24)),
    command(_wire.LOAD, bytes(8)),
    command(b"AB", bytes(34), b"k"),
    b"*2\r\n$3\r\nGET\r\n*1\r\n$1\r\nk\r\n",
    b"*2\r\n$3\r\nGET\r\n:5\r\n",
    b"*1\r\n:5\r\n",
    b"*1000000000\r\n",
    b"*1\r\n+" + b"\r" * 3000,
    b"x" * 9000,
    b"'" * 3000 + b"\n",
    b"\xff" * 100,
    b"a\n" * 5000,
]


@pytest.mark.parametrize("password", [None, "a password"])
@pytest.mark.parametrize("said", SECRET_FREE, ids=lambda said: repr(said[:24]))
def test_nothing_is_left_of_strangers(said: bytes, password: str | None) -> None:
    with uncollected():
        node = Node(password, plain_clients=password is not None)
        before = alive()
        for _ in range(2000 if len(said) < 100 else 100):
            connection, _ = connect(node, ELSEWHERE)
            if said:
                connection.data_received(said)
            node.serve()
            connection.connection_lost(None)
            del connection
        assert alive() == before
        assert (node.opened, node.idle_slots, len(node.watch)) == (0, [], 0)


@pytest.mark.parametrize("outcome", [OK, FAIL, UNKNOWN])
@pytest.mark.parametrize("ends", ["answered", "gone", "late", "lost", "overdue", "redirected"])
def test_nothing_is_left_of_operations_but_idle_slots(ends: str, outcome: int) -> None:
    with uncollected():
        node = Node()
        before = alive()
        for _ in range(50):
            connection, _ = connect(node)
            connection.data_received(GET + command(b"PING") + command(b"SET", b"k", b"v"))
            end_operations(node, connection, ends, outcome)
            connection.connection_lost(None)
            node.flush()
            del connection
        node.proxied.clear()
        left = alive()
        assert left.get("Connection", 0) == before.get("Connection", 0)
        assert left.get("Said", 0) == before.get("Said", 0)
        assert left.get("PlainSlot", 0) - before.get("PlainSlot", 0) == len(node.idle_slots) <= 2
        assert node.overdue.operations == 0


def end_operations(node: Node, connection: Connection, ends: str, outcome: int) -> None:
    """What is pending comes to an end in this way."""
    if ends in ("gone", "lost"):
        connection.connection_lost(None)
    if ends == "late":
        sweep(node, PATIENCE)
    handles = taken(node)
    if ends == "overdue":
        connection.cut()
    for handle in handles:
        if ends == "redirected":
            handle[0].redirect(handle, Redirect(handle, Op(1, 1, WRITE, b"k"), 2))
        if ends == "lost":
            handle[0].unheard(handle)
        else:
            settle(handle, outcome)


def test_an_ended_connection_is_not_kept_by_what_is_under_way() -> None:
    with uncollected():
        node = Node()
        connection, _ = connect(node)
        connection.data_received(GET * 3)
        handles = taken(node)
        settle(handles[1])
        connection.connection_lost(None)
        node.flush()
        ended = weakref.ref(connection)
        del connection
        assert ended() is None
        for handle in (handles[0], handles[2]):
            settle(handle)
        assert len(node.idle_slots) == 3
