"""What a forked process does: it becomes a node, a client or a server program, on command.

Commands come over a control socket as ``(number, name, arguments)`` and are answered with
``(number, True, result)`` or ``(number, False, exception)`` when they are done, in whatever order
that is; the process ends when the socket closes.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import time
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any, Final

from orchestrator.core.faults import LinkState, NodeState
from orchestrator.core.record import EventRecord, NodeRecord
from orchestrator.errors import ArchbenchError, EnvironmentFailure
from orchestrator.runtimes._placement import Pin

REUNION_S: Final = 0.1
"""How long a node that comes back waits for its peers."""


def preload() -> None:
    """Import what any child needs, before the fork."""
    import uvloop  # noqa: F401

    from orchestrator.core.registry import Family, plugins
    from orchestrator.runtimes import (  # noqa: F401
        _client_process,
        _node_process,
        _server_process,
    )

    for family in Family:
        plugins(family)


class Child:
    """Carries out commands; ``role`` is the node or client that this process has become."""

    def __init__(self, control: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._control = control
        self._loop = loop
        self._role: Any = None
        self._broken: EnvironmentFailure | None = None
        loop.set_exception_handler(self._broke)
        loop.add_reader(control.fileno(), self._readable)
        # The loop makes the socket non-blocking, which would cut large answers short.
        os.set_blocking(control.fileno(), True)

    def _broke(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback raised: what this process does from now on is nothing to be measured."""
        loop.default_exception_handler(context)
        error = context.get("exception")
        if self._broken is None:
            what = f"{type(error).__name__}: {error}" if error else context["message"]
            where = "".join(traceback.format_exception(error, limit=-4)) if error else ""
            self._broken = EnvironmentFailure(what, hint=where)

    def _readable(self) -> None:
        try:
            number, name, arguments = self._control.recv()
        except (EOFError, OSError):
            os._exit(0)
        self._loop.create_task(self._carry_out(number, name, arguments))

    async def _carry_out(self, number: int, name: str, arguments: tuple[Any, ...]) -> None:
        try:
            if self._broken is not None:
                raise self._broken
            answer = (number, True, await getattr(self, f"do_{name}")(*arguments))
        except ArchbenchError as error:
            answer = (number, False, error)
        except Exception as error:
            text = traceback.format_exc(limit=-4)
            answer = (
                number,
                False,
                EnvironmentFailure(f"{type(error).__name__}: {error}", hint=text),
            )
        self._control.send(answer)

    # --- commands -------------------------------------------------------------------------

    async def do_node(self, spec: Any) -> dict[str, int]:
        """Become a node; answers with its ports."""
        from orchestrator.runtimes._node_process import NodeProcess
        from orchestrator.runtimes._server_process import ServerProcess

        _keep_to(spec.pin)
        become = NodeProcess if spec.parts.system.emulated else ServerProcess
        self._role = become(spec, self._loop)
        try:
            ports: dict[str, int] = await self._role.listen()
        except OSError as error:
            where = f"{spec.host}:{spec.client_port}" if spec.client_port else spec.host
            raise EnvironmentFailure(
                f"node {spec.node} cannot listen on {where}: {error.strerror or error}"
            ) from error
        return ports

    async def do_client(self, spec: Any, addresses: list[tuple[str, int]]) -> None:
        """Become a client and connect to all nodes."""
        from orchestrator.runtimes._client_process import ClientProcess

        _keep_to(spec.pin)
        self._role = ClientProcess(spec, self._loop)
        await self._role.connect(addresses)

    async def do_preload(self, parts: Any, primary: tuple[str, int], credentials: Any) -> None:
        """Client: load the data of a system that is not emulated."""
        from orchestrator.runtimes._redis_commands import preload

        preload(parts, primary, credentials)

    async def do_connect(self, addresses: list[tuple[str, int]]) -> None:
        """Node: open the links to its peers and wait until they stand.

        A node that comes back does not wait long: some of its peers may be down.
        """
        self._role.connect(addresses)
        deadline_s = time.monotonic() + REUNION_S if self._role.restarted else math.inf
        while not self._role.connected and time.monotonic() < deadline_s:
            await asyncio.sleep(0.002)

    async def do_probe(self, after_s: float) -> Any:
        """Node or client: what its links to the nodes take; others probe theirs before."""
        await asyncio.sleep(after_s)
        return await self._role.probe()

    async def do_lead(self, leads_ns: Mapping[int, int]) -> None:
        """Node or client: what messages to these parties take of themselves."""
        self._role.lead(leads_ns)

    async def do_start(self, origin_ns: int) -> None:
        """Start the machine, or the load."""
        self._role.start(origin_ns)

    async def do_finish(self) -> None:
        """Client: answer when all is done."""
        done = self._loop.create_future()
        self._role.when_finished(lambda: done.set_result(None))
        await done

    async def do_read_back(self) -> bool:
        """Client: read what was written, and not read back yet; whether there is any."""
        reading: bool = self._role.read_back()
        return reading

    async def do_crash_client(self) -> None:
        """Client: lose everything that is under way."""
        self._role.crash()

    async def do_revive_client(self) -> None:
        """Client: begin anew."""
        self._role.revive()

    async def do_vanish(self, node: int) -> None:
        """Client: the machine of a node is about to be silent."""
        self._role.vanish(node)

    async def do_reappear(self, node: int) -> None:
        """Client: it is there again, or known to be lost."""
        self._role.reappear(node)

    async def do_disturb(self, links: Mapping[int, LinkState]) -> None:
        """Node or client: its links to these are in these states, the others are clear."""
        self._role.disturb(links)

    async def do_burden(self, state: NodeState) -> None:
        """Node: it is in this state."""
        self._role.burden(state)

    async def do_role(self) -> str:
        """Node: the role that it plays now."""
        role: str = self._role.role
        return role

    async def do_progress(self) -> tuple[int, bool]:
        """Client: operations done, and whether that was all."""
        progress: tuple[int, bool] = self._role.progress()
        return progress

    async def do_digest(self) -> str:
        """Node: fingerprint of the written state."""
        digest: str = self._role.digest()
        return digest

    async def do_node_record(
        self, warmup_ns: int, end_ns: int, fingerprint: bool
    ) -> tuple[NodeRecord, list[EventRecord]]:
        """Node: what it counted."""
        record: tuple[NodeRecord, list[EventRecord]] = self._role.record(
            warmup_ns, end_ns, fingerprint
        )
        return record

    async def do_client_record(self) -> Any:
        """Client: its ClientReport."""
        return self._role.record()


def _keep_to(pin: Pin | None) -> None:
    """Run on one core of those that this process may use, with all that it starts from now on."""
    if pin is not None:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[pin.core(len(cores))]})


def main(control_file: int, lifeline_file: int) -> None:
    """Serve commands until the control socket closes; the open lifeline tells that we live."""
    import uvloop

    # Collections would stop everything for milliseconds; what a run makes has no cycles.
    gc.disable()
    os.set_inheritable(lifeline_file, False)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    Child(Connection(control_file), loop)
    loop.run_forever()
