"""Hosts must have given the run the CPUs that they seem to have, and one time.

What other virtual machines took (**steal**) and what a quota withheld (**throttling**) came from
outside of the system under test, whatever the costs are. A **run queue** is another matter: under
measured costs waiting for a CPU is part of the result (``host_limited``), under modelled ones it
ends modelled waits late.

**Clocks** of clients on several hosts are compared only within an uncertainty. Latencies are
measured on one clock each; but what overlapped with what, and how stale a read was, is known no
better than that, and where it is not small against the median latency nobody knows what was when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from orchestrator.analysis.resources import costs
from orchestrator.config.schema import Config
from orchestrator.core.record import HostRecord, RunRecord, worst_by_host
from orchestrator.core.units import NS_PER_MS
from orchestrator.systems.replicated_store import MEASURED

STEAL_MAX: Final = 0.05
"""As of the rate: that much less CPU is that much more load."""
THROTTLED_MAX: Final = 0.01
"""A process that stands still for a hundredth of the time makes its own p99."""
PRESSURE_MAX: Final = 0.8
RUN_QUEUE_MAX: Final = 2.0
"""Tasks that wait; with two, whatever is woken waits for longer than a time slice."""
UNCERTAINTY_SHARE_MAX: Final = 0.5


def pooled_hosts(records: Sequence[RunRecord]) -> list[dict[str, Any]] | None:
    """One object a host, with the worst of all runs; None where no hosts are."""
    loads = [each for record in records for each in record.host_loads]
    return [
        asdict(each) | {"loops_us": None if each.loops_us is None else list(each.loops_us)}
        for each in worst_by_host(loads)
    ] or None


def host_reasons(record: RunRecord, config: Config) -> list[str]:
    """Sentences of all hosts."""
    if record.clock != "real":
        return []
    modelled = costs(config) != MEASURED
    return [
        sentence
        for host in record.host_loads
        for sentence in (
            *_steal(host),
            *_throttled(host),
            *(_queued(host) if modelled else ()),
        )
    ]


def _above(value: float | None, limit: float) -> bool:
    return value is not None and value > limit


def _steal(host: HostRecord) -> list[str]:
    if not _above(host.steal, STEAL_MAX):
        return []
    return [
        f"host {host.host} lost {host.steal:.1%} of its CPU time to other virtual machines; at "
        f"most {STEAL_MAX:.0%} is allowed"
    ]


def _throttled(host: HostRecord) -> list[str]:
    if not _above(host.throttled, THROTTLED_MAX):
        return []
    return [
        f"a CPU quota held processes on host {host.host} back for {host.throttled:.1%} of the "
        f"time; at most {THROTTLED_MAX:.0%} is allowed"
    ]


def _queued(host: HostRecord) -> list[str]:
    """The mean number of waiting tasks where it is known, else the share of time that any waits."""
    if host.run_queue is not None:
        if host.run_queue <= RUN_QUEUE_MAX:
            return []
        figure = f"{host.run_queue:.1f} tasks waited for a CPU of host {host.host} on the mean"
        return [f"{figure}; above {RUN_QUEUE_MAX:g} modelled waits end late"]
    if not _above(host.pressure, PRESSURE_MAX):
        return []
    figure = f"some task waited for a CPU of host {host.host} {host.pressure:.0%} of the time"
    return [f"{figure}; above {PRESSURE_MAX:.0%} modelled waits end late"]


def clock_reasons(record: RunRecord, median_ns: int | None) -> list[str]:
    """One sentence where clients' clocks are known too badly."""
    uncertainty_ns = record.clock_uncertainty_ns
    if median_ns is None or uncertainty_ns <= UNCERTAINTY_SHARE_MAX * median_ns:
        return []
    return [
        f"clocks of clients' hosts are known to {uncertainty_ns / NS_PER_MS:.3f} ms, where the "
        f"median latency is {median_ns / NS_PER_MS:.3f} ms and {UNCERTAINTY_SHARE_MAX:.0%} of it "
        "is allowed: what was at once and what was stale cannot be told"
    ]
