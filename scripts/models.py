"""The queueing model beside the simulator: ``python scripts/models.py [--check]``.

Every protocol that declares its demands, on 1, 3 and 5 nodes, at 30, 50 and 80 % of the capacity
that the model gives it, and under closed load for that capacity itself; then other circumstances.
Writes docs/models.md; a new run gives the same. ``--check`` says whether the page is current. Takes
some minutes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from orchestrator.analysis.latency import histograms, measured_window
from orchestrator.analysis.model import Prediction, predict, shares_of
from orchestrator.analysis.resources import bottleneck, cache, utilisations
from orchestrator.config.load import load_mapping
from orchestrator.config.schema import Config
from orchestrator.core.registry import Family, plugins
from orchestrator.plan import plan
from orchestrator.runtimes import simulated

PAGE = Path(__file__).resolve().parent.parent / "docs" / "models.md"
REPLICAS: Final = (1, 3, 5)
LOADS: Final = (0.3, 0.5, 0.8)
OPERATIONS: Final = 8_000
WARMUP: Final = 1_500
SESSIONS: Final = 200
SECONDS_MIN: Final = 0.5
"""Nodes count by tenths of a second: shorter runs say little of their utilisation."""
CAPACITY_WITHIN: Final = 0.05
UTILISATION_WITHIN: Final = 0.05
LATENCY_WITHIN: Final = 0.10
PROCESSES: Final = 2

BASE: Final[dict[str, Any]] = {
    "experiment": "models",
    "runtime": "sim",
    "check": {"level": "none"},
    "client": {"timeout": "100s"},
    "workload": {
        "name": "ycsb",
        "shares": {"read": 0.5, "update": 0.5},
        "keys": 10_000,
        "distribution": "uniform",
    },
}
CONSTANT: Final[dict[str, Any]] = {
    "node": {"cpu": {"read": "100us", "write": "150us", "message": "20us"}},
    "network": {"delay": "250us"},
}


def _law(name: str, mean: str) -> dict[str, Any]:
    return {"name": name, "mean": mean}


SCATTERED: Final[dict[str, Any]] = {
    "node": {
        "cpu": {
            "read": _law("exponential", "100us"),
            "write": _law("exponential", "150us"),
            "message": "20us",
        }
    },
    "network": {"delay": _law("exponential", "250us")},
}
LOGGED: Final[dict[str, Any]] = {
    "node": SCATTERED["node"]
    | {"storage": {"read": _law("exponential", "1ms"), "write": _law("exponential", "500us")}},
    "network": {"delay": "250us"},
}
SYNCED: Final[dict[str, Any]] = {
    "node": CONSTANT["node"] | {"storage": {"write": "50us", "sync": "1ms", "durability": "fsync"}},
    "network": {"delay": "250us"},
}
CORES: Final[dict[str, Any]] = {
    "node": SCATTERED["node"] | {"cores": 4},
    "network": {"delay": "250us"},
}
FULL_DISK: Final[dict[str, Any]] = {
    "node": CONSTANT["node"] | {"storage": {"read": _law("exponential", "1ms"), "parallel": 1}},
    "network": {"delay": "250us"},
}
SHARDS: Final = CONSTANT | {"shards": 6, "nodes": 6}

CIRCUMSTANCES: Final[Mapping[str, Mapping[str, Any]]] = {
    "exponential costs and delays": SCATTERED,
    "storage behind reads and writes": LOGGED,
    "a log that is synced": SYNCED,
    "4 cores": CORES,
    "storage that does one thing at a time": FULL_DISK,
    "6 shards on 6 nodes": SHARDS,
}
SOME: Final = ("primary_backup", "chain", "quorum", "raft", "epaxos", "causal")
VARIANTS: Final[tuple[Mapping[str, Any], ...]] = (
    {"name": "raft", "reads": "lease"},
    {"name": "raft", "reads": "read_index"},
    {"name": "multi_paxos", "reads": "lease"},
    {"name": "primary_backup", "mode": "async"},
    {"name": "primary_backup", "mode": "semi_sync"},
    {"name": "primary_backup", "read_from": "any"},
    {"name": "quorum", "read_quorum": 1, "write_quorum": 3},
    {"name": "quorum", "versions": "clock", "handoff": False},
)


class Case(NamedTuple):
    """A configuration, by its words in the page."""

    circumstance: str
    protocol: str
    replicas: int
    system: Mapping[str, Any]


class Point(NamedTuple):
    """Modelled and measured, at one share of the capacity; latencies in ms."""

    load: float
    utilisation: float
    measured_utilisation: float
    latency_ms: float | None
    measured_latency_ms: float


class Row(NamedTuple):
    """One case; ``served_ops`` is what closed load gets."""

    case: Case
    capacity_ops: float
    served_ops: float
    points: tuple[Point, ...]


# --- running ----------------------------------------------------------------------------


def config_of(case: Case, arrival: Mapping[str, Any], seconds: float, warmup_s: float) -> Config:
    """The case under a load."""
    return load_mapping(
        BASE
        | {"system": {"name": "replicated_store", "replicas": case.replicas} | dict(case.system)}
        | {"arrival": dict(arrival), "duration": f"{seconds:.6f}s", "warmup": f"{warmup_s:.6f}s"}
    )


def predicted(config: Config, rate: float) -> Prediction:
    """What the model says; the caller knows that there is one."""
    parts = plan(config)
    found = predict(config, parts.arrival, shares_of(parts.workload, config), rate)
    assert found is not None
    return found


def point_of(case: Case, capacity_ops: float, load: float, operations: int = OPERATIONS) -> Point:
    """One simulated run at a share of the capacity."""
    rate = load * capacity_ops
    arrival = {"name": "poisson", "rate": f"{rate!r}/s"}
    seconds = max(SECONDS_MIN, operations / rate)
    config = config_of(case, arrival, seconds, WARMUP / rate)
    expected = predicted(config, rate)
    record = simulated.run(plan(config))
    latency_ms = histograms(measured_window(record, config.client.timeout))["all"].figures_ms()
    busiest = bottleneck([utilisations(record, "modelled")])
    assert busiest is not None and expected.utilisation is not None
    assert cache([record])["hit_ratio"] is None
    return Point(
        load,
        expected.utilisation,
        busiest["utilisation"],
        expected.mean_latency_ms,
        float(latency_ms["mean"] or 0.0),
    )


def served_of(case: Case, capacity_ops: float, operations: int = OPERATIONS // 2) -> float:
    """Throughput under closed load."""
    arrival = {"name": "closed", "sessions": SESSIONS}
    seconds = operations / capacity_ops
    config = config_of(case, arrival, seconds, 2 * SESSIONS / capacity_ops)
    window = measured_window(simulated.run(plan(config)), config.client.timeout)
    return len(window.completed_ns) / window.length_s


def row_of(case: Case) -> Row:
    """All runs of a case."""
    any_load = {"name": "poisson", "rate": "1/s"}
    capacity = predicted(config_of(case, any_load, 1.0, 0.0), 1e-3).capacity_ops
    points = tuple(point_of(case, capacity, load) for load in LOADS)
    return Row(case, capacity, served_of(case, capacity), points)


# --- cases ------------------------------------------------------------------------------


def declared() -> list[str]:
    """Protocols that say what operations ask of the nodes."""
    found = plugins(Family.PROTOCOL).items()
    return [
        name
        for name, each in found
        if each.implementation.demands(each.params(), 1, "") is not None
    ]


def cases() -> list[Case]:
    """Every protocol, then its variants, then other circumstances."""
    found = [
        Case("", name, replicas, CONSTANT | {"protocol": {"name": name}})
        for name in declared()
        for replicas in REPLICAS
        if replicas == 1 or name != "unreplicated"
    ]
    for variant in VARIANTS:
        said = ", ".join(f"{key}: {value}" for key, value in variant.items() if key != "name")
        named = f"{variant['name']} ({said.replace('False', 'false')})"
        found.append(Case("", named, 3, CONSTANT | {"protocol": dict(variant)}))
    for circumstance, system in CIRCUMSTANCES.items():
        for name in SOME:
            found.append(Case(circumstance, name, 3, {**system, "protocol": {"name": name}}))
    return found


# --- the page ---------------------------------------------------------------------------


def _off(measured: float, modelled: float) -> str:
    return f"{100 * (measured / modelled - 1):+.1f} %"


def misses(row: Row) -> list[str]:
    """What is not within the tolerances, in words."""
    said = []
    if abs(row.served_ops / row.capacity_ops - 1) > CAPACITY_WITHIN:
        said.append(f"capacity {_off(row.served_ops, row.capacity_ops)}")
    for point in row.points:
        at = f"at {point.load:.0%}"
        if abs(point.measured_utilisation / point.utilisation - 1) > UTILISATION_WITHIN:
            off = _off(point.measured_utilisation, point.utilisation)
            said.append(f"utilisation {off} {at}")
        modelled_ms = point.latency_ms
        if modelled_ms is None:
            continue
        if abs(point.measured_latency_ms / modelled_ms - 1) > LATENCY_WITHIN:
            said.append(f"latency {_off(point.measured_latency_ms, modelled_ms)} {at}")
    return said


HEADER: Final = (
    "| protocol | nodes | capacity | closed load |"
    + "".join(f" utilisation at {load:.0%} | mean ms at {load:.0%} |" for load in LOADS)
    + "\n| --- | --: | --: | --: |"
    + " --: | --: |" * len(LOADS)
)


def _cells(row: Row) -> str:
    cells = [row.case.protocol, str(row.case.replicas), f"{row.capacity_ops:,.0f}"]
    cells.append(_off(row.served_ops, row.capacity_ops))
    for point in row.points:
        cells.append(_off(point.measured_utilisation, point.utilisation))
        modelled_ms = point.latency_ms
        if modelled_ms is None:
            cells.append("–")
        else:
            off = _off(point.measured_latency_ms, modelled_ms)
            cells.append(f"{modelled_ms:.3f}, {off}")
    return "| " + " | ".join(cells) + " |"


def page(rows: Sequence[Row]) -> str:
    """The text of the page."""
    parts = [INTRODUCTION]
    for circumstance in ("", *CIRCUMSTANCES):
        found = [row for row in rows if row.case.circumstance == circumstance]
        title = circumstance[:1].upper() + circumstance[1:] or "Constant costs and delays"
        parts.append("\n".join([f"## {title}\n", HEADER, *map(_cells, found)]))
    missed = [(row.case, misses(row)) for row in rows if misses(row)]
    count = sum(2 * len(row.points) + 1 for row in rows)
    off = sum(len(said) for _, said in missed)
    listed = [
        f"- {case.protocol} on {case.replicas}"
        f"{f' ({case.circumstance})' if case.circumstance else ''}: {'; '.join(said)}"
        for case, said in missed
    ]
    summary = f"Of {count} figures {off} are outside of the tolerances:"
    parts.append("\n".join(["## Misses\n", summary, "", *listed, "", WHY.strip()]))
    return "\n\n".join(parts).rstrip() + "\n"


INTRODUCTION: Final = f"""\
# The queueing model beside the simulator

Every result has a part `model`: what queueing theory says of the configuration, beside what was
measured. This page, by `python scripts/models.py`, says how far to trust it. A new run gives the
same page.

From the modelled costs, the network and what each protocol declares that an operation asks of the
nodes (`demands` in its file: who serves, which messages go where, which answers and records are
waited for) follow, before anything runs:

- **capacity**: 1 / the largest service demand of a resource per operation (the bottleneck law,
  Denning and Buzen 1978);
- **utilisation** of that resource at the offered rate (the utilisation law);
- **mean latency** under open arrivals: queueing at each node on the way, the network, the records
  that are waited for, and of a round to others the k-th fastest answer, as in Ailijiang, Charapko
  and Demirbas, "Dissecting the Performance of Strongly-Consistent Replication Protocols" (SIGMOD
  2019). What an operation brings to a node comes in clusters (itself, then the answers of the
  others), which Pollaczek and Khinchine's formula alone misses: see
  `orchestrator/analysis/stations.py`.

The hit ratio of caches is taken from the run. There is no model of measured costs, cache tiers,
transactions, data that moves, autoscalers and clients' caches; none of utilisation and latency with
closed load, faults, retries, hedges, limits, breakers, protocol batches and balancers that listen;
and none of the latency with varying arrivals, queue policies, zones, jitter, bandwidth, loss and
clients' batches. Then the keys are null, and `unmodelled` says why.

A run *contradicts* the model (`model.contradiction`, and a line on the terminal) where its
throughput is more than 5 % above the capacity, where the busiest resource's utilisation is more
than 10 % off (2 points at least), or where, up to 85 % utilisation, the mean latency is more than
25 % off (of real runs 1 ms more). That is no verdict of validity: one of the two is wrong.

In the tables the model's figure comes first, then how far the simulator is from it: half reads and
half writes of uniform keys, {OPERATIONS:,} operations at each share of the capacity the model
gives, and {SESSIONS} sessions without think time for the capacity. Within tolerance is
{CAPACITY_WITHIN:.0%} of capacity and utilisation, and {LATENCY_WITHIN:.0%} of the mean latency.
"""

WHY: Final = """
What is known of the reasons. Means at 80 % wander by some per cent in runs of this length.
`gossip` counts the most messages that a rumour can take: nodes that hear of a write by a
comparison are told of many at once, so that its CPUs have less to do. `read_index` shares a round
among the reads that wait, of which the model knows nothing, so there is room for more than it
says. Where all nodes coordinate, an operation brings many small jobs to each of them, and near
saturation the formula for clusters makes their waits too long: it is exact for jobs that come at
once and for jobs far apart, and between the two an approximation. A synced log is taken for one
whose syncs begin at random, which those of a quorum's two rounds do not. `epaxos` executes later
operations after earlier ones that they depend on, which random times make longer. The other
misses are not explained. Where operations on one key meet, `epaxos`, `abd` and `craq` do more
than is modelled (a second round, a write-back, a question to the tail): with few or very popular
keys expect less of it.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or say whether it is current."""
    parser = argparse.ArgumentParser(description="The queueing model beside the simulator.")
    parser.add_argument("--check", action="store_true", help="only say whether it is current")
    check = parser.parse_args(arguments).check
    with multiprocessing.Pool(PROCESSES) as pool:
        rows = []
        for row in pool.imap(row_of, cases()):
            rows.append(row)
            print(_cells(row), file=sys.stderr, flush=True)
    text = page(rows)
    if not check:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
    print(f"{PAGE.name} is {'current' if current else 'stale: run python scripts/models.py'}")
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main())
