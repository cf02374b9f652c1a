"""Conversations with a child process: commands out, answers in, in whatever order they come."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from multiprocessing.connection import Connection
from typing import Any

from orchestrator.errors import PartLost


class Control:
    """The supervisor's end. Several threads may ask at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, tuple[str, Future[Any]]] = {}
        self._ended = False
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, name: str, arguments: tuple[Any, ...]) -> Future[Any]:
        """Let the child carry out a command; the future raises what it raised."""
        future: Future[Any] = Future()
        number = next(self._numbers)
        self._waiting[number] = (name, future)
        try:
            with self._sending:
                self._connection.send((number, name, arguments))
        except OSError:
            self._fail(number)
        if self._ended:
            self._fail(number)
        return future

    def call(self, name: str, arguments: tuple[Any, ...], timeout_s: float) -> Any:
        """The answer to a command; raises what the child raised, or after the deadline."""
        try:
            return self.ask(name, arguments).result(timeout_s)
        except FutureTimeout as error:
            raise PartLost(f"a process did not answer to {name} in {timeout_s:.0f} s") from error

    def _listen(self) -> None:
        while True:
            try:
                number, fine, result = self._connection.recv()
            except (EOFError, OSError):
                break
            _, future = self._waiting.pop(number)
            if fine:
                future.set_result(result)
            else:
                future.set_exception(result)
        self._ended = True
        for number in list(self._waiting):
            self._fail(number)
        self._connection.close()

    def _fail(self, number: int) -> None:
        # Whoever takes it out tells it: the listener and the asker may both find it there.
        name, future = self._waiting.pop(number, ("", None))
        if future is not None:
            future.set_exception(PartLost(f"the process died during {name}"))
