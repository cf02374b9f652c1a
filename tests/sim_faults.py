"""Simulated clusters under crashes, restarts, partitions, loss and reordering.

A seed decides everything. Safety is checked while faults happen, by the machines' own
invariants after every event and by the checkers on the history; then all is healed, and the
replicas have to converge. One read of every key after the end joins the history, so that an
acknowledged write that was lost is seen even where no client read it again.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy

from orchestrator.config.load import load_mapping
from orchestrator.config.schema import Config
from orchestrator.core.history import COLUMNS, DTYPES, NEVER, PHASE_RUN, VALUE_ID_BYTES, History
from orchestrator.core.machine import OK, READ, Effect, Event, Machine
from orchestrator.core.models import REGISTER
from orchestrator.core.per_level import check_levels
from orchestrator.core.randomness import scalar_stream
from orchestrator.core.registry import Slot
from orchestrator.core.units import NS_PER_MS
from orchestrator.core.verdict import VALID, Evidence, check
from orchestrator.runtimes._parts import Parts, contents_digest
from orchestrator.runtimes._simulated_node import SimulatedNode
from orchestrator.runtimes.simulated import SimulatedCluster

FINAL_SESSION = 1 << 31
LEADING = ("leader", "primary", "head", "tail")
"""Roles of the nodes that are worth hunting."""

BASE: dict[str, Any] = {
    "experiment": "faults",
    "runtime": "sim",
    "system": {
        "name": "replicated_store",
        "replicas": 3,
        "node": {
            "cpu": {"read": "20us", "write": "20us", "message": "10us"},
            "storage": {
                "write": "50us",
                "sync": {"name": "exponential", "mean": "2ms"},
                "durability": "fsync",
            },
        },
        "network": {"delay": {"name": "exponential", "mean": "2ms"}, "loss": 0.01},
        "batch": {"max": 4, "linger": "100us"},
    },
    "workload": {"name": "ycsb", "mix": "a", "keys": 4, "value_size": "8B"},
    "arrival": {
        "name": "closed",
        "sessions": 8,
        "think_time": {"name": "exponential", "mean": "20ms"},
    },
    "clients": 2,
    "client": {"timeout": "150ms", "connections": 2},
    "warmup": "0s",
    "duration": "2500ms",
}

Watch = Callable[[Machine, Event, list[Effect]], None]


@dataclass(frozen=True)
class Chosen(Slot):
    """A slot of a machine that is not registered: the twins that tests make."""

    machine: type[Any] = object

    @property
    def implementation(self) -> type[Any]:
        return self.machine


def watched(machine: type[Any], watch: Watch) -> type[Any]:
    """The machine with its invariants checked after every event, then ``watch``."""

    class Watched(machine):  # type: ignore[misc]
        def handle(self, event: Event, now_ns: int) -> list[Effect]:
            effects: list[Effect] = super().handle(event, now_ns)
            self.check()
            watch(self, event, effects)
            return effects

        @staticmethod
        def authority_of(params: Any) -> type[Any] | None:
            authority = machine.authority_of(params)
            return authority and watched(authority, watch)

    return Watched


def nothing(machine: Machine, event: Event, effects: list[Effect]) -> None:
    """Watches nothing."""


def configured(seed: int, system: Mapping[str, Any], *overrides: str) -> Config:
    """BASE with other parts of ``system`` (merged key by key) and overrides."""
    merged = BASE["system"] | dict(system)
    return load_mapping(BASE | {"seed": seed, "system": merged}, *overrides)


class Node(SimulatedNode):
    """Tells what is asked of it."""

    def request(self, request: Any) -> None:
        super().request(request)
        if isinstance(self.cluster, Cluster) and self.cluster.on_request is not None:
            self.cluster.on_request(request)


class Cluster(SimulatedCluster):
    """Tells when a node takes office, and loses messages between nodes at will."""

    on_leader: Callable[[int], None] | None = None
    on_request: Callable[[Any], None] | None = None
    lossy: random.Random | None = None
    loss: float = 0.0

    def cut(self, source: int, target: int) -> bool:
        if self.lossy is not None and self.lossy.random() < self.loss:
            return True
        return super().cut(source, target)

    def _node(self, node: int) -> SimulatedNode:
        return Node(self, node)

    def replicas(self) -> list[Machine]:
        """The machines whose copies are to be equal at the end: not those of spare nodes."""
        machines = [node.shell.machine for node in self.nodes]
        return [machine for machine in machines if getattr(machine, "holds_copy", True)]

    def converged(self) -> bool:
        contents = [machine.contents() for machine in self.replicas()]
        return all(content == contents[0] for content in contents[1:])

    def event(self, node: int, kind: str, detail: str) -> None:
        super().event(node, kind, detail)
        if detail == "leader" and self.on_leader is not None:
            self.on_leader(node)


@dataclass
class Faults:
    """Decides what happens when: random crashes, restarts and cuts of one cluster.

    ``gap_ns``: mean time between faults. ``away_ns``: mean time that a crashed node stays away
    or a cut lasts. ``hunt``: share of faults that are aimed at the leader. ``crashes``: share
    that are crashes. ``ambush_ns``: where above 0, every new leader is struck after about that
    time. ``loss``: share of messages between nodes that are lost. ``repeats``: share of requests
    that arrive once more, somewhere and later, as those of a client that is not sure. All is
    healed after four fifths of the load.
    """

    cluster: Cluster
    chance: random.Random
    gap_ns: int = 120 * NS_PER_MS
    away_ns: int = 60 * NS_PER_MS
    hunt: float = 0.5
    crashes: float = 0.6
    ambush_ns: int = 0
    loss: float = 0.0
    repeats: float = 0.0

    @property
    def end_ns(self) -> int:
        """When the last fault ends."""
        config = self.cluster.parts.config
        return (config.warmup + config.duration) * 4 // 5

    def plan(self) -> None:
        """Put the whole schedule into the cluster's clock."""
        at_ns = self._later(0, self.gap_ns)
        while at_ns < self.end_ns:
            self.cluster.clock.at(at_ns, self._strike_somebody, None)
            at_ns = self._later(at_ns, self.gap_ns)
        self.cluster.clock.at(self.end_ns, self._heal, None)
        self.cluster.lossy, self.cluster.loss = self.chance, self.loss
        if self.ambush_ns:
            self.cluster.on_leader = self._ambush
        if self.repeats:
            self.cluster.on_request = self._repeat

    def _repeat(self, request: Any) -> None:
        if self.chance.random() < self.repeats:
            at_ns = self._later(self.cluster.clock.current_ns, self.away_ns)
            target = self.chance.choice(self.cluster.nodes)
            self.cluster.clock.at(at_ns, target.request, request)

    def _later(self, now_ns: int, mean_ns: int) -> int:
        return now_ns + 1 + round(self.chance.expovariate(1 / mean_ns))

    def _ambush(self, leader: int) -> None:
        at_ns = self._later(self.cluster.clock.current_ns, self.ambush_ns)
        if at_ns < self.end_ns:
            self.cluster.clock.at(at_ns, self._strike, leader)

    def _strike_somebody(self, _: None) -> None:
        nodes = self.cluster.nodes
        leaders = [each.node for each in nodes if each.shell.machine.role in LEADING]
        aimed = leaders and self.chance.random() < self.hunt
        everybody = [each.node for each in self.cluster.machines]
        self._strike(self.chance.choice(leaders if aimed else everybody))

    def _strike(self, victim: int) -> None:
        clock = self.cluster.clock
        until_ns = min(self.end_ns, self._later(clock.current_ns, self.away_ns))
        if self.chance.random() < self.crashes:
            node = self.cluster.machines[victim]
            if not node.shell.stopped:
                node.crash(survivors=self.chance.choice((0, 0, 1, 3)))
                clock.at(until_ns, self._restart, victim)
            return
        links = self._cut_links(victim)
        for link in links:
            self.cluster.severed[link] = True
        clock.at(until_ns, self._mend, links)

    def _cut_links(self, victim: int) -> list[tuple[int, int]]:
        others = [each.node for each in self.cluster.machines if each.node != victim]
        side = self.chance.sample(others, self.chance.randint(1, len(others))) if others else []
        outward = [(victim, other) for other in side]
        inward = [(other, victim) for other in side]
        return self.chance.choice((outward + inward, outward + inward, outward, inward))

    def _mend(self, links: list[tuple[int, int]]) -> None:
        for link in links:
            self.cluster.severed.pop(link, None)

    def _restart(self, victim: int) -> None:
        node = self.cluster.machines[victim]
        if node.shell.stopped:
            node.restart()

    def _heal(self, _: None) -> None:
        self.cluster.lossy = None
        self.cluster.severed.clear()
        for node in self.cluster.machines:
            self._restart(node.node)


@dataclass(frozen=True)
class Outcome:
    """What a simulation showed. ``problem`` is empty where everything claimed held."""

    problem: str
    history: History
    cluster: Cluster


def simulate(
    config: Config,
    *,
    machine: type[Any] | None = None,
    watch: Watch = nothing,
    faults: Mapping[str, Any] | None = None,
) -> Outcome:
    """Run the config, under ``faults`` (parameters of Faults) unless None; judge the history.

    ``machine`` stands in for the protocol's own. Raises AssertionError for a broken invariant.
    """
    slot = config.system.params.protocol
    chosen = Chosen(
        slot.family, slot.name, slot.params, watched(machine or slot.implementation, watch)
    )
    params = dataclasses.replace(config.system.params, protocol=chosen)
    config = dataclasses.replace(config, system=dataclasses.replace(config.system, params=params))
    cluster = Cluster(Parts.of(config))
    if faults is not None:
        Faults(cluster, scalar_stream(config.seed, "faults"), **faults).plan()
    cluster.run()
    history = History.concatenate([client.driver.history() for client in cluster.clients])
    model = cluster.parts.workload.model
    if model == REGISTER:
        history = with_final_reads(history, cluster)
    digests = [contents_digest(machine) for machine in cluster.replicas()]
    claimed = cluster.parts.system.claims(cluster.parts.circumstances)
    verdicts = [*check_levels(history, claimed, Evidence(model=model, digests=digests)).verdicts]
    verdicts.append(check(history, "eventual", Evidence(model=model, digests=digests)))
    problems = [found.explanation for found in verdicts if found.verdict != VALID]
    return Outcome("; ".join(problems), history, cluster)


def problem_of(config: Config, **options: Any) -> str:
    """What :func:`simulate` found wrong, a broken invariant included; empty: nothing."""
    try:
        return simulate(config, **options).problem
    except AssertionError as error:
        return f"invariant: {error}"


def with_final_reads(history: History, cluster: Cluster) -> History:
    """The history and a read of every key behind it, as the first replica would answer it."""
    machine = cluster.replicas()[0]
    preload = cluster.parts.workload.preload()
    names = cluster.parts.workload.key_names
    keys = sorted(set(history.key.tolist()))
    columns: dict[str, Any] = {name: numpy.zeros(len(keys), dtype=DTYPES[name]) for name in COLUMNS}
    end_ns = cluster.clock.current_ns
    for row, key in enumerate(keys):
        written = machine.contents().get(names[key])
        value = preload.get(names[key]) if written is None else written.value
        found = -1 if value is None else int.from_bytes(value[:VALUE_ID_BYTES], "big")
        columns["value_id"][row] = found
        columns["version"][row] = 0 if written is None else written.version
    columns["session"][:] = FINAL_SESSION + numpy.arange(len(keys))
    columns["sequence"][:] = 1
    columns["kind"][:] = READ
    columns["outcome"][:] = OK
    columns["phase"][:] = PHASE_RUN
    columns["key"][:] = keys
    columns["intended_ns"][:] = columns["invoked_ns"][:] = end_ns
    columns["returned_ns"][:] = end_ns + 1
    columns["previous_return_ns"][:] = NEVER
    final = History(**columns, key_names=history.key_names)
    return History.concatenate([history, final])
