"""The result object of a run: every figure, its interval, and whether it may be believed.

A part that a run does not have is None, never missing and never made up.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy

from orchestrator.analysis import durability, intervals, links, resources, slo, validity
from orchestrator.analysis.breakdown import breakdown, parts_ms
from orchestrator.analysis.consistency import kept, pooled_consistency, stale
from orchestrator.analysis.effective import INTERVAL_MIN, withheld
from orchestrator.analysis.goodput import goodput_ops
from orchestrator.analysis.harness import harness
from orchestrator.analysis.intervals import mean
from orchestrator.analysis.latency import (
    ALL,
    QUANTILES,
    LatencyHistogram,
    Window,
    histograms,
    measured_window,
    merge_histograms,
    ms,
    quantile_ns,
)
from orchestrator.analysis.model import beside
from orchestrator.analysis.moves import move_figures
from orchestrator.analysis.outcomes import compared, error_rate, outcomes_of
from orchestrator.analysis.overload import overload, pooled_overload
from orchestrator.analysis.resilience import (
    course_of,
    fault_figures,
    pooled_resilience,
    resilience,
)
from orchestrator.analysis.rules.arrival import arrival_fit
from orchestrator.analysis.rules.hosts import pooled_hosts
from orchestrator.analysis.rules.littles_law import concurrency
from orchestrator.analysis.rules.samples import NAMED, not_given_words
from orchestrator.analysis.rules.stationarity import pooled_steady_state, steady_state
from orchestrator.analysis.shards import shard_figures
from orchestrator.analysis.tenants import by_tenant
from orchestrator.config.schema import SIM, Config
from orchestrator.core.history import COLUMNS, DTYPES
from orchestrator.core.models import REGISTER
from orchestrator.core.record import EJECTED, RunRecord
from orchestrator.core.units import NS_PER_MS
from orchestrator.core.verdict import ClaimsVerdict, Evidence

KEYS: Final = (
    "run_id", "experiment", "config_hash", "runtime", "clock", "seed",
    "valid", "invalid_reasons", "host_limited", "steady_state", "digest",
    "offered_ops", "throughput_ops", "throughput_ci95_ops", "goodput_ops",
    "latency_ms", "latency_p99_ci95_ms", "latency_ci95_ms", "latency_effective_samples",
    "uncorrected_p99_ms",
    "tenants", "outcomes", "compare_and_set", "consistency", "availability", "faults", "resilience",
    "overload", "scaling", "links", "hosts", "cache", "balance", "shards", "moves", "bottleneck",
    "utilisations", "latency_breakdown_ms", "latency_breakdown", "generator", "harness", "cost",
    "slo", "model", "placement", "precision", "results",
)  # fmt: skip
"""Every key of the result object, in its order."""

_NODE_COLUMNS: Final = (
    "operations", "messages", "cpu_busy_ns", "storage_busy_ns", "cache_hits", "cache_misses",
)  # fmt: skip


def summarise(
    record: RunRecord,
    config: Config,
    claims: ClaimsVerdict | None,
    *,
    model: str = REGISTER,
    run_id: str,
    config_hash: str,
    results: str,
) -> dict[str, Any]:
    """The result object of one run, ready for JSON, with all of KEYS.

    ``claims`` is None where nothing was checked. ``results`` is where the run is stored, ``model``
    what the workload's keys are. What the queueing model says is added by who can make it.
    """
    window = measured_window(record, config.client.timeout)
    latencies = histograms(window)
    reasons = validity.invalid_reasons(window, config, claims)
    throughput = intervals.throughput_interval_ops(
        window.completed_ns, window.start_ns, window.end_ns
    )
    quantiles = _quantile_intervals_ms(window)
    consistency = kept(claims) | stale(record)
    return _ordered(
        _figures([window], latencies, config, consistency)
        | {
            "run_id": run_id,
            "experiment": config.experiment,
            "config_hash": config_hash,
            "runtime": record.runtime,
            "clock": record.clock,
            "seed": config.seed,
            "valid": not reasons,
            "invalid_reasons": reasons,
            "host_limited": validity.host_limited(record, config),
            "steady_state": steady_state(window, config),
            "digest": digest(record) if record.runtime == SIM else None,
            "throughput_ci95_ops": None if throughput is None else list(throughput),
            "latency_p99_ci95_ms": quantiles["p99"],
            "latency_ci95_ms": quantiles,
            "consistency": consistency,
            "model": None,
            "placement": _placement(record),
            "precision": None,
            "results": results,
        }
        | _in_trouble(record, config, model)
    )


def _quantile_intervals_ms(window: Window) -> dict[str, list[float] | None]:
    """Of each quantile of all operations; None where too few are beyond it."""
    found = intervals.quantile_intervals_ns(window.latency_ns, QUANTILES)
    few = {name for name, count in window.effective_beyond.items() if count < INTERVAL_MIN}
    return {
        name: None if each is None or name in few else [edge / NS_PER_MS for edge in each]
        for name, each in found.items()
    }


def _in_trouble(record: RunRecord, config: Config, model: str) -> dict[str, Any]:
    """What overload and faults did; of faults nothing where there are none."""
    course = course_of(record, config)
    told: dict[str, Any] = {"overload": overload(record, course, config.client.timeout)}
    told["moves"] = move_figures(record, config, course)
    if not config.faults:
        return told | {"faults": [], "resilience": None}
    survived = durability.survival(record.history, Evidence(model=model))
    figures = fault_figures(record, config, course, survived)
    found = resilience(record, course, figures, survived)
    return told | {"faults": figures, "resilience": found}


def _placement(record: RunRecord) -> dict[str, str] | None:
    """Which host carried which node and client; None in sim, where there is one process."""
    if record.runtime == SIM:
        return None
    nodes = {f"n{node.node}": node.host for node in record.counted}
    return nodes | {f"client {client.client}": client.host for client in record.clients}


def _ordered(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: parts[key] for key in KEYS}


def _figures(
    windows: Sequence[Window],
    latencies: Mapping[str, LatencyHistogram],
    config: Config,
    consistency: Mapping[str, Any],
) -> dict[str, Any]:
    """What one run and several pooled ones compute alike."""
    records = [window.record for window in windows]
    outcomes = outcomes_of(windows)
    tenants = by_tenant(windows, config)
    # Those of several runs are independent of each other.
    effective = {
        name: math.fsum(window.effective_beyond[name] for window in windows) for name in QUANTILES
    }
    found = _latencies(windows, latencies, effective)
    return (
        found
        | _rates(windows, config, outcomes)
        | _resources(windows, config)
        | {
            "tenants": {name: each.summary() for name, each in tenants.items()} or None,
            "outcomes": outcomes,
            "compare_and_set": compared(windows),
            "shards": shard_figures(windows, config),
            "generator": _generator(windows, config),
            "harness": harness(records, sum(map(len, windows)), found["latency_ms"][ALL]["p50"]),
            "hosts": pooled_hosts(records),
            "links": links.figures(records),
            "slo": slo.judge(
                config.slo,
                latencies,
                outcomes,
                windows,
                tenants,
                effective=effective,
                staleness_ms=consistency["staleness_ms"],
            ),
        }
    )


def _latencies(
    windows: Sequence[Window],
    latencies: Mapping[str, LatencyHistogram],
    effective: Mapping[str, float],
) -> dict[str, Any]:
    uncorrected = numpy.concatenate([window.uncorrected_ns for window in windows])
    broken_down = breakdown([window.record for window in windows])
    return {
        "latency_ms": {
            name: found.figures_ms(effective if name == ALL else None)
            for name, found in latencies.items()
        },
        "latency_effective_samples": effective,
        "uncorrected_p99_ms": None
        if withheld(len(uncorrected), QUANTILES["p99"])
        else ms(quantile_ns(uncorrected, QUANTILES["p99"])),
        "latency_breakdown_ms": parts_ms(broken_down),
        "latency_breakdown": broken_down,
    }


def _rates(
    windows: Sequence[Window], config: Config, outcomes: Mapping[str, int]
) -> dict[str, Any]:
    errors = error_rate(outcomes)
    return {
        "offered_ops": mean([window.record.offered_ops for window in windows]),
        "throughput_ops": _throughput_ops(windows),
        "goodput_ops": goodput_ops(windows, config.slo),
        "availability": None if errors is None else outcomes["ok"] / sum(outcomes.values()),
    }


def _throughput_ops(windows: Sequence[Window]) -> float | None:
    total_s = math.fsum(window.length_s for window in windows)
    completed = sum(len(window.completed_ns) for window in windows)
    return completed / total_s if total_s > 0 else None


def _resources(windows: Sequence[Window], config: Config) -> dict[str, Any]:
    records = [window.record for window in windows]
    shares = [resources.utilisations(record, resources.costs(config)) for record in records]
    return {
        "cache": resources.cache(records),
        "balance": _mean_by_key([resources.balance(record) for record in records])
        | {"ejections": _ejections(records, config)},
        "bottleneck": resources.bottleneck(shares, _throughput_ops(windows)),
        "utilisations": resources.mean_utilisations(shares) or None,
        "cost": mean([resources.cost_per_hour(record, config) for record in records]),
        "scaling": resources.scaling(records, config),
    }


def _mean_by_key(parts: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    return {key: mean([part[key] for part in parts]) for key in parts[0]}


def _ejections(records: Sequence[RunRecord], config: Config) -> float | None:
    """How often clients left a node out, in a run; None where they judge none."""
    if config.client.health is None:
        return None
    return mean([sum(event.kind == EJECTED for event in each.events) for each in records])


def _generator(windows: Sequence[Window], config: Config) -> dict[str, float | None]:
    records = [window.record for window in windows]
    clients = [client for record in records for client in record.clients]
    shares = [validity.generator_cpu(record) for record in records]
    requests, carried = (sum(client.carried[index] for client in clients) for index in (0, 1))
    return {
        "lag_p99_ms": ms(quantile_ns(validity.pooled_lag_ns(clients), 990)),
        "cpu": max((share for share in shares if share is not None), default=None),
        "operations_per_request": carried / requests if requests else None,
        **_sending(windows, config),
    }


def _sending(windows: Sequence[Window], config: Config) -> dict[str, float | None]:
    """Little's law's two sides, and how far sending times are from the arrival asked for."""
    counted = [concurrency(window, config.client.timeout) for window in windows]
    fits = [arrival_fit(window, config) for window in windows]
    return {
        "outstanding": mean([each and each.counted for each in counted]),
        "outstanding_by_latency": mean([each and each.least for each in counted]),
        "arrival_distance": mean([each and each.distance for each in fits]),
    }


def digest(record: RunRecord) -> str:
    """SHA-256 in hex over the history's columns and the nodes' series.

    Equal across processes and platforms for equal observations: columns have fixed types and
    byte order, and nothing of the host enters.
    """
    fingerprint = hashlib.sha256()

    def add(name: str, column: Any, dtype: Any) -> None:
        data = numpy.ascontiguousarray(column, dtype=numpy.dtype(dtype).newbyteorder("<"))
        fingerprint.update(f"{name}[{len(data)}]".encode())
        fingerprint.update(data.data)

    for name in COLUMNS:
        add(name, getattr(record.history, name), DTYPES[name])
    if record.history.expected_id is not None:
        add("expected_id", record.history.expected_id, numpy.int64)
    if record.history.values is not None:
        fingerprint.update(repr(list(record.history.values)).encode())
    for node in record.nodes:
        fingerprint.update(f"node {node.node} {node.role!r} {node.contents_digest!r}".encode())
        for name in _NODE_COLUMNS:
            add(name, getattr(node, name), numpy.int64)
    return fingerprint.hexdigest()


def pool(
    summaries: Sequence[Mapping[str, Any]], records: Sequence[RunRecord], config: Config
) -> dict[str, Any]:
    """The result object of repeated runs, in the order of their records, with ``repeats``.

    Counts and histograms are merged, so percentiles are of all operations together; intervals
    are Student's across repeats, which are independent as batches of one run are not. Names
    (``run_id``, ``seed``, ``results``) are those of the first repeat; the run is valid when
    every repeat is. One repeat keeps its own intervals.
    """
    windows = [measured_window(record, config.client.timeout) for record in records]
    latencies = merge_histograms([histograms(window) for window in windows])
    consistency = pooled_consistency([summary["consistency"] for summary in summaries])
    figures = _figures(windows, latencies, config, consistency)
    first = summaries[0]
    pooled = dict(first) | figures
    reasons = _pooled_reasons(summaries, figures["slo"])
    pooled |= {
        "valid": not reasons,
        "invalid_reasons": reasons,
        "host_limited": any(summary["host_limited"] for summary in summaries),
        "steady_state": pooled_steady_state([summary["steady_state"] for summary in summaries]),
        "digest": _pooled_digest([summary["digest"] for summary in summaries]),
        "consistency": consistency,
        "faults": [fault for summary in summaries for fault in summary["faults"]],
        "moves": [move for summary in summaries for move in summary["moves"]],
    }
    pooled["resilience"] = pooled_resilience(
        [summary["resilience"] for summary in summaries], pooled["faults"]
    )
    pooled["overload"] = pooled_overload([summary["overload"] for summary in summaries])
    if len(summaries) > 1:
        rates = [summary["throughput_ops"] for summary in summaries]
        pooled["throughput_ci95_ops"] = _across(rates, figures["throughput_ops"])
        each = [summary["latency_ms"][ALL] for summary in summaries]
        pooled["latency_ci95_ms"] = {
            name: _across([found[name] for found in each], figures["latency_ms"][ALL][name])
            for name in QUANTILES
        }
        pooled["latency_p99_ci95_ms"] = pooled["latency_ci95_ms"]["p99"]
    places = [summary["placement"] for summary in summaries]
    # Of repeats on different hosts each has its own.
    pooled["placement"] = places[0] if all(each == places[0] for each in places) else None
    pooled["model"] = beside(first["model"], pooled)
    return _ordered(pooled) | {"repeats": [dict(summary) for summary in summaries]}


def _pooled_reasons(summaries: Sequence[Mapping[str, Any]], judged: Mapping[str, Any]) -> list[str]:
    """What is wrong with any repeat; but percentiles are given or not by all of them together."""
    if len(summaries) == 1:
        return list(summaries[0]["invalid_reasons"])
    reasons = [
        f"repeat {number}: {reason}"
        for number, summary in enumerate(summaries, start=1)
        for reason in summary["invalid_reasons"]
        if not reason.startswith(NAMED)
    ]
    missing = [each for each in judged["violations"] if each["reason"] is not None]
    return reasons + [not_given_words(each["metric"], each["reason"]) for each in missing]


def _across(values: Sequence[float | None], centre: float | None) -> list[float] | None:
    there = [value for value in values if value is not None]
    if centre is None or len(there) < len(values):
        return None
    found = intervals.student_interval(there, centre)
    return None if found is None else list(found)


def _pooled_digest(digests: Sequence[str | None]) -> str | None:
    if len(digests) == 1 or any(part is None for part in digests):
        return digests[0] if len(digests) == 1 else None
    return hashlib.sha256(" ".join(map(str, digests)).encode()).hexdigest()
