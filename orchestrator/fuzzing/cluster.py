"""The simulated cluster under a scenario's faults, with invariants checked after every event.

What chance decides (the delay and loss of each message, the length of each sync) is a function
of the seed, of who does it and when, and not the next number of a stream: so taking something
out of a scenario leaves the chances of all that happens at other times as they were.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from orchestrator.core.distributions import build
from orchestrator.core.faults import leads
from orchestrator.core.machine import Admin
from orchestrator.core.registry import Slot
from orchestrator.fuzzing.scenario import LEADER, Fault, Scenario
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._simulated_faults import PausableNode
from orchestrator.runtimes._simulated_node import SimulatedNode
from orchestrator.runtimes.simulated import SimulatedCluster

# --- the machines -----------------------------------------------------------------------


@dataclass(frozen=True)
class Chosen(Slot):
    """A protocol slot whose machine is given: watched, or not registered at all."""

    machine: type[Any] = object

    @property
    def implementation(self) -> type[Any]:
        return self.machine


_CHANCE = struct.Struct("<qhhqhi")


def exponential_ns(mean_ns: float, chance: float) -> int:
    """The draw of an exponential law at a quantile."""
    return round(-mean_ns * math.log1p(-chance))


class FuzzedNode(PausableNode):
    """A node that can be paused, and whose messages can be lost or doubled."""

    cluster: FuzzedCluster

    def __init__(self, cluster: FuzzedCluster, node: int) -> None:
        store = cluster.parts.store
        self._delay_ns = build(store.network.delay).mean_ns
        self._sync_ns = build(store.node.storage.sync).mean_ns
        self._fifo = store.network.ordering == "fifo"
        self._last_ns: dict[int, int] = {}
        self._sent: dict[int, tuple[int, int]] = {}
        super().__init__(cluster, node)

    def send(self, target: int, message: Any) -> None:
        cluster, clock = self.cluster, self.cluster.clock
        copies, late_ns = 1, 0
        nth = self._sent_now(target)
        for index, storm in enumerate(cluster.storms):
            drawn = cluster.chance(self.node, target, 2 + index, nth)
            if drawn < storm.loss:
                cluster.struck(storm)
                return
            if drawn < storm.loss + storm.duplicates:
                cluster.struck(storm)
                copies += 1
            elif drawn < storm.loss + storm.duplicates + storm.late:
                cluster.struck(storm)
                share = cluster.chance(self.node, target, -10 - index, nth)
                late_ns += exponential_ns(storm.after_ns, share)
        if cluster.cut(self.node, target):
            return
        for copy in range(copies):
            delay_ns = exponential_ns(self._delay_ns, cluster.chance(self.node, target, -copy, nth))
            due_ns = clock.current_ns + delay_ns + late_ns
            if self._fifo:
                due_ns = self._last_ns[target] = max(due_ns, self._last_ns.get(target, due_ns))
            clock.at(due_ns, cluster.machines[target].arrive, (self.node, message))

    def _sent_now(self, target: int) -> int:
        """How many messages it has sent there at this very moment."""
        now_ns = self.cluster.clock.current_ns
        at_ns, count = self._sent.get(target, (now_ns, 0))
        nth = count if at_ns == now_ns else 0
        self._sent[target] = (now_ns, nth + 1)
        return nth

    def sync(self, done: Callable[[], None]) -> None:
        lasts_ns = exponential_ns(self._sync_ns, self.cluster.chance(self.node, self.node, 1))
        due_ns = self.cluster.clock.current_ns + lasts_ns
        self.pausable.at(due_ns, lambda _: done(), None)

    def crash(self, survivors: int = 0) -> None:
        self.cluster.collect_marks(self)
        super().crash(survivors)

    def request(self, request: Any) -> None:
        cluster, op = self.cluster, request[1]
        for storm in cluster.storms:
            # Once each: the answer to a repeat may make the client ask anew.
            known = (op.session, op.sequence) in cluster.repeated
            if not known and cluster.chance(self.node, self.node, 7) < storm.repeats:
                cluster.repeated[op.session, op.sequence] = True
                cluster.struck(storm)
                other = cluster.fuzzed[(self.node + 1) % len(cluster.nodes)]
                lasts_ns = exponential_ns(8 * self._delay_ns, cluster.chance(self.node, 0, 8))
                cluster.clock.at(cluster.clock.current_ns + lasts_ns, other.asked, request)
        self.asked(request)

    def asked(self, request: Any) -> None:
        """A request has arrived, or arrives again."""
        super().request(request)


_MOVES: Final = 3
"""How many times as long as else nodes may take to settle while data moves."""


class FuzzedCluster(SimulatedCluster):
    """Carries out the faults of a scenario. ``effective``: those that had an effect."""

    def __init__(self, parts: Parts, scenario: Scenario) -> None:
        self.scenario = scenario
        self.storms: list[Fault] = []
        self.ambushes: list[Fault] = []
        self.effective: dict[Fault, bool] = dict.fromkeys(scenario.faults, False)
        self.marks: dict[str, int] = {}
        self.repeated: dict[tuple[int, int], bool] = {}
        self._cuts: dict[tuple[int, int], list[Fault]] = {}
        self.fuzzed: list[FuzzedNode] = []
        if parts.store.moving_commands:
            # Cells move one after the other, each by several commits.
            self.settle_ns *= _MOVES
        super().__init__(parts)

    def _node(self, node: int) -> SimulatedNode:
        made = FuzzedNode(self, node)
        self.fuzzed.append(made)
        return made

    def chance(self, source: int, target: int, what: int, nth: int = 0) -> float:
        """A number in [0, 1) for what happens on this link now, for the nth time."""
        now_ns = self.clock.current_ns
        named = _CHANCE.pack(self.scenario.seed, source, target, now_ns, what, nth)
        return int.from_bytes(blake2b(named, digest_size=6).digest(), "big") / 2**48

    def struck(self, fault: Fault) -> None:
        """The fault had an effect."""
        self.effective[fault] = True

    def converged(self) -> bool:
        """All live replicas hold the same, and have nothing left to see to."""
        return super().converged() and not any(self.unfinished())

    def unfinished(self) -> list[int]:
        """What each live node has left to see to."""
        live = [node.shell.machine for node in self.counted if not node.shell.stopped]
        return [machine.unfinished for machine in live]

    def plan(self) -> None:
        """Put all faults into the clock."""
        for fault in self.scenario.faults:
            self.clock.at(fault.at_ns, self._strike, fault)
        self.clock.at(self.scenario.heal_ns, self._heal, None)

    def cut(self, source: int, target: int) -> bool:
        found = self._cuts.get((source, target)) if self._cuts else None
        if not found:
            return False
        self.struck(found[-1])
        return True

    # --- faults ---------------------------------------------------------------------------

    def _strike(self, fault: Fault) -> None:
        victim = self._victim(fault)
        if victim is None:
            return
        until_ns = min(fault.until_ns, self.scenario.heal_ns)
        match fault.kind:
            case "crash":
                self._crash(victim, fault, until_ns if fault.until_ns else None)
            case "pause":
                if not victim.pausable.paused and not victim.shell.stopped:
                    victim.pausable.paused = True
                    self.clock.at(until_ns, self._resume, (victim, fault))
            case "cut":
                self._cut_links(self._links(victim.node, fault), fault, until_ns)
            case "storm":
                self.storms.append(fault)
                self.clock.at(until_ns, self._calm, fault)
            case "ambush":
                self.ambushes.append(fault)
                self.clock.at(until_ns, self.ambushes.remove, fault)
            case "command":
                self.struck(fault)
                for node in self.fuzzed:
                    self._tell((node, Admin(fault.command, victim.node)))

    def _cut_links(self, links: list[tuple[int, int]], fault: Fault, until_ns: int) -> None:
        for link in links:
            self._cuts.setdefault(link, []).append(fault)
        self.clock.at(until_ns, self._mend, (links, fault))

    def _ambush(self, leader: FuzzedNode, fault: Fault) -> None:
        """It leads, and not for long; some never hear of it."""
        node, now_ns = leader.node, self.clock.current_ns
        wait_ns = exponential_ns(fault.after_ns, self.chance(node, node, 10))
        others = [each.node for each in self.nodes if each is not leader]
        links = [(node, other) for other in others if self.chance(node, other, 11) < fault.loss]
        self._cut_links(links, fault, now_ns + wait_ns)
        if fault.command:
            about = others[int(len(others) * self.chance(node, node, 12))]
            self.clock.at(now_ns, self._tell, (leader, Admin(fault.command, about)))
        self.clock.at(now_ns + wait_ns, self._ambushed, (leader, fault))

    def _tell(self, told: tuple[FuzzedNode, Admin]) -> None:
        node, command = told
        if not node.shell.stopped:
            node.shell.hear(command)

    def _crash(self, victim: FuzzedNode, fault: Fault, until_ns: int | None) -> None:
        if victim.shell.stopped:
            return
        self.struck(fault)
        victim.crash(survivors=fault.survivors)
        if until_ns is not None:
            self.clock.at(until_ns, self._restart, victim)

    def _ambushed(self, prey: tuple[FuzzedNode, Fault]) -> None:
        """A node that has come to lead a while ago."""
        victim, fault = prey
        now_ns, node = self.clock.current_ns, victim.node
        if now_ns < self.scenario.heal_ns:
            lasts_ns = exponential_ns(fault.after_ns, self.chance(node, node, 9))
            self._crash(victim, fault, min(now_ns + lasts_ns, self.scenario.heal_ns))

    def _victim(self, fault: Fault) -> FuzzedNode | None:
        if fault.node != LEADER:
            return self.fuzzed[fault.node] if fault.node < len(self.fuzzed) else None
        nodes = self.fuzzed[: len(self.nodes)]
        leading = [each for each in nodes if leads(each.shell.machine.role)]
        alive = [each for each in leading if not each.shell.stopped]
        return alive[-1] if alive else nodes[0]

    def _links(self, victim: int, fault: Fault) -> list[tuple[int, int]]:
        others = [other for other in fault.others if other != victim]
        outward = [(victim, other) for other in others]
        inward = [(other, victim) for other in others]
        return {"both": outward + inward, "out": outward, "in": inward}[fault.direction]

    def _forget_pause(self, node: FuzzedNode) -> None:
        if node.pausable.paused:
            node.pausable.resume()

    def _restart(self, node: FuzzedNode) -> None:
        if node.shell.stopped:
            node.restart()

    def _resume(self, paused: tuple[FuzzedNode, Fault]) -> None:
        node, fault = paused
        if node.pausable.paused and node.pausable.resume():
            self.struck(fault)

    def _mend(self, cut: tuple[list[tuple[int, int]], Fault]) -> None:
        links, fault = cut
        for link in links:
            faults = self._cuts.get(link, [])
            if fault in faults:
                faults.remove(fault)
            if not faults:
                self._cuts.pop(link, None)

    def _calm(self, fault: Fault) -> None:
        if fault in self.storms:
            self.storms.remove(fault)

    def _heal(self, _: None) -> None:
        """Everything that can come back does."""
        self.storms.clear()
        self._cuts.clear()
        returning = self.scenario.system["node"]["storage"]["durability"] != "memory"
        for node in self.fuzzed:
            self._forget_pause(node)
            if returning:
                self._restart(node)

    # --- what the machines say of themselves ----------------------------------------------

    def event(self, node: int, kind: str, detail: str) -> None:
        super().event(node, kind, detail)
        if kind != "role":
            return
        self.mark(detail.partition("/")[0])
        for fault in self.ambushes if leads(detail) else ():
            self._ambush(self.fuzzed[node], fault)

    def mark(self, what: str, count: int = 1) -> None:
        """Count something that the simulation reached."""
        self.marks[what] = self.marks.get(what, 0) + count

    def collect_marks(self, node: FuzzedNode) -> None:
        """What the node's shell has counted since it started."""
        marks = node.shell.marks
        for what, count in marks.items():
            self.mark(what, count)
        marks.clear()
