"""Whether a run may be believed: rules that each give a sentence when they are broken.

A run is invalid when what *measured* it failed (its generators, its parts, its emulation) or
when the system broke the consistency that it claims. A slow system is a result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy
from numpy.typing import NDArray

from orchestrator.analysis.harness import SHARE_MAX, floor_ns, late_ns, waits_at_nodes
from orchestrator.analysis.latency import Window, quantile_ns
from orchestrator.analysis.resources import costs
from orchestrator.analysis.rules.arrival import arrival_reasons
from orchestrator.analysis.rules.hosts import clock_reasons, host_reasons
from orchestrator.analysis.rules.littles_law import littles_law_reasons
from orchestrator.analysis.rules.samples import sample_reasons
from orchestrator.analysis.rules.stationarity import stationarity_reasons
from orchestrator.config.schema import Config
from orchestrator.core.record import MADE_UP_NS, ClientRecord, RunRecord
from orchestrator.core.units import NS_PER_MS
from orchestrator.core.verdict import VALID, ClaimsVerdict
from orchestrator.systems.replicated_store import MEASURED

LAG_FLOOR_NS: Final = NS_PER_MS
"""A generator on a shared host cannot promise less: a scheduler's time slice is about this."""
LAG_SHARE_OF_MEDIAN: Final = 0.1
"""Load that comes a tenth of a response time late still meets the queue it should meet."""
RATE_TOLERANCE: Final = 0.05
"""Near saturation 5 % of load can double the waiting time; more is another experiment."""
RATE_CHANCE_DEVIATIONS: Final = 3.0
"""A Poisson count strays by its root; within three of these the rate was as asked."""
GENERATOR_CPU_MAX: Final = 0.9
"""A single-threaded generator above this queues within itself."""
OPERATIONS_MIN: Final = 100
"""Below this not even the 99th percentile has an operation above it."""
MEASURED_HOST_BUSY: Final = 0.9
"""Nodes, clients and kernel share the host: above this its CPU sets the result."""
EMULATION_HOST_BUSY_MAX: Final = 0.95
"""Modelled waits are woken by a timer, and a host without idle time wakes them late."""


def host_limited(record: RunRecord, config: Config) -> bool:
    """Whether measured costs met the limit of the host: a label, not a fault."""
    busy = record.host_busy
    return costs(config) == MEASURED and busy is not None and busy > MEASURED_HOST_BUSY


def invalid_reasons(window: Window, config: Config, claims: ClaimsVerdict | None) -> list[str]:
    """Why the run may not be believed, each a sentence with figure and threshold; [] if it may.

    Every rule is applied, so that one run tells everything that was wrong with it.
    """
    record = window.record
    median_ns = quantile_ns(window.latency_ns, 500)
    return [
        *_lost_parts(record),
        *_few_operations(len(window)),
        *sample_reasons(window, config),
        *stationarity_reasons(window, config),
        *_lag(record, config, median_ns),
        *_rate(window),
        *arrival_reasons(window, config),
        *littles_law_reasons(window, config.client.timeout),
        *_generator_cpu(record),
        *_late_emulation(window, config),
        *_harness_floor(window, config),
        *host_reasons(record, config),
        *clock_reasons(record, median_ns),
        *_consistency(claims),
    ]


def _lost_parts(record: RunRecord) -> list[str]:
    if not record.lost_parts:
        return []
    return [
        f"{len(record.lost_parts)} measuring parts were lost (allowed: 0): "
        f"{', '.join(record.lost_parts)}"
    ]


def _few_operations(count: int) -> list[str]:
    if count >= OPERATIONS_MIN:
        return []
    return [f"only {count} operations were measured; at least {OPERATIONS_MIN} are needed"]


def pooled_lag_ns(clients: Sequence[ClientRecord]) -> NDArray[numpy.int64]:
    """The lags of all generators together."""
    empty = numpy.empty(0, dtype=numpy.int64)
    return numpy.concatenate([empty, *(client.lag_ns for client in clients)])


def _lag(record: RunRecord, config: Config, median_ns: int | None) -> list[str]:
    lag_ns = quantile_ns(pooled_lag_ns(record.clients), 990)
    made_up = costs(config) != MEASURED and waits_at_nodes(record)
    least_ns = MADE_UP_NS if made_up else LAG_FLOOR_NS
    limit_ns = max(least_ns, LAG_SHARE_OF_MEDIAN * (median_ns or 0))
    if lag_ns is None or lag_ns <= limit_ns:
        return []
    return [
        f"operations were sent late: the generators' lag has a p99 of {lag_ns / NS_PER_MS:.3f} ms "
        f"where {limit_ns / NS_PER_MS:.3f} ms are allowed (the larger of "
        f"{least_ns / NS_PER_MS:g} ms and {LAG_SHARE_OF_MEDIAN:.0%} of the median latency)"
    ]


def _rate(window: Window) -> list[str]:
    offered_ops = window.record.offered_ops
    if offered_ops is None or window.length_s <= 0:
        return []
    invoked_ns = window.record.history.invoked_ns
    started = int(((invoked_ns >= window.start_ns) & (invoked_ns < window.end_ns)).sum())
    # What follows upon a read at once the arrival knows nothing of.
    started -= sum(client.follow_ups for client in window.record.clients)
    expected = offered_ops * window.length_s
    allowed = RATE_TOLERANCE * expected + RATE_CHANCE_DEVIATIONS * math.sqrt(expected)
    if abs(started - expected) <= allowed:
        return []
    return [
        f"the generators started {started / window.length_s:.1f} operations/s where "
        f"{offered_ops:.1f}/s were offered; the difference may be at most "
        f"{allowed / window.length_s:.1f}/s ({RATE_TOLERANCE:.0%} and chance)"
    ]


def generator_cpu(record: RunRecord) -> float | None:
    """CPU share of the busiest generator's process; None under a virtual clock."""
    shares = [client.process_cpu_ns / client.wall_ns for client in record.clients if client.wall_ns]
    return max(shares, default=None) if record.clock == "real" else None


def _generator_cpu(record: RunRecord) -> list[str]:
    share = generator_cpu(record)
    if share is None or share <= GENERATOR_CPU_MAX:
        return []
    return [
        f"a generator used {share:.0%} of its core; above {GENERATOR_CPU_MAX:.0%} it "
        "measures itself (use more clients)"
    ]


def _late_emulation(window: Window, config: Config) -> list[str]:
    record, busy = window.record, window.record.host_busy
    if costs(config) == MEASURED or record.clock != "real":
        return []
    advice = "(use a lower rate, more hosts, or runtime sim)"
    reasons = []
    if busy is not None and busy > EMULATION_HOST_BUSY_MAX:
        reasons.append(
            f"a host was {busy:.0%} busy; above {EMULATION_HOST_BUSY_MAX:.0%} modelled waits end"
            f" late {advice}"
        )
    late, median_ns = late_ns([record], len(window)), quantile_ns(window.latency_ns, 500)
    if median_ns and late > SHARE_MAX * median_ns:
        reasons.append(
            f"emulated waits ended late by {late / NS_PER_MS:.3f} ms an operation,"
            f" {late / median_ns:.0%} of the median latency, where {SHARE_MAX:.0%} are allowed"
            f" {advice}"
        )
    return reasons


def _harness_floor(window: Window, config: Config) -> list[str]:
    """Measured costs contain what the harness takes; modelled ones are to be what was measured."""
    if costs(config) == MEASURED:
        return []
    floor = floor_ns([window.record], 0.5)
    median_ns = quantile_ns(window.latency_ns, 500)
    if floor is None or not median_ns or floor <= SHARE_MAX * median_ns:
        return []
    return [
        f"a null operation is off by {floor / NS_PER_MS:.3f} ms, {floor / median_ns:.0%} of the"
        f" median latency; with modelled costs at most {SHARE_MAX:.0%} may be the host's own (use"
        " longer delays or costs, quieter hosts, costs: measured, or runtime sim)"
    ]


def _consistency(claims: ClaimsVerdict | None) -> list[str]:
    return [
        f"consistency {found.level} must be {VALID} and is {found.verdict} over "
        f"{found.operations} operations: {found.explanation}"
        for found in (claims.verdicts if claims else ())
        if found.verdict != VALID
    ]
