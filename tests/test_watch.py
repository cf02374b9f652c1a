"""Which connections a node keeps, and for how long."""

from __future__ import annotations

import time

import pytest
from server_rig import ELSEWHERE, Node, command, connect

from orchestrator.runtimes import _watch
from orchestrator.runtimes._watch import (
    PROOF_SWEEPS,
    READER_SWEEPS,
    REST_SWEEPS,
    Watch,
    Watched,
    sweeps_in,
)

HALF = b"*2\r\n$3\r\nGET\r\n$1\r\n"


class Peer(Watched):
    """A connection that notes whether it was cut."""

    def __init__(self, *, proven: bool = True) -> None:
        self.proven = proven
        self.ended = False
        self.half = False

    @property
    def begun(self) -> bool:
        return self.half

    def cut(self) -> None:
        self.ended = True


def survived(watch: Watch, peer: Peer, sweeps: int = 100) -> int:
    """How many sweeps a connection outlives."""
    for number in range(sweeps):
        if peer.ended:
            return number - 1
        watch.sweep()
    return sweeps


@pytest.mark.parametrize(
    ("proven", "blocked", "half", "limit"),
    [
        (True, False, False, 100),
        (False, False, False, PROOF_SWEEPS),
        (False, True, True, PROOF_SWEEPS),
        (True, True, True, READER_SWEEPS),
        (True, False, True, REST_SWEEPS),
    ],
)
def test_who_is_waited_for_how_long(proven: bool, blocked: bool, half: bool, limit: int) -> None:
    watch, peer = Watch(), Peer(proven=proven)
    peer.blocked, peer.half = blocked, half
    assert watch.admit(peer)
    assert survived(watch, peer) == limit


def test_the_times_are_those_that_are_documented() -> None:
    assert (_watch.SWEEP_S, PROOF_SWEEPS, REST_SWEEPS, READER_SWEEPS) == (1.0, 5, 10, 30)
    assert (_watch.CONNECTIONS_MAX, _watch.UNPROVEN_MAX) == (10_000, 256)


def test_progress_is_no_waiting() -> None:
    watch, peer = Watch(), Peer()
    peer.half = True
    watch.admit(peer)
    for _ in range(20):
        for _ in range(REST_SWEEPS - 1):
            watch.sweep()
        peer.sweeps = 0
    assert not peer.ended


def test_the_oldest_stranger_makes_room_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch, "UNPROVEN_MAX", 2)
    watch = Watch()
    strangers = [Peer(proven=False) for _ in range(6)]
    assert all(watch.admit(each) for each in strangers[:3])
    assert [each.ended for each in strangers] == [True] + [False] * 5
    watch.prove(strangers[1])
    assert all(watch.admit(each) for each in strangers[3:5])
    assert [each.ended for each in strangers] == [True, False, True, False, False, False]
    watch.leave(strangers[3])
    watch.leave(strangers[3])
    assert watch.admit(strangers[5])
    assert not strangers[4].ended
    assert len(watch) == 3


def test_the_newest_is_refused_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch, "CONNECTIONS_MAX", 2)
    watch, first = Watch(), Peer()
    assert [watch.admit(each) for each in (first, Peer(), Peer())] == [True, True, False]
    watch.leave(first)
    assert watch.admit(Peer())
    assert not watch.admit(Peer(proven=False))


def test_sweeps_take_at_least_as_long_as_asked() -> None:
    assert [sweeps_in(seconds) for seconds in (0.001, 1.0, 1.5, 5.0)] == [2, 2, 3, 6]


def test_a_thousand_connections_cost_next_to_nothing() -> None:
    watch = Watch()
    for _ in range(1000):
        watch.admit(Peer())
    best_s = 1.0
    for _ in range(20):
        began_s = time.perf_counter()
        watch.sweep()
        best_s = min(best_s, time.perf_counter() - began_s)
    # Of each second: 0.2 %.
    assert best_s < 0.002


# --- clients' connections ---------------------------------------------------------------


def sweep(node: Node, count: int) -> None:
    for _ in range(count):
        node.watch.sweep()


def test_a_silent_stranger_is_cut_and_a_silent_client_is_not() -> None:
    node = Node()
    _, here = connect(node)
    _, there = connect(node, ELSEWHERE)
    _, own = connect(node, ELSEWHERE, own=True)
    sweep(node, PROOF_SWEEPS + 1)
    assert (here.closed, there.closed, own.closed) == (False, True, False)
    sweep(node, 100)
    assert not here.closed
    assert not own.closed


@pytest.mark.parametrize("half", [HALF, b"GET", b"*", b"*2\r\n", command(b"PING") + HALF])
def test_a_command_without_an_end_ends_the_connection(half: bytes) -> None:
    node = Node()
    connection, transport = connect(node)
    connection.data_received(half)
    node.flush()
    sweep(node, REST_SWEEPS)
    assert not transport.closed
    sweep(node, 1)
    assert transport.closed


def test_a_byte_now_and_then_is_no_progress() -> None:
    node = Node()
    connection, transport = connect(node)
    for byte in command(b"SET", b"k", bytes(100)):
        if transport.closed:
            break
        connection.data_received(bytes([byte]))
        sweep(node, 1)
    assert transport.closed
    assert node.values == {}


def test_commands_that_end_are_progress_however_they_are_cut() -> None:
    node = Node()
    connection, transport = connect(node)
    data = command(b"SET", b"k", b"v")
    connection.data_received(data[:7])
    for _ in range(3 * REST_SWEEPS):
        connection.data_received(data[7:] + data[:7])
        node.serve()
        sweep(node, 1)
    assert not transport.closed
    connection.data_received(data[7:])
    node.serve()
    sweep(node, 3 * REST_SWEEPS)
    assert not transport.closed, "nothing is begun any more"


def test_a_client_that_does_not_read_is_cut_in_the_end() -> None:
    node = Node()
    connection, transport = connect(node)
    connection.pause_writing()
    sweep(node, READER_SWEEPS)
    connection.resume_writing()
    sweep(node, READER_SWEEPS)
    connection.pause_writing()
    sweep(node, READER_SWEEPS)
    assert not transport.closed
    sweep(node, 1)
    assert transport.closed


def test_a_connection_that_has_ended_is_forgotten() -> None:
    node = Node()
    connection, _ = connect(node)
    connect(node)
    assert len(node.watch) == 2
    connection.connection_lost(None)
    assert len(node.watch) == 1


def test_one_client_too_many_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch, "CONNECTIONS_MAX", 1)
    node = Node()
    _, first = connect(node)
    connection, second = connect(node)
    assert (first.closed, second.closed) == (False, True)
    assert second.data == b"-ERR max number of clients reached\r\n"
    connection.data_received(command(b"SET", b"k", b"v"))
    node.serve()
    assert node.values == {}
