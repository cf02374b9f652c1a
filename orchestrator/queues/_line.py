"""What queues that keep one line in order of arrival have in common."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from orchestrator.core.machine import Op
from orchestrator.core.waiting import QueueParams


class Line:
    """Jobs in order of arrival, each as (arrival in ns, job); who finds it full is turned away."""

    __slots__ = ("_limit", "_line")

    def __init__(self, params: QueueParams) -> None:
        self._limit = params.limit
        self._line: deque[tuple[int, Any]] = deque()

    def __len__(self) -> int:
        return len(self._line)

    def put(self, job: Any, op: Op, now_ns: int) -> Sequence[Any]:
        """Let a job wait behind the others; returns it where there is no room."""
        if self._limit is not None and len(self._line) >= self._limit:
            return (job,)
        self._line.append((now_ns, job))
        return ()

    def remove(self, job: Any) -> None:
        """A job that waits leaves; O(jobs that wait)."""
        for index, (_, waiting) in enumerate(self._line):
            if waiting is job:
                del self._line[index]
                return


class NewestLine(Line):
    """Where there is no room, the one that has waited longest is turned away."""

    __slots__ = ()

    def put(self, job: Any, op: Op, now_ns: int) -> Sequence[Any]:
        """Let a job wait; returns the oldest where there is no room."""
        self._line.append((now_ns, job))
        if self._limit is not None and len(self._line) > self._limit:
            return (self._line.popleft()[1],)
        return ()
