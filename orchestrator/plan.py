"""From a configuration to a plan that can run: its parts, checked against each other."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import numpy

from orchestrator.analysis.slo import bounded
from orchestrator.config.schema import RAY, SIM, Config, Slo
from orchestrator.core import levels
from orchestrator.core.fault_exposure import exposure
from orchestrator.core.fault_plan import idles
from orchestrator.core.faults import (
    ALL,
    ANY,
    AUTHORITY,
    COUNT,
    NODE,
    ZONE,
    Aim,
    Fault,
    Hazards,
    Target,
    parse_target,
)
from orchestrator.core.layout import MOVING
from orchestrator.core.load import ChunkedStream, JoiningTimetable, VaryingArrival
from orchestrator.core.machine import KIND_NAMES, TRANSACTION
from orchestrator.core.models import TXN
from orchestrator.core.parameters import ParameterError
from orchestrator.core.registry import Family, plugins
from orchestrator.core.units import format_duration
from orchestrator.core.verdict import check_served
from orchestrator.errors import ConfigError, suggestion
from orchestrator.runtimes._parts import Parts, cluster_state
from orchestrator.systems.replicated_store import MEASURED
from orchestrator.workloads.tenants import tenants_of

AUTO: Final = "auto"
SLOWEST_DRIFT: Final = -0.99
"""A clock keeps one part in a hundred of its speed at least."""
_PROBE_OPERATIONS: Final = 4096


def plan(config: Config) -> Parts:
    """The parts of a run, checked against each other before anything starts.

    Raises ConfigError (a combination that cannot run, with its path), InfeasibleError (its own
    limits forbid it) or DataError (a trace that is missing or malformed).
    """
    parts = Parts.of(config)
    _check_runtime(parts)
    _check_load(parts)
    _check_objective(parts)
    _check_health(parts)
    _check_attempts(parts)
    _check_faults(parts)
    _check_moves(parts)
    _check_reads(parts)
    _check_consistency(parts)
    if config.check.level != AUTO:
        asked = levels.canonical(config.check.level)
        check_served(asked, parts.workload.model, path="check.level")
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
    if parts.store.node.costs == MEASURED:
        raise ConfigError(
            "the simulator cannot measure costs and has no profile of this machine's",
            path="system.node.costs",
            hint=f"use costs: modelled, or runtime: {RAY}",
        )


def _check_objective(parts: Parts) -> None:
    """Bounds must be about tenants that there are, and windows fit into the measured one."""
    slo, longest_ns = parts.config.slo, parts.config.duration
    tenants = tenants_of(parts.config.workload)
    for tenant in slo.tenants:
        if tenant not in tenants:
            raise ConfigError(
                f"the workload has no tenant {tenant!r}",
                path=f"slo.tenants.{tenant}",
                hint=suggestion(tenant, tenants)
                if tenants
                else "use workload: {name: tenants, ...}",
            )
    if bounded(Slo(windows=slo.windows)) and slo.windows.length > longest_ns and parts.end_ns:
        raise ConfigError(
            f"{format_duration(slo.windows.length)} is longer than the measured window",
            path="slo.windows.length",
            hint=f"duration is {format_duration(longest_ns)}",
        )


def _check_load(parts: Parts) -> None:
    """Workload, arrival and system must fit; looks at the beginning of one client's stream."""
    config, system = parts.config, parts.system
    stream = parts.workload.stream(config.seed, 0, config.clients)
    operations = stream.block(_PROBE_OPERATIONS)
    unserved = sorted(set(operations.kind.tolist()) - system.kinds)
    if unserved:
        served = ", ".join(KIND_NAMES[kind] for kind in sorted(system.kinds))
        if unserved[0] == TRANSACTION and system.emulated:
            served += "; over protocols that apply all changes in one order system.transactions"
            served += " carries out others: " + ", ".join(plugins(Family.TRANSACTIONS))
        raise ConfigError(
            f"the workload has operations of kind {KIND_NAMES[unserved[0]]!r}, which"
            f" {_what(config)} does not serve",
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


def _check_attempts(parts: Parts) -> None:
    """What is sent more than once must be applied once."""
    if parts.system.emulated or not parts.config.client.insists:
        return
    key = "retry.attempts" if parts.config.client.retry.attempts > 1 else "hedge"
    raise ConfigError(
        f"system {parts.config.system.name!r} is real servers, which apply a write again each time"
        " it is sent",
        path=f"client.{key}",
        hint="leave it out; emulated nodes tell repeated operations by their identity",
    )


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


def _check_faults(parts: Parts) -> None:
    """Faults must have somebody to strike, be possible there, and strike before the end."""
    for index, (aim, slot) in enumerate(parts.config.faults):
        path = f"faults[{index}]"
        fault: Fault = slot.implementation(slot.params)
        if fault.emulated_only and not parts.system.emulated:
            raise ConfigError(
                f"{slot.name} needs emulated nodes; system {parts.config.system.name!r} is real"
                " processes",
                path=f"{path}.name",
                hint="real processes can be crashed and paused",
            )
        reason = fault.why_not(parts.durability)
        if reason:
            raise ConfigError(reason, path=path)
        reason = _why_no_target(parse_target(aim.target), fault, parts)
        if reason:
            raise ConfigError(reason, path=f"{path}.target")
        end_ns = parts.end_ns
        if aim.at is not None and end_ns is not None and aim.at >= end_ns:
            raise ConfigError(
                f"the load is over by then: it ends after {format_duration(end_ns)}",
                path=f"{path}.at",
            )
        _check_effect(parts, aim, fault, path)
    _check_clocks(parts)


def _check_moves(parts: Parts) -> None:
    """Data that is to move under load needs some."""
    given = parts.store.administration if parts.system.emulated else ()
    for index, command in enumerate(given):
        if command.command in MOVING and parts.end_ns is not None and command.at >= parts.end_ns:
            raise ConfigError(
                f"the load is over by then: it ends after {format_duration(parts.end_ns)}",
                path=f"system.administration[{index}].at",
            )


def _check_effect(parts: Parts, aim: Aim, fault: Fault, path: str) -> None:
    """A strike that changes nothing would be a strike that nothing suffers from."""
    state = cluster_state(parts, {})
    for variant in fault.variants:
        if idles(parse_target(aim.target), variant, state):
            raise ConfigError(
                f"it would change nothing: it is about links, and with target {aim.target!r} and"
                f" nodes: {len(state.nodes)} there is none that it could strike",
                path=path,
                hint="a partition of shape ring needs 4 nodes, bridge 3, any other 2; "
                "clients: true strikes the links to clients",
            )


def _check_clocks(parts: Parts) -> None:
    """Clocks must go on, whatever strikes come together."""
    faults, end_ns = parts.config.faults, parts.strikes_until_ns
    for index, (_, slot) in enumerate(faults):
        slowest = exposure(faults[: index + 1], end_ns).slowest
        if slowest < SLOWEST_DRIFT:
            alone = slot.implementation(slot.params).hazards.slowest
            raise ConfigError(
                f"a clock could stand still or run backwards: drifts add up while they overlap,"
                f" those of this fault ({alone:g} each) and of the ones before it to as little"
                f" as {slowest:.4g}",
                path=f"faults[{index}]",
                hint=f"{SLOWEST_DRIFT} is allowed: let it last for less long than it is to the"
                " next strike (every: a law with a least gap, such as constant or uniform), or"
                " drift less",
            )


def _why_no_target(target: Target, fault: Fault, parts: Parts) -> str:
    """Why there is nobody to strike; empty where there is."""
    if fault.strikes_clients and target.word not in (NODE, ANY, ALL, COUNT):
        return f"it strikes clients: the number of one, {ANY}, {ALL} or {COUNT}:N"
    if target.word == NODE:
        count = parts.config.clients if fault.strikes_clients else parts.system.nodes
        what = "clients" if fault.strikes_clients else "nodes"
        return "" if target.number < count else f"{what} are 0 to {count - 1}"
    if target.word == ZONE:
        zones = parts.store.zones.all_names if parts.system.emulated else ()
        return "" if target.zone in zones else f"zones are: {', '.join(zones) or 'none'}"
    if target.word == AUTHORITY and (not parts.system.emulated or parts.authority is None):
        return f"{_what(parts.config)} has no authority"
    return ""


def _what(config: Config) -> str:
    """What serves the operations, in words."""
    protocol = getattr(config.system.params, "protocol", None)
    if protocol is not None:
        return f"protocol {protocol.name!r}"
    return f"system {config.system.name!r}"


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
            f"{_what(config)} does not offer {asked} reads" + (f": {reason}" if reason else ""),
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
        alone = " without hedge, attempt_timeout and breaker" if config.client.sticky else ""
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
