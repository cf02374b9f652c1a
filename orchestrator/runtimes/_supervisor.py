"""The actor's side of a process: it starts the zygote, forks children and watches them.

One supervisor holds one child at a time. Several threads may use it at a time, so that a fault
can strike a child that is busy with a command. Nothing here imports Ray, so that it can be tested
by itself; ``ray_cluster`` makes it an actor.
"""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from orchestrator.core.faults import RESPAWN_NS
from orchestrator.core.record import LOST, NO_COPY, STORAGE, EventRecord
from orchestrator.core.units import NS_PER_S
from orchestrator.errors import EnvironmentFailure, LogDamaged, PartLost
from orchestrator.runtimes._control import Control
from orchestrator.runtimes._disk import cut_unsynced
from orchestrator.runtimes._duty import DutyCycle
from orchestrator.runtimes._host_clock import clock_name
from orchestrator.runtimes._journal import JOURNAL, Journal
from orchestrator.runtimes._lifetime import OwnFolder
from orchestrator.runtimes._zygote import PID

ZYGOTE_START_S: Final = 30.0
FORK_S: Final = 10.0
DOWN: Final = "down"
"""Role of a node that does not come back."""
RESPAWNS: Final = 5
"""How often a node that cannot start again (its port is taken, say) is tried in a row."""


@dataclass(frozen=True)
class Rebirth:
    """What it takes to start a node again: its spec, time 0, and where its peers listen."""

    spec: Any
    origin_ns: int
    addresses: Sequence[tuple[str, int]]


class Supervisor:
    """Forks a child from a warm zygote and passes commands to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        environment = dict(os.environ, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
        # What this process can import (a driver hands its search path to its actors), it can too.
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        module = "orchestrator.runtimes._zygote"
        # That of whoever started this process: on a cluster the raylet's.
        niceness = os.getpriority(os.PRIO_PROCESS, os.getppid())
        numbers = (theirs.fileno(), os.getpid(), niceness)
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, numbers)],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._socket = ours
        self._ready = False
        self._broken = False
        self._control: Control | None = None
        self._lifeline = -1
        self._pid = 0
        # How many children there have been: whoever watches one knows whether it is still that.
        self._births = 0
        self._lock = threading.RLock()
        self._rebirth: Rebirth | None = None
        # A fault keeps it down, or it is gone for good.
        self._down = False
        self._paused = False
        self._duty = DutyCycle(
            lambda: self._signal(signal.SIGSTOP), lambda: self._signal(signal.SIGCONT)
        )
        # (number, arguments) by name.
        self._afflictions: dict[str, tuple[int, tuple[Any, ...]]] = {}
        self._deaths: list[EventRecord] = []
        self._own_folder = OwnFolder()
        self.folder = self._own_folder.path

    def well(self) -> bool:
        """Whether it can fork another child."""
        return not self._broken and self._zygote.poll() is None

    def ready(self) -> dict[str, str]:
        """Wait for the zygote; says which clock its host has."""
        with self._lock:
            if not self._ready:
                self._receive_pid(ZYGOTE_START_S)
                self._ready = True
        return {"clock": clock_name()}

    def _receive_pid(self, timeout_s: float) -> int:
        self._socket.settimeout(timeout_s)
        try:
            data = self._socket.recv(PID.size)
        except TimeoutError as error:
            raise PartLost(f"the fork server did not answer in {timeout_s:g} s") from error
        if len(data) < PID.size:
            raise PartLost("the fork server died")
        return int(PID.unpack(data)[0])

    def clock_ns(self) -> int:
        """This host's monotonic clock."""
        return time.monotonic_ns()

    def process_id(self) -> int:
        """Of the process that supervises."""
        return os.getpid()

    # --- the child ------------------------------------------------------------------------

    def fork(self) -> int:
        """A fresh child in place of the one before; returns its process id.

        Raises PartLost where the fork server is gone or does not answer. It is not asked again
        then: an answer that comes late would be taken for that to the next question.
        """
        self.ready()
        with self._lock:
            self._end_child()
            ours, theirs = socket.socketpair()
            reading, writing = os.pipe()
            try:
                if self._broken:
                    raise PartLost("the fork server failed before")
                socket.send_fds(self._socket, [b"f"], [theirs.fileno(), writing])
                self._pid = self._receive_pid(FORK_S)
            except (OSError, PartLost) as error:
                self._broken = True
                ours.close()
                os.close(reading)
                if isinstance(error, PartLost):
                    raise
                raise PartLost(f"the fork server is gone: {error.strerror}") from error
            finally:
                theirs.close()
                os.close(writing)
            self._control = Control(Connection(ours.detach()))
            self._lifeline = reading
            self._births += 1
            return self._pid

    def fresh(self) -> tuple[str, int]:
        """A fresh child of a new run; returns the folder that is its own, and its process id."""
        self._duty.slow_down(1.0)
        with self._lock:
            self._rebirth, self._down, self._paused = None, False, False
            self._afflictions.clear()
            self._deaths = []
            self._end_child()
            # A run that could not end well may have left its log.
            self._clear_folder()
            return self.folder, self.fork()

    def call(self, name: str, *arguments: Any, timeout_s: float) -> Any:
        """Let the child carry out a command; raises what it raised, or after the deadline."""
        control = self._control
        if control is None:
            raise PartLost(f"no process to {name}")
        return control.call(name, arguments, timeout_s)

    def _alive(self) -> bool:
        """Whether the child lives: it holds its end of the lifeline open."""
        if self._lifeline < 0:
            return False
        poller = select.poll()
        poller.register(self._lifeline, select.POLLIN | select.POLLHUP)
        return not poller.poll(0)

    def _kill(self) -> None:
        """Kill the child, which is not ours but the zygote's: only while its lifeline is held."""
        if not self._alive():
            return
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        poller = select.poll()
        poller.register(self._lifeline, select.POLLIN | select.POLLHUP)
        poller.poll(FORK_S * 1000)

    def _end_child(self) -> None:
        if self._control is None:
            return
        self._kill()
        self._control = None
        lifeline, self._lifeline = self._lifeline, -1
        os.close(lifeline)
        self._pid = 0

    # --- a node that comes back -----------------------------------------------------------

    def watch(self, rebirth: Rebirth) -> None:
        """Start the child again as this node whenever it dies, until the next run or drop."""
        with self._lock:
            self._rebirth = rebirth
            watched = (self._births, os.dup(self._lifeline))
            threading.Thread(target=self._keep_alive, args=watched, daemon=True).start()

    def _keep_alive(self, birth: int, lifeline: int) -> None:
        poller = select.poll()
        poller.register(lifeline, select.POLLIN | select.POLLHUP)
        poller.poll()
        os.close(lifeline)
        time.sleep(RESPAWN_NS / NS_PER_S)
        # What cannot be born again is missed when it is asked for what it counted.
        with self._lock, suppress(EnvironmentFailure):
            if self._births == birth and not self._down:
                self._note_death()
                self._bear_again()

    def _note_death(self) -> None:
        """A process that no fault has ended, and that has not ended itself, was lost."""
        rebirth = self._rebirth
        if rebirth is None:
            return
        journal = Journal(Path(self.folder) / JOURNAL)
        journal.close()
        if journal.events and journal.events[-1].kind == STORAGE:
            return
        at_ns = time.monotonic_ns() - rebirth.origin_ns - RESPAWN_NS
        detail = "its process died, and was started again"
        self._deaths.append(EventRecord(at_ns, rebirth.spec.node, LOST, detail))

    def deaths(self) -> list[EventRecord]:
        """When children of this run died of which nobody knows why."""
        return self._deaths

    def _bear_again(self) -> None:
        """The node comes back with what it finds in its folder."""
        rebirth = self._rebirth
        if rebirth is None:
            return
        for attempt in range(1, RESPAWNS + 1):
            try:
                self.fork()
                self.call("node", rebirth.spec, timeout_s=FORK_S)
                for name, (_, arguments) in self._afflictions.items():
                    self.call(name, *arguments, timeout_s=FORK_S)
                self.call("connect", list(rebirth.addresses), timeout_s=FORK_S)
                self.call("start", rebirth.origin_ns, timeout_s=FORK_S)
            except EnvironmentFailure as error:
                if attempt == RESPAWNS or isinstance(error, LogDamaged):
                    raise
                time.sleep(RESPAWN_NS / NS_PER_S)
            else:
                break
        self.watch(rebirth)

    # --- faults ---------------------------------------------------------------------------

    def crash(self, power: bool, gone: bool, chance: str) -> None:
        """Kill the child, which stays away until :meth:`restart`.

        ``power``: its machine stops, and its log is cut by chance behind what was synced.
        ``gone``: its folder is lost.
        """
        with self._lock:
            self._down = True
            self._kill()
            if power:
                cut_unsynced(Path(self.folder), random.Random(chance))
            if gone:
                # The journal is no part of the machine but of what measures it.
                self._clear_folder(keep=JOURNAL)

    def restart(self) -> None:
        """The child that was crashed comes back."""
        with self._lock:
            self._down = False
            if not self._alive():
                self._bear_again()

    def pause(self) -> None:
        """The child does nothing until :meth:`resume`."""
        with self._lock:
            self._signal(signal.SIGSTOP)
            self._paused = True

    def resume(self) -> None:
        """It goes on."""
        with self._lock:
            self._paused = False
            self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            if self._alive() and not self._paused:
                os.killpg(self._pid, number)

    def slow_down(self, factor: float) -> None:
        """The child has one part in ``factor`` of the time."""
        self._duty.slow_down(factor)

    def afflict(self, number: int, name: str, *arguments: Any) -> None:
        """A command that changes what the child suffers from; it is told again if it restarts.

        Nobody waits for the answer: a child that is paused hears of it later. Of commands of one
        name that come in another order than that of their ``number``, the older are ignored.
        """
        with self._lock:
            if self._afflictions.get(name, (-1, ()))[0] > number:
                return
            self._afflictions[name] = (number, arguments)
            if self._control is not None:
                self._control.ask(name, arguments)

    def last_words(self, spec: Any, warmup_ns: int, end_ns: int) -> Any:
        """The record of a node that stays away, from what its processes have noted."""
        from orchestrator.runtimes._counters import journal_record

        journal = Journal(Path(self.folder) / JOURNAL)
        journal.close()
        return journal_record(
            spec.parts, spec.node, spec.host, journal, DOWN, warmup_ns, end_ns, NO_COPY
        )

    # --- the end --------------------------------------------------------------------------

    def _clear_folder(self, keep: str = "") -> None:
        # An actor that is being closed may find its folder gone.
        with suppress(FileNotFoundError):
            for entry in Path(self.folder).iterdir():
                if entry.name != keep:
                    entry.unlink()

    def drop(self) -> None:
        """End the child, if there is one, and clear its folder."""
        self._duty.slow_down(1.0)
        with self._lock:
            self._rebirth = None
            self._end_child()
            self._clear_folder()

    def close(self) -> None:
        """End the child and the zygote; remove the folder."""
        self.drop()
        self._socket.close()
        self._zygote.wait(FORK_S)
        self._own_folder.remove()
