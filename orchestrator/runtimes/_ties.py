"""Copies of operations that wait at another node, too, between the sockets of a node's process:
``_tying`` says what becomes of them.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol

import msgspec

from orchestrator.core.machine import CANCEL, Op
from orchestrator.core.waiting import Cancel, Tie
from orchestrator.runtimes import _peers
from orchestrator.runtimes._clock import RealClock
from orchestrator.runtimes._node import NodeShell
from orchestrator.runtimes._own_load import OwnLoad
from orchestrator.runtimes._tying import TyingShell
from orchestrator.runtimes._visits import Visit

_decode = msgspec.msgpack.Decoder(Cancel).decode


class Service(Protocol):
    """What copies need of their node."""

    node: int
    pending_handles: list[Any]
    pending_ops: list[Op]

    @abstractmethod
    def send_frame(self, peer: int, kind: int, payload: Any, link_kind: str) -> None:
        """Send a frame that is not of the machine."""


class Ties:
    """One node's. Copies that come before it has started wait until it has."""

    def __init__(
        self, service: Service, shell: NodeShell, load: OwnLoad | None, clock: RealClock, nodes: int
    ) -> None:
        self._service = service
        self._tracer = shell.tracer
        self._shell = shell if isinstance(shell, TyingShell) else None
        self._load = load
        self._clock = clock
        self._nodes = nodes
        self._early: list[tuple[Any, Op, Tie]] | None = []

    def start(self) -> None:
        """The node has started."""
        early, self._early = self._early or [], None
        for copy in early:
            self.tied(*copy)

    def tied(self, handle: Any, op: Op, tie: Tie) -> None:
        """A copy comes; ValueError where there are none, or it is of no other node."""
        shell = self._check(tie)
        if self._early is not None:
            self._early.append((handle, op, tie))
            return
        if self._load is not None:
            self._load.arrived(handle, self._clock.now_ns())
        shell.tied(handle, op, tie)

    def sampled(self, handle: Any, op: Op, tie: Tie | None, number: int) -> None:
        """An attempt of a sampled operation comes; ValueError as ``tied``."""
        if tie is not None:
            self._check(tie)
        visit = self._tracer.follow(handle, number)
        if tie is not None:
            self.tied(visit, op, tie)
        else:
            self._service.pending_handles.append(visit)
            self._service.pending_ops.append(op)

    def _check(self, tie: Tie) -> TyingShell:
        if self._shell is None or not 0 <= tie.node < self._nodes or tie.node == self._service.node:
            raise ValueError("no other node has a copy")
        return self._shell

    def cancel(self, target: int, cancel: Cancel) -> None:
        """To the node that has, or gets, the other copy."""
        self._service.send_frame(target, _peers.CANCEL, cancel, CANCEL)

    def dropped(self, handle: Any) -> None:
        """This copy will not be answered here."""
        if type(handle) is Visit:
            self._tracer.left(handle)
        if self._load is not None:
            self._load.answered(handle, self._clock.now_ns(), served=False)

    def decode(self, payload: memoryview) -> Cancel:
        """What another node says; ValueError where there are no copies."""
        if self._shell is None:
            raise ValueError("no such kind of frame")
        return _decode(payload)
