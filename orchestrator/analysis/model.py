"""What queueing theory says of a configuration, beside what was measured.

From the modelled costs, the network and what the protocol declares that an operation asks of the
nodes (:mod:`orchestrator.core.demand`) follow, before anything runs:

* the **service demand** of each resource per operation, and with it the **capacity**, 1 / the
  largest demand (Denning and Buzen, ACM Computing Surveys 10(3), 1978: the bottleneck law);
* the **utilisation** of the busiest resource at the offered rate (the utilisation law);
* the **mean response time** under open arrivals (:mod:`orchestrator.analysis.paths`).

One figure is taken from the run where there is one: the hit ratio of its caches, which no closed
form gives for every policy; without it all look-ups go to storage.

A run *contradicts* the model where it does more than can be, or strays from what is predicted by
more than the tolerances below, while the model applies. That does not make it invalid: one of the
two is wrong, and somebody should know.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy

from orchestrator.analysis.laws import Law
from orchestrator.analysis.paths import Paths
from orchestrator.analysis.resources import costs as costs_of
from orchestrator.analysis.stations import Costs, Flow
from orchestrator.config.schema import Config
from orchestrator.core.demand import Demand, Demands
from orchestrator.core.levels import canonical
from orchestrator.core.load import CYCLIC, EVEN, Arrival, VaryingArrival, Workload
from orchestrator.core.machine import LINK_KINDS, READING
from orchestrator.systems.replicated_store import FSYNC, MODELLED, ReplicatedStoreParams

CAPACITY_TOLERANCE: Final = 0.05
"""Nothing serves more than its bottleneck can; this much is chance in the operations' costs."""
UTILISATION_TOLERANCE: Final = 0.10
UTILISATION_FLOOR: Final = 0.02
"""Differences below this say nothing, however large a part they are of a small utilisation."""
LATENCY_TOLERANCE: Final = 0.25
LATENCY_UTILISATION_MAX: Final = 0.85
"""Above this a mean needs longer runs than people make, and 1 % of load moves it by a tenth."""
REAL_FLOOR_MS: Final = 1.0
"""What sockets and a scheduler may add to the latency of a real run."""
_BARE: Final = {
    "capacity_ops": "capacity",
    "utilisation": "utilisation",
    "mean_latency_ms": "mean_latency",
}
"""Names without units, of ratios."""
_PROBE: Final = 20_000
_LITTLE: Final = 1e-6
"""Operations a second of a load under which nothing waits."""


@dataclass(frozen=True)
class Share:
    """A part of the load: operations alike, ``per_start`` of them for each intended start."""

    per_start: float
    kind: int
    level: str
    count: float
    group: int = 0


@dataclass(frozen=True)
class Prediction:
    """``capacity_ops`` and ``demands_s`` (by resource, of a mean operation) follow from the costs;
    ``utilisation`` and ``mean_latency_ms`` are None where they cannot be told: ``reason`` says why.
    ``resource`` is the busiest.
    """

    capacity_ops: float
    resource: str
    demands_s: Mapping[str, float]
    utilisation: float | None
    mean_latency_ms: float | None
    reason: str | None

    def figures(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "capacity_ops": self.capacity_ops if math.isfinite(self.capacity_ops) else None,
            "resource": self.resource,
            "utilisation": self.utilisation,
            "mean_latency_ms": self.mean_latency_ms,
            "unmodelled": self.reason,
        }


# --- the load ---------------------------------------------------------------------------


def shares_of(workload: Workload, config: Config) -> list[Share]:
    """What the operations are, from the beginning of the workload's own streams."""
    store = config.system.params
    block = workload.stream(config.seed, 0, config.clients).block(_PROBE)
    groups = [0] * len(block)
    if isinstance(store, ReplicatedStoreParams) and store.apart:
        names, cell_of = workload.key_names, store.layouts.cell_of
        known = {key: cell_of(names[key]) for key in numpy.unique(block.key).tolist()}
        groups = [known[key] for key in block.key.tolist()]
    levels = config.client.reads or {"": 1.0}
    total = math.fsum(levels.values())
    found: Counter[tuple[int, int, int]] = Counter()
    for kind, following, group, count in zip(
        block.kind.tolist(), block.follow_up.tolist(), groups, block.count.tolist(), strict=True
    ):
        found[kind, group, count] += 1
        if following:
            found[following, group, 1] += 1
    return [
        Share(
            number / len(block) * share / total,
            kind,
            canonical(level) if level else "",
            float(count),
            group,
        )
        for (kind, group, count), number in sorted(found.items())
        for level, share in (levels.items() if kind in READING else (("", total),))
    ]


# --- whether there is a model -----------------------------------------------------------


def _unmodelled(config: Config) -> str | None:
    """Why there are no figures at all; None where there are."""
    store = config.system.params
    if not isinstance(store, ReplicatedStoreParams) or costs_of(config) != MODELLED:
        return "costs are measured"
    nodes = store.nodes or store.replicas
    reasons = {
        "system.tier": store.tier is not None,
        "system.transactions": store.transactions is not None,
        "client.cache": config.client.cache is not None,
        "system.administration": bool(store.administration),
        "system.node.autoscaler": store.node.autoscaler is not None,
        "system.nodes that hold no copy": store.shards == 1 and nodes != store.replicas,
    }
    return next((f"{name} is not modelled" for name, there in reasons.items() if there), None)


def _unsteady(config: Config, arrival: Arrival) -> str | None:
    """Why nothing is said of utilisation and latency; None where something is."""
    client, store = config.client, config.system.params
    reasons = {
        "closed load has no offered rate": arrival.closed,
        "faults": bool(config.faults),
        "client.retry, hedge or tie": client.insists,
        "client.limit": client.limit is not None,
        "client.breaker": client.breaker.failures is not None,
        "system.node.rate_limit": store.node.rate_limit.rate is not None,
        "system.batch": store.batch.max > 1,
    }
    return next((name for name, there in reasons.items() if there), None)


def _unlike(config: Config, arrival: Arrival) -> str | None:
    """Why nothing is said of the latency; None where something is."""
    client, store = config.client, config.system.params
    network = store.network
    reasons = {
        "arrivals whose rate changes": _law(arrival) is None,
        "client.batch": client.batch.max > 1,
        "system.node.queue": store.node.queue is not None,
        "system.zones": store.zones.apart,
        "system.network.bandwidth": network.bandwidth is not None,
        "system.network.loss": network.loss > 0,
        "system.network.jitter": not Law(network.jitter).constant or Law(network.jitter).mean > 0,
    }
    return next((name for name, there in reasons.items() if there), None)


# --- the prediction ---------------------------------------------------------------------


def predict(
    config: Config,
    arrival: Arrival,
    shares: Sequence[Share],
    rate: float | None,
    hit_ratio: float | None = None,
) -> Prediction | None:
    """What is to be expected at ``rate`` intended starts a second (None: nobody knows it).

    None where the configuration has no model.
    """
    store = config.system.params
    if _unmodelled(config) is not None:
        return None
    costs = _costs(config, hit_ratio or 0.0)
    flows = _flows(config, arrival, shares)
    if not flows:
        return None
    demands, background = _demands(store, costs, flows)
    room = {name: _servers(name, store) - background[name] for name in demands}
    bounds = {name: room[name] / each if each else math.inf for name, each in demands.items()}
    bottleneck = min(bounds, key=lambda name: bounds[name])
    capacity = max(0.0, bounds[bottleneck])
    reason = _unsteady(config, arrival) or _unbalanced(store, flows)
    if rate is None or reason is not None:
        reason = reason or "no offered rate"
        return Prediction(capacity, bottleneck, demands, None, None, reason)
    operations = rate * math.fsum(share.per_start for share in shares)
    utilisation = max(
        min(1.0, (operations * each + background[name]) / _servers(name, store))
        for name, each in demands.items()
    )
    reason = _unlike(config, arrival) or ("more load than capacity" if utilisation >= 1 else None)
    latency_s = None
    if reason is None:
        flows = [replace(flow, rate=flow.rate * rate) for flow in flows]
        latency_s = Paths(costs, flows, _background(store, flows)).mean_response
    latency_ms = None if latency_s is None else latency_s * 1e3
    return Prediction(capacity, bottleneck, demands, utilisation, latency_ms, reason)


def _costs(config: Config, hit_ratio: float) -> Costs:
    store: ReplicatedStoreParams = config.system.params
    node, network, client = store.node, store.network, config.client
    sync = Law(node.storage.sync)
    return Costs(
        cores=node.cores,
        read=Law(node.cpu.read, 1 / node.speed),
        write=Law(node.cpu.write, 1 / node.speed),
        message=Law(node.cpu.message, 1 / node.speed),
        lookup=Law(node.storage.read),
        record=Law(node.storage.write),
        sync=sync if node.storage.durability == FSYNC and sync.mean else None,
        parallel=node.storage.parallel,
        delays={kind: Law(network.delays.get(kind, network.delay)) for kind in LINK_KINDS},
        fifo=network.ordering == "fifo",
        channels=config.clients * client.connections,
        miss_ratio=1 - hit_ratio if store.cache is not None else 1.0,
    )


def _flows(config: Config, arrival: Arrival, shares: Sequence[Share]) -> list[Flow]:
    """One a share, per intended start; [] where the protocol has not declared its demands."""
    store: ReplicatedStoreParams = config.system.params
    flows = []
    for share in shares:
        declared = _declared(store, share.level)
        if declared is None:
            return []
        reads = share.kind in READING
        demand = declared.read if reads else declared.write
        flows.append(
            Flow(
                _batched(demand, store.batch.max),
                _nodes_of(store, share.group),
                share.per_start,
                reads,
                share.count,
                _spread(store, arrival, len(demand.at)),
            )
        )
    return flows


def _declared(store: ReplicatedStoreParams, level: str) -> Demands | None:
    machine = store.protocol.implementation
    found: Demands | None = machine.demands(store.protocol.params, store.replicas, level)
    return found


def _nodes_of(store: ReplicatedStoreParams, group: int) -> tuple[int, ...]:
    if not store.apart:
        return tuple(range(store.nodes or store.replicas))
    return store.layouts.groups[group].nodes


def _law(arrival: Arrival) -> str | None:
    """How starts lie, where their rate stays."""
    law: str | None = getattr(arrival, "gaps", None)
    return None if isinstance(arrival, VaryingArrival) else law


def _batched(demand: Demand, most: int) -> Demand:
    """The same where full batches share all messages and records: what can be served at most."""
    return replace(demand, sharing=most) if most > 1 else demand


def _spread(store: ReplicatedStoreParams, arrival: Arrival, among: int) -> float:
    """Squared coefficient of variation of the arrivals at one of ``among`` nodes."""
    offered = 0.0 if _law(arrival) == EVEN else 1.0
    if among == 1:
        return offered
    split = getattr(store.balancer.implementation, "split", None)
    # Every n-th of a renewal process, and one with probability 1 / n of it.
    return offered / among if split == CYCLIC else 1 + (offered - 1) / among


def _unbalanced(store: ReplicatedStoreParams, flows: Sequence[Flow]) -> str | None:
    several = any(len(flow.demand.at) > 1 for flow in flows)
    known = getattr(store.balancer.implementation, "split", None) is not None
    return f"system.balancer {store.balancer.name}" if several and not known else None


def _background(store: ReplicatedStoreParams, flows: Sequence[Flow]) -> list[float]:
    """Messages that each node receives a second in all its groups, whatever the load is."""
    found = [0.0] * (store.nodes or store.replicas)
    declared = _declared(store, "")
    groups = sorted({flow.nodes for flow in flows})
    if store.apart:
        groups = [group.nodes for group in store.layouts.groups]
    for nodes in groups:
        for node, per_s in zip(nodes, declared.background_per_s if declared else (), strict=False):
            found[node] += per_s
    return found


def _demands(
    store: ReplicatedStoreParams, costs: Costs, flows: Sequence[Flow]
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of each resource that an operation takes, and that a second takes without any."""
    starts = math.fsum(flow.rate for flow in flows)
    little = [replace(flow, rate=flow.rate * _LITTLE / starts) for flow in flows]
    background = _background(store, flows)
    still = [0.0] * len(background)
    demands, idle = {}, {}
    for node, station in enumerate(Paths(costs, little, still, iterations=1).stations):
        demands[f"n{node}.cpu"] = station.load / _LITTLE
        idle[f"n{node}.cpu"] = background[node] * costs.message.mean
        if costs.parallel is not None:
            demands[f"n{node}.storage"] = (
                station.lookups * costs.miss_ratio * costs.lookup.mean
                + station.records * costs.record.mean
            ) / _LITTLE
            idle[f"n{node}.storage"] = 0.0
    return demands, idle


def _servers(name: str, store: ReplicatedStoreParams) -> float:
    parallel = store.node.storage.parallel
    return float(store.node.cores if name.endswith(".cpu") or parallel is None else parallel)


# --- the judgement ----------------------------------------------------------------------


def beside(
    predicted: Mapping[str, Any] | None, summary: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The part ``model`` of the result object ``summary``: what was predicted
    (:meth:`Prediction.figures`, or such a part), beside what was measured; None without a model.
    """
    if predicted is None:
        return None
    measured = {
        "capacity_ops": summary["throughput_ops"],
        "utilisation": (summary["bottleneck"] or {}).get("utilisation"),
        "mean_latency_ms": summary["latency_ms"]["all"]["mean"],
    }
    return dict(predicted) | {
        "measured_over_model": {
            _BARE[name]: value / predicted[name] if value is not None and predicted[name] else None
            for name, value in measured.items()
        },
        "contradiction": _contradiction(predicted, measured, summary["clock"]),
    }


def _contradiction(
    predicted: Mapping[str, Any], measured: Mapping[str, float | None], clock: str
) -> str | None:
    """What cannot be, in a sentence; None where all agrees, or nothing is known."""
    served, most = measured["capacity_ops"], predicted["capacity_ops"]
    if served is not None and most is not None and served > most * (1 + CAPACITY_TOLERANCE):
        return (
            f"{served:.1f} operations/s were served, and {predicted['resource']} can serve"
            f" {most:.1f}/s by the model"
        )
    busy, expected = measured["utilisation"], predicted["utilisation"]
    if expected is None or expected >= 1:
        return None
    allowed = max(UTILISATION_FLOOR, UTILISATION_TOLERANCE * expected)
    if busy is not None and abs(busy - expected) > allowed:
        return (
            f"the busiest resource was used to {busy:.1%}, where the model says {expected:.1%}"
            f" (allowed: {allowed:.1%} more or less)"
        )
    latency_ms, modelled_ms = measured["mean_latency_ms"], predicted["mean_latency_ms"]
    if modelled_ms is None or latency_ms is None or expected > LATENCY_UTILISATION_MAX:
        return None
    allowed_ms = LATENCY_TOLERANCE * modelled_ms + (REAL_FLOOR_MS if clock == "real" else 0.0)
    if abs(latency_ms - modelled_ms) <= allowed_ms:
        return None
    return (
        f"the mean latency was {latency_ms:.3f} ms, where the model says {modelled_ms:.3f} ms"
        f" (allowed: {allowed_ms:.3f} ms more or less)"
    )
