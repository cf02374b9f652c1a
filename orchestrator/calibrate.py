"""What a host really takes, measured by short real runs, as a profile for the simulator.

Each protocol is loaded by one session, by a few, and by many: alone every operation wakes
everybody, many share system calls and messages, so the costs of waking, of calls and of operations
are told apart (:mod:`orchestrator.analysis.calibration`). Loads at low rates show what long sleeps
cost, and at a high one several operations share each call. Every process runs a fixed loop now and
then, and what it used is taken for what it would have used had the loop always taken as long as it
did in the median: cores of shared hosts change their speed from second to second.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Final

import numpy
from numpy.typing import NDArray

from orchestrator.analysis.calibration import (
    CALL,
    CLIENT,
    COLD,
    ENTRY,
    MESSAGE,
    READ,
    SLEEP,
    START,
    SYNC,
    TICK,
    TIMER,
    WRITE,
    FittedCosts,
    Observation,
    fit_costs,
)
from orchestrator.analysis.resources import within_window
from orchestrator.config.load import load_mapping
from orchestrator.core.host_profile import SLICE_NS, HostProfile, coldness
from orchestrator.core.machine import READING
from orchestrator.core.record import ProcessUsage, RunRecord
from orchestrator.core.registry import Family, plugin
from orchestrator.core.units import NS_PER_S
from orchestrator.errors import EnvironmentFailure
from orchestrator.plan import plan
from orchestrator.runtimes._host_speed import WATCH_S, host_speed, host_stalls_ns
from orchestrator.runtimes.ray_cluster import RayRuntime, connect, disconnect
from orchestrator.runtimes.ray_tasks import on_each_host
from orchestrator.systems.replicated_store import FSYNC

PROTOCOLS: Final = ("unreplicated", "primary_backup", "chain", "raft", "quorum")
"""Whose costs are measured unless others are asked for."""
SESSIONS: Final = (1, 4, 16, 64)
RATES: Final = (500, 4000)
"""Operations a second, with the long sleeps that closed loads do not have."""
SHARE: Final = 0.7
"""And the share of what many sessions reached that is asked for, on few connections."""
_MEAN_COLD: Final = 0.9
"""Coldness grows as the root, so its mean is less than that of the mean length: by an eighth where
lengths are exponential, by nothing where they are equal.
"""
REPLICAS: Final = 3
USED_MIN: Final = 0.01
"""What used less of its time than that says little of what its work costs."""
QUANTILES: Final = 100
WATCHES: Final = 10
"""Moments, spread over all runs, at which a host is watched for whoever else runs on it."""

Told = Callable[[str], None]


@dataclass(frozen=True)
class Calibration:
    """The profile of one host, and how well it explains what was measured there.

    ``residual``: root mean square of the relative errors over all ``observations`` (processes).
    """

    address: str
    profile: HostProfile
    residual: float
    observations: int


@dataclass(frozen=True)
class _Load:
    """One short run: ``modelled`` has a wait for each operation, and is there for its cost, as is
    ``durable`` for that of syncs; a ``share`` is of the most that the protocol did before.
    """

    protocol: str
    mix: str
    sessions: int = 0
    rate: int = 0
    share: float = 0.0
    modelled: bool = False
    durable: bool = False

    def __str__(self) -> str:
        load = f"{self.sessions} sessions{', durable' if self.durable else ''}"
        if self.rate:
            load = f"{self.rate} a second"
        elif self.share:
            load = f"{self.share:.0%} of its most"
        return f"{self.protocol}, {load}"

    def of_most(self, most_ops: float) -> _Load:
        """With the rate that its share is of the most that was done."""
        return replace(self, rate=max(1, round(self.share * most_ops))) if self.share else self

    def mapping(self, seconds: float) -> dict[str, Any]:
        node: dict[str, Any] = {"costs": "measured"}
        if self.modelled:
            node = {"costs": "modelled", "cores": 64, "cpu": {"read": "1ms", "write": "1ms"}}
        if self.durable:
            node["storage"] = {"durability": FSYNC}
        arrival: dict[str, Any] = {"name": "closed", "sessions": self.sessions}
        if self.rate:
            arrival = {"name": "poisson", "rate": f"{self.rate}/s"}
        return {
            "experiment": "calibration",
            "runtime": "ray",
            "system": {
                "protocol": {"name": self.protocol},
                "replicas": _replicas(self.protocol),
                "node": node,
            },
            "workload": {"name": "ycsb", "mix": self.mix, "keys": 1000},
            "arrival": arrival,
            "warmup": "500ms",
            "duration": f"{seconds}s",
            "check": {"level": "none"},
        }


def _replicas(protocol: str) -> int:
    chosen = plugin(Family.PROTOCOL, protocol)
    reason = chosen.implementation.validate(chosen.params(), REPLICAS, REPLICAS)
    return 1 if reason is not None else REPLICAS


def calibrate(
    protocols: Sequence[str] = PROTOCOLS,
    *,
    address: str | None = None,
    seconds: float = 1.5,
    told: Told = lambda text: None,
) -> list[Calibration]:
    """Measure every host of the cluster, one after the other; the embedded Ray has this one.

    ``seconds``: how long each run measures. Raises ConfigError for what is no protocol, and
    EnvironmentFailure where a host fails.
    """
    loads = _loads(protocols)
    connect(address)
    try:
        found = []
        for host, facts in _asked(host_speed).items():
            told(f"{host}: timers, disk and cores measured; {len(loads)} runs follow")
            found.append(_calibrated(host, facts, loads, address, seconds, told))
        return found
    finally:
        disconnect()


def _asked(function: Callable[[], Any]) -> dict[str, Any]:
    """What every host says, by address."""
    found = {}
    for said in on_each_host(function):
        if said.error is not None:
            raise EnvironmentFailure(f"host {said.address}: {said.error}")
        found[said.address] = said.answer
    return found


def _loads(protocols: Sequence[str]) -> list[_Load]:
    for protocol in protocols:
        plugin(Family.PROTOCOL, protocol)
    loads = [
        _Load(protocol, mix, sessions)
        for sessions in SESSIONS
        for protocol in dict.fromkeys(protocols)
        for mix in ("a", "c")
    ]
    loads += [
        _Load(protocol, "a", rate=rate) for rate in RATES for protocol in dict.fromkeys(protocols)
    ]
    loads += [_Load(protocol, "a", share=SHARE) for protocol in dict.fromkeys(protocols)]
    for kind in ("durable", "modelled"):
        loads += [_Load(protocols[0], "a", sessions, **{kind: True}) for sessions in SESSIONS[1:]]
    for load in loads:
        plan(load_mapping(load.of_most(1).mapping(1)))
    return loads


def _calibrated(
    host: str,
    facts: dict[str, Any],
    loads: Sequence[_Load],
    address: str | None,
    seconds: float,
    told: Told,
) -> Calibration:
    seen: dict[str, list[Observation]] = {load.protocol: [] for load in loads}
    used: list[ProcessUsage] = []
    stalls_ns: list[int] = []
    watches = 0
    most_ops = dict.fromkeys(seen, 0.0)
    runtime = RayRuntime(address, only=host)
    try:
        for number, load in enumerate(loads, start=1):
            if watches * len(loads) < number * WATCHES:
                watches, stalls_ns = watches + 1, stalls_ns + _asked(host_stalls_ns)[host]
            asked = load.of_most(most_ops[load.protocol])
            record = runtime.run(plan(load_mapping(asked.mapping(seconds))))
            if record.lost_parts:
                raise EnvironmentFailure(f"a run lost a part: {'; '.join(record.lost_parts)}")
            seen[load.protocol] += _observed(record, asked.rate == 0)
            done_ops = _done(record).sum() / (record.end_ns - record.warmup_ns) * NS_PER_S
            most_ops[load.protocol] = max(most_ops[load.protocol], float(done_ops))
            usages = [each.usage for each in record.clients] + [node.usage for node in record.nodes]
            used += [usage for usage in usages if usage is not None]
            told(f"{number} of {len(loads)}: {load}")
    finally:
        runtime.close()
    loops_ns = numpy.array([each for one in used for each in one.loops_ns])
    loop_ns = float(numpy.median(loops_ns))
    fitted = {
        protocol: fit_costs([each.at(loop_ns) for each in every])
        for protocol, every in seen.items()
    }
    disk_ns = _disk_ns(used, loop_ns)
    per_s = len(stalls_ns) / (watches * WATCH_S * facts["cores"])
    watched = {"stalls_per_s": per_s, "stall_ns": sorted(stalls_ns)}
    profile = _profile(facts | watched, fitted, disk_ns, loops_ns)
    counts = {protocol: len(each) for protocol, each in seen.items()}
    total = sum(counts.values())
    squares = sum(counts[protocol] * each.residual**2 for protocol, each in fitted.items())
    return Calibration(host, profile, math.sqrt(squares / total), total)


def _done(record: RunRecord) -> NDArray[numpy.bool_]:
    """Rows of operations that ended in the window."""
    returned_ns = record.history.returned_ns
    inside: NDArray[numpy.bool_] = (returned_ns >= record.warmup_ns) & (returned_ns < record.end_ns)
    return inside


def _observed(record: RunRecord, closed: bool) -> list[Observation]:
    """One a process that did enough."""
    history, inside = record.history, _done(record)
    reading = numpy.isin(history.kind, list(READING))
    window_ns = record.end_ns - record.warmup_ns
    found: list[Observation] = []

    def add(usage: ProcessUsage | None, own: dict[str, float]) -> None:
        if usage is None or not usage.loops_ns or usage.cpu_ns <= USED_MIN * window_ns:
            return
        calls = usage.reads + usage.writes
        counts = {SLEEP: usage.sleeps, COLD: _colds(usage, window_ns), CALL: calls}
        counts |= {TICK: usage.ticks, ENTRY: usage.entries, TIMER: usage.waits}
        counts |= {SYNC: usage.syncs, **own}
        found.append(Observation(usage.loop_cpu_ns, fmean(usage.loops_ns), counts))

    for client in record.clients:
        operations = float(inside.sum())
        add(client.usage, {CLIENT: operations, START: 0.0 if closed else operations})
    for node in record.nodes:
        here = inside & (history.node == node.node)
        reads = float((here & reading).sum())
        served = float(here.sum())
        own = {READ: reads, WRITE: served - reads}
        own[MESSAGE] = within_window(record, node.messages)
        add(node.usage, own)
    return found


def _colds(usage: ProcessUsage, window_ns: int) -> float:
    """How cold all its sleeps were, together."""
    slept_ns = max(0, window_ns - usage.loop_cpu_ns) / max(1, usage.sleeps)
    return _MEAN_COLD * usage.sleeps * coldness(slept_ns)


def _profile(
    facts: dict[str, Any],
    fitted: Mapping[str, FittedCosts],
    disk_ns: int,
    loops_ns: NDArray[numpy.int64],
) -> HostProfile:
    # Emulated waits and syncs were loads of the first protocol alone.
    first = next(iter(fitted.values()))
    return HostProfile(
        host=facts["host"],
        cpu=facts["cpu"],
        measured_utc=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
        cores=facts["cores"],
        background=round(facts["background"], 3),
        stalls=round(facts["stalls_per_s"], 3),
        stall=_stalls_ns(facts["stall_ns"] or [0]),
        loop=_quantiles_ns(loops_ns),
        wake=_quantiles_ns(numpy.array(facts["wake_ns"])),
        wake_deep=_quantiles_ns(numpy.array(facts["wake_deep_ns"])),
        timer=first.timer_ns,
        sync=first.sync_ns,
        disk=disk_ns,
        fsync=_quantiles_ns(numpy.array(facts["fsync_ns"])),
        protocols={name: each.costs for name, each in fitted.items()},
    )


def _disk_ns(used: Iterable[ProcessUsage], loop_ns: float) -> int:
    """What a sync costs the thread that makes it, on cores on which the loop takes so long."""
    syncing = [each for each in used if each.syncs and each.loops_ns]
    spent_ns = sum(each.disk_cpu_ns * loop_ns / fmean(each.loops_ns) for each in syncing)
    return round(spent_ns / max(1, sum(each.syncs for each in syncing)))


def _stalls_ns(ascending_ns: Sequence[int]) -> tuple[int, ...]:
    """Means of equal parts, so that the longest, which are few, count with all that they take.

    A loop that never sleeps is at times held up for longer than a slice, since it has had more than
    its share; processes that sleep now and then are not.
    """
    parts = numpy.array_split(numpy.minimum(ascending_ns, SLICE_NS), QUANTILES)
    return tuple(max(1000, round(float(part.mean()))) for part in parts if len(part))


def _quantiles_ns(values_ns: Any) -> tuple[int, ...]:
    shares = (numpy.arange(QUANTILES) + 0.5) / QUANTILES
    return tuple(max(1000, round(each)) for each in numpy.quantile(values_ns, shares))
