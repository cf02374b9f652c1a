"""From a configuration to the parts that both runtimes assemble: machines, shells, drivers."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from orchestrator.config.profile import read_profile
from orchestrator.config.schema import SIM, Config
from orchestrator.core.caching import build_cache
from orchestrator.core.fault_exposure import exposure
from orchestrator.core.fault_plan import NEVER_NS, FaultPlan
from orchestrator.core.faults import CPU, STORAGE, ClusterState
from orchestrator.core.host_profile import HostProfile
from orchestrator.core.load import (
    Arrival,
    CachePolicy,
    JoiningTimetable,
    VaryingArrival,
    Workload,
)
from orchestrator.core.machine import Entry, Machine, MachineContext
from orchestrator.core.parameters import AUTO
from orchestrator.core.randomness import scalar_stream
from orchestrator.core.record import GROUP_MARK, MADE_UP_NS, NO_COPY
from orchestrator.core.system import Circumstances, System
from orchestrator.core.units import NS_PER_S
from orchestrator.runtimes._costs import Costs
from orchestrator.runtimes._node import NodeShell
from orchestrator.runtimes._outlet import Outlet
from orchestrator.runtimes._queueing import DispatchingShell, QueueingShell
from orchestrator.runtimes._storage import DispatchingStorage, Storage
from orchestrator.runtimes._tier import FrontDoor, is_fronted, make_pattern, tier_model
from orchestrator.runtimes._timers import LocalClock, Scheduler
from orchestrator.runtimes._tying import TyingShell
from orchestrator.runtimes._warming import pass_through
from orchestrator.systems._tier import Tier
from orchestrator.systems._zones import Zones
from orchestrator.systems.replicated_store import (
    FSYNC,
    MEASURED,
    MEMORY,
    MODELLED,
    Node,
    ReplicatedStoreParams,
)


@dataclass(frozen=True)
class Parts:
    """A config with its plug-ins made: what every process of a run starts from."""

    config: Config
    system: System
    workload: Workload
    arrival: Arrival
    profile: HostProfile | None = None

    @staticmethod
    def of(config: Config) -> Parts:
        """Raises DataError where the workload's file is missing or malformed, and ConfigError where
        the host profile is.
        """
        system = config.system.implementation(config.system.params)
        workload = config.workload.implementation(config.workload.params)
        arrival = config.arrival.implementation(config.arrival.params)
        path = config.hosts.profile
        profile = read_profile(path) if path is not None and config.runtime == SIM else None
        return Parts(config, system, workload, arrival, profile)

    @property
    def store(self) -> ReplicatedStoreParams:
        """Parameters of the emulated store."""
        params: ReplicatedStoreParams = self.config.system.params
        return params

    @property
    def machines(self) -> int:
        """How many machines run: the nodes, behind them their authority where the protocol has one,
        and behind that the nodes of the cache tier where there is one.
        """
        return self.tier_nodes.stop

    @property
    def tier(self) -> Tier | None:
        """The cache tier in front of the store."""
        return self.store.tier if self.system.emulated else None

    @property
    def tier_nodes(self) -> range:
        """The machines of the cache tier."""
        if not self.system.emulated:
            return range(self.system.nodes, self.system.nodes)
        first = self.system.nodes + (self.authority is not None)
        return range(first, first if self.tier is None else first + self.tier.nodes)

    @property
    def reachable(self) -> int:
        """The machines that clients have connections to are those below this number."""
        return self.machines if self.tier_nodes else self.system.nodes

    @property
    def served_by(self) -> str:
        """What serves the operations, in words."""
        protocol = getattr(self.config.system.params, "protocol", None)
        if protocol is not None:
            return f"protocol {protocol.name!r}"
        return f"system {self.config.system.name!r}"

    @property
    def durability(self) -> str:
        """What a node's log survives; a real server sees to that itself."""
        return self.store.node.storage.durability if self.system.emulated else FSYNC

    @property
    def made_up_ns(self) -> int:
        """By how much a wait may end late and be made up for by what comes next (ns)."""
        return MADE_UP_NS if self.costs == MODELLED else 0

    @property
    def costs(self) -> str:
        """Whether a node's work is charged by a model, or takes what it takes."""
        return self.store.node.costs if self.system.emulated else MEASURED

    def model_of(self, node: int) -> Node:
        """What a machine's work costs; an authority's is not charged."""
        model = self.store.node
        if self.tier is not None and node in self.tier_nodes:
            return tier_model(self.tier, model)
        if node >= self.system.nodes:
            return model.unmodelled
        return model

    @property
    def returning(self) -> bool:
        """Whether a node that ended is started again: it has a log, or it is a real server."""
        if not self.system.emulated:
            return bool(self.config.faults)
        return self.durability != MEMORY

    @property
    def may_crash(self) -> bool:
        """Whether a node may end and come back, or be missed, before the run is over."""
        return bool(self.config.faults) or self.durability != MEMORY

    @property
    def told(self) -> bool:
        """Whether clients want the nodes' own word of their load."""
        balancer = self.system.balancer.implementation
        return bool(balancer.reports or balancer.probing)

    @property
    def known_again(self) -> bool:
        """Whether a write that is sent again is known at any node, and applied once."""
        if not self.system.emulated or self.store.transactions is not None:
            return False
        return bool(self.store.protocol.implementation.ordered)

    def may_slow(self, what: str) -> bool:
        """Whether a fault may slow that part of a node down."""
        made = [slot.implementation(slot.params) for _, slot in self.config.faults]
        return any(what in variant.slows for fault in made for variant in fault.variants)

    @property
    def circumstances(self) -> Circumstances:
        """What the system's claims depend on besides itself."""
        return Circumstances(
            self.config.client.stays,
            exposure(self.config.faults, self.strikes_until_ns),
            self.config.client.cache is not None,
        )

    @property
    def authority(self) -> type[Machine] | None:
        """The machine of the protocol's authority, where it has one."""
        machine, params = self.store.deployed
        return machine.authority_of(params)

    def node_distance_ns(self, one: int, other: int) -> int:
        """One way between two machines, besides what the network model adds."""
        zones = self.store.zones
        if not zones.apart:
            return 0
        return zones.one_way_ns(self.zone_of(one), self.zone_of(other))

    def zone_of(self, node: int) -> str:
        """Where a machine stands; those of a cache tier are dealt out to the zones in turn."""
        zones, tier_nodes = self.store.zones, self.tier_nodes
        if node in tier_nodes:
            return zones.all_names[(node - tier_nodes.start) % len(zones.all_names)]
        return zones.of_node(node, self.system.nodes)

    def client_distance_ns(self, client: int, node: int) -> int:
        """One way between a client and a node, besides what the network model adds."""
        zones = self.store.zones if self.system.emulated else Zones()
        if not zones.apart:
            return 0
        return zones.one_way_ns(zones.of_client(client), self.zone_of(node))

    @property
    def lead_ns(self) -> int:
        """How much is run before ``duration`` is: the warm-up, or where that is to be found from
        the data what it may take at most, half of the duration.
        """
        config = self.config
        return config.duration // 2 if config.warmup == AUTO else config.warmup

    @property
    def recorded_from_ns(self) -> int:
        """Where the measured window begins as far as the runtime knows: it records everything where
        that is to be found from the data.
        """
        return 0 if self.config.warmup == AUTO else self.config.warmup

    @property
    def end_ns(self) -> int | None:
        """End of the measured window; None where the workload ends by itself."""
        if self.workload.total is not None:
            return None
        return self.lead_ns + self.config.duration

    @property
    def strikes_until_ns(self) -> int:
        """When faults end at the latest; a load that ends by itself is struck until it does."""
        return NEVER_NS if self.end_ns is None else self.end_ns

    @property
    def led(self) -> bool:
        """Whether one node leads where all is well; real servers have a primary."""
        return not self.system.emulated or self.store.deployed[0].led


def fault_plan(parts: Parts) -> FaultPlan:
    """When the run's faults strike."""
    return FaultPlan(
        parts.config.faults,
        parts.config.seed,
        parts.strikes_until_ns,
        remembers=parts.durability != MEMORY,
        led=parts.led,
    )


def cluster_state(parts: Parts, roles: Mapping[int, str]) -> ClusterState:
    """What faults may know now; ``roles`` of the nodes that are up."""
    nodes = tuple(range(parts.system.nodes))
    zones = parts.store.zones if parts.system.emulated else Zones()
    tier = tuple(parts.tier_nodes)
    return ClusterState(
        nodes,
        roles,
        parts.config.clients,
        len(nodes) if parts.tier_nodes.start > len(nodes) else None,
        {node: parts.zone_of(node) for node in (*nodes, *tier)} if zones.apart else {},
        tier,
    )


def offered_ops(parts: Parts, end_ns: int) -> float | None:
    """Intended operations a second from the warm-up to then.

    None where answers or a trace decide on the starts.
    """
    config, arrival = parts.config, parts.arrival
    start_ns = parts.recorded_from_ns
    if isinstance(arrival, VaryingArrival) and end_ns > start_ns:
        expected = arrival.expected(config.seed, config.clients, start_ns, end_ns)
        return expected * NS_PER_S / (end_ns - start_ns)
    if arrival.rate_per_s is None:
        return None
    joins = isinstance(arrival.timetable(config.seed, 0, config.clients), JoiningTimetable)
    return None if joins else arrival.rate_per_s


def make_cache(parts: Parts, node: int, *, restarted: bool) -> CachePolicy | None:
    """One node's cache: warm where that is asked for, but empty after a crash."""
    slot = parts.store.cache
    if slot is None or node in parts.tier_nodes:
        return None
    cache = build_cache(slot, scalar_stream(parts.config.seed, f"node/{node}/admission"))
    if slot.params.warm and not restarted:
        pass_through(cache, parts)
    return cache


def make_machine(parts: Parts, node: int) -> Machine:
    """The protocol's machine of one node, its authority as the one behind the last, or a pattern's
    of the cache tier.
    """
    store = parts.store
    if parts.tier is not None and node in parts.tier_nodes:
        return make_pattern(parts, parts.tier, node)
    authority = parts.authority if node == parts.system.nodes else None
    machine, params = store.deployed
    return (authority or machine)(
        MachineContext(
            node=node,
            nodes=tuple(range(parts.system.nodes)),
            replicas=store.replicas,
            preload=parts.workload.preload(),
            chance=scalar_stream(parts.config.seed, f"node/{node}/machine"),
            batch_max=store.batch.max if store.node.costs == MODELLED else 0,
            accesses=store.cache is not None or store.node.costs == MODELLED,
        ),
        params,
    )


def make_shell(
    parts: Parts,
    node: int,
    machine: Machine,
    cache: CachePolicy | None,
    scheduler: Scheduler,
    outlet: Outlet,
) -> NodeShell:
    """The shell around a machine."""
    store, model = parts.store, parts.model_of(node)
    if is_fronted(parts, node):
        outlet = FrontDoor(outlet)
    shell: Callable[..., NodeShell] = NodeShell
    if model.queue is not None:
        shell = QueueingShell
        if parts.config.client.tie.wanted:
            shell = functools.partial(TyingShell, patience_ns=parts.config.client.timeout)
    elif model.costs == MODELLED and (parts.may_slow(CPU) or model.autoscaler is not None):
        shell = DispatchingShell
    return shell(
        machine,
        model,
        Costs.of(model, parts.config.seed, f"node/{node}"),
        store.batch,
        cache,
        scheduler,
        outlet,
        LocalClock(scheduler) if parts.config.faults else None,
        DispatchingStorage if parts.may_slow(STORAGE) else Storage,
    )


def contents_digest(machine: Machine) -> str:
    """Fingerprint of the written state, equal on converged replicas; NO_COPY of a spare.

    By group where the node does not hold all of them: ``2:0a1b 3:9f3e``.
    """
    copies = machine.copies()
    if not copies:
        return NO_COPY
    if list(copies) == [0]:
        return _digest(copies[0])
    return " ".join(f"{group}{GROUP_MARK}{_digest(copy)}" for group, copy in copies.items())


def _digest(contents: Mapping[bytes, Entry]) -> str:
    keys = sorted(contents)
    entries = [contents[key] for key in keys]
    # Columns, because encoding entry by entry takes several times as long.
    columns = (keys, [entry.value for entry in entries], [entry.version for entry in entries])
    return hashlib.sha256(msgspec.msgpack.encode(columns)).hexdigest()[:16]
