"""From a configuration to a plan that can run: its parts, checked against each other."""

from __future__ import annotations

from typing import Final

import numpy

from orchestrator.config.schema import RAY, SIM, Config
from orchestrator.core import levels
from orchestrator.core.machine import KIND_NAMES, TRANSACTION
from orchestrator.core.models import TXN
from orchestrator.core.parameters import ParameterError
from orchestrator.core.registry import Family, plugins
from orchestrator.core.system import System
from orchestrator.core.verdict import check_served
from orchestrator.errors import ConfigError
from orchestrator.runtimes._parts import Parts
from orchestrator.systems.replicated_store import MEASURED

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
    _check_reads(config, parts.system)
    _check_consistency(config, parts.system)
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


def _check_load(parts: Parts) -> None:
    """Workload, arrival and system must fit; looks at the beginning of one client's stream."""
    config, system = parts.config, parts.system
    operations = parts.workload.stream(config.seed, 0, config.clients).block(_PROBE_OPERATIONS)
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
    entry_bytes = int(numpy.ceil(operations.size.mean())) if len(operations) else 1
    system.validate(max(1, entry_bytes))


def _what(config: Config) -> str:
    """What serves the operations, in words."""
    protocol = getattr(config.system.params, "protocol", None)
    if protocol is not None:
        return f"protocol {protocol.name!r}"
    return f"system {config.system.name!r}"


def _check_reads(config: Config, system: System) -> None:
    """Levels that single reads ask for must be offered."""
    for level in config.client.reads:
        asked = levels.canonical(level)
        sticky = config.client.sticky
        if asked in system.read_levels(sticky) | system.claims(sticky):
            continue
        offered = ", ".join(sorted(system.read_levels(sticky))) or "none"
        reason = system.why_not(sticky, asked)
        raise ConfigError(
            f"{_what(config)} does not offer {asked} reads" + (f": {reason}" if reason else ""),
            path=f"client.reads.{level}",
            hint=f"levels that a read may ask for here: {offered}",
        )


def _check_consistency(config: Config, system: System) -> None:
    levels.canonical(levels.NONE if config.check.level == AUTO else config.check.level)
    if system.consistency is None:
        return
    asked = levels.canonical(system.consistency, path="system.consistency")
    claimed = system.claims(config.client.sticky)
    if asked in levels.closure(claimed):
        return
    words = " and ".join(levels.strongest(claimed)) or levels.NONE
    reason = system.why_not(config.client.sticky, asked)
    raise ConfigError(
        f"{asked} is asked for, and this configuration claims {words}"
        + (f": {reason}" if reason else ""),
        path="system.consistency",
        hint=_how_to_get(asked, config, system),
    )


def _how_to_get(asked: str, config: Config, system: System) -> str:
    """What would make the configuration claim ``asked``: conditions that plug-ins state."""
    if asked in levels.closure(system.claims(True)):
        return "client.sticky: true gives it"
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
    claimed = parts.system.claims(parts.config.client.sticky) if asked == AUTO else {asked}
    held = {levels.canonical(level) for level in claimed}
    if asked == AUTO:
        held = set(levels.fitting(held, transactional=parts.workload.model == TXN))
    return tuple(level for level in levels.LEVELS if level in held)
