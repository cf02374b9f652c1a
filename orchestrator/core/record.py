"""What a runtime hands back: raw observations of one run, before any judgement.

All times are nanoseconds on the run's clock, 0 at the start of the load (warm-up begins at 0,
the measured window is [``warmup_ns``, ``end_ns``)).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.core.fault_plan import Strike
from orchestrator.core.history import History
from orchestrator.core.spans import Spans
from orchestrator.core.units import NS_PER_US

INTERVAL_NS: Final = 100_000_000
"""Length of the intervals in which nodes count."""
MADE_UP_NS: Final = 5_000_000
"""With modelled costs a host's lateness up to this is made up for; with measured ones, none is."""
NO_COPY: Final = "no copy"
"""Digest of a node that holds no copy of the data."""
GROUP_MARK: Final = ":"
"""Between a group and the digest of what it holds."""
LOST: Final = "lost"
"""Kind of the event that a node ended though nobody asked it to; the run is then invalid."""
STORAGE: Final = "storage"
"""Kind of the event that a node ended itself since a fault failed its storage."""

SCALED: Final = "cores"
"""Kind of the event that a node has as many cores as its detail says, from now on."""
ASKED: Final = "cores asked for"
"""Kind of the event that as many cores as its detail says are on their way to a node."""
EJECTED: Final = "ejected"
"""Kind of the event that a client leaves a node out for a while, since it seems unwell."""


@dataclass(frozen=True)
class ProcessUsage:
    """What a process used of its host over the measured window, and what for.

    As the kernel counts it: ``cpu_ns``; ``sleeps``, how often it waited for something to do;
    ``reads`` and ``writes``, system calls, those of sockets included, which moved
    ``transferred_bytes`` in all. As it counts itself: ``ticks``, rounds of its loop in which it
    wrote; ``entries``, the items of lists that messages of peers brought; ``waits``, timers that
    rang: emulated waits, and starts of operations; ``late_ns``, by how much they ended late, all in
    all, where nothing made up for it; ``syncs``, how often it had something made durable, for which
    a thread of its own used ``disk_cpu_ns`` of all its CPU time; ``loops_ns``, what a fixed loop
    took each time that it was run to see how fast the core was.
    """

    cpu_ns: int
    sleeps: int
    ticks: int
    entries: int
    waits: int
    late_ns: int
    syncs: int
    disk_cpu_ns: int
    reads: int
    writes: int
    transferred_bytes: int
    loops_ns: tuple[int, ...] = ()

    @property
    def loop_cpu_ns(self) -> int:
        """CPU time without that of the thread that syncs."""
        return self.cpu_ns - self.disk_cpu_ns

    def times(self, share: float) -> ProcessUsage:
        """That share of it."""
        return ProcessUsage(
            cpu_ns=round(share * self.cpu_ns),
            sleeps=round(share * self.sleeps),
            ticks=round(share * self.ticks),
            entries=round(share * self.entries),
            waits=round(share * self.waits),
            late_ns=round(share * self.late_ns),
            syncs=round(share * self.syncs),
            disk_cpu_ns=round(share * self.disk_cpu_ns),
            reads=round(share * self.reads),
            writes=round(share * self.writes),
            transferred_bytes=round(share * self.transferred_bytes),
            loops_ns=self.loops_ns,
        )


def loop_quantiles_us(used: Iterable[ProcessUsage | None]) -> tuple[float, ...] | None:
    """``loops_us`` of a host with these processes; None where nobody ran the loop."""
    loops_ns = [loop_ns for each in used if each is not None for loop_ns in each.loops_ns]
    if not loops_ns:
        return None
    shares = (numpy.arange(LOOP_SHARES) + 0.5) / LOOP_SHARES
    return tuple((numpy.quantile(loops_ns, shares) / NS_PER_US).round(3).tolist())


@dataclass(frozen=True)
class NodeRecord:
    """Counters of one node per interval of INTERVAL_NS from time 0; columns of equal length.

    ``cores``: at the start; ``provided_ns``: time of all cores in service. ``refused`` of the
    ``operations`` were turned away, and ``cancelled`` were copies that another node began first.
    ``cpu_busy_ns`` and ``storage_busy_ns`` are busy times of the modelled stations, summed over
    cores and parallel slots; ``network_busy_ns`` is that of the busiest link out of it, in each
    interval (None where bandwidth has no limit). ``cache_evictions``: entries that left for want of
    room. ``process_cpu_ns`` is the real CPU time of the node's process over the measured window (0
    in sim).
    ``contents_digest`` fingerprints the written state at the end, by group where not every node
    holds all shards; equal digests mean converged replicas (empty: nobody asked; NO_COPY: it is a
    spare).
    """

    node: int
    host: str
    role: str
    cores: int
    storage_parallel: int | None
    provided_ns: NDArray[numpy.int64]
    operations: NDArray[numpy.int64]
    messages: NDArray[numpy.int64]
    refused: NDArray[numpy.int64]
    cancelled: NDArray[numpy.int64]
    cpu_busy_ns: NDArray[numpy.int64]
    storage_busy_ns: NDArray[numpy.int64]
    cache_hits: NDArray[numpy.int64]
    cache_misses: NDArray[numpy.int64]
    cache_evictions: NDArray[numpy.int64]
    process_cpu_ns: int
    contents_digest: str
    usage: ProcessUsage | None = None
    network_busy_ns: NDArray[numpy.int64] | None = None


def digests_to_compare(contents_digests: Iterable[str]) -> list[str]:
    """What replicas hold that should hold the same: those of one group, of which some differ if
    those of any do.
    """
    by_group: dict[str, list[str]] = {}
    for whole in contents_digests:
        for part in whole.split() if whole != NO_COPY else ():
            group, _, digest = part.rpartition(GROUP_MARK)
            by_group.setdefault(group or "0", []).append(digest)
        if not whole:
            by_group.setdefault("0", []).append("")
    return max(by_group.values(), key=lambda found: len(set(found)), default=[])


def _nothing() -> NDArray[numpy.int64]:
    return numpy.empty(0, dtype=numpy.int64)


@dataclass(frozen=True)
class ClientRecord:
    """What one load generator knows of itself over the measured window.

    ``lag_ns``: how late each operation was sent after it was due (open: after its intended
    start; closed: after the think time ended), a sample of at most 100,000. ``extra_attempts``:
    how often operations that were intended in it were sent beyond once each. ``cache_hits`` of
    ``cache_lookups`` in its own cache found what they looked for. ``follow_ups``: how many
    operations began in it because a read had returned. ``carried``: (requests, operations in them)
    of the whole load, where operations travel together. ``answers_in_vain``: those of the whole
    load that came when nobody waited for them. ``spans``: where the time of sampled operations of
    the measured window went; None where the nodes do not say. ``probed_ns`` and ``outstanding``,
    shape (n,): how many operations were under way at times that depend on nothing else, over the
    whole load.
    """

    client: int
    host: str
    process_cpu_ns: int
    wall_ns: int
    lag_ns: NDArray[numpy.int64]
    extra_attempts: int = 0
    cache_hits: int = 0
    cache_lookups: int = 0
    follow_ups: int = 0
    carried: tuple[int, int] = (0, 0)
    answers_in_vain: int = 0
    usage: ProcessUsage | None = None
    spans: Spans | None = None
    probed_ns: NDArray[numpy.int64] = field(default_factory=_nothing)
    outstanding: NDArray[numpy.int64] = field(default_factory=_nothing)


@dataclass(frozen=True)
class HostRecord:
    """What a host's CPUs did over the measured window, as shares of its time; None where the
    kernel does not tell.

    ``busy``: in use, of all CPUs. ``steal``: taken by the hypervisor for others. ``run_queue``:
    tasks that waited for a CPU, on the mean. ``pressure``: some task waited. ``throttled``: a
    quota kept processes of this control group, or of one around it, from running. ``loops_us``:
    what a fixed loop took in nodes and clients there, quantiles in the middle of LOOP_SHARES equal
    parts: how fast cores were, and how much that changed.
    """

    host: str
    busy: float | None = None
    steal: float | None = None
    run_queue: float | None = None
    pressure: float | None = None
    throttled: float | None = None
    loops_us: tuple[float, ...] | None = None


LOOP_SHARES: Final = 10
_SHARES: Final = tuple(
    each.name for each in fields(HostRecord) if each.name not in ("host", "loops_us")
)


def _mean_loops(same: Iterable[HostRecord]) -> tuple[float, ...] | None:
    known = [each.loops_us for each in same if each.loops_us is not None]
    return tuple(numpy.mean(known, axis=0).round(3).tolist()) if known else None


def worst_by_host(records: Iterable[HostRecord]) -> tuple[HostRecord, ...]:
    """One record a host, sorted: of what several saw of it, each figure at its most; the loop's
    quantiles on the mean.
    """
    seen: dict[str, list[HostRecord]] = {}
    for record in records:
        seen.setdefault(record.host, []).append(record)

    def most(name: str, same: list[HostRecord]) -> float | None:
        known = [value for each in same if (value := getattr(each, name)) is not None]
        return max(known, default=None)

    return tuple(
        HostRecord(
            host,
            **{name: most(name, seen[host]) for name in _SHARES},
            loops_us=_mean_loops(seen[host]),
        )
        for host in sorted(seen)
    )


def host_loads(
    seen: Iterable[HostRecord], processes: Sequence[NodeRecord | ClientRecord]
) -> tuple[HostRecord, ...]:
    """What clients saw of their hosts, and how fast the cores of these were for their processes."""
    return tuple(
        replace(load, loops_us=loop_quantiles_us(p.usage for p in processes if p.host == load.host))
        for load in worst_by_host(seen)
    )


@dataclass(frozen=True)
class EventRecord:
    """Something that happened once: a change of role, a lost process, a restart."""

    at_ns: int
    node: int
    kind: str
    detail: str


@dataclass(frozen=True)
class LinkRecord:
    """Probes from one party to a node and back, before the load; all figures are one way.

    ``source`` and ``target`` name the parties (``n0``, ``client 1``). ``asked_ns`` and ``got_ns``
    are means of what the emulated link was asked to take, and of what a probe took;
    ``excess_ns`` is the median of ``excesses_ns``, what each took beyond its own delay.
    ``lead_ns``: by how much messages leave their emulated delay early, so that what carries them
    does not come on top. ``stamped``: whether both ends read one clock, so that messages wait where
    they arrive.
    """

    source: str
    target: str
    asked_ns: float
    got_ns: float
    excess_ns: float
    probes: int
    excesses_ns: tuple[float, ...] = ()
    lead_ns: int = 0
    stamped: bool = False


@dataclass(frozen=True)
class RunRecord:
    """Everything one run observed.

    ``offered_ops``: intended operations per second (None where the load sets none). ``setup_ns``:
    real time from asking for the run to its first intended start. ``lost_parts`` names measuring
    parts that died; a run that has any is invalid. ``clock_uncertainty_ns`` is the
    error of comparing times of clients on different hosts (0 on one host and in sim), and
    ``client_clocks[i]`` names the clock of client i (empty in sim, where there is one). ``faults``
    in the order in which they struck. ``links`` is empty in sim, where the model is the network.
    ``tier``: the nodes of the cache tier. ``host_loads``: of the hosts of clients, or of
    all simulated ones; empty where there are no hosts.
    """

    runtime: str
    clock: str
    history: History
    nodes: tuple[NodeRecord, ...]
    clients: tuple[ClientRecord, ...]
    events: tuple[EventRecord, ...]
    warmup_ns: int
    end_ns: int
    offered_ops: float | None
    setup_ns: int = 0
    clock_uncertainty_ns: int = 0
    client_clocks: tuple[str, ...] = ()
    lost_parts: tuple[str, ...] = ()
    faults: tuple[Strike, ...] = ()
    links: tuple[LinkRecord, ...] = ()
    tier: tuple[NodeRecord, ...] = ()
    host_loads: tuple[HostRecord, ...] = ()
    hosts: tuple[str, ...] = field(default=("localhost",))

    @property
    def host_busy(self) -> float | None:
        """The busiest host's share of CPU in use over the measured window; None without hosts."""
        return max((each.busy for each in self.host_loads if each.busy is not None), default=None)

    @property
    def counted(self) -> tuple[NodeRecord, ...]:
        """All nodes that counted: the store's and the tier's."""
        return (*self.nodes, *self.tier)

    @property
    def time_uncertainty_ns(self) -> int:
        """How far one time may be off where two are compared: each takes its half of the error."""
        return -(-self.clock_uncertainty_ns // 2)
