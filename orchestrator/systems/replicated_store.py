"""An emulated key-value store, replicated by a protocol plug-in: the system under design.

Its nodes are pure machines behind a modelled (or measured) CPU, a cache in front of storage,
and links with delay, loss and bandwidth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.core import levels
from orchestrator.core.giving import MoveParams
from orchestrator.core.layout import Layouts
from orchestrator.core.levels import LEVELS
from orchestrator.core.machine import LINK_KINDS, ClaimContext, ClusterView, Machine, Op
from orchestrator.core.moving import Moving
from orchestrator.core.parameters import (
    Capacity,
    ParameterError,
    bandwidth,
    choice,
    duration,
    flag,
    number,
    rate,
    size,
    slot,
    slots,
)
from orchestrator.core.registry import Family, Slot, register
from orchestrator.core.sharding import Shards, sharded
from orchestrator.core.system import CACHED, Address, Circumstances
from orchestrator.core.units import format_size
from orchestrator.errors import ConfigError, InfeasibleError
from orchestrator.systems._balancing import check_balancer
from orchestrator.systems._cpu import Cpu, law
from orchestrator.systems._sharding import (
    Command,
    check_commands,
    check_moves,
    check_ordered,
    commands_that_move,
    layouts_of,
    ordered_protocols,
)
from orchestrator.systems._tier import TIER_KINDS, Tier
from orchestrator.systems._zones import Zones

MODELLED = "modelled"
MEASURED = "measured"
MEMORY = "memory"
ASYNC = "async"
FSYNC = "fsync"


@dataclass(frozen=True)
class Storage:
    """Behind the cache: what a miss costs to read, a record to write, a sync to wait for."""

    read: Slot = law("0s")
    write: Slot = law("0s")
    sync: Slot = law("0s")
    parallel: int | None = number(None, low=1, help="requests served at once; null: no limit")
    durability: str = choice(MEMORY, options=(MEMORY, ASYNC, FSYNC))


@dataclass(frozen=True)
class RateLimit:
    """Of the operations that a node takes from clients; those above it are turned away."""

    rate: float | None = rate(None, help="null: no limit")
    burst: int = number(100, low=1, help="taken at once after a pause")


@dataclass(frozen=True)
class Node:
    costs: str = choice(MODELLED, options=(MODELLED, MEASURED))
    cores: int = number(1, low=1)
    speed: float = number(
        1.0, low=0.01, high=1000.0, help="of a core: what the CPU does takes 1/speed as long"
    )
    cpu: Cpu = field(default_factory=Cpu)
    storage: Storage = field(default_factory=Storage)
    queue: Slot | None = slot(
        Family.QUEUE,
        None,
        help="of operations for the CPU; null: an endless first come, first served",
    )
    autoscaler: Slot | None = slot(
        Family.AUTOSCALER, None, help="of the cores, which begin as many as cores says; null: none"
    )
    rate_limit: RateLimit = field(default_factory=RateLimit)
    back_pressure: bool = flag(
        False, help="who is turned away hears when there should be room again"
    )

    @property
    def unmodelled(self) -> Node:
        """The same, whose work takes what it takes."""
        return replace(
            self,
            costs=MEASURED,
            speed=1.0,
            queue=None,
            autoscaler=None,
            rate_limit=RateLimit(),
            back_pressure=False,
        )

    def __post_init__(self) -> None:
        if self.rate_limit.rate is not None and not self.rate_limit.rate > 0:
            raise ParameterError("must be above 0", key="rate_limit.rate")
        for key, chosen in (
            ("queue", self.queue is not None),
            ("rate_limit.rate", self.rate_limit.rate is not None),
            ("back_pressure", self.back_pressure),
            ("speed", self.speed != 1),
            ("autoscaler", self.autoscaler is not None),
        ):
            if not chosen:
                continue
            if self.costs == MEASURED:
                raise ParameterError("needs costs: modelled", key=key)
            if self.queue is None and key not in ("speed", "autoscaler"):
                raise ParameterError("needs a queue, such as {name: fifo}", key=key)
        if self.autoscaler is not None:
            least, most = self.autoscaler.params.least, self.autoscaler.params.most
            if not least <= self.cores <= most:
                reason = f"begins outside what its autoscaler allows, {least} to {most}"
                raise ParameterError(reason, key="cores")


@dataclass(frozen=True)
class Network:
    """Links between any two parties, one way; clients included."""

    delay: Slot = law("0s")
    jitter: Slot = law("0s")
    delays: dict[str, Slot] = slots(
        Family.DISTRIBUTION, keyed=True, help="by message kind: " + ", ".join(LINK_KINDS)
    )
    bandwidth: float | None = bandwidth(None)
    loss: float = number(0.0, low=0.0, high=0.99)
    ordering: str = choice("fifo", options=("fifo", "none"))

    def __post_init__(self) -> None:
        for kind in self.delays:
            if kind not in LINK_KINDS:
                raise ParameterError(f"delays.{kind}: kinds of message: {', '.join(LINK_KINDS)}")


@dataclass(frozen=True)
class Batch:
    """Protocol batching under modelled costs; measured costs carry whatever has arrived."""

    max: int = number(1, low=1)
    linger: int = duration("0s")


@dataclass(frozen=True)
class ReplicatedStoreParams:
    protocol: Slot = slot(Family.PROTOCOL, {"name": "unreplicated"})
    consistency: str | None = choice(None, options=("strict", *LEVELS))
    shards: int = number(1, low=1, high=1000, help="each a group of the protocol")
    sharding: Slot = slot(Family.SHARDING, {"name": "modulo"})
    transactions: Slot | None = slot(Family.TRANSACTIONS, None, help="over the shards")
    replicas: int = number(1, low=1, high=1000)
    nodes: int | None = number(
        None,
        low=1,
        high=1000,
        help="null: as many as replicas; shards are spread over more of them, and one has spares",
    )
    administration: tuple[Command, ...] = ()
    moving: MoveParams = field(default_factory=MoveParams)
    memory: int | None = size(None, help="all caches together; null: no limit")
    balancer: Slot = slot(Family.BALANCER, {"name": "round_robin"})
    cache: Slot | None = slot(Family.CACHE, None)
    tier: Tier | None = None
    node: Node = field(default_factory=Node)
    network: Network = field(default_factory=Network)
    zones: Zones = field(default_factory=Zones)
    batch: Batch = field(default_factory=Batch)

    @property
    def moving_commands(self) -> list[Command]:
        """Those of the operator's commands that move data, in their order."""
        return commands_that_move(self.administration)

    @property
    def apart(self) -> bool:
        """Whether keys are in more than one place, ever."""
        return self.shards > 1 or bool(self.moving_commands)

    @property
    def layouts(self) -> Layouts:
        """Where keys are, and how that changes. Raises ConfigError where it cannot be so."""
        nodes = self.nodes or self.replicas
        return layouts_of(
            self.shards,
            nodes,
            self.replicas,
            self.sharding,
            self.administration,
            self.moving.portions,
        )

    @property
    def deployed(self) -> tuple[type[Machine], Any]:
        """The machine that runs on the nodes, and its parameters: the protocol's own, or one that
        carries its shards, or one that carries out transactions over them.
        """
        machine: type[Machine] = self.protocol.implementation
        own = self.protocol.params
        if self.transactions is not None:
            params = Shards(self.layouts, own, self.transactions.params)
            return sharded(machine, self.transactions.implementation), params
        if self.moving_commands:
            return sharded(machine, Moving), Shards(self.layouts, own, self.moving)
        if self.shards > 1:
            return sharded(machine), Shards(self.layouts, own)
        return machine, own


def check_room(size: Capacity, entry_bytes: int, path: str) -> None:
    """Raises ConfigError where a cache has no room for one entry."""
    if size.in_bytes and size.amount < entry_bytes:
        raise ConfigError(
            f"a cache of {size} has no room for one entry of {format_size(entry_bytes)},"
            " the workload's mean",
            path=path,
            hint="a number without a unit means entries",
        )


@register(Family.SYSTEM, "replicated_store", params=ReplicatedStoreParams)
class ReplicatedStore:
    """Emulated key-value store, replicated by a protocol plug-in."""

    emulated = True

    def __init__(self, params: ReplicatedStoreParams) -> None:
        self._params = params
        self._machine, self._own = params.deployed
        # A layer of transactions takes what is asked of any node to where it belongs.
        apart = params.apart and params.transactions is None
        self._layouts = params.layouts if apart else None

    def __reduce__(self) -> tuple[Any, ...]:
        # The machine is a class that is made here and has no name elsewhere.
        return (ReplicatedStore, (self._params,))

    @property
    def nodes(self) -> int:
        return self._params.nodes or self._params.replicas

    @property
    def balancer(self) -> Slot:
        return self._params.balancer

    @property
    def consistency(self) -> str | None:
        return self._params.consistency

    def candidates(self, op: Op, view: ClusterView) -> Sequence[int]:
        return self._machine.candidates(self._own, op, view)

    @property
    def group_of(self) -> Callable[[Op], int] | None:
        if self._layouts is None:
            return None
        cell_of = self._layouts.cell_of
        return lambda op: cell_of(op.key)

    def first_view(self, group: int) -> ClusterView:
        if self._layouts is None:
            return ClusterView(tuple(range(self.nodes)))
        return self._layouts.first_view(group)

    def _context(self, circumstances: Circumstances) -> ClaimContext:
        params, hazards = self._params, circumstances.hazards
        durability = params.node.storage.durability
        if hazards.power_losses and durability == ASYNC:
            # What was never synced is as good as never written.
            durability = MEMORY
        return ClaimContext(
            params.replicas,
            circumstances.sticky,
            durability,
            self.nodes,
            # Who would come back without its log stays away instead.
            restarts=hazards.restarts and params.node.storage.durability != MEMORY,
            crashes=hazards.crashes,
            clock_error=hazards.clock_error,
        )

    def claims(self, circumstances: Circumstances) -> frozenset[str]:
        if circumstances.cached:
            return frozenset()
        held = self._machine.claims(self._own, self._context(circumstances))
        tier = self._params.tier
        return held if tier is None else tier.claims(held, circumstances.hazards)

    def read_levels(self, circumstances: Circumstances) -> frozenset[str]:
        if self._params.tier is not None or circumstances.cached:
            return frozenset()  # what is cached was read at one level for all
        return self._machine.read_levels(self._own, self._context(circumstances))

    def why_not(self, circumstances: Circumstances, level: str) -> str:
        if circumstances.cached:
            return CACHED
        context = self._context(circumstances)
        tier = self._params.tier
        if tier is not None and level in levels.closure(self._machine.claims(self._own, context)):
            return tier.why_not(self._machine.claims(self._own, context), circumstances.hazards)
        return self._machine.why_not(self._own, context, level)

    @property
    def kinds(self) -> frozenset[int]:
        kinds = self._machine.kinds_of(self._own)
        return kinds if self._params.tier is None else kinds & TIER_KINDS

    def validate(self, entry_bytes: int) -> None:
        params = self._params
        self._validate_layouts()
        reason = self._machine.validate(self._own, params.replicas, self.nodes)
        if reason is not None:
            hint = f"replicas is {params.replicas}"
            if self.nodes != params.replicas:
                hint += f", nodes is {self.nodes}"
            raise ConfigError(reason, path="system.replicas", hint=hint)
        check_balancer(params.balancer, self.nodes, emulated=True)
        placed = len(params.zones.nodes)
        if placed and placed != self.nodes:
            raise ConfigError(
                f"{placed} nodes are placed, and there are {self.nodes}", path="system.zones.nodes"
            )
        if params.cache is not None:
            self._validate_cache(params.cache.params.size, entry_bytes)
        if params.tier is not None:
            self._validate_tier(params.tier, entry_bytes)

    def _validate_tier(self, tier: Tier, entry_bytes: int) -> None:
        params = self._params
        check_room(tier.cache.params.size, entry_bytes, "system.tier.cache.size")
        if params.transactions is not None:
            raise ConfigError(
                "transactions do not go through a cache tier",
                path="system.tier",
                hint="leave out one of system.tier and system.transactions",
            )
        again = tier.pattern.implementation.needs_known_again
        if again and not params.protocol.implementation.ordered:
            raise ConfigError(
                f"{tier.pattern.name} writes again what was not answered, which protocol"
                f" {params.protocol.name!r} would apply twice",
                path="system.tier.pattern",
                hint="those that apply all changes in one order: " + ", ".join(ordered_protocols()),
            )

    def _validate_cache(self, size: Capacity, entry_bytes: int) -> None:
        params = self._params
        check_room(size, entry_bytes, "system.cache.size")
        if params.memory is None:
            return
        per_node_bytes = size.amount if size.in_bytes else size.amount * entry_bytes
        needed_bytes = self.nodes * per_node_bytes
        if needed_bytes > params.memory:
            raise InfeasibleError(
                f"{self.nodes} caches of {size} need {format_size(needed_bytes)}, more than"
                f" the {format_size(params.memory)} of system.memory",
                path="system.cache.size",
                hint=f"at most {params.memory // self.nodes // entry_bytes} entries,"
                f" or {params.memory // self.nodes} bytes, a node",
            )

    def _validate_layouts(self) -> None:
        params = self._params
        name = params.protocol.name
        known = params.protocol.implementation.commands
        check_commands(params.administration, known, name, self.nodes, params.shards)
        if params.transactions is not None:
            check_ordered(params.protocol, params.replicas, "transactions", "system.transactions")
        if not params.moving_commands:
            return
        if params.transactions is not None:
            raise ConfigError(
                "data does not move under transactions, whose parts are bound to their shards",
                path="system.administration",
                hint="leave out system.transactions, or the commands that move data",
            )
        check_ordered(params.protocol, params.replicas, "moving of data", "system.administration")
        check_moves(params.layouts)

    def program(
        self, node: int, addresses: Sequence[Address], folder: str, password: str
    ) -> list[str]:
        raise NotImplementedError("an emulated store has no server program")
