"""Operations of plain clients that another node serves: a plain client knows one node only, so
that one passes them on and answers in the other's stead.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from orchestrator.core.machine import (
    FAIL,
    READ,
    REQUEST,
    RESPONSE,
    UNKNOWN,
    WRITE,
    Op,
    Redirect,
    Reply,
)
from orchestrator.core.units import NS_PER_MS
from orchestrator.core.waiting import Refusal
from orchestrator.runtimes import _peers
from orchestrator.runtimes._clock import RealClock
from orchestrator.runtimes._network import Link
from orchestrator.runtimes._overdue import Held, Overdue

RETRY_NS: Final = 10 * NS_PER_MS
"""Pause before an operation asks again while no node is known to serve it, or each names another.
"""


class ProxyRequest(msgspec.Struct, array_like=True, gc=False):
    """A plain client's operation on its way to the node that serves it."""

    number: int
    op: Op


class ProxyAnswer(msgspec.Struct, array_like=True, gc=False):
    """``redirect``: ask that node instead (-1: not known); else the outcome."""

    number: int
    outcome: int
    value: bytes | None
    version: int
    redirect: int | None = None


_decode_request = msgspec.msgpack.Decoder(ProxyRequest).decode
_decode_answer = msgspec.msgpack.Decoder(ProxyAnswer).decode


class Service(Protocol):
    """What passing on needs of its node."""

    pending_handles: list[Any]
    pending_ops: list[Op]
    overdue: Overdue
    patience: int

    @abstractmethod
    def wake(self) -> None:
        """Serve the pending operations at the end of this tick."""

    @abstractmethod
    def send_frame(self, peer: int, kind: int, payload: Any, link_kind: str) -> None:
        """Send a frame that is not of the machine."""


class RemoteHandle:
    """Answers an operation that another node passed on; handles are ``(this, the other's number,
    number among those held)``.
    """

    def __init__(self, service: Service, peer: int, held: Held) -> None:
        self._service = service
        self._peer = peer
        self._held = held
        self.link: Link | None = None

    @property
    def connection(self) -> RemoteHandle:
        """Where the order of answers is kept."""
        return self

    def answer(self, handle: Any, reply: Reply) -> None:
        """Back to the node that passed it on."""
        self._held.settle(handle[2])
        self.say(ProxyAnswer(handle[1], reply.outcome, reply.value, reply.version))

    def redirect(self, handle: Any, redirect: Redirect) -> None:
        """The node that passed it on asks elsewhere."""
        self._held.settle(handle[2])
        self.say(ProxyAnswer(handle[1], UNKNOWN, None, 0, redirect.node))

    def refuse(self, handle: Any, refusal: Refusal) -> None:
        """Back to the node that passed it on: it did not happen."""
        self.answer(handle, Reply(handle, FAIL))

    def unheard(self, handle: Any) -> None:
        """The answer was lost on its way; the node that passed it on gives it up by itself."""
        self._held.settle(handle[2])

    def say(self, answer: ProxyAnswer) -> None:
        """Send an answer."""
        self._service.send_frame(self._peer, _peers.PROXIED, answer, RESPONSE)


class Proxy:
    """One node's operations under way at others, and others' at this one."""

    def __init__(
        self, service: Service, clock: RealClock, node: int, nodes: int, timeout_ns: int
    ) -> None:
        self._service = service
        self._clock = clock
        self._node = node
        self._nodes = nodes
        self._timeout_ns = timeout_ns
        self._numbers = itertools.count(1)
        # What other nodes serve for this one, and how often each was passed on.
        self._waiting: dict[int, tuple[Any, Op, int]] = {}
        # Who asks this one, and for what.
        self._remote: dict[int, RemoteHandle] = {}
        self._held = Held(service.overdue, service.patience)
        self.sweep = self._held.sweep

    def decoder(self, kind: int) -> Callable[[memoryview], ProxyRequest | ProxyAnswer]:
        """What decodes the messages of such frames; ValueError where there are none."""
        if kind == _peers.PROXY:
            return self._decode_request
        if kind == _peers.PROXIED:
            return self._decode_answer
        raise ValueError("no such kind of frame")

    def _decode_request(self, payload: memoryview) -> ProxyRequest:
        request = _decode_request(payload)
        if request.op.kind not in (READ, WRITE):
            raise ValueError("not an operation of plain clients")
        return request

    def _decode_answer(self, payload: memoryview) -> ProxyAnswer:
        answer = _decode_answer(payload)
        if answer.redirect is not None and not -1 <= answer.redirect < self._nodes:
            raise ValueError("no such node")
        return answer

    def received(self, peer: int, message: ProxyRequest | ProxyAnswer) -> None:
        """Another node passes an operation on, or answers one."""
        if isinstance(message, ProxyRequest):
            self._asked(peer, message)
        else:
            self._answered(message)

    # --- for this node's clients ----------------------------------------------------------

    def pass_on(self, handle: Any, redirect: Redirect, times: int = 0) -> None:
        """Pass a plain client's operation on, now or when a node is known to serve it.

        ``times``: how often that was done since this node's own machine was asked.
        """
        if self._dropped(handle):
            return
        if redirect.node < 0 or redirect.node == self._node or times > self._nodes:
            retry_ns = self._clock.now_ns() + RETRY_NS
            self._clock.at(retry_ns, self._retry, (handle, redirect.op))
            return
        number = next(self._numbers)
        self._waiting[number] = (handle, redirect.op, times + 1)
        request = ProxyRequest(number, redirect.op)
        self._service.send_frame(redirect.node, _peers.PROXY, request, REQUEST)
        give_up_ns = self._clock.now_ns() + self._timeout_ns
        self._clock.at(give_up_ns, self._lost, number)

    def _dropped(self, handle: Any) -> bool:
        """Whether nobody waits for the operation any more, which no machine holds now."""
        if handle[0].expired:
            handle[0].answer(handle, Reply(handle, FAIL))
            return True
        return False

    def _retry(self, operation: tuple[Any, Op]) -> None:
        service = self._service
        if self._dropped(operation[0]):
            return
        service.pending_handles.append(operation[0])
        service.pending_ops.append(operation[1])
        service.wake()

    def _answered(self, answer: ProxyAnswer) -> None:
        """The node that was asked has answered, or names another one."""
        waiting = self._waiting.pop(answer.number, None)
        if waiting is None:
            return
        handle, op, times = waiting
        if answer.redirect is not None:
            self.pass_on(handle, Redirect(handle, op, answer.redirect), times)
        else:
            handle[0].answer(handle, Reply(handle, answer.outcome, answer.value, answer.version))

    def _lost(self, number: int) -> None:
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            handle = waiting[0]
            handle[0].answer(handle, Reply(handle, UNKNOWN))

    # --- for other nodes ------------------------------------------------------------------

    def _asked(self, peer: int, request: ProxyRequest) -> None:
        """Another node passes an operation on to this one."""
        service, remote = self._service, self._remote.get(peer)
        if remote is None:
            remote = self._remote[peer] = RemoteHandle(service, peer, self._held)
        if service.overdue.full:
            remote.say(ProxyAnswer(request.number, FAIL, None, 0))
            return
        held = self._held.take(request.op.size)
        service.pending_handles.append((remote, request.number, held))
        service.pending_ops.append(request.op)
        service.wake()
