"""A node in virtual time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from orchestrator.core.distributions import Sampler, build
from orchestrator.core.machine import RESPONSE, Op, Redirect, Reply
from orchestrator.core.randomness import block_stream
from orchestrator.core.waiting import Cancel, Refusal, Tie
from orchestrator.runtimes._counters import COUNTERS, counted
from orchestrator.runtimes._network import Link, LinkMeter, Sender
from orchestrator.runtimes._node import NodeShell
from orchestrator.runtimes._own_load import OwnLoad
from orchestrator.runtimes._parts import make_cache, make_machine, make_shell
from orchestrator.runtimes._simulated_client import HEADER_BYTES, Request
from orchestrator.runtimes._tier import receiver
from orchestrator.runtimes._timers import Scheduler
from orchestrator.runtimes._tying import TyingShell
from orchestrator.runtimes._visits import Visit
from orchestrator.runtimes._warming import warm_up

if TYPE_CHECKING:
    from orchestrator.runtimes.simulated import SimulatedCluster

_encode = msgspec.msgpack.Encoder().encode


class SimulatedNode:
    """A node's outlet into the simulated network, and its counters over time."""

    silent = False
    """Whether its machine is gone, so that clients hear nothing of what becomes of it."""

    def __init__(self, cluster: SimulatedCluster, node: int) -> None:
        self.cluster = cluster
        self.node = node
        parts = cluster.parts
        store = parts.store
        self._clock = cluster.clock
        self._scheduler = self._shell_clock()
        self.cache = make_cache(parts, node, restarted=False)
        sender = Sender(store.network, parts.config.seed, f"node/{node}/network")
        self.links = {
            peer: Link(sender, parts.node_distance_ns(node, peer)) for peer in range(parts.machines)
        }
        responses = Sender(store.network, parts.config.seed, f"node/{node}/responses")
        at_once = responses.plain and not store.zones.apart and not parts.config.faults
        self._response_ns = responses.constant_ns[RESPONSE] if at_once else None
        self.client_links = [
            [
                Link(responses, parts.client_distance_ns(client, node))
                for _ in range(parts.config.client.connections)
            ]
            for client in range(parts.config.clients)
        ]
        self._meter = LinkMeter(sender)
        self._sized = store.network.bandwidth is not None
        self._sync_law = Sampler(
            build(store.node.storage.sync), block_stream(parts.config.seed, f"node/{node}/sync")
        )
        # (record, whether it stands for those before it in its group, group).
        self.records: list[tuple[Any, bool, int]] = []
        self._recovered = 0
        self.samples: list[tuple[int, ...]] = []
        # What the shells before the last crash counted.
        self._counted = (0,) * len(COUNTERS)
        self.shell: NodeShell = self._new_shell()
        self._received = receiver(parts, node, self.shell)
        warm_up(parts, node, self.shell.machine, restarted=False)
        # What it tells clients of itself; None where they do not ask.
        self.load = OwnLoad.of(parts)

    def _shell_clock(self) -> Scheduler:
        """The clock that the node's shell goes by."""
        return self._base_clock()

    def _base_clock(self) -> Scheduler:
        """The clock of whatever the node runs in."""
        clock: Scheduler = self.cluster.clock
        return clock

    def _new_shell(self) -> NodeShell:
        parts = self.cluster.parts
        machine = make_machine(parts, self.node)
        return make_shell(parts, self.node, machine, self.cache, self._scheduler, self)

    # --- Outlet ---------------------------------------------------------------------------

    def send(self, target: int, message: Any) -> None:
        cluster, clock = self.cluster, self._clock
        if cluster.cut(self.node, target):
            return
        link = self.links[target]
        sized = self._sized or link.state.bandwidth is not None
        size_bytes = len(_encode(message)) if sized else 0
        deliver, argument = cluster.machines[target].arrive, (self.node, message)
        link.carry(clock.at, clock.current_ns, message.link, size_bytes, deliver, argument)

    def reply(self, reply: Reply) -> None:
        size_bytes = HEADER_BYTES
        value = reply.value
        if self._response_ns is None and value is not None:
            size_bytes += (
                sum(len(k) + len(v) for k, v in value) if type(value) is list else len(value)
            )
        self._respond(reply.handle, size_bytes, self.cluster.answered, reply)

    def redirect(self, redirect: Redirect) -> None:
        self._respond(redirect.handle, HEADER_BYTES, self.cluster.redirected, redirect)

    def refuse(self, refusal: Refusal) -> None:
        self._respond(refusal.handle, HEADER_BYTES, self.cluster.refused, refusal)

    def cancel(self, target: int, cancel: Cancel) -> None:
        self.send(target, cancel)

    def dropped(self, handle: Any) -> None:
        if type(handle) is Visit:
            self.shell.tracer.left(handle)
        if self.load is not None:
            self.load.answered(handle, self._clock.current_ns, served=False)

    def _respond(
        self, handle: Any, size_bytes: int, callback: Callable[[Any], None], effect: Any
    ) -> None:
        clock = self._clock
        if type(handle) is Visit:
            self.shell.tracer.left(handle)
            callback = self.cluster.visited
        if self.load is not None:
            callback = self.load.answering(effect, callback, clock.current_ns)
        if self._response_ns is not None:
            clock.at(clock.current_ns + self._response_ns, callback, effect)
            return
        session = handle[0]
        link = self.client_links[session.client][session.connection]
        link.carry(clock.at, clock.current_ns, RESPONSE, size_bytes, callback, effect)

    def append(self, record: Any, replaces: bool, group: int) -> None:
        self.records.append((record, replaces, group))

    def sync(self, done: Callable[[], None]) -> None:
        self._sync_ends(self._draw_sync_ns(), lambda _: done(), None)

    def _draw_sync_ns(self) -> int:
        """How long the next sync takes."""
        return self._sync_law.draw_ns()

    def _sync_ends(self, lasts_ns: int, callback: Callable[[Any], None], argument: Any) -> None:
        """The node hears of it after that time."""
        clock = self._clock
        clock.at(clock.current_ns + lasts_ns, self._heard, (callback, argument))

    def _heard(self, call: tuple[Callable[[Any], None], Any]) -> None:
        call[0](call[1])

    def note(self, kind: str, detail: str) -> None:
        self.cluster.event(self.node, kind, detail)

    # --- arrivals -------------------------------------------------------------------------

    def arrive(self, message: tuple[int, Any]) -> None:
        if not self.shell.stopped:
            self._received(*message)

    def request(self, request: tuple[Any, Op]) -> None:
        if not self.shell.stopped:
            if self.load is not None:
                self.load.arrived(request[0], self._clock.current_ns)
            self.shell.request(*request)

    def requests(self, requests: Sequence[Request]) -> None:
        """Operations that have travelled together, or of which more is to be known."""
        for plain, op, tie, sampled in requests:
            handle = plain
            if sampled is not None and not self.shell.stopped:
                handle = self.shell.tracer.follow(plain, sampled)
            if tie is None:
                self.request((handle, op))
            else:
                self.tied((handle, op, tie))

    def tied(self, request: tuple[Any, Op, Tie]) -> None:
        """One of two copies."""
        shell = self.shell
        if not shell.stopped:
            assert isinstance(shell, TyingShell)
            if self.load is not None:
                self.load.arrived(request[0], self._clock.current_ns)
            shell.tied(*request)

    def asked(self, client: int) -> None:
        """A client asks for its word, which it gives at once."""
        clock, tell = self._clock, self.cluster.told
        if self.load is None or self.shell.stopped:
            return
        said = (client, self.node, self.load.word(clock.current_ns))
        if self._response_ns is not None:
            clock.at(clock.current_ns + self._response_ns, tell, said)
        else:
            link = self.client_links[client][0]
            link.carry(clock.at, clock.current_ns, RESPONSE, HEADER_BYTES, tell, said)

    # --- life -----------------------------------------------------------------------------

    def crash(self, survivors: int = 0) -> None:
        """Lose everything but what is durable.

        ``survivors``: how many records behind the last durable one are kept all the same, as a
        disk may have written what nobody had waited for yet.
        """
        self._counted = self._counters()
        self.shell.stopped = True
        del self.records[self._recovered + self.shell.durable_records + survivors :]
        self.cluster.event(self.node, "crash", "")
        if not self.silent:
            self.disconnect()

    def disconnect(self) -> None:
        """Clients hear that their connections to it have broken."""
        for client in self.cluster.clients:
            client.disconnected(self.node)

    def _drop_replaced(self) -> None:
        first = {group: at for at, (_, all_, group) in enumerate(self.records) if all_}
        self.records = [each for at, each in enumerate(self.records) if at >= first.get(each[2], 0)]

    def restart(self) -> None:
        """Come back with the persisted records and an empty cache."""
        self.cluster.event(self.node, "restart", "")
        self.cache = make_cache(self.cluster.parts, self.node, restarted=True)
        self._drop_replaced()
        self._recovered = len(self.records)
        self.shell = self._new_shell()
        self._received = receiver(self.cluster.parts, self.node, self.shell)
        self.load = OwnLoad.of(self.cluster.parts)
        self.start()

    def start(self) -> None:
        """The machine starts with its records."""
        records = [record for record, _, _ in self.records]
        self.shell.start(records, self.cluster.parts.store.administration)

    def _counters(self) -> tuple[int, ...]:
        if self.shell.stopped:
            return self._counted
        pairs = zip(self._counted, counted(self.shell), strict=True)
        return tuple(before + since for before, since in pairs)

    def sample(self) -> None:
        """Note the counters at the end of an interval."""
        links = itertools.chain(self.links.values(), *self.client_links)
        busy_ns = self._meter.busy_ns(links, self._clock.current_ns)
        self.samples.append((*self._counters(), busy_ns))
