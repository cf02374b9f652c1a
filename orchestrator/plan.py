"""From a configuration to a plan that can run: its parts, checked against each other."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import numpy

from orchestrator._fault_checks import check_faults
from orchestrator.analysis.rules.stationarity import why_unsteady
from orchestrator.analysis.slo import bounded
from orchestrator.config.schema import RAY, SIM, Config, Slo
from orchestrator.core import levels
from orchestrator.core.faults import Hazards
from orchestrator.core.layout import MOVING
from orchestrator.core.load import ChunkedStream, JoiningTimetable, VaryingArrival
from orchestrator.core.machine import CAS, KIND_NAMES, READING, TRANSACTION, ClusterView, Op
from orchestrator.core.models import CAS_REGISTER, REGISTER, TXN
from orchestrator.core.parameters import AUTO as LEAD_AUTO
from orchestrator.core.parameters import ParameterError
from orchestrator.core.registry import Family, plugins
from orchestrator.core.units import format_duration
from orchestrator.core.verdict import check_served, models_of
from orchestrator.errors import ConfigError, suggestion
from orchestrator.runtimes._parts import Parts
from orchestrator.systems.replicated_store import MEASURED
from orchestrator.workloads.tenants import tenants_of

AUTO: Final = "auto"
_PROBE_OPERATIONS: Final = 4096


def plan(config: Config) -> Parts:
    """The parts of a run, checked against each other before anything starts.

    Raises ConfigError (a combination that cannot run, with its path), InfeasibleError (its own
    limits forbid it) or DataError (a trace that is missing or malformed).
    """
    parts = Parts.of(config)
    _check_runtime(parts)
    _check_load(parts)
    _check_warmup(parts)
    _check_objective(parts)
    _check_queue(parts)
    _check_health(parts)
    _check_attempts(parts)
    _check_caches(parts)
    _check_ties(parts)
    check_faults(parts)
    _check_moves(parts)
    _check_reads(parts)
    _check_consistency(parts)
    _check_checkers(parts)
    return parts


def _check_runtime(parts: Parts) -> None:
    if parts.config.runtime != SIM:
        return
    if not parts.system.emulated:
        raise ConfigError(
            f"system {parts.config.system.name!r} is real processes, which cannot be simulated",
            path="runtime",
            hint=f"use runtime: {RAY}",
        )
    if parts.store.node.costs == MEASURED and parts.profile is None:
        raise ConfigError(
            "the simulator cannot measure costs and has no profile of this machine's",
            path="system.node.costs",
            hint=f"use costs: modelled, runtime: {RAY}, or a hosts.profile of archbench calibrate",
        )
    loops, processes = len(parts.config.hosts.loops), parts.machines + parts.config.clients
    if loops not in (0, 1, processes):
        raise ConfigError(
            f"{loops} lists for {processes} processes",
            path="hosts.loops",
            hint=f"give one list for all, or {processes}: {parts.machines} of machines, then"
            " those of clients",
        )


def _check_warmup(parts: Parts) -> None:
    """Where there is no steady state, none can be found."""
    reason = why_unsteady(parts.config) if parts.config.warmup == LEAD_AUTO else None
    if reason is not None:
        raise ConfigError(
            f"auto looks for where a run becomes steady, and {reason}",
            path="warmup",
            hint="give a duration, as in warmup: 2s",
        )


def _check_objective(parts: Parts) -> None:
    """Bounds must be about tenants that there are, and windows fit into the measured one."""
    slo, longest_ns = parts.config.slo, parts.config.duration
    for tenant in slo.tenants:
        _check_tenant(parts, tenant, f"slo.tenants.{tenant}")
    if slo.staleness_p99 is not None and parts.workload.model not in (REGISTER, CAS_REGISTER):
        raise ConfigError(
            f"how old a read of model {parts.workload.model!r} is cannot be told: what it returns"
            " names no single write",
            path="slo.staleness_p99",
            hint="leave it out, or use a workload of plain reads and writes",
        )
    if bounded(Slo(windows=slo.windows)) and slo.windows.length > longest_ns and parts.end_ns:
        raise ConfigError(
            f"{format_duration(slo.windows.length)} is longer than the measured window",
            path="slo.windows.length",
            hint=f"duration is {format_duration(longest_ns)}",
        )


def _check_tenant(parts: Parts, tenant: str, path: str) -> None:
    tenants = tenants_of(parts.config.workload)
    if tenant not in tenants:
        hint = "use workload: {name: tenants, ...}"
        raise ConfigError(
            f"the workload has no tenant {tenant!r}",
            path=path,
            hint=suggestion(tenant, tenants) if tenants else hint,
        )


def _check_queue(parts: Parts) -> None:
    """A queue that knows tenants must know those that there are."""
    queue = parts.store.node.queue if parts.system.emulated else None
    for tenant in () if queue is None else queue.params.known_tenants:
        _check_tenant(parts, tenant, "system.node.queue.tenants")


def _check_load(parts: Parts) -> None:
    """Workload, arrival and system must fit; looks at the beginning of one client's stream."""
    config, system = parts.config, parts.system
    stream = parts.workload.stream(config.seed, 0, config.clients)
    operations = stream.block(_PROBE_OPERATIONS)
    wanted = set(operations.kind.tolist())
    if parts.workload.model == CAS_REGISTER:
        wanted.add(CAS)  # they follow upon reads
    unserved = sorted(wanted - system.kinds)
    if unserved:
        served = ", ".join(KIND_NAMES[kind] for kind in sorted(system.kinds))
        if unserved[0] == TRANSACTION and system.emulated:
            served += "; over protocols that apply all changes in one order system.transactions"
            served += " carries out others: " + ", ".join(plugins(Family.TRANSACTIONS))
        raise ConfigError(
            f"the workload has operations of kind {KIND_NAMES[unserved[0]]!r}, which"
            f" {parts.served_by} does not serve",
            path="workload",
            hint=f"it serves {served}",
        )
    try:
        tables = [
            parts.arrival.timetable(config.seed, client, config.clients)
            for client in range(config.clients)
        ]
        tables[0].starts_ns(operations)
    except ParameterError as error:
        path = f"arrival.{error.key}" if error.key else "arrival"
        raise ConfigError(str(error), path=path) from None
    arrival = parts.arrival
    if parts.end_ns is None and isinstance(arrival, VaryingArrival) and arrival.ends:
        raise ConfigError(
            f"the {parts.workload.total} operations of the workload may not be over by then",
            path="arrival",
            hint="let the last stage go on: leave out its lasts",
        )
    unplanned = arrival.closed or isinstance(tables[0], JoiningTimetable)
    if unplanned and isinstance(stream, ChunkedStream) and stream.timed:
        raise ConfigError(
            "which keys are picked depends on when operations start, which arrival"
            f" {config.arrival.name!r} does not know beforehand",
            path="workload",
            hint="use an open arrival, or give the change by operations instead of by time",
        )
    entry_bytes = int(numpy.ceil(operations.size.mean())) if len(operations) else 1
    system.validate(max(1, entry_bytes))


def _check_checkers(parts: Parts) -> None:
    """What the history is checked at must be defined for what the workload's keys are."""
    config, model = parts.config, parts.workload.model
    if config.check.level != AUTO:
        check_served(levels.canonical(config.check.level), model, path="check.level")
    asked = {f"client.reads.{level}": levels.canonical(level) for level in config.client.reads}
    for path, level in asked.items():
        check_served(level, model, path=path)
    for level in checked_levels(parts):
        if model not in models_of(level):
            raise ConfigError(
                f"{parts.served_by} is {level} like this, which is not defined here for model"
                f" {model!r}, so nobody could tell whether it keeps that",
                path="workload",
                hint="ask for another level, or check.level: none",
            )


def _check_attempts(parts: Parts) -> None:
    """What is sent more than once must be applied once."""
    if parts.system.emulated or not parts.config.client.insists:
        return
    client = parts.config.client
    key = "tie" if client.tie.wanted else "hedge"
    key = "retry.attempts" if client.retry.attempts > 1 else key
    raise ConfigError(
        f"system {parts.config.system.name!r} is real servers, which apply a write again each time"
        " it is sent",
        path=f"client.{key}",
        hint="leave it out; emulated nodes tell repeated operations by their identity",
    )


def _check_caches(parts: Parts) -> None:
    """What a client's cache answers says nothing of the nodes, and of a tier one node alone has a
    key: clients that insist would learn the wrong things, or ask it again and again.
    """
    client = parts.config.client
    if parts.tier is None and client.cache is None:
        return
    keys = {
        "retry.attempts": client.retry.attempts > 1,
        "hedge": client.hedge.wanted,
        "tie.after": client.tie.wanted,
        "breaker": client.breaker.failures is not None,
        "limit": client.limit is not None,
        # The steps of an operation at a tier are none that could wait for others.
        "batch.max": client.batch.max > 1 and parts.tier is not None,
    }
    if not any(keys.values()):
        return
    what = "client.cache" if parts.tier is None else "system.tier"
    raise ConfigError(
        f"with {what} clients send an operation once, and wait for its answer",
        path=f"client.{next(key for key, given in keys.items() if given)}",
        hint=f"leave it out, or {what}",
    )


def _check_ties(parts: Parts) -> None:
    """There must be two nodes that may serve a read, and queues that a copy can leave."""
    client, system = parts.config.client, parts.system
    if client.tie.after is None:
        return
    stream = parts.workload.stream(parts.config.seed, 0, parts.config.clients)
    reading = READING & set(stream.block(_PROBE_OPERATIONS).kind.tolist())
    view = ClusterView(tuple(range(system.nodes)))
    if parts.store.node.queue is None:
        reason = "a copy is dropped from a node's queue, and the nodes have none"
        hint = "system.node.queue: {name: fifo}, under costs: modelled"
    elif not reading:
        reason = "only reads may wait at two nodes, and the workload has none"
        hint = "leave it out, or use client.retry"
    elif len(system.candidates(Op(0, 1, min(reading), b""), view)) < 2:
        reason = f"of {system.nodes} nodes {parts.served_by} asks one for a read"
        hint = "another node must be allowed to serve it, as with primary_backup's read_from: any"
    elif client.tie.after >= client.timeout:
        reason = "the second copy would leave when the operation has timed out"
        hint = f"client.timeout is {format_duration(client.timeout)}; use twice the network's delay"
    else:
        return
    raise ConfigError(reason, path="client.tie.after", hint=hint)


def _check_health(parts: Parts) -> None:
    """A share of the nodes that is less than one of them would eject none."""
    health, nodes = parts.config.client.health, parts.system.nodes
    if health is not None and health.most_out(nodes) < 1:
        raise ConfigError(
            f"of {nodes} nodes a share of {health.max_share:g} is less than one: none is ever out",
            path="client.health.max_share",
            hint=f"at least {math.ceil(1000 / nodes) / 1000:g};"
            " with one node there is no other to ask",
        )


def _check_moves(parts: Parts) -> None:
    """Data that is to move under load needs some."""
    given = parts.store.administration if parts.system.emulated else ()
    for index, command in enumerate(given):
        if command.command in MOVING and parts.end_ns is not None and command.at >= parts.end_ns:
            raise ConfigError(
                f"the load is over by then: it ends after {format_duration(parts.end_ns)}",
                path=f"system.administration[{index}].at",
            )


def _check_reads(parts: Parts) -> None:
    """Levels that single reads ask for must be offered."""
    config, system, circumstances = parts.config, parts.system, parts.circumstances
    for level in config.client.reads:
        asked = levels.canonical(level)
        if asked in system.read_levels(circumstances) | system.claims(circumstances):
            continue
        offered = ", ".join(sorted(system.read_levels(circumstances))) or "none"
        reason = system.why_not(circumstances, asked)
        raise ConfigError(
            f"{parts.served_by} does not offer {asked} reads" + (f": {reason}" if reason else ""),
            path=f"client.reads.{level}",
            hint=f"levels that a read may ask for here: {offered}",
        )


def _check_consistency(parts: Parts) -> None:
    config, system = parts.config, parts.system
    levels.canonical(levels.NONE if config.check.level == AUTO else config.check.level)
    if system.consistency is None:
        return
    asked = levels.canonical(system.consistency, path="system.consistency")
    claimed = system.claims(parts.circumstances)
    if asked in levels.closure(claimed):
        return
    words = " and ".join(levels.strongest(claimed)) or levels.NONE
    reason = system.why_not(parts.circumstances, asked)
    raise ConfigError(
        f"{asked} is asked for, and this configuration claims {words}"
        + (f": {reason}" if reason else ""),
        path="system.consistency",
        hint=_how_to_get(asked, parts),
    )


def _how_to_get(asked: str, parts: Parts) -> str:
    """What would make the configuration claim ``asked``: conditions that plug-ins state."""
    config, system, circumstances = parts.config, parts.system, parts.circumstances
    if asked in levels.closure(system.claims(replace(circumstances, hazards=Hazards()))):
        return "without these faults it claims it"
    if asked in levels.closure(system.claims(replace(circumstances, sticky=True))):
        alone = " without hedge, tie, attempt_timeout and breaker" if config.client.sticky else ""
        return f"client.sticky: true{alone} gives it"
    protocol = getattr(config.system.params, "protocol", None)
    ways = [
        f"{name} claims {level} {condition}"
        for name, found in (plugins(Family.PROTOCOL) | plugins(Family.TRANSACTIONS)).items()
        for level, condition in found.claims.items()
        if asked in levels.implied(level)
    ]
    mine = protocol.name if protocol is not None else ""
    ways.sort(key=lambda way: not way.startswith(f"{mine} "))
    return "; ".join(ways) if ways else "no protocol here claims it"


def checked_levels(parts: Parts) -> tuple[str, ...]:
    """The levels that the run's history is checked at, in the order of the lattice."""
    asked = parts.config.check.level
    claimed = parts.system.claims(parts.circumstances) if asked == AUTO else {asked}
    held = {levels.canonical(level) for level in claimed}
    if asked == AUTO:
        held = set(levels.fitting(held, transactional=parts.workload.model == TXN))
    return tuple(level for level in levels.LEVELS if level in held)
