"""What the simulations of Raft under faults are like: configurations, faults and commands.

Each profile is heavy in one thing, because one run cannot meet all that is rare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raft_watch import RaftWatch
from sim_faults import Outcome, configured, simulate

from orchestrator.core.randomness import scalar_stream
from orchestrator.core.units import NS_PER_MS

PROTOCOL = {"name": "raft", "election_timeout": "60ms", "heartbeat": "10ms"}
MIXED_READS = "client.reads={linearizable: 2, sequential: 1, eventual: 1}"


@dataclass(frozen=True)
class Profile:
    """``commands``: their kinds, about random nodes, one every ``command_gap_ms`` on average."""

    overrides: tuple[str, ...] = ()
    faults: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    nodes: int = 3
    replicas: int = 3
    commands: tuple[str, ...] = ()
    command_gap_ms: int = 60

    @property
    def system(self) -> dict[str, Any]:
        """The parts of the config below ``system`` that it sets."""
        protocol = PROTOCOL | dict(self.protocol)
        return {"protocol": protocol, "replicas": self.replicas, "nodes": self.nodes}

    def run(self, seed: int) -> Outcome:
        """One simulation, watched; raises AssertionError for what the watch sees."""
        config = configured(seed, self.system, *self.overrides, self.administration(seed))
        watch = RaftWatch()
        outcome = simulate(config, faults=self.faults, watch=watch)
        watch.finish()
        return outcome

    def problem(self, seed: int) -> str:
        """What is wrong, with the seed; empty where all is well."""
        try:
            found = self.run(seed).problem
        except AssertionError as error:
            return f"seed {seed}: {error}"
        return found and f"seed {seed}: {found}"

    def administration(self, seed: int) -> str:
        """An override with the commands of a run."""
        chance = scalar_stream(seed, "commands")
        given, at_ms = [], 0.0
        while self.commands and at_ms < 2000:
            at_ms += chance.expovariate(1 / self.command_gap_ms)
            command, node = chance.choice(self.commands), chance.randrange(self.nodes)
            given.append(f"{{command: {command}, node: {node}, at: {at_ms:.3f}ms}}")
        return f"system.administration=[{', '.join(given)}]"


def ms(value: float) -> int:
    """As nanoseconds."""
    return round(value * NS_PER_MS)


SNAPSHOTS = {"snapshot_every": 8, "snapshot_chunk": "150B"}
HASTY = {"election_timeout": "30ms", "heartbeat": "8ms"}
LATE_ANSWERS = (
    "system.network.delays={acknowledge: {name: mixture, parts: ["
    "{weight: 1, name: exponential, mean: 1ms}, {weight: 1, name: constant, value: 50ms}]}}"
)

PROFILES: dict[str, Profile] = {
    "plain": Profile(),
    "reordering": Profile(("system.network.ordering=none", "system.network.loss=0.05")),
    "five": Profile(("system.batch.max=1",), {"hunt": 0.8, "gap_ns": ms(60)}, nodes=5, replicas=5),
    "crashes": Profile(("system.node.storage.sync.mean=10ms",), {"crashes": 1.0, "gap_ns": ms(40)}),
    "ambush": Profile((), {"loss": 0.2, "ambush_ns": ms(12)}, {"in_flight": 1}),
    "elections": Profile(
        ("system.network.delay.mean=6ms", "system.network.ordering=none"),
        {"crashes": 1.0, "gap_ns": ms(8), "away_ns": ms(4), "hunt": 0.4},
        HASTY,
        nodes=5,
        replicas=5,
    ),
    "short_reigns": Profile(
        ("system.batch.max=1", "system.network.loss=0.1"),
        {"loss": 0.3, "ambush_ns": ms(15), "crashes": 0.5, "away_ns": ms(30), "gap_ns": ms(60)},
        HASTY | {"in_flight": 1},
        nodes=5,
        replicas=5,
    ),
    "read_index": Profile(
        ("client.sticky=false", MIXED_READS),
        {"crashes": 0.2, "gap_ns": ms(60), "hunt": 0.8},
        {"reads": "read_index"},
    ),
    "lease": Profile(
        ("client.sticky=false", MIXED_READS, "system.network.delay.mean=4ms"),
        {"crashes": 0.1, "gap_ns": ms(60), "hunt": 1.0, "repeats": 0.3},
        {"reads": "lease"},
        commands=("transfer",),
        command_gap_ms=25,
    ),
    # Half of the answers are so late that a leader may be replaced meanwhile, and a client that
    # is not sure asks elsewhere, too.
    "late_answers": Profile(
        (
            "client.sticky=false",
            "clients=4",
            "workload.keys=2",
            "workload.mix=b",
            "arrival.sessions=60",
            "arrival.think_time.mean=15ms",
            "system.network.ordering=none",
            "system.network.delay.mean=1ms",
            "system.network.loss=0",
            "system.node.storage.durability=memory",
            LATE_ANSWERS,
        ),
        {"crashes": 0.0, "gap_ns": ms(40), "away_ns": ms(150), "hunt": 1.0, "repeats": 0.5},
        {"reads": "lease", "election_timeout": "40ms", "heartbeat": "20ms", "clock_drift": 0},
    ),
    "snapshots": Profile(
        ("system.node.storage.sync.mean=5ms",),
        {"crashes": 0.7, "gap_ns": ms(50), "away_ns": ms(80), "repeats": 0.1},
        SNAPSHOTS,
    ),
    "stale_snapshots": Profile(
        ("system.network.ordering=none", "system.network.delay.mean=6ms"),
        {"crashes": 0.6, "gap_ns": ms(50), "away_ns": ms(100), "hunt": 0.2},
        {"snapshot_every": 4, "snapshot_chunk": "64KiB"},
    ),
    "members": Profile(
        (MIXED_READS,),
        {"gap_ns": ms(80)},
        SNAPSHOTS | {"reads": "read_index"},
        nodes=5,
        commands=("add", "add", "remove", "transfer"),
    ),
    "members_without_snapshots": Profile(
        (MIXED_READS,),
        {"gap_ns": ms(80), "crashes": 0.3},
        {"reads": "lease"},
        nodes=5,
        commands=("add", "remove"),
        command_gap_ms=40,
    ),
    "hasty_members": Profile(
        (),
        {"ambush_ns": ms(8), "crashes": 0.3, "away_ns": ms(50), "loss": 0.05},
        nodes=5,
        replicas=4,
        commands=("add", "remove"),
        command_gap_ms=6,
    ),
}
