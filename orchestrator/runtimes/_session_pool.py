"""One client's sessions: free ones (open load), and those that wait until they are due (closed)."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Final

from orchestrator.core.load import JoiningTimetable
from orchestrator.runtimes._port import Port
from orchestrator.runtimes._session import Row, Session

_UNKNOWN_NS: Final = -1
"""Earlier than any session comes."""


class SessionPool:
    """``all`` in order of their numbers, ``free`` ones, and ``waiting``, a heap of (due, identity,
    session). ``joining``: where sessions come by themselves, when they do. ``port`` and ``record``
    are those of new sessions.
    """

    port: Port
    record: Callable[[Row], None]

    __slots__ = (
        "_client",
        "_connections",
        "_joiner",
        "_joins_ns",
        "all",
        "free",
        "joining",
        "port",
        "record",
        "waiting",
    )

    def __init__(self, client: int, connections: int, joining: JoiningTimetable | None) -> None:
        self._client = client
        self._connections = connections
        self.joining = joining
        self.all: list[Session] = []
        self.free: deque[Session] = deque()
        self.waiting: list[tuple[int, int, Session]] = []
        self._joiner: Session | None = None
        self._joins_ns = _UNKNOWN_NS

    def open(self) -> Session:
        """A new one."""
        session = Session(self._client, len(self.all) + 1, self._connections)
        session.port, session.record = self.port, self.record
        self.all.append(session)
        return session

    def take(self) -> Session:
        """A free one, or a new one."""
        return self.free.popleft() if self.free else self.open()

    def begin(self, count: int, due_ns: int) -> None:
        """That many new ones wait until then, and no others; beside them whoever comes next."""
        opened = [self.open() for _ in range(count)]
        self.waiting = [(due_ns, session.identity, session) for session in opened]
        self._join(due_ns)

    def begin_again(self, due_ns: int) -> None:
        """As many new ones as waited take their place."""
        self.free.clear()
        self.begin(0 if self.joining else len(self.waiting), due_ns)

    def wait(self, session: Session, due_ns: int) -> None:
        """The session starts its next operation then."""
        heapq.heappush(self.waiting, (due_ns, session.identity, session))

    def next(self) -> Session:
        """The one that is due first. Where it has come by itself, another is on its way."""
        session = heapq.heappop(self.waiting)[2]
        if session is self._joiner:
            self._joins_ns = _UNKNOWN_NS
            self._join(0)
        return session

    def _join(self, since_ns: int) -> None:
        """Of those that come by themselves the next one that comes no earlier is awaited."""
        if self.joining is None:
            return
        while self._joins_ns < since_ns:
            self._joins_ns = self.joining.joins_ns()
        self._joiner = self.take()
        self.wait(self._joiner, self._joins_ns)
