"""The actor's side of a process: it starts the zygote, forks children and watches them.

One supervisor holds one child at a time. Nothing here imports Ray, so that it can be tested by
itself; ``ray_cluster`` makes it an actor.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from orchestrator.errors import EnvironmentFailure
from orchestrator.runtimes._zygote import PID

ZYGOTE_START_S: Final = 30.0
FORK_S: Final = 10.0


class Supervisor:
    """Forks a child from a warm zygote and passes commands to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        environment = dict(os.environ, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
        # What this process can import (a driver hands its search path to its actors), it can too.
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        module = "orchestrator.runtimes._zygote"
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", module, str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._socket = ours
        self._ready = False
        self._control: Connection | None = None
        self._lifeline = -1
        self._pid = 0
        self._lock = threading.Lock()
        self.folder = tempfile.mkdtemp(prefix="archbench-")

    def ready(self) -> dict[str, str]:
        """Wait for the zygote; says which host this is."""
        if not self._ready:
            self._receive_pid(ZYGOTE_START_S)
            self._ready = True
        return {"boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip()}

    def _receive_pid(self, timeout_s: float) -> int:
        self._socket.settimeout(timeout_s)
        try:
            data = self._socket.recv(PID.size)
        except TimeoutError as error:
            raise EnvironmentFailure(f"the fork server did not answer in {timeout_s} s") from error
        if len(data) < PID.size:
            raise EnvironmentFailure("the fork server died")
        return int(PID.unpack(data)[0])

    def clock_ns(self) -> int:
        """This host's monotonic clock."""
        return time.monotonic_ns()

    def fork(self) -> int:
        """A fresh child in place of the one before; returns its process id."""
        self.ready()
        with self._lock:
            self._drop_child()
            ours, theirs = socket.socketpair()
            reading, writing = os.pipe()
            socket.send_fds(self._socket, [b"f"], [theirs.fileno(), writing])
            theirs.close()
            os.close(writing)
            self._pid = self._receive_pid(FORK_S)
            self._control = Connection(ours.detach())
            self._lifeline = reading
            return self._pid

    def fresh(self) -> tuple[str, int]:
        """A fresh child; returns the folder that is its own, and its process id."""
        pid = self.fork()
        return self.folder, pid

    def call(self, name: str, *arguments: Any, timeout_s: float) -> Any:
        """Let the child carry out a command; raises what it raised, or after the deadline."""
        control = self._control
        if control is None:
            raise EnvironmentFailure(f"no process to {name}")
        try:
            control.send((name, arguments))
            if not control.poll(timeout_s):
                raise EnvironmentFailure(f"a process did not answer to {name} in {timeout_s:.0f} s")
            fine, result = control.recv()
        except (EOFError, OSError) as error:
            raise EnvironmentFailure(f"the process died during {name}") from error
        if not fine:
            raise result
        return result

    def watch(self, arguments: tuple[Any, ...], origin_ns: int, addresses: list[Any]) -> None:
        """Restart the child as a node whenever it dies, until the next fork or drop."""
        lifeline = self._lifeline
        threading.Thread(
            target=self._keep_alive, args=(lifeline, arguments, origin_ns, addresses), daemon=True
        ).start()

    def _keep_alive(
        self, lifeline: int, arguments: tuple[Any, ...], origin_ns: int, addresses: list[Any]
    ) -> None:
        pid = self._pid
        poller = select.poll()
        poller.register(lifeline, select.POLLIN | select.POLLHUP)
        poller.poll()
        if self._lifeline != lifeline or self._pid != pid:
            return
        with suppress(EnvironmentFailure):
            self.fork()
            self.call("node", *arguments, timeout_s=FORK_S)
            self.call("connect", addresses, timeout_s=FORK_S)
            self.call("start", origin_ns, timeout_s=FORK_S)
            self.watch(arguments, origin_ns, addresses)

    def _drop_child(self) -> None:
        if self._control is None:
            return
        lifeline, self._lifeline = self._lifeline, -1
        self._control.close()
        self._control = None
        # The child is not ours but the zygote's: only what still holds its lifeline is killed.
        poller = select.poll()
        poller.register(lifeline, select.POLLIN | select.POLLHUP)
        if not poller.poll(0):
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            poller.poll(FORK_S * 1000)
        os.close(lifeline)
        self._pid = 0

    def drop(self) -> None:
        """End the child, if there is one, and clear its folder."""
        with self._lock:
            self._drop_child()
        # An actor that is being closed may find its folder gone.
        with suppress(FileNotFoundError):
            for entry in Path(self.folder).iterdir():
                entry.unlink()

    def close(self) -> None:
        """End the child and the zygote; remove the folder."""
        self.drop()
        self._socket.close()
        self._zygote.wait(FORK_S)
        shutil.rmtree(self.folder, ignore_errors=True)
