"""The root of a configuration. Durations are integers of nanoseconds, sizes of bytes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Final

from orchestrator.core.faults import Aim
from orchestrator.core.levels import ALIASES, LEVELS
from orchestrator.core.parameters import (
    ParameterError,
    choice,
    duration,
    flag,
    lead,
    mapping,
    number,
    slot,
    slots,
    text,
)
from orchestrator.core.policy import BreakerParams, ClientBatch, Hedge, Retry, TieParams
from orchestrator.core.registry import Family, Slot
from orchestrator.errors import suggestion

RAY = "ray"
SIM = "sim"

INT = "int"
FLOAT = "float"
CATEGORICAL = "categorical"

_EXPERIMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Prices:
    """Per hour. A core of ``system.node.speed`` s costs ``core`` times s to the ``speed_exponent``:
    above 1, fast cores cost more than what they do in the time of a slow one.
    """

    node: float = number(0.0, low=0.0, help="of a node, whatever is in it")
    core: float = number(0.0, low=0.0)
    speed_exponent: float = number(1.0, low=0.0, high=10.0)
    GiB: float = number(0.0, low=0.0)

    def of_core(self, speed: float) -> float:
        """What a core of that speed costs."""
        return self.core * float(speed**self.speed_exponent)


@dataclass(frozen=True)
class Health:
    """When a client leaves a node out for a while, and how that comes back."""

    failures: int | None = number(5, low=1, help="in a row that eject a node; null: none do")
    latency_factor: float | None = number(
        None, low=1.0, help="times the median of the others' mean latency that eject; null: none do"
    )
    window: int = duration("1s", low="1ms", help="in which latencies are compared")
    operations: int = number(10, low=1, help="in a window that a node is judged by at least")
    ejection: int = duration("1s", low="1ms", help="times how often it was ejected")
    ejection_max: int = duration("30s", low="1ms", help="the longest that a node is out")
    max_share: float = number(0.5, low=0.0, high=1.0, help="of the nodes that are out at most")
    slow_start: int = duration("0s", help="in which the share of one that comes back grows")

    def __post_init__(self) -> None:
        if self.failures is None and self.latency_factor is None:
            raise ParameterError("without failures and latency_factor no node is ever ejected")
        if self.ejection_max < self.ejection:
            raise ParameterError("the longest ejection is below the first", key="ejection_max")

    def most_out(self, nodes: int) -> int:
        """How many of so many nodes are out at most."""
        # A decimal share may lie just below the fraction that it is meant to be.
        return int(self.max_share * nodes + 1e-9)


THROUGH: Final = "through"
AROUND: Final = "around"


@dataclass(frozen=True)
class ClientCache:
    """A cache in each client, which hears of no other client's writes."""

    policy: Slot = slot(Family.CACHE, {"name": "lru"})
    ttl: int | None = duration("1s", low="1us", help="as old as it may serve; null: any age")
    writes: str = choice(
        THROUGH, options=(THROUGH, AROUND), help="what the client wrote is kept, or forgotten"
    )


@dataclass(frozen=True)
class Client:
    timeout: int = duration("1s", low="1us", help="after which an operation's outcome is UNKNOWN")
    connections: int = number(16, low=1, high=4096, help="of each client to each node")
    sticky: bool = False
    nearest: bool = False
    shun_silent: bool = flag(
        True, help="after a time-out ask others than a node that has answered nobody since"
    )
    health: Health | None = None
    cache: ClientCache | None = None
    attempt_timeout: int | None = duration(
        None, low="1us", help="then it is asked again, or else; null: the operation's own"
    )
    retry: Retry = field(default_factory=Retry)
    hedge: Hedge = field(default_factory=Hedge)
    tie: TieParams = field(default_factory=TieParams)
    breaker: BreakerParams = field(default_factory=BreakerParams)
    limit: Slot | None = slot(
        Family.LIMIT, None, help="of operations under way; the others wait; null: none"
    )
    batch: ClientBatch = field(default_factory=ClientBatch)
    reads: dict[str, float] = mapping("shares of reads by the level that they ask for")

    @property
    def insists(self) -> bool:
        """Whether an operation may be sent more than once."""
        return self.retry.attempts > 1 or self.hedge.wanted or self.tie.wanted

    @property
    def stays(self) -> bool:
        """Whether a session asks one node as long as that may serve it, even where it is slow."""
        leaves = self.hedge.wanted or self.tie.wanted or self.attempt_timeout is not None
        return self.sticky and not leaves and self.breaker.failures is None

    def __post_init__(self) -> None:
        if self.attempt_timeout is not None and self.retry.attempts == 1:
            raise ParameterError("needs retry.attempts above 1", key="attempt_timeout")
        if self.tie.wanted and self.hedge.wanted:
            raise ParameterError("a read that waits at two nodes needs no hedge", key="tie.after")
        if self.batch.max > 1 and self.connections > 1:
            raise ParameterError(
                f"what travels together has one connection; set client.connections: 1 (it is"
                f" {self.connections})",
                key="batch.max",
            )
        for level, share in self.reads.items():
            if level not in (*ALIASES, *LEVELS):
                hint = suggestion(level, LEVELS)
                raise ParameterError(f"unknown consistency level {level!r}: {hint}", key="reads")
            if not 0 < share < math.inf:
                raise ParameterError(f"share {share} of {level} is not above 0", key="reads")


@dataclass(frozen=True)
class Check:
    level: str = choice("auto", options=("auto", "strict", *LEVELS))


@dataclass(frozen=True)
class Record:
    operations: str = choice("none", options=("none", "sample", "all"))


@dataclass(frozen=True)
class LatencyBounds:
    """Upper bounds of latency; None where there is none."""

    p50: int | None = duration(None)
    p90: int | None = duration(None)
    p99: int | None = duration(None)
    p999: int | None = duration(None)
    max: int | None = duration(None)


SLO_KINDS: Final = ("read", "write", "scan", "cas", "incr", "add", "txn")
"""Kinds of operation with bounds of their own; each is a field of :class:`Slo`."""


@dataclass(frozen=True)
class WindowBounds(LatencyBounds):
    """Bounds that hold within single windows of the measured one."""

    length: int = duration("1s", low="1ms", help="of a window; windows follow each other")
    share: float = number(0.99, low=0.0, high=1.0, help="of the windows in which a bound must hold")


@dataclass(frozen=True)
class TenantBounds(LatencyBounds):
    """Bounds of one tenant's operations."""

    error_rate: float | None = number(None, low=0.0, high=1.0)


@dataclass(frozen=True)
class Slo(LatencyBounds):
    error_rate: float | None = number(None, low=0.0, high=1.0)
    staleness_p99: int | None = duration(None, help="of how old what reads return may be")
    read: LatencyBounds = field(default_factory=LatencyBounds)
    write: LatencyBounds = field(default_factory=LatencyBounds)
    scan: LatencyBounds = field(default_factory=LatencyBounds)
    cas: LatencyBounds = field(default_factory=LatencyBounds)
    incr: LatencyBounds = field(default_factory=LatencyBounds)
    add: LatencyBounds = field(default_factory=LatencyBounds)
    txn: LatencyBounds = field(default_factory=LatencyBounds)
    windows: WindowBounds = field(default_factory=WindowBounds)
    tenants: dict[str, TenantBounds] = mapping("bounds by tenant of the workload")


@dataclass(frozen=True)
class Objective:
    metric: str = text("throughput_ops", help="dotted path into the result object of a run")
    direction: str = choice("maximize", options=("maximize", "minimize"))


@dataclass(frozen=True)
class SearchRange:
    """One searched config path; bounds are written in the unit of that path."""

    type: str = choice(options=(INT, FLOAT, CATEGORICAL))
    low: Any = None
    high: Any = None
    step: Any = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        bounds = {"low": self.low, "high": self.high, "step": self.step, "log": self.log or None}
        given = [name for name, value in bounds.items() if value is not None]
        if self.type == CATEGORICAL:
            if not self.choices:
                raise ParameterError("a categorical range needs choices", key="choices")
            if given:
                raise ParameterError("a categorical range has choices, no bounds", key=given[0])
            return
        for name in ("low", "high"):
            if name not in given:
                raise ParameterError(f"a range of type {self.type} needs low and high", key=name)
        if self.choices:
            raise ParameterError("choices belong to type categorical", key="choices")
        if self.log and self.step is not None:
            raise ParameterError("a logarithmic range has no step", key="step")


@dataclass(frozen=True)
class Tune:
    objectives: tuple[Objective, ...] = (Objective(),)
    trials: int = number(24, low=1)
    search: dict[str, SearchRange] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.objectives:
            raise ParameterError("a study needs at least one objective", key="objectives")


@dataclass(frozen=True)
class Hosts:
    """The machines that processes run on."""

    profile: str | None = text(
        None, help="file that `archbench calibrate` wrote: what they take in sim; null: nothing"
    )
    count: int = number(1, low=1, high=1000, help="in sim with a profile; a cluster has its own")
    loops: tuple[tuple[int, ...], ...] = duration(
        (),
        many=2,
        help="what a fixed loop takes in sim, instead of the profile's: how fast cores are;"
        " one list for all processes, or one each, machines first",
    )
    pin: bool = flag(
        False, help="each process keeps to one core: clients to the last ones, nodes to the others"
    )


@dataclass(frozen=True)
class Config:
    experiment: str = text("experiment", help="names the results; letters, digits, . _ -")
    seed: int = number(1, low=0, high=2**63 - 1)
    runtime: str = choice(RAY, options=(RAY, SIM))
    system: Slot = slot(Family.SYSTEM, {"name": "replicated_store"})
    prices: Prices = field(default_factory=Prices)
    workload: Slot = slot(Family.WORKLOAD, {"name": "ycsb"})
    arrival: Slot = slot(Family.ARRIVAL, {"name": "closed"})
    clients: int = number(1, low=1, high=500, help="client actors")
    client: Client = field(default_factory=Client)
    hosts: Hosts = field(default_factory=Hosts)
    warmup: int = lead(
        "1s", help="run before the measured window, not counted; auto: found from the data"
    )
    duration: int = duration("5s", low="1ms", help="of the measured window; auto: at least")
    faults: tuple[tuple[Aim, Slot], ...] = slots(
        Family.FAULT, extra=Aim, help="what breaks when; all is healed after the load"
    )
    check: Check = field(default_factory=Check)
    record: Record = field(default_factory=Record)
    slo: Slo = field(default_factory=Slo)
    tune: Tune = field(default_factory=Tune)
    sweep: dict[str, tuple[Any, ...]] = mapping("axes of a sweep: lists of values by path")

    def __post_init__(self) -> None:
        if _EXPERIMENT.fullmatch(self.experiment) is None:
            raise ParameterError(
                f"{self.experiment!r} cannot name results; use letters, digits, '.', '_' and '-', "
                "a letter or digit first",
                key="experiment",
            )
