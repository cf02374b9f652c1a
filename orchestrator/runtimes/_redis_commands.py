"""Commands to a Redis server one after another, for what surrounds a run: not for load.

It blocks: whoever calls has nothing else to do meanwhile.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import hiredis

from orchestrator.core.machine import Preload
from orchestrator.core.randomness import block_stream
from orchestrator.errors import EnvironmentFailure, InfeasibleError
from orchestrator.runtimes._handshake import Credentials
from orchestrator.runtimes._parts import Parts

ANSWER_S: Final = 60.0
WAIT_MS: Final = 50_000
"""How long replicas may take to receive the data; below the time that any answer may take."""
CHUNK: Final = 2000
_READ_BYTES: Final = 1 << 16


class RedisCommands:
    """One connection. Calls raise OSError where it breaks or nothing comes in time; so does
    making one where the server does not take the run's password.
    """

    def __init__(
        self, address: tuple[str, int] | Path, timeout_s: float, credentials: Credentials
    ) -> None:
        if isinstance(address, Path):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(timeout_s)
            try:
                self._socket.connect(str(address))
            except OSError:
                self._socket.close()
                raise
        else:
            self._socket = socket.create_connection(address, timeout_s)
        self._reader = hiredis.Reader()
        answer = self.call("AUTH", credentials.server_password)
        if answer != b"OK":
            self._socket.close()
            raise ConnectionRefusedError(f"the server does not take the password: {answer}")

    def call(self, *words: str | int) -> Any:
        """The answer; an error is returned as a hiredis.ReplyError and not raised."""
        return self.pipeline([words])[0]

    def pipeline(self, commands: Sequence[Sequence[str | bytes | int]]) -> list[Any]:
        """The answers of several commands that are sent together."""
        # The stub allows commands of one word only.
        packed = [hiredis.pack_command(tuple(words)) for words in commands]  # type: ignore[arg-type]
        self._socket.sendall(b"".join(packed))
        answers: list[Any] = []
        while len(answers) < len(commands):
            while (answer := self._reader.gets()) is False:
                data = self._socket.recv(_READ_BYTES)
                if not data:
                    raise ConnectionResetError("the server closed the connection")
                self._reader.feed(data)
            answers.append(answer)
        return answers

    def facts(self, *sections: str) -> dict[str, str]:
        """The fields of sections of INFO."""
        texts = self.pipeline([("INFO", section) for section in sections])
        lines = (line for text in texts for line in text.decode().splitlines())
        return {
            name: value for name, colon, value in (line.partition(":") for line in lines) if colon
        }

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def preload(parts: Parts, primary: tuple[str, int], credentials: Credentials) -> None:
    """Write what the workload has before its first operation, and wait for all replicas.

    Keys come in random order, so that under eviction the server keeps no particular ones.
    Raises InfeasibleError where they do not fit, EnvironmentFailure where the server fails.
    """
    values = parts.workload.preload()
    keys = list(_all_keys(values))
    order = block_stream(parts.config.seed, "preload").permutation(len(keys)).tolist()
    try:
        with closing(RedisCommands(primary, ANSWER_S, credentials)) as server:
            for start in range(0, len(keys), CHUNK):
                chunk = [keys[index] for index in order[start : start + CHUNK]]
                answers = server.pipeline([("SET", key, values.get(key) or b"") for key in chunk])
                for answer in answers:
                    if isinstance(answer, hiredis.ReplyError):
                        raise _refused(str(answer), len(keys))
            replicas = parts.system.nodes - 1
            reached = server.call("WAIT", replicas, WAIT_MS)
    except OSError as error:
        raise EnvironmentFailure(f"loading the data into the primary: {error}") from error
    if reached < replicas:
        raise EnvironmentFailure(f"only {reached} of {replicas} replicas received the data")


def _all_keys(values: Preload) -> Iterator[bytes]:
    start = b""
    while keys := values.keys_from(start, CHUNK):
        yield from keys
        # The smallest key above the last one.
        start = keys[-1] + b"\0"


def _refused(said: str, keys: int) -> EnvironmentFailure | InfeasibleError:
    if said.startswith("OOM"):
        return InfeasibleError(
            f"the {keys} keys of the workload do not fit into a server's memory",
            path="system.maxmemory",
            hint="raise it, have fewer or smaller keys, or choose a maxmemory_policy that evicts",
        )
    return EnvironmentFailure(f"loading the data into the primary: {said}")
