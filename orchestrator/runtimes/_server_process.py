"""A real Redis server as a node: its program is a child of the process that supervises it.

The program dies with its supervisor, as that does with its actor. Commands go over a socket in
the node's own folder, so that whoever answers there is the program that was started here.
Counters are the server's own, polled by INFO; between two polls they are taken to grow evenly,
so that a poll that comes late does not shift them to another interval.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
import subprocess
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final

import hiredis
import numpy
from numpy.typing import NDArray

from orchestrator.core.record import INTERVAL_NS, LOST, EventRecord, NodeRecord
from orchestrator.core.system import Address
from orchestrator.core.units import NS_PER_S
from orchestrator.errors import EnvironmentFailure
from orchestrator.runtimes._clock import RealClock
from orchestrator.runtimes._lifetime import die_with_parent
from orchestrator.runtimes._link_probe import Samples
from orchestrator.runtimes._node_process import NodeSpec
from orchestrator.runtimes._redis_commands import RedisCommands
from orchestrator.systems.redis import PRIMARY, SOCKET

START_S: Final = 10.0
ANSWER_S: Final = 5.0
PORT_ATTEMPTS: Final = 3
"""Another process may take a free port before the server does."""
OUTPUT_LINES: Final = 5
# Columns of a sample: reads, writes, CPU time in ns, hits, misses, evictions.
_COUNTERS: Final = 6


class ServerProcess:
    """One server program; the same interface as NodeProcess."""

    def __init__(self, spec: NodeSpec, loop: asyncio.AbstractEventLoop) -> None:
        self._spec = spec
        self._clock = RealClock(loop, spec.origin_ns)
        self._program: subprocess.Popen[bytes] | None = None
        self._commands: RedisCommands | None = None
        self._output = Path(spec.folder) / "server.log"
        self._events: list[EventRecord] = []
        self._samples: list[tuple[int, ...]] = []
        self._lost = False

    @property
    def _is_primary(self) -> bool:
        return self._spec.node == PRIMARY

    # --- life -----------------------------------------------------------------------------

    async def listen(self) -> dict[str, int]:
        """Start the program and wait until it answers; returns its one port under both names."""
        fixed = self._spec.client_port
        for attempt in range(1, PORT_ATTEMPTS + 1):
            port = fixed or _free_port(self._spec.host)
            self._launch(port)
            try:
                await self._wait_for_answer()
            except EnvironmentFailure:
                self._stop()
                if fixed or attempt == PORT_ATTEMPTS:
                    raise
            else:
                break
        return {"client_port": port, "peer_port": port}

    def _launch(self, port: int) -> None:
        spec = self._spec
        # Only where it listens itself is known by now.
        addresses = [Address(spec.host, port)] * spec.parts.system.nodes
        password = spec.credentials.server_password
        command = spec.parts.system.program(spec.node, addresses, spec.folder, password)
        with self._output.open("wb") as output:
            self._program = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Safe: this process has one thread.
                preexec_fn=functools.partial(die_with_parent, os.getpid()),  # noqa: PLW1509
            )

    async def _wait_for_answer(self) -> None:
        spec, deadline_s = self._spec, time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            if self._program is None or self._program.poll() is not None:
                raise self._failure("ended at once")
            with suppress(OSError):
                self._commands = RedisCommands(
                    Path(spec.folder) / SOCKET, ANSWER_S, spec.credentials
                )
                if self._commands.call("PING") == b"PONG":
                    return
            await asyncio.sleep(0.005)
        raise self._failure(f"did not answer in {START_S:.0f} s")

    def _failure(self, what: str) -> EnvironmentFailure:
        with suppress(OSError), self._output.open(encoding="utf-8", errors="replace") as lines:
            last = [line.strip() for line in deque(lines, OUTPUT_LINES) if line.strip()]
            return EnvironmentFailure(
                f"the server of node {self._spec.node} {what}", hint="; ".join(last) or None
            )
        return EnvironmentFailure(f"the server of node {self._spec.node} {what}")

    def connect(self, addresses: list[tuple[str, int]]) -> None:
        """A replica follows the primary from now on."""
        if not self._is_primary:
            host, port = addresses[PRIMARY]
            answer = self._running.call("REPLICAOF", host, port)
            if answer != b"OK":
                raise self._failure(f"cannot replicate: {answer}")

    @property
    def _running(self) -> RedisCommands:
        if self._commands is None:
            raise self._failure("does not run")
        return self._commands

    @property
    def restarted(self) -> bool:
        """Whether it has been here before."""
        return self._spec.restarted

    @property
    def role(self) -> str:
        return "primary" if self._is_primary else "replica"

    @property
    def connected(self) -> bool:
        """A replica: whether it holds the primary's data; the primary: whether all replicas do."""
        try:
            facts = self._running.facts("replication")
        except OSError as error:
            raise self._failure(f"was lost: {error}") from error
        if not self._is_primary:
            return facts["master_link_status"] == "up"
        replicas = [facts.get(f"slave{n}", "") for n in range(self._spec.parts.system.nodes - 1)]
        return all("state=online" in replica for replica in replicas)

    async def probe(self) -> dict[int, Samples]:
        """Its own links are its own affair."""
        return {}

    def start(self, origin_ns: int) -> None:
        """Count from now on; time 0 is ``origin_ns`` of this host's monotonic clock."""
        self._clock.origin_ns = origin_ns
        self._sample()
        self._clock.at(0, self._sample_again, 0)

    def close(self) -> None:
        """End the program and forget what was to be counted."""
        self._stop()
        self._clock.close()

    def _stop(self) -> None:
        if self._commands is not None:
            self._commands.close()
            self._commands = None
        if self._program is not None:
            self._program.kill()
            self._program.wait()

    # --- what it counted ------------------------------------------------------------------

    def _sample_again(self, number: int) -> None:
        self._sample()
        if not self._lost:
            # A poll that waited long is not made up for.
            following = max(number, self._clock.now_ns() // INTERVAL_NS) + 1
            self._clock.at(following * INTERVAL_NS, self._sample_again, following)

    def _sample(self) -> None:
        try:
            facts = self._running.facts("stats", "commandstats", "cpu")
        except OSError as error:
            self._note_loss(error)
            return
        cpu_s = float(facts["used_cpu_user"]) + float(facts["used_cpu_sys"])
        self._samples.append(
            (
                self._clock.now_ns(),
                _calls(facts, "get"),
                _calls(facts, "set"),
                round(cpu_s * NS_PER_S),
                int(facts["keyspace_hits"]),
                int(facts["keyspace_misses"]),
                int(facts["evicted_keys"]),
            )
        )

    def _note_loss(self, error: OSError) -> None:
        self._lost = True
        status = self._program.poll() if self._program is not None else None
        reason = str(error)
        if status is not None:
            how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            reason = f"the server ended with {how}"
        self._events.append(EventRecord(self._clock.now_ns(), self._spec.node, LOST, reason))

    def digest(self) -> str:
        """The server's own fingerprint of its contents; empty where it gives none."""
        try:
            answer = self._running.call("DEBUG", "DIGEST")
        except OSError:
            return ""
        return "" if isinstance(answer, hiredis.ReplyError) else answer.decode()[:16]

    def record(
        self, warmup_ns: int, end_ns: int, fingerprint: bool
    ) -> tuple[NodeRecord, list[EventRecord]]:
        """Counters over the run, which ended at ``end_ns``; its contents' digest where asked.

        ``operations`` are those of clients; ``messages`` are the writes that a replica received
        from its primary. CPU time is real.
        """
        if not self._lost:
            self._sample()
        intervals = max(1, -(-end_ns // INTERVAL_NS))
        edges_ns = numpy.arange(intervals + 1) * INTERVAL_NS
        counts = self._counters_at(edges_ns)
        reads, writes, cpu_ns, hits, misses, evictions = numpy.diff(counts, axis=1)
        nothing = numpy.zeros(intervals, dtype=numpy.int64)
        window_cpu_ns = self._counters_at(numpy.array([warmup_ns, end_ns]))[2]
        node = NodeRecord(
            node=self._spec.node,
            host=self._spec.host,
            role=self.role,
            cores=1,
            storage_parallel=None,
            provided_ns=numpy.full(intervals, INTERVAL_NS, dtype=numpy.int64),
            operations=reads + writes if self._is_primary else reads,
            messages=nothing if self._is_primary else writes,
            refused=nothing,
            cancelled=nothing,
            cpu_busy_ns=cpu_ns,
            storage_busy_ns=nothing,
            cache_hits=hits,
            cache_misses=misses,
            cache_evictions=evictions,
            process_cpu_ns=int(window_cpu_ns[1] - window_cpu_ns[0]),
            contents_digest=self.digest() if fingerprint else "",
        )
        return node, self._events

    def _counters_at(self, times_ns: NDArray[numpy.int64]) -> NDArray[numpy.int64]:
        """Counters at given times, shape (counters, times), from the samples around them."""
        taken = numpy.array(self._samples, dtype=numpy.int64).reshape(-1, 1 + _COUNTERS)
        if not len(taken):
            return numpy.zeros((_COUNTERS, len(times_ns)), dtype=numpy.int64)
        columns = [numpy.interp(times_ns, taken[:, 0], column) for column in taken[:, 1:].T]
        return numpy.rint(columns).astype(numpy.int64)


def _calls(facts: dict[str, str], command: str) -> int:
    """How often a command was carried out: ``calls=7,usec=9,...``."""
    fields = facts.get(f"cmdstat_{command}", "calls=0")
    return int(fields.partition("calls=")[2].partition(",")[0])


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as probe:
        port: int = probe.getsockname()[1]
        return port
