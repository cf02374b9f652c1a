"""The simulated cluster of a run with faults: it carries out what the fault plan says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, assert_never

from orchestrator.core.fault_conditions import (
    Action,
    Burden,
    Crash,
    CrashClient,
    Disturb,
    Pause,
    Reappear,
    Restart,
    Resume,
    ReviveClient,
    Vanish,
)
from orchestrator.core.fault_plan import NEVER_NS, Strike
from orchestrator.core.faults import CLEAR, RESPAWN_NS, WELL, LinkState, client_party
from orchestrator.core.randomness import scalar_stream
from orchestrator.core.record import STORAGE
from orchestrator.runtimes._network import Link
from orchestrator.runtimes._node import NodeShell
from orchestrator.runtimes._parts import Parts, cluster_state, fault_plan
from orchestrator.runtimes._pausable import PausableClock
from orchestrator.runtimes._read_back import PASSES
from orchestrator.runtimes._simulated_node import SimulatedNode
from orchestrator.runtimes.simulated import SimulatedCluster
from orchestrator.systems.replicated_store import FSYNC, MEMORY


class PausableNode(SimulatedNode):
    """A node that can be paused: what happens to it meanwhile happens when it goes on."""

    def _shell_clock(self) -> Any:
        self.pausable = PausableClock(self._base_clock())
        return self.pausable

    def arrive(self, message: tuple[int, Any]) -> None:
        if self.pausable.paused:
            self.pausable.ring((self.arrive, message))
        else:
            super().arrive(message)

    def request(self, request: Any) -> None:
        self.pausable.ring((super().request, request))

    def tied(self, request: Any) -> None:
        self.pausable.ring((super().tied, request))

    def asked(self, client: int) -> None:
        self.pausable.ring((super().asked, client))

    def _heard(self, call: tuple[Callable[[Any], None], Any]) -> None:
        self.pausable.ring(call)

    def crash(self, survivors: int = 0) -> None:
        # What waited for it to go on finds it stopped.
        if self.pausable.paused:
            self.pausable.resume()
        super().crash(survivors)


class FrailNode(PausableNode):
    """A node that faults can strike."""

    cluster: FrailCluster

    def __init__(self, cluster: FrailCluster, node: int) -> None:
        self.state = WELL
        self.gone = False
        self._chance = scalar_stream(cluster.parts.config.seed, f"node/{node}/fault")
        super().__init__(cluster, node)

    def _new_shell(self) -> NodeShell:
        shell = super()._new_shell()
        shell.burden(self.state)
        return shell

    # --- crashes --------------------------------------------------------------------------

    def end(self, *, power: bool, gone: bool = False) -> None:
        """Its process ends; with ``power`` its machine does, and with ``gone`` the disk too."""
        self.gone |= gone
        shell, keeps_log = self.shell, self.cluster.keeps_log
        if not shell.stopped:
            unsynced = shell.written_records - shell.durable_records
            self.crash(unsynced if keeps_log else 0)
        if power and keeps_log:
            self._cut_log()

    def _cut_log(self) -> None:
        """Any beginning of what was written and not synced may be on the disk. What it recovered
        it has synced; without a sync of its own that is all.
        """
        synced = self._recovered + (self.shell.durable_records if self.cluster.syncs else 0)
        del self.records[self._chance.randint(synced, len(self.records)) :]

    def come_back(self) -> None:
        if self.shell.stopped and not self.gone and self.cluster.keeps_log:
            self.restart()

    def _end_itself(self, why: str) -> None:
        """The storage failed: nobody may rely on this process any more."""
        if self.shell.stopped:
            return
        self.cluster.event(self.node, STORAGE, why)
        self.end(power=False)
        clock = self.cluster.clock
        clock.at(clock.current_ns + RESPAWN_NS, self.cluster.respawn, self.node)

    # --- storage --------------------------------------------------------------------------

    def append(self, record: Any, replaces: bool, group: int) -> None:
        if self.state.full:
            clock = self.cluster.clock
            clock.at(clock.current_ns, self._end_itself, "no room is left to write")
        else:
            super().append(record, replaces, group)

    def sync(self, done: Callable[[], None]) -> None:
        state = self.state
        lasts_ns = round(self._draw_sync_ns() * state.storage_slowness) + state.storage_adds_ns
        if state.full or (state.failing and self._chance.random() < state.failing):
            self._sync_ends(lasts_ns, self._end_itself, "a sync failed")
        else:
            self._sync_ends(lasts_ns, lambda _: done(), None)


class FrailCluster(SimulatedCluster):
    """All parties of a run with faults."""

    def __init__(self, parts: Parts) -> None:
        self.plan = fault_plan(parts)
        self.keeps_log = parts.durability != MEMORY
        self.syncs = parts.durability == FSYNC
        self.frail: list[FrailNode] = []
        super().__init__(parts)

    def _node(self, node: int) -> SimulatedNode:
        made = FrailNode(self, node)
        self.frail.append(made)
        return made

    def start(self) -> None:
        super().start()
        self._wake_again()

    # --- the plan -------------------------------------------------------------------------

    def _wake_again(self) -> None:
        if self.plan.next_wake_ns < NEVER_NS:
            self.clock.at(self.plan.next_wake_ns, self._conduct, None)

    def _conduct(self, _: None) -> None:
        roles = {
            each.node: each.shell.machine.role
            for each in self.frail
            if not each.shell.stopped and not self.plan.silent(each.node)
        }
        now_ns = self.clock.current_ns
        if self.plan.next_wake_ns <= now_ns:
            self._carry_out(self.plan.wake(now_ns, cluster_state(self.parts, roles)))
            self._wake_again()

    def run(self) -> None:
        """The load, healing, and every written key read back."""
        super().run()
        for _ in range(PASSES):
            now_ns = self.clock.current_ns
            left = [client.driver.read_back(now_ns) for client in self.clients]
            if not any(left):
                return
            self.clock.run()

    def heal(self) -> None:
        """All faults are over."""
        self._carry_out(self.plan.heal(self.clock.current_ns))
        self.clock.run(self.clock.current_ns + RESPAWN_NS)

    @property
    def strikes(self) -> tuple[Strike, ...]:
        return tuple(self.plan.strikes)

    def respawn(self, node: int) -> None:
        """What ended itself is started again, unless a fault keeps it down."""
        if not self.plan.keeps_down(node):
            self.frail[node].come_back()

    def _disturb(self, party: int, states: Mapping[int, LinkState]) -> None:
        for receiver, link in self._links_from(party):
            state = states.get(receiver, CLEAR)
            if link.state != state:
                link.disturb(state)

    def _links_from(self, party: int) -> Iterator[tuple[int, Link]]:
        """(receiver, link) of all links from a node or a client."""
        if party >= 0:
            node = self.frail[party]
            yield from node.links.items()
            for client, links in enumerate(node.client_links):
                yield from ((client_party(client), link) for link in links)
        else:
            for node_number, links in enumerate(self.clients[-1 - party].links):
                yield from ((node_number, link) for link in links)

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Crash(node, power, gone):
                    self.frail[node].end(power=power, gone=gone)
                case Restart(node):
                    self.frail[node].come_back()
                case Vanish(node):
                    self.frail[node].silent = True
                case Reappear(node):
                    self.frail[node].silent = False
                    self.frail[node].disconnect()
                case Pause(node):
                    self.frail[node].pausable.paused = not self.frail[node].shell.stopped
                case Resume(node):
                    self.frail[node].pausable.resume()
                case Burden(node, state):
                    self.frail[node].state = state
                    self.frail[node].shell.burden(state)
                case Disturb(party, links):
                    self._disturb(party, links)
                case CrashClient(client):
                    self.clients[client].driver.crash(self.clock.current_ns)
                case ReviveClient(client):
                    self.clients[client].driver.revive(self.clock.current_ns)
                case _:
                    assert_never(action)
