"""What each protocol costs at each level, measured: ``python scripts/protocols.py [--check]``.

Writes docs/protocols.md from simulated runs. They are deterministic, so the page only changes
when a protocol, or the model of what it costs, does. ``--check`` says whether it is current.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from orchestrator.config.load import load_mapping
from orchestrator.config.schema import Config
from orchestrator.core import levels
from orchestrator.core.machine import OK, READ, TRANSACTION, WRITE
from orchestrator.core.record import RunRecord
from orchestrator.core.registry import Family, plugins
from orchestrator.core.units import NS_PER_MS, NS_PER_S
from orchestrator.fuzzing.scenario import Fault, Scenario, Step
from orchestrator.fuzzing.simulation import simulate
from orchestrator.plan import plan
from orchestrator.run import execute

PAGE = Path(__file__).resolve().parent.parent / "docs" / "protocols.md"
REPLICAS = 3
SHARDS = 3
ONE_WAY_MS = 1
ZONES = ("washington_dc", "london", "tokyo")


@dataclass(frozen=True)
class Row:
    """A protocol with parameters, the level that its reads ask for (empty: none), and the layer
    of transactions over its shards (empty: none).
    """

    protocol: str
    parameters: tuple[tuple[str, Any], ...] = ()
    level: str = ""
    transactions: str = ""

    @property
    def title(self) -> str:
        """The protocol and what of its parameters is not the default."""
        chosen = ", ".join(f"{name}: {value}" for name, value in self.parameters)
        over = f"`{self.transactions}` over " if self.transactions else ""
        return f"{over}`{self.protocol}`" + (f" ({chosen})" if chosen else "")

    @property
    def system(self) -> dict[str, Any]:
        """What all its configurations say of the system."""
        chosen: dict[str, Any] = {"protocol": {"name": self.protocol, **dict(self.parameters)}}
        if self.transactions:
            chosen |= {"shards": SHARDS, "transactions": {"name": self.transactions}}
        return chosen


ROWS = (
    Row("unreplicated"),
    Row("primary_backup"),
    Row("primary_backup", (("mode", "semi_sync"),)),
    Row("primary_backup", (("mode", "async"),)),
    Row("primary_backup", (("read_from", "any"), ("session_wait", True))),
    Row("chain"),
    Row("chain", (), levels.EVENTUAL),
    Row("craq"),
    Row("craq", (), levels.EVENTUAL),
    Row("raft"),
    Row("raft", (("reads", "read_index"),)),
    Row("raft", (("reads", "lease"),)),
    Row("raft", (), levels.SEQUENTIAL),
    Row("raft", (), levels.EVENTUAL),
    Row("multi_paxos"),
    Row("multi_paxos", (), levels.SEQUENTIAL),
    Row("epaxos"),
    Row("abd"),
    Row("abd", (), levels.REGULAR),
    Row("quorum"),
    Row("quorum", (("read_quorum", 1), ("write_quorum", 1))),
    Row("causal"),
    Row("causal", (), levels.EVENTUAL),
    Row("gossip"),
    Row("raft", transactions="two_phase_commit"),
)


# --- runs -------------------------------------------------------------------------------

YCSB = {"name": "ycsb", "mix": "a", "keys": 1000, "value_size": "100B"}
TRANSACTIONS = {"name": "transactions", "operations_min": SHARDS, "operations_max": SHARDS}


def config(row: Row, *overrides: str, **parts: Any) -> Config:
    """A small store without cost, one millisecond away from everybody, under a light load."""
    free = {"read": "0s", "write": "0s", "message": "0s"}
    base: dict[str, Any] = {
        "experiment": "protocols",
        "runtime": "sim",
        "system": {
            **row.system,
            "replicas": 1 if row.protocol == "unreplicated" else REPLICAS,
            "node": {"cpu": free},
            "network": {"delay": f"{ONE_WAY_MS}ms"},
        },
        "workload": TRANSACTIONS if row.transactions else YCSB,
        "arrival": {"name": "constant", "rate": "50/s"},
        "client": {"timeout": "5s", "reads": {row.level: 1.0} if row.level else {}},
        "warmup": "2s",
        "duration": "20s",
    }
    return load_mapping(base | parts, *overrides)


def measured(loaded: Config) -> RunRecord:
    """The run's record, all of whose claims held."""
    parts = plan(loaded)
    return execute(parts)


def alone(row: Row, kind: int) -> tuple[str, ...]:
    """What makes a load one of this kind. Reads and writes are told apart in one load, while all
    transactions of a load are alike.
    """
    return (f"workload.read_share={1 if kind == READ else 0}",) if row.transactions else ()


def median_ms(row: Row, record: RunRecord, kind: int) -> float:
    """Median latency of the measured window."""
    history = record.history
    rows = history.kind == (TRANSACTION if row.transactions else kind)
    rows &= history.outcome == OK
    rows &= history.intended_ns >= record.warmup_ns
    return float(numpy.median(history.returned_ns[rows] - history.intended_ns[rows])) / NS_PER_MS


def messages_per_operation(row: Row, kind: int) -> float:
    """Between nodes, beyond those of an idle cluster."""
    rate = 50.0

    def messages_per_s(load: str, *overrides: str) -> float:
        record = measured(config(row, *overrides, f"arrival.rate={load}"))
        first = record.warmup_ns // 100_000_000
        total = sum(int(node.messages[first:].sum()) for node in record.nodes)
        return total / ((record.end_ns - record.warmup_ns) / NS_PER_S)

    only_reads = alone(row, READ) or ("workload.mix=c",)
    idle = messages_per_s("1/s", *only_reads)
    reads = (messages_per_s(f"{rate:g}/s", *only_reads) - idle) / (rate - 1)
    if kind == READ:
        return max(0.0, reads)
    writes = (messages_per_s(f"{rate:g}/s", *alone(row, WRITE)) - idle) / (rate - 1)
    if row.transactions:
        return max(0.0, writes)
    # A mix of half reads: its writes are what its messages have beyond those of the reads.
    return max(0.0, 2 * writes - reads)


def throughput(row: Row) -> float:
    """Operations a second of 64 sessions that never pause, half of them writes, on real costs."""
    costs = {"read": "50us", "write": "50us", "message": "10us"}
    record = measured(
        config(
            row,
            "system.network.delay=250us",
            "system.batch.max=16",
            "duration=4s",
            "warmup=1s",
            *(f"system.node.cpu.{name}={value}" for name, value in costs.items()),
            arrival={"name": "closed", "sessions": 64},
        )
    )
    history = record.history
    done = (history.outcome == OK) & (history.returned_ns >= record.warmup_ns)
    done &= history.returned_ns < record.end_ns
    return float(numpy.count_nonzero(done)) / ((record.end_ns - record.warmup_ns) / NS_PER_S)


@functools.cache
def local_area(row: Row, *overrides: str) -> RunRecord:
    """Everybody is one millisecond away."""
    return measured(config(row, *overrides))


@functools.cache
def wide_area(row: Row, *overrides: str) -> RunRecord:
    """A replica and a client in each of three regions; clients ask the nearest node they may."""
    return measured(
        config(
            row,
            *overrides,
            "clients=3",
            "client.nearest=true",
            "system.network.delay=0s",
            "system.zones.preset=public_cloud",
            f"system.zones.names=[{','.join(ZONES)}]",
        )
    )


# --- what survives ----------------------------------------------------------------------


def survives(row: Row) -> str:
    """What is still served when one, and when two of three nodes have crashed for good."""
    if row.protocol == "unreplicated":
        return "nothing"
    served = []
    for crashes in (1, 2):
        kinds = [
            name
            for name, kind in (("reads", READ), ("writes", WRITE))
            if _served(row, crashes, kind)
        ]
        if kinds:
            served.append(f"{crashes}: {' and '.join(kinds)}")
    return "; ".join(served) or "nothing"


def _served(row: Row, crashes: int, kind: int) -> bool:
    """Whether nine in ten operations succeed some seconds after that many nodes have crashed."""
    crash_ns, look_ns, end_ns = (second * NS_PER_S for second in (1, 8, 12))
    gap_ns = 20 * NS_PER_MS
    steps = [_step(row, kind, at_ns, at_ns // gap_ns % 8) for at_ns in range(0, end_ns, gap_ns)]
    scenario = Scenario(
        protocol=row.transactions or row.protocol,
        seed=1,
        system={
            "name": "replicated_store",
            **row.system,
            "replicas": REPLICAS,
            "nodes": REPLICAS,
            "node": {"storage": {"durability": "memory"}},
            "network": {"delay": {"name": "exponential", "mean": "1ms"}},
        },
        client={"timeout": "2s"},
        clients=1,
        keys=8,
        heal_ns=end_ns,
        final_ns=end_ns,
        operations=tuple(steps),
        faults=tuple(Fault("crash", crash_ns, node=node) for node in range(crashes)),
    )
    history = simulate(scenario).history
    assert history is not None
    late = history.invoked_ns >= look_ns
    return float((history.outcome[late] == OK).mean()) > 0.9


def _step(row: Row, kind: int, at_ns: int, key: int) -> Step:
    """A read or a write of a key; a transaction reads or changes the next one too."""
    if row.transactions:
        letter = "r" if kind == READ else "a"
        return Step(at_ns, "txn", key, "", f"{letter}{key} {letter}{(key + 1) % 8}")
    if kind == READ:
        return Step(at_ns, "read", key, row.level)
    return Step(at_ns, "write", key)


# --- the page ---------------------------------------------------------------------------


def claim(row: Row) -> str:
    """The strongest levels that hold for this row."""
    if row.level:
        return row.level
    parts = plan(config(row))
    return ", ".join(levels.strongest(parts.system.claims(parts.circumstances))) or levels.NONE


def cells(row: Row) -> Iterator[str]:
    """One line of the table."""
    kinds = (READ, WRITE)
    lan_ms = [median_ms(row, local_area(row, *alone(row, kind)), kind) for kind in kinds]
    wan_ms = [median_ms(row, wide_area(row, *alone(row, kind)), kind) for kind in kinds]
    trips = [latency_ms / (2 * ONE_WAY_MS) for latency_ms in lan_ms]
    yield row.title
    yield claim(row).replace("_", " ")
    yield f"{messages_per_operation(row, READ):.1f} / {messages_per_operation(row, WRITE):.1f}"
    yield f"{trips[0]:.1f} / {trips[1]:.1f}"
    yield f"{lan_ms[0]:.1f} / {lan_ms[1]:.1f}"
    yield f"{wan_ms[0]:.0f} / {wan_ms[1]:.0f}"
    yield f"{throughput(row):,.0f}"
    yield survives(row)


HEAD = (
    "protocol",
    "level of reads",
    "messages",
    "round trips",
    "LAN latency, ms",
    "WAN latency, ms",
    "throughput, ops/s",
    "survives crashes",
)
INTRODUCTION = f"""# What protocols cost

Measured by `python scripts/protocols.py`, in the simulator, with {REPLICAS} replicas. Pairs are
read / write. A new run of the script gives the same page.

- **level of reads**: what every history keeps; where it is printed below a protocol that claims
  more, reads asked for that level (`client.reads`).
- **messages**: between nodes, per operation, without batching and beyond the heartbeats of an
  idle cluster.
- **round trips**: of the median operation, with that of the client to its node, at
  {ONE_WAY_MS} ms one way and no other cost.
- **LAN latency**: the same run, in milliseconds.
- **WAN latency**: median over clients in {", ".join(ZONES[:-1])} and {ZONES[-1]}, with a replica
  in each, round trips of the preset `public_cloud`; a client asks the nearest node that may serve
  it, and the first leader stands in {ZONES[0]}.
- **throughput**: 64 sessions without pause, half of the operations writes, 1,000 keys, nodes of
  one core with 50 us an operation and 10 us a message, 0.25 ms one way, at most 16 operations in
  a message.
- **survives crashes**: what is served seven seconds after one, and after two of the
  {REPLICAS} nodes crashed for good.

With transactions a pair is that of one which only reads and of one which only appends, {SHARDS}
keys each, drawn from 1,000 over {SHARDS} shards; throughput counts transactions that do both.
"""


def page() -> str:
    """The whole page as Markdown."""
    lines = [INTRODUCTION, "| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
    for row in ROWS:
        line = "| " + " | ".join(cells(row)) + " |"
        print(line, flush=True)
        lines.append(line)
    lines += ["", *_papers()]
    return "\n".join(lines) + "\n"


def _papers() -> Iterator[str]:
    yield "## What each one is"
    yield ""
    everything = plugins(Family.PROTOCOL) | plugins(Family.TRANSACTIONS)
    for name, found in everything.items():
        conditions = "; ".join(f"{level} ({when})" for level, when in found.claims.items())
        yield f"- `{name}`: {found.summary}. Claims {conditions}."


def main() -> int:
    """Write the page, or compare it."""
    text = page()
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
