"""The leader of five Raft servers is crashed, and it is timed how long they are without one."""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace
from typing import Any

import numpy

from orchestrator.config.load import load_mapping
from orchestrator.core.machine import ACKNOWLEDGE, REPLICATE, WRITE, Op, Reply
from orchestrator.core.randomness import scalar_stream
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.plan import plan
from orchestrator.protocols._raft_election import LEADER
from orchestrator.protocols._raft_log import Append, Appended
from orchestrator.runtimes._parts import Parts
from orchestrator.runtimes._simulated_node import SimulatedNode
from orchestrator.runtimes.simulated import SimulatedCluster

SERVERS = 5
LIMIT_NS = 10 * NS_PER_S
"""Who has no leader by then counts as never having one."""
TRIES = 1000


@dataclass(frozen=True)
class Links:
    """Uniform one-way delays of what asks (requests for votes, appends) and of what answers."""

    asking_ms: tuple[float, float]
    answering_ms: tuple[float, float]


@dataclass(frozen=True)
class TimeOuts:
    """The range from which election time-outs are drawn."""

    shortest_ms: int
    longest_ms: int

    @property
    def title(self) -> str:
        return f"{self.shortest_ms}–{self.longest_ms} ms"


class LostOffice(Exception):
    """The leader was deposed before it was crashed."""


class Server(SimulatedNode):
    """A node whose appends can be lost. Its clients want no answers."""

    cluster: Cluster

    def send(self, target: int, message: Any) -> None:
        if not (isinstance(message, Append) and self.cluster.loses(self.node, target, message)):
            super().send(target, message)

    def arrive(self, message: tuple[int, Any]) -> None:
        if isinstance(message[1], Appended):
            self.cluster.answered_beat()
        super().arrive(message)

    def reply(self, reply: Reply) -> None:
        pass

    def note(self, kind: str, detail: str) -> None:
        if kind == "role" and detail == LEADER:
            self.cluster.led_by(self.node)


class Cluster(SimulatedCluster):
    """Five servers, one of which leads, until it is crashed."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._chance = scalar_stream(parts.config.seed, "elections")
        self._interval_ns: int = parts.store.protocol.params.heartbeat
        self._leader = -1
        # The last entry that each follower gets, once they are not to get all.
        self._last_entry: dict[int, int] = {}
        self._crashed_ns: int | None = None
        self._elected_ns: int | None = None
        # When the last heartbeats were sent, and how many answers have come since.
        self._beat_ns, self._answers = -1, 0
        self.broadcasts_ns: list[int] = []

    def _node(self, node: int) -> Server:
        return Server(self, node)

    def led_by(self, node: int) -> None:
        """A node has been elected."""
        self._leader = node
        if self._crashed_ns is not None:
            self._elected_ns = self.clock.current_ns
            self.clock.stopping = True

    def loses(self, source: int, target: int, message: Append) -> bool:
        """Whether an append carries entries that its receiver is to lack."""
        if self._crashed_ns is not None or source != self._leader:
            return False
        if not message.ops:
            self._beats()
            return False
        last = message.prev_index + len(message.ops)
        return last > self._last_entry.get(target, last)

    def _beats(self) -> None:
        """The leader sends heartbeats to all at once; those after the writes are its last."""
        now_ns = self.clock.current_ns
        if now_ns == self._beat_ns:
            return
        self._beat_ns, self._answers = now_ns, 0
        if self._last_entry:
            self.clock.at(now_ns + self._chance.randrange(self._interval_ns), self._crash, None)

    def answered_beat(self) -> None:
        """An answer to heartbeats, or to appends, has arrived at the leader."""
        self._answers += 1
        if self._answers == SERVERS - 1 and self._beat_ns >= 0:
            self.broadcasts_ns.append(self.clock.current_ns - self._beat_ns)

    def _crash(self, _: None) -> None:
        self._last_entry = {}
        self._crashed_ns = self.clock.current_ns
        self.machines[self._leader].crash()
        self.clock.stopping = True

    def settle(self) -> None:
        """Start all, and wait until everybody has everything of one leader."""
        for server in self.machines:
            server.start()
        while not self._settled():
            self.clock.run(self.clock.current_ns + self._interval_ns)

    def _settled(self) -> bool:
        if self._leader < 0:
            return False
        machines: list[Any] = [server.shell.machine for server in self.machines]
        last = machines[self._leader].log.last
        return all(each.leader == self._leader and each.commit == last for each in machines)

    def crash_leader(self) -> int | None:
        """How long the others are without a leader, in ns; None beyond the limit.

        Three writes come before the last heartbeats. One follower gets none of them, one the
        first, one the first two, one all: two of the four can be elected, by three of them.
        Raises LostOffice.
        """
        self.settle()
        leader = self.machines[self._leader]
        machine: Any = leader.shell.machine
        last: int = machine.log.last
        followers = [node for node in range(SERVERS) if node != self._leader]
        self._chance.shuffle(followers)
        self._last_entry = {node: last + more for more, node in enumerate(followers)}
        for number in range(1, SERVERS - 1):
            leader.shell.requested([number], [Op(1, number, WRITE, b"key", b"value")])
        self.clock.run(self.clock.current_ns + 3 * self._interval_ns)
        if self._crashed_ns is None:
            raise LostOffice
        self.clock.run(self._crashed_ns + LIMIT_NS)
        return None if self._elected_ns is None else self._elected_ns - self._crashed_ns


def parts_of(time_outs: TimeOuts, links: Links) -> Parts:
    """The plan of all crashes of a setting. A heartbeat comes twice in the shortest time-out."""
    asking, answering = (
        {"name": "uniform", "low": f"{low:g}ms", "high": f"{high:g}ms"}
        for low, high in (links.asking_ms, links.answering_ms)
    )
    system = {
        "protocol": {
            "name": "raft",
            "pre_vote": False,
            "election_timeout": f"{time_outs.shortest_ms}ms",
            "election_timeout_max": f"{time_outs.longest_ms}ms",
            "heartbeat": f"{time_outs.shortest_ms / 2:g}ms",
        },
        "replicas": SERVERS,
        "node": {
            "cpu": {"read": "0s", "write": "0s", "message": "0s"},
            "storage": {"write": "0s"},
        },
        "network": {"delay": "0s", "delays": {REPLICATE: asking, ACKNOWLEDGE: answering}},
    }
    return plan(load_mapping({"runtime": "sim", "system": system, "workload": {"name": "ycsb"}}))


def cluster_of(parts: Parts, seed: int) -> Cluster:
    """A cluster with chances of its own."""
    return Cluster(replace(parts, config=replace(parts.config, seed=seed)))


def downtimes_ms(time_outs: TimeOuts, links: Links, crashes: int, first: int = 0) -> list[float]:
    """How long each of so many clusters was without a leader; infinite beyond the limit."""
    parts = parts_of(time_outs, links)
    found = []
    gc.disable()
    for seed in range(first, first + crashes):
        lasted_ns = _downtime_ns(parts, seed)
        found.append(numpy.inf if lasted_ns is None else lasted_ns / NS_PER_MS)
        if seed % 50 == 0:
            gc.collect()
    gc.enable()
    return found


def _downtime_ns(parts: Parts, seed: int) -> int | None:
    for attempt in range(TRIES):
        try:
            return cluster_of(parts, seed + attempt * 1_000_000).crash_leader()
        except LostOffice:
            continue
    raise AssertionError(f"no leader of {TRIES} stayed until it was crashed")


def broadcast_ms(links: Links, beats: int = 500) -> float:
    """The mean time from heartbeats to the last of their answers, in a cluster that is well."""
    cluster = cluster_of(parts_of(TimeOuts(150, 300), links), 0)
    cluster.settle()
    cluster.broadcasts_ns.clear()
    cluster.clock.run(cluster.clock.current_ns + beats * 75 * NS_PER_MS)
    return float(numpy.mean(cluster.broadcasts_ns)) / NS_PER_MS
