"""Operations that nodes pass on to each other for plain clients: no longer than somebody waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from server_rig import PATIENCE, Node, command, connect

from orchestrator.core.machine import FAIL, OK, READ, UNKNOWN, Op, Redirect, Reply
from orchestrator.runtimes import _overdue
from orchestrator.runtimes._clock import RealClock
from orchestrator.runtimes._peers import PROXIED, PROXY
from orchestrator.runtimes._proxy import RETRY_NS, Proxy, ProxyAnswer, ProxyRequest

NODES = 3
TIMEOUT_NS = 10**9
UNKNOWN_NODE = -1


class Clock:
    """Calls back when told that it is time."""

    def __init__(self) -> None:
        self.ns = 0
        self.calls: list[tuple[int, Callable[[Any], None], Any]] = []

    def now_ns(self) -> int:
        return self.ns

    def at(self, when_ns: int, callback: Callable[[Any], None], argument: Any) -> None:
        self.calls.append((when_ns, callback, argument))

    def go_on(self, for_ns: int) -> None:
        self.ns += for_ns
        due = [each for each in self.calls if each[0] <= self.ns]
        self.calls = [each for each in self.calls if each[0] > self.ns]
        for _, callback, argument in due:
            callback(argument)


class Passing(Node):
    """A node that notes the frames that it sends."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[int, int, Any]] = []
        self.clock = Clock()
        self.passing = Proxy(self, cast("RealClock", self.clock), self.node, NODES, TIMEOUT_NS)

    def proxy(self, handle: Any, redirect: Redirect) -> None:
        self.passing.pass_on(handle, redirect)

    def send_frame(self, peer: int, kind: int, payload: Any, link_kind: str) -> None:
        self.sent.append((peer, kind, payload))

    def redirect_all(self, target: int) -> int:
        """The machine names this node for all that is pending; returns how much that was."""
        pairs = list(zip(self.pending_handles, self.pending_ops, strict=True))
        self.pending_handles.clear()
        self.pending_ops.clear()
        for handle, op in pairs:
            handle[0].redirect(handle, Redirect(handle, op, target))
        return len(pairs)

    def asked(self, count: int = 1) -> list[Any]:
        """Another node asks for so much; the handles that the machine gets."""
        for number in range(count):
            self.passing.received(2, ProxyRequest(number, Op(7, number, READ, b"key", None, 3)))
        handles = self.pending_handles[:]
        self.pending_handles.clear()
        self.pending_ops.clear()
        return handles


@pytest.mark.parametrize("end", ["expired", "gone"])
def test_what_nobody_waits_for_is_not_tried_for_ever(end: str) -> None:
    node = Passing()
    connection, transport = connect(node)
    connection.data_received(command(b"GET", b"k"))
    for _ in range(5):
        assert node.redirect_all(UNKNOWN_NODE) == 1
        node.clock.go_on(RETRY_NS)
    assert node.redirect_all(UNKNOWN_NODE) == 1
    if end == "gone":
        connection.connection_lost(None)
    else:
        for _ in range(PATIENCE):
            node.watch.sweep()
        node.flush()
        assert transport.data.startswith(b"-UNKNOWN ")
    assert node.overdue.operations == 1
    node.clock.go_on(RETRY_NS)
    assert (node.pending_ops, node.clock.calls, node.sent) == ([], [], [])
    assert node.overdue.operations == 0
    assert len(node.idle_slots) == 1, "it has not happened, so the session is free"


def test_what_nobody_waits_for_is_not_passed_on() -> None:
    node = Passing()
    connection, _ = connect(node)
    connection.data_received(command(b"GET", b"k"))
    connection.connection_lost(None)
    assert node.redirect_all(2) == 1
    assert node.sent == []
    assert len(node.idle_slots) == 1


def test_nodes_that_name_each_other_are_asked_in_turn_and_then_left_alone_for_a_while() -> None:
    node = Passing()
    connection, transport = connect(node)
    connection.data_received(command(b"GET", b"k"))
    for times in range(1, 4):
        assert node.redirect_all(2) == 1
        while node.sent:
            peer, kind, request = node.sent.pop()
            assert kind == PROXY
            other = {2: 0, 0: 2}[peer]
            node.passing.received(peer, ProxyAnswer(request.number, UNKNOWN, None, 0, other))
            assert len([call for call in node.clock.calls if call[0] > node.clock.ns]) < 50
        assert node.pending_ops == [], "it pauses"
        node.clock.go_on(RETRY_NS)
        assert len(node.pending_ops) == 1, f"its own machine is asked again, {times}"
    node.serve()
    assert transport.data == b"$-1\r\n"


def test_a_node_that_is_named_answers_in_the_end() -> None:
    node = Passing()
    connection, transport = connect(node)
    connection.data_received(command(b"GET", b"k"))
    node.redirect_all(2)
    for peer, named in ((2, 0), (0, 2)):
        number = node.sent.pop()[2].number
        node.passing.received(peer, ProxyAnswer(number, UNKNOWN, None, 0, named))
    node.passing.received(2, ProxyAnswer(node.sent.pop()[2].number, OK, b"v", 1))
    node.flush()
    assert transport.data == b"$1\r\nv\r\n"


@pytest.mark.parametrize("how", ["answer", "redirect", "unheard"])
def test_what_others_have_asked_for_is_counted_while_the_machine_holds_it(how: str) -> None:
    node = Passing()
    early, late = node.asked(), node.asked(3)
    end(early[0], how)
    for _ in range(PATIENCE):
        node.passing.sweep()
    more = node.asked(2)
    assert (node.overdue.operations, node.overdue.size_bytes) == (3, 9)
    for handle in (*more, *late, *late):
        end(handle, how)
    assert (node.overdue.operations, node.overdue.size_bytes) == (0, 0)
    assert len(node.passing._held) == 0


def end(handle: Any, how: str) -> None:
    """The machine lets go of it."""
    if how == "answer":
        handle[0].answer(handle, Reply(handle, OK))
    elif how == "redirect":
        handle[0].redirect(handle, Redirect(handle, Op(7, 1, READ, b"key"), 1))
    else:
        handle[0].unheard(handle)


def test_others_are_refused_too_while_too_much_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_overdue, "OPERATIONS_MAX", 2)
    node = Passing()
    held = node.asked(3)
    for _ in range(PATIENCE):
        node.passing.sweep()
    assert node.asked() == []
    assert node.sent == [(2, PROXIED, ProxyAnswer(0, FAIL, None, 0))]
    end(held[0], "answer")
    assert len(node.asked()) == 1
