"""Strict priorities by tenant and by kind of operation; where the queue is full the least
important is shed.

Nobody of a lower class is served while one of a higher class waits, and who finds the queue full
takes the place of the newest of the lowest class below its own, if there is one. A load of the
highest class alone that exceeds the capacity starves all others. Where tenants are named, theirs
come first whatever their kind, and kinds decide within a tenant. O(classes) an operation.

Whose an operation is says its key: the tenant's name stands before the first slash
(:mod:`orchestrator.workloads.tenants`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.machine import KIND_NAMES, Op
from orchestrator.core.parameters import ParameterError, text
from orchestrator.core.registry import Family, register
from orchestrator.core.waiting import QueueParams
from orchestrator.errors import suggestion


@dataclass(frozen=True)
class PriorityParams(QueueParams):
    order: tuple[str, ...] = text(
        ("read",), help="kinds of operation, the most important first; all others come last"
    )
    tenants: tuple[str, ...] = text(
        (), help="tenants, the most important first, before kinds; all others come last"
    )

    def __post_init__(self) -> None:
        for kind in self.order:
            if kind not in KIND_NAMES:
                hint = suggestion(kind, KIND_NAMES)
                raise ParameterError(f"unknown kind of operation {kind!r}: {hint}", key="order")
        if len(set(self.order)) < len(self.order):
            raise ParameterError("a kind of operation stands twice", key="order")
        if len(set(self.tenants)) < len(self.tenants):
            raise ParameterError("a tenant stands twice", key="tenants")

    @property
    def known_tenants(self) -> tuple[str, ...]:
        return self.tenants


@register(Family.QUEUE, "priority", params=PriorityParams)
class Priority:
    """The most important tenant or kind first; where it is full the least important is shed"""

    __slots__ = ("_class_of", "_classes", "_count", "_first_of", "_limit", "_others")

    def __init__(self, params: PriorityParams) -> None:
        self._limit = params.limit
        last = len(params.order)
        self._class_of = [
            params.order.index(kind) if kind in params.order else last for kind in KIND_NAMES
        ]
        kinds = last + 1
        # Of each named tenant the first of its classes, and that of all others.
        self._first_of = {
            f"{name}/".encode(): kinds * place for place, name in enumerate(params.tenants)
        }
        self._others = kinds * len(params.tenants)
        self._classes: list[deque[Any]] = [deque() for _ in range(self._others + kinds)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, job: Any, op: Op, now_ns: int) -> Sequence[Any]:
        """Let a job wait; where there is no room returns a less important one, or itself."""
        mine = self._class_of[op.kind]
        if self._others:
            key = op.key
            mine += self._first_of.get(key[: key.find(b"/") + 1], self._others)
        turned_away: Sequence[Any] = ()
        if self._limit is not None and self._count >= self._limit:
            for waiting in self._classes[:mine:-1]:
                if waiting:
                    turned_away = (waiting.pop(),)
                    self._count -= 1
                    break
            else:
                return (job,)
        self._classes[mine].append(job)
        self._count += 1
        return turned_away

    def remove(self, job: Any) -> None:
        """A job that waits leaves; O(jobs that wait)."""
        for waiting in self._classes:
            for index, each in enumerate(waiting):
                if each is job:
                    del waiting[index]
                    self._count -= 1
                    return

    def take(self, now_ns: int) -> tuple[Any | None, Sequence[Any]]:
        """The oldest of the most important."""
        for waiting in self._classes:
            if waiting:
                self._count -= 1
                return waiting.popleft(), ()
        return None, ()
